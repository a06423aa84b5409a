"""Arrays with all that a float can be, for hypothesis to draw from."""

import numpy
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

DTYPES = (numpy.float16, numpy.float32)
LAYOUTS = {
    'transposed': lambda a: a.T,
    'strided': lambda a: a[::2, ::3],
    'reversed': lambda a: a[::-1, ::-1],
    'a column': lambda a: a[:, 1],
    'Fortran': numpy.asfortranarray,
    'broadcast': lambda a: numpy.broadcast_to(a[:1], a.shape),
}
"""dict of str to callable: Ways in which the elements of a matrix may lie in memory."""


def arrays(dtypes=DTYPES, min_side=0, **elements):
    """Arrays of 0 to 3 axes with all that a float can be, unless ``elements`` says less."""

    def of_dtype(dtype):
        width = 8 * numpy.dtype(dtype).itemsize
        shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=min_side, max_side=4)
        return hnp.arrays(dtype, shapes, elements=st.floats(width=width, **elements))

    return st.sampled_from(dtypes).flatmap(of_dtype)


def finite_arrays(**kwargs):
    return arrays(allow_nan=False, allow_infinity=False, **kwargs)


def values(array):
    return [float(x) for x in numpy.asarray(array).ravel()]

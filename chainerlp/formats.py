"""What a binary floating point format can represent.

A format is described by the widths of its fields; everything else is derived, so that no limit is
typed in twice. Design, section 1: the paper's u_min and u_max are ``smallest_subnormal`` and
``largest`` of float16.
"""

import dataclasses
from typing import Union

from chainerlp.types import Array

from chainer import backend


@dataclasses.dataclass(frozen=True)
class Format:
    """A binary floating point format with subnormals and round-to-nearest-even.

    Attributes:
        name (str): The name by which policies and configurations refer to it.
        exponent_bits (int): Width of the exponent field.
        mantissa_bits (int): Width of the stored fraction, without the implicit leading bit.
        has_inf (bool): ``True`` if the highest exponent is kept for inf and NaN (IEEE 754). Without
            it, as in the OCP's float8_e4m3, only the all-ones pattern is given up, to NaN, which is
            what an overflow becomes (or ``largest``, where the conversion saturates).
    """

    name: str
    exponent_bits: int
    mantissa_bits: int
    has_inf: bool = True

    @property
    def bias(self) -> int:
        """int: What is subtracted from the exponent field."""
        return 2 ** (self.exponent_bits - 1) - 1

    @property
    def largest(self) -> float:
        """float: The largest finite value (u_max of the paper, for float16: 65504)."""
        if self.has_inf:
            return (2 - 2.0**-self.mantissa_bits) * 2.0**self.bias
        return (2 - 2.0 ** (1 - self.mantissa_bits)) * 2.0 ** (self.bias + 1)

    @property
    def smallest_normal(self) -> float:
        """float: The smallest positive value with a full mantissa (for float16: 2^-14)."""
        return 2.0 ** (1 - self.bias)

    @property
    def smallest_subnormal(self) -> float:
        """float: The smallest positive value (u_min of the paper, for float16: 2^-24)."""
        return self.smallest_normal * 2.0**-self.mantissa_bits

    @property
    def underflow_threshold(self) -> float:
        """float: The largest magnitude that rounds to zero (for float16: 2^-25).

        It lies half-way between zero and the smallest subnormal, and a tie goes to the even zero.
        """
        return self.smallest_subnormal / 2

    @property
    def overflow_threshold(self) -> float:
        """float: Half-way between ``largest`` and the next step up (for float16: 65520).

        A tie goes to the even neighbour. With inf that is the next step, so that this is the
        smallest magnitude that overflows; without, it is ``largest``, and this is the largest
        magnitude that does not. See :meth:`overflows`.
        """
        largest_exponent = self.bias if self.has_inf else self.bias + 1
        return self.largest + 2.0 ** (largest_exponent - self.mantissa_bits - 1)

    @property
    def relative_rounding(self) -> float:
        """float: The largest relative error of rounding a normal number (for float16: 2^-11)."""
        return 2.0 ** -(self.mantissa_bits + 1)

    def overflows(self, magnitude: Union[float, Array]) -> Union[bool, Array]:
        """Returns whether a magnitude rounds past ``largest``.

        Whether it is then stored as inf, NaN or, by a conversion that saturates, ``largest``, the
        value is lost.

        Args:
            magnitude (float or :ref:`ndarray`): Not negative.

        Returns:
            bool or :ref:`ndarray`: The answer, for each element of an array.
        """
        if self.has_inf:
            return magnitude >= self.overflow_threshold
        return magnitude > self.overflow_threshold


FLOAT16 = Format('float16', exponent_bits=5, mantissa_bits=10)
FLOAT32 = Format('float32', exponent_bits=8, mantissa_bits=23)
FLOAT64 = Format('float64', exponent_bits=11, mantissa_bits=52)
BFLOAT16 = Format('bfloat16', exponent_bits=8, mantissa_bits=7)
# The two 8-bit formats of the OCP (arXiv 2209.05433). The second is what ml_dtypes and PyTorch call
# float8_e4m3fn: it has a NaN, and no inf.
FLOAT8_E5M2 = Format('float8_e5m2', exponent_bits=5, mantissa_bits=2)
FLOAT8_E4M3 = Format('float8_e4m3', exponent_bits=4, mantissa_bits=3, has_inf=False)

_FORMATS = {
    format.name: format
    for format in (BFLOAT16, FLOAT16, FLOAT32, FLOAT64, FLOAT8_E4M3, FLOAT8_E5M2)
}
NAMES = tuple(_FORMATS)
"""tuple of str: The names of all formats."""


def get(name: str) -> Format:
    """Returns the format of a name.

    Args:
        name (str): One of :data:`NAMES`.

    Returns:
        Format: The format.

    Raises:
        ValueError: If there is no format of that name.
    """
    if not isinstance(name, str) or name not in _FORMATS:
        raise ValueError(f'format must be one of {", ".join(NAMES)}, not {name!r}')
    return _FORMATS[name]


def floor_power_of_two(value: Union[float, Array]) -> Union[float, Array]:
    """Returns the largest power of two that is at most a positive, finite value.

    It is a float64 scalar or, of a 0-d :ref:`ndarray`, an array.
    """
    xp = backend.get_array_module(value)
    _, exponent = xp.frexp(value)
    return xp.ldexp(xp.float64(1), exponent - 1)


CUDA_FLOOR_POWER_OF_TWO = r"""
__device__ inline double floor_power_of_two(double value) {
    int exponent;
    frexp(value, &exponent);
    return ldexp(1.0, exponent - 1);
}
"""
"""str: :func:`floor_power_of_two` for kernels."""

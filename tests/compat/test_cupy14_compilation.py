"""Chainer's kernels that name fp16 types compile, with what CuPy declares and what we add.

No GPU is needed: only CuPy, whose headers they include, and a compiler: CUDA's NVRTC, which CuPy
uses, or nvcc.
"""

import inspect
import os
import pathlib
import shutil
import subprocess

from chainerlp.compat import cupy14
from chainerlp.compat.patching import Overlay

import numpy
import pytest
from chainer import backend
from chainer.backends import cuda
from chainer.functions.array import resize_images
from chainer.functions.connection.embed_id import EmbedIDGrad
from chainer.functions.loss.negative_sampling import NegativeSamplingFunctionGrad
from chainer.links.loss.hierarchical_softmax import (
    BinaryHierarchicalSoftmax,
    BinaryHierarchicalSoftmaxFunction,
)
from chainer.training.updaters import multiprocess_parallel_updater

cupy = pytest.importorskip('cupy')

from cupy._core import _kernel, core  # noqa: E402
from cupy.cuda import nvrtc  # noqa: E402

ON_CUPY_14 = cupy14.cupy_major() >= 14
ARCHITECTURES = (75, 80, 90, 100)

INCLUDE = os.path.join(os.path.dirname(core.__file__), 'include')
_HEADERS = ''.join(f'#include <{header}>\n' for header in core._cupy_header_list)
_NDARRAY, _INDEXER, _SCALAR = 1, 2, 3  # _kernel.pxd: _ArgKind


def compiler_options():
    """Returns what CuPy compiles with; without CUDA's own headers, if it finds none."""
    return (*core.assemble_cupy_compiler_options(()), '-ftz=true')


class Recorder:
    """Collects the sources of the kernels that are called with NumPy's arrays.

    A kernel's source is made from its declaration and the types of its arguments. So Chainer's own
    code is run with NumPy's arrays in the place of CuPy's, and computes nothing. What CuPy keeps to
    itself is used here, of the versions that setup.py allows.

    Attributes:
        cupy: What is put in the place of CuPy: NumPy with CuPy's classes of kernels.
        sources (dict): The sources of the kernels that have been called, by name.
    """

    def __init__(self):
        self.sources = {}
        self.cupy = Overlay(
            numpy,
            __version__=cupy.__version__,
            ElementwiseKernel=self._elementwise,
            RawKernel=self._raw,
            ndarray=numpy.ndarray,
        )

    def _raw(self, code, name):
        self.sources[name] = code

    def _elementwise(self, *args, **kwargs):
        kernel = cupy.ElementwiseKernel(*args, **kwargs)

        def call(*args, size=None):
            dtypes = tuple(getattr(arg, 'dtype', None) for arg in args)
            _, out_types, type_map = kernel._decide_params_type(
                dtypes[: kernel.nin], dtypes[kernel.nin :]
            )
            outs = list(args[kernel.nin :])
            if not outs:
                shapes = [
                    numpy.shape(arg) for arg, param in zip(args, kernel.in_params) if not param.raw
                ]
                shape = (size,) if size else numpy.broadcast_shapes(*shapes)
                outs = [numpy.zeros(shape, dtype) for dtype in out_types]
            self.sources[kernel.name] = _source(kernel, [*args[: kernel.nin], *outs], type_map)
            return outs[0] if outs else None

        return call


def _source(kernel, args, type_map):
    infos = [_info(arg, param) for arg, param in zip(args, kernel.params)]
    infos.append(_kernel._ArgInfo(_INDEXER, type(None), None, 1, True, True))
    return _HEADERS + _kernel._get_elementwise_kernel_code(
        tuple(infos), type_map, kernel.params, kernel.operation, kernel.name, kernel.preamble,
        **kernel.kwargs,
    )  # fmt: skip


def _info(arg, param):
    if isinstance(arg, numpy.ndarray):
        dtype = numpy.dtype(arg.dtype).type
        return _kernel._ArgInfo(
            _NDARRAY, cupy.ndarray, dtype, arg.ndim if param.raw else 1, True, True
        )
    return _kernel._ArgInfo(_SCALAR, type(arg), numpy.dtype(param.dtype or 'i').type, 0, True, True)


def embed_id(dtype):
    EmbedIDGrad((5, 3)).forward((numpy.zeros(4, 'i'), numpy.zeros((4, 3), dtype)))


def negative_sampling(dtype):
    samples, wx = numpy.zeros((4, 3), 'i'), numpy.zeros((4, 3), dtype)
    function = NegativeSamplingFunctionGrad('sum', numpy.ones(4, bool), 2, samples, wx)
    x, W, gy = (numpy.zeros(shape, dtype) for shape in [(4, 3), (5, 3), ()])
    function.apply((x, W, gy))


def hierarchical_softmax(dtype):
    function = BinaryHierarchicalSoftmaxFunction(
        BinaryHierarchicalSoftmax.create_huffman_tree({0: 2, 1: 1, 2: 1}), dtype
    )
    function.max_length, function.wxy = 2, numpy.zeros(8, dtype)
    x, W, gy = (numpy.zeros(shape, dtype) for shape in [(4, 3), (2, 3), ()])
    function.backward_gpu((x, numpy.zeros(4, 'i'), W), (gy,))


def resized_images(dtype):
    v = u = numpy.zeros((4, 4), 'i')
    gy, vw, uw = (numpy.zeros(shape, dtype) for shape in [(1, 2, 4, 4), (4, 4), (4, 4)])
    resize_images.interpolate_grad_bilinear_gpu(gy, v, u, vw, uw, 2, 2)  # float32 only


def gathered_parameters(dtype):
    addresses, types, offsets = (numpy.zeros(3, kind) for kind in ('u8', 'i1', 'i4'))
    multiprocess_parallel_updater._memcpy_gather()(addresses, types, offsets, size=5)


def scattered_parameters(dtype):
    addresses, types, offsets = (numpy.zeros(3, kind) for kind in ('u8', 'i1', 'i4'))
    array = numpy.zeros(5, 'f')
    multiprocess_parallel_updater._memcpy_scatter()(addresses, types, offsets, array, size=5)


def packed_parameters(dtype):
    pytest.importorskip('mpi4py')
    from chainermn.communicators import _memory_utility

    _memory_utility._cupy_batched_pack_params()
    _memory_utility._cupy_batched_unpack_params()


OF_EVERY_TYPE = [embed_id, negative_sampling, hierarchical_softmax]
OF_NO_TYPE = [gathered_parameters, scattered_parameters, packed_parameters]
CASES = [(case, dtype) for case in OF_EVERY_TYPE for dtype in ('float16', 'float32', 'float64')]
CASES += [(case, 'float32') for case in (*OF_NO_TYPE, resized_images)]

# What CuPy 14 does not compile as it is.
BROKEN = [(case, 'float16') for case in OF_EVERY_TYPE[1:]] + [
    (case, 'float32') for case in OF_NO_TYPE
]


def name_of(value):
    return getattr(value, '__name__', value)


@pytest.fixture
def sources_of(monkeypatch):
    """Runs a function that calls kernels; returns their sources, with what we add or without."""

    def run(call_kernels, dtype, with_ours):
        recorder = Recorder()
        elementwise, raw = inspect.unwrap(cuda.elementwise), inspect.unwrap(cuda.raw)
        if with_ours:
            elementwise, raw = cupy14.with_float16(elementwise), cupy14.with_half(raw)
        with monkeypatch.context() as patch:
            patch.setattr(cuda, 'cupy', recorder.cupy)
            patch.setattr(cuda, 'check_cuda_available', lambda: None)
            patch.setattr(cuda, 'elementwise', elementwise)
            patch.setattr(cuda, 'raw', raw)
            patch.setattr(backend, 'get_array_module', lambda *arrays: recorder.cupy)
            patch.setattr(
                NegativeSamplingFunctionGrad,
                'forward_cpu',
                NegativeSamplingFunctionGrad.forward_gpu,
            )
            call_kernels(dtype)
        assert recorder.sources
        return recorder.sources

    return run


def complaints_of_nvrtc(source, architecture):
    """Returns what the compiler that CuPy uses has to say, as CuPy calls it; '' if it compiles."""
    program = nvrtc.createProgram(source, 'kernel.cu', (), ())
    options = (*compiler_options(), f'-arch=sm_{architecture}')
    try:
        nvrtc.compileProgram(program, (*options, '--device-as-default-execution-space'))
    except nvrtc.NVRTCError:
        return nvrtc.getProgramLog(program)
    finally:
        nvrtc.destroyProgram(program)
    return ''


def skip_without_nvrtc():
    try:
        nvrtc.getVersion()
    except Exception as error:
        pytest.skip(f'no NVRTC: {error}')
    folders = [option[2:] for option in compiler_options() if option.startswith('-I')]
    if not any((pathlib.Path(folder) / 'cuda_fp16.h').exists() for folder in folders):
        pytest.skip('no headers of CUDA')


@pytest.mark.parametrize('architecture', ARCHITECTURES)
@pytest.mark.parametrize('case, dtype', CASES, ids=name_of)
def test_kernels_compile(sources_of, case, dtype, architecture):
    skip_without_nvrtc()
    for name, source in sources_of(case, dtype, with_ours=ON_CUPY_14).items():
        assert complaints_of_nvrtc(source, architecture) == '', name


@pytest.mark.skipif(not ON_CUPY_14, reason='CuPy 13 declares it all')
@pytest.mark.parametrize('case, dtype', BROKEN, ids=name_of)
def test_without_ours_cupy_14_has_no_such_function_or_type(sources_of, case, dtype):
    skip_without_nvrtc()
    sources = sources_of(case, dtype, with_ours=False).values()
    complaints = ''.join(complaints_of_nvrtc(source, 90) for source in sources)
    assert any(words in complaints for words in ('atomicAdd', 'float16', 'half', 'complete object'))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('nvcc') is None, reason='no nvcc')
@pytest.mark.parametrize('case, dtype', CASES, ids=name_of)
def test_kernels_compile_with_nvcc(sources_of, case, dtype, tmp_path):
    for source in sources_of(case, dtype, with_ours=ON_CUPY_14).values():
        (tmp_path / 'kernel.cu').write_text(source)
        # NVRTC knows `assert` by itself.
        targets = ['-include=cassert'] + [
            f'-gencode=arch=compute_{a},code=sm_{a}' for a in ARCHITECTURES
        ]
        done = subprocess.run(
            ['nvcc', '-std=c++17', f'-I{INCLUDE}', *targets, '-c', 'kernel.cu'],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr

"""Raw CUDA kernels: they compile for every architecture, and their arguments fit into a launch."""

import importlib
import pkgutil
import shutil
import subprocess

import chainerlp
from chainerlp import gpu

import numpy
import pytest

ARCHITECTURES = ('75', '80', '90', '100')


def kernels():
    """Yields the raw CUDA sources of the project, with the modules that they stand in."""
    for found in pkgutil.walk_packages(chainerlp.__path__, 'chainerlp.'):
        module = importlib.import_module(found.name)
        for name, value in vars(module).items():
            if isinstance(value, str) and 'extern "C" __global__' in value:
                yield pytest.param(value, id=f'{found.name}.{name}')


def structs():
    """Yields what kernels are given by value."""
    for found in pkgutil.walk_packages(chainerlp.__path__, 'chainerlp.'):
        for value in vars(importlib.import_module(found.name)).values():
            if isinstance(value, numpy.dtype) and value.names:
                yield value


def test_kernels_and_structs_are_found():
    assert len(list(kernels())) >= 5 and len(list(structs())) >= 4


def test_the_arguments_of_every_kernel_fit_into_four_kilobytes():
    assert max(struct.itemsize for struct in structs()) + 8 * 8 <= 4096


@pytest.mark.slow
@pytest.mark.parametrize('code', list(kernels()))
def test_nvcc_compiles_a_kernel_for_every_architecture(code, tmp_path):
    nvcc = shutil.which('nvcc') or shutil.which('/usr/local/cuda/bin/nvcc')
    if nvcc is None:
        pytest.skip('no nvcc')
    source = tmp_path / 'kernel.cu'
    source.write_text(gpu.PRELUDE + code)
    for architecture in ARCHITECTURES:
        target = f'-gencode=arch=compute_{architecture},code=sm_{architecture}'
        command = [nvcc, *gpu.OPTIONS, '-Werror=all-warnings', target, '-cubin', str(source)]
        done = subprocess.run(
            [*command, '-o', str(tmp_path / 'kernel.cubin')], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize('code', list(kernels()))
@pytest.mark.parametrize('architecture', ARCHITECTURES)
def test_nvrtc_compiles_a_kernel_as_cupy_would_call_it(code, architecture):
    core = pytest.importorskip('cupy._core.core')
    from cupy.cuda import nvrtc

    try:
        nvrtc.getVersion()
    except RuntimeError as error:
        pytest.skip(f'no NVRTC: {error}')
    source = gpu.PRELUDE + code
    options = (*core.assemble_cupy_compiler_options(()), *gpu.OPTIONS, '-ftz=true')
    program = nvrtc.createProgram(source, 'kernel.cu', (), ())
    try:
        nvrtc.compileProgram(program, (*options, f'-arch=sm_{architecture}'))
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)


def test_a_null_pointer_is_no_missing_argument(monkeypatch):
    given = []
    monkeypatch.setattr(gpu, '_kernel', lambda *_: lambda grid, block, args: given.append(args))
    gpu.launch('', 'kernel', 1, None, 2.0, None)
    assert given == [(0, 2.0, 0)]  # CuPy 13 would take None for none at all


def test_what_is_on_a_gpu():
    for value in (1.0, 2, numpy.float64(3), numpy.ones(2), numpy.ones((), numpy.float16), True):
        assert gpu.on_gpu(value) is False


@pytest.mark.gpu
def test_an_elementwise_kernel_reads_numbers_on_the_device_once_a_block(device):
    there = device.send(numpy.array(3.0))  # a user's policy may hold its scale in float64
    parameters, loop_prep, arguments = gpu.elementwise_scalars(here=2.0, there=there)
    assert parameters == 'float32 here, raw float32 there_there'
    assert arguments[0] == 2.0 and arguments[1].dtype == numpy.float32
    kernel = device.xp.ElementwiseKernel(
        parameters, 'float32 y', 'y = here * there', 'numbers', loop_prep=loop_prep
    )
    assert kernel(*arguments, device.xp.empty(1000, 'f')).get().tolist() == [6.0] * 1000
    assert loop_prep.count('there_there[0]') == 1 and 'threadIdx.x == 0' in loop_prep

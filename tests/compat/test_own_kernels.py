"""The project's own kernels compile with NVRTC as CuPy would call it; there need be no device."""

import pathlib
import sys

from chainerlp.kernels import cuda

import pytest

pytest.importorskip('cupy')

from cupy._core import core  # noqa: E402
from cupy.cuda import nvrtc  # noqa: E402

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import cuda_on_host  # noqa: E402

# CuPy 13 has the headers that it needs of CUDA, and finds them where there is a device.
INCLUDE = pathlib.Path(core.__file__).parent / 'include'
BUNDLED = [f'-I{path}' for path in sorted(INCLUDE.glob('cupy/_cuda/cuda-12'))]


@pytest.mark.parametrize('architecture', [75, 80, 90, 100])
@pytest.mark.parametrize('module', sorted(cuda_on_host.sources()))
def test_nvrtc_compiles_the_kernels(module, architecture):
    try:
        nvrtc.getVersion()
    except RuntimeError as error:
        pytest.skip(f'no NVRTC: {error}')
    source = cuda.PRELUDE + cuda.SHARED + cuda_on_host.sources()[module]
    options = (*core.assemble_cupy_compiler_options(()), *cuda.OPTIONS, '-ftz=true', *BUNDLED)
    program = nvrtc.createProgram(source, f'{module}.cu', (), ())
    try:
        nvrtc.compileProgram(program, (*options, f'-arch=sm_{architecture}'))
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    finally:
        nvrtc.destroyProgram(program)

"""Runs the CUDA kernels on the CPU: compiled by g++, a thread of the host for each of the device's.

It stands in for a GPU where there is none, as far as a kernel's arithmetic, indexing and
synchronization go: blocks run one after another, the threads of a block side by side, and
``__syncthreads`` is a barrier. Memory is NumPy's.
"""

import ctypes
import functools
import hashlib
import pathlib
import re
import subprocess
import tempfile

from chainerlp.kernels import cuda

import numpy

_FOLDER = tempfile.TemporaryDirectory(prefix='cuda_on_host')

_PRELUDE = r"""
#include <algorithm>
#include <atomic>
#include <barrier>
#include <cmath>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#define THREADS 16  // fewer than the device's: nothing depends on how many, and they start sooner
#define __global__
#define __device__
#define __shared__ static
#define __syncthreads() barrier->arrive_and_wait()

struct Index { unsigned x, y, z; };
static thread_local Index threadIdx;
static Index blockIdx, blockDim = {THREADS, 1, 1}, gridDim;
static std::barrier<>* barrier;

typedef unsigned short half_bits;
typedef long long index_t;
using std::frexp; using std::ldexp; using std::sqrt;

static inline void atomicAdd(unsigned* x, unsigned y) { std::atomic_ref<unsigned>(*x) += y; }
static inline unsigned bits_of(float x) { unsigned u; std::memcpy(&u, &x, 4); return u; }
static inline float value_of_bits(unsigned u) { float x; std::memcpy(&x, &u, 4); return x; }
static inline float value_of(float x) { return x; }
static inline float value_of(half_bits h) {
    const unsigned sign = (h & 0x8000u) << 16, exponent = h >> 10 & 31, fraction = h & 0x3ff;
    if (exponent == 31) return value_of_bits(sign | 0x7f800000u | fraction << 13);
    const float magnitude = exponent ? std::ldexp(1024.0f + fraction, (int)exponent - 25)
                                     : std::ldexp((float)fraction, -24);
    return sign ? -magnitude : magnitude;
}
static inline void store(float x, float* y) { *y = x; }
static inline void store(float x, half_bits* y) {
    const unsigned sign = bits_of(x) >> 16 & 0x8000u;
    const float m = std::fabs(x);
    unsigned h;
    if (m != m) h = 0x7fff;
    else if (m >= 65520.0f) h = 0x7c00;
    else if (m < 0x1p-14f) h = (unsigned)std::nearbyint(m * 0x1p24f);  // to nearest even
    else {
        int e; std::frexp(m, &e);
        h = (unsigned)std::nearbyint(std::ldexp(m, 11 - e)) + ((unsigned)(e + 13) << 10);
    }
    *y = (half_bits)(sign | h);
}
"""

_LAUNCHER = r"""
template <typename... A, size_t... I>
void call(void (*kernel)(A...), void** arguments, std::index_sequence<I...>) {
    kernel(*(std::remove_const_t<A>*)arguments[I]...);
}

template <typename... A> void launch(void (*kernel)(A...), Index grid, void** arguments) {
    gridDim = grid;
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y)
        for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
            std::barrier<> of_block(THREADS);
            barrier = &of_block;
            std::vector<std::thread> threads;
            for (unsigned i = 0; i < THREADS; ++i)
                threads.emplace_back([=] {
                    threadIdx = {i, 0, 0};
                    call(kernel, arguments, std::index_sequence_for<A...>());
                    barrier->arrive_and_drop();
                });
            for (std::thread& thread : threads) thread.join();
        }
}
"""


def launch(code, name, blocks, *arguments):
    """Stands in for :func:`chainerlp.kernels.cuda.launch`; arrays are NumPy's."""
    grid = blocks if isinstance(blocks, tuple) else (blocks, 1)
    values = [_value(argument) for argument in arguments]
    pointers = (ctypes.c_void_p * len(values))(*[ctypes.addressof(value) for value in values])
    getattr(_library(code), f'launch_{name}')(*map(ctypes.c_uint, grid), pointers)


def sources():
    """Returns the CUDA sources of the project by the names of their modules."""
    from chainerlp.kernels import (
        choice,
        copying,
        counts,
        finite,
        joining,
        losses,
        masters,
        scaling,
        statistics,
    )

    modules = (choice, copying, counts, finite, joining, losses, masters, scaling, statistics)
    return {
        module.__name__.rpartition('.')[-1]: code
        for module in modules
        for code in vars(module).values()
        if isinstance(code, str) and '__global__' in code
    }


def _value(argument):
    if argument is None:
        return ctypes.c_void_p(0)
    if isinstance(argument, numpy.ndarray):
        if argument.dtype.names:  # a struct by value
            return ctypes.create_string_buffer(argument.tobytes(), argument.nbytes)
        return ctypes.c_void_p(argument.ctypes.data)
    return ctypes.c_double(argument) if isinstance(argument, float) else ctypes.c_longlong(argument)


@functools.cache
def _library(code):
    kernels = re.findall(r'extern "C" __global__ void (\w+)\(', code)
    kernels += re.findall(r'^WRITE_SCALED\(.*, (\w+)\)', code, re.MULTILINE)
    entries = [
        f'extern "C" void launch_{kernel}(unsigned x, unsigned y, void** arguments) {{'
        f' launch({kernel}, {{x, y, 1}}, arguments); }}'
        for kernel in kernels
        if kernel != 'NAME'
    ]
    text = '\n'.join([_PRELUDE, cuda.SHARED, code, _LAUNCHER, *entries])
    stem = pathlib.Path(_FOLDER.name) / hashlib.sha256(text.encode()).hexdigest()[:16]
    stem.with_suffix('.cpp').write_text(text)
    command = ['g++', '-std=c++20', '-O1', '-fPIC', '-shared', '-pthread', '-ffp-contract=off']
    command += ['-w', '-o', f'{stem}.so', f'{stem}.cpp']
    subprocess.run(command, check=True, capture_output=True, text=True)
    return ctypes.CDLL(f'{stem}.so')

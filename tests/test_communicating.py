"""Gradients that ChainerMN exchanges in the backward pass are right, whatever scales they carry."""

import json
import pathlib

from chainerlp import communicating

import chainer
import chainer.functions as F
import numpy
import pytest

PROGRAM = pathlib.Path(__file__).with_name('communicating_program.py')
CASES = [
    'normalization',
    'allgather',
    'alltoall',
    'bcast',
    'scatter',
    'gather',
    'there_and_back',
    'inside_forget',
]

_gradients = {}


@pytest.fixture
def run(mpiexec):
    def run(workers, what):
        done = mpiexec(workers, str(PROGRAM), what)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.mark.mpi
@pytest.mark.parametrize('workers', [2, 3])
@pytest.mark.parametrize('case', CASES)
def test_gradients_are_those_of_float32(run, case, workers):
    if workers not in _gradients:
        _gradients[workers] = run(workers, 'gradients')
    for scaled, reference in _gradients[workers][case]:
        assert scaled.keys() == reference.keys()
        for path, gradient in reference.items():
            gradient = numpy.array(gradient)
            # About 16 roundings to float16 lie between the input and a gradient.
            bound = 16 * 2.0**-11 * numpy.abs(gradient).max()
            assert bound > 0
            numpy.testing.assert_allclose(scaled[path], gradient, rtol=0, atol=bound)


@pytest.mark.mpi
def test_a_search_of_the_initial_scale_sends_nothing_to_who_does_not_search(run):
    scales, skipped, updates, parameters = zip(*run(2, 'search'))
    assert all(scale > 0 for scale in scales)
    # ChainerMN's first update only distributes the parameters; in the next two one loss is inf.
    assert skipped == (2, 2)
    assert updates == (5, 5)
    assert parameters[0] == parameters[1]
    assert all(numpy.isfinite(array).all() for array in parameters[0])


def test_functions_of_chainer_alone_do_not_communicate():
    class Own(chainer.Function):  # as ChainerMN's are
        def forward(self, inputs):
            return inputs

    x = chainer.Variable(numpy.ones((2, 3), 'f'))
    normalized = F.batch_normalization(x, numpy.ones(3, 'f'), numpy.zeros(3, 'f'))
    for y in (F.relu(x), normalized, Own()(x)):
        assert not communicating.communicates(y.creator_node)

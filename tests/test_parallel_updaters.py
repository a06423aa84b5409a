"""Chainer's updaters for several devices are refused before they start anything."""

import multiprocessing
import types

import chainerlp

import chainer
import chainer.links as L
import numpy
import pytest
from chainer import optimizers, training
from chainer.training.updaters import multiprocess_parallel_updater


@pytest.fixture
def optimizer():
    return chainerlp.AdaptiveLossScaling(optimizers.SGD(0.1)).setup(L.Classifier(L.Linear(6, 3)))


@pytest.fixture
def iterators():
    data = chainer.datasets.TupleDataset(numpy.zeros((4, 6), 'f'), numpy.zeros(4, 'i'))
    return [chainer.iterators.SerialIterator(data, 2) for _ in range(2)]


def test_parallel_updater_is_refused_when_it_is_made(optimizer, iterators):
    with pytest.raises(RuntimeError, match='^parallel_updater runs loss.backward.*use ChainerMN'):
        training.updaters.ParallelUpdater(
            iterators[0], optimizer, devices={'main': '@numpy', 'second': '@numpy'}
        )


@pytest.mark.parametrize('as_dict', [False, True])
def test_parallel_updater_with_models_of_its_own_is_refused_when_it_is_made(
    optimizer, iterators, as_dict
):
    models = {'main': optimizer.target, 'second': optimizer.target.copy('copy')}
    with pytest.raises(RuntimeError, match='^parallel_updater runs loss.backward.*use ChainerMN'):
        training.updaters.ParallelUpdater(
            optimizer={'main': optimizer} if as_dict else optimizer,
            iterator=iterators[0],
            models=models,
            devices={'main': '@numpy', 'second': '@numpy'},
        )


def test_a_class_derived_from_parallel_updater_is_refused_too(optimizer, iterators):
    class Mine(training.updaters.ParallelUpdater):
        pass

    with pytest.raises(RuntimeError, match='^parallel_updater runs loss.backward.*use ChainerMN'):
        Mine(iterators[0], optimizer, devices={'main': '@numpy'})


def test_an_optimizer_that_is_not_wrapped_is_none_of_our_business(iterators):
    optimizer = optimizers.SGD(0.1).setup(L.Classifier(L.Linear(6, 3)))
    updater = training.updaters.ParallelUpdater(
        iterators[0], optimizer, devices={'main': '@numpy', 'second': '@numpy'}
    )
    updater.update()
    assert optimizer.t == 1


def test_multiprocess_parallel_updater_is_refused_before_it_starts_processes(
    optimizer, iterators, monkeypatch
):
    # Chainer's own class, where a machine with GPUs is made believe: it asks for NCCL, and whether
    # a CUDA context is there already.
    def no_context():
        raise driver.CUDADriverError

    driver = types.SimpleNamespace(ctxGetCurrent=no_context, CUDADriverError=OSError)
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(driver=driver))
    monkeypatch.setattr(multiprocess_parallel_updater, '_available', True)
    monkeypatch.setattr(multiprocess_parallel_updater.cuda, 'cupy', cupy)
    with pytest.raises(RuntimeError, match='^multiprocess_parallel_updater runs.*use ChainerMN'):
        training.updaters.MultiprocessParallelUpdater(iterators, optimizer, devices=[0, 1])
    assert multiprocessing.active_children() == []
    assert optimizer.lr == 0.1  # Chainer divides it by the number of devices

import threading

from experiments.data.randomness import Augmented, epoch_order, example_rng, using_epoch

import numpy
import pytest
from chainer.datasets import SubDataset


def drawn(example, rng):
    return example, rng.integers(2**60)


def test_what_is_drawn_depends_on_seed_epoch_and_index_and_on_nothing_else():
    examples = Augmented(list('abc'), drawn)
    seen = {}
    for _ in range(2):
        for seed in (0, 1):
            for epoch in (1, 0):
                with using_epoch(seed, epoch):
                    for i in (2, 0, 1):
                        assert examples[i] == seen.setdefault((seed, epoch, i), examples[i])
    assert len(set(seen.values())) == 2 * 2 * 3


def test_an_order_has_the_draws_of_no_example():
    # NumPy pads a seed with zeros: (7, 1) and (7, 1, 0) would be one and the same.
    order = epoch_order(7, 1, 50)
    with using_epoch(7, 1):
        examples = [example_rng(i).permutation(50) for i in range(3)]
    with using_epoch(7, 0):
        examples += [example_rng(i).permutation(50) for i in range(3)]
    assert not any((order == example).all() for example in examples)


def test_orders_are_permutations_of_their_own():
    orders = [epoch_order(seed, epoch, 20) for seed in range(3) for epoch in range(3)]
    assert all(sorted(order) == list(range(20)) for order in orders)
    assert len({tuple(order) for order in orders}) == 9
    assert (epoch_order(2, 1, 20) == orders[7]).all()


def test_a_share_of_a_data_set_draws_by_the_index_in_the_whole_one():
    examples = Augmented(list('abcdef'), drawn)
    share = SubDataset(examples, 2, 5, order=[5, 4, 3, 2, 1, 0])
    with using_epoch(3, 4):
        assert [share[0], share[1], share[2]] == [examples[3], examples[2], examples[1]]


def test_threads_draw_each_for_the_epoch_that_they_said():
    examples = Augmented(['a'], drawn)
    together = threading.Barrier(4)
    results = {}

    def load(epoch):
        with using_epoch(0, epoch):
            together.wait(10)
            results[epoch] = examples[0]
            together.wait(10)

    threads = [threading.Thread(target=load, args=(epoch,)) for epoch in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for epoch, result in results.items():
        with using_epoch(0, epoch):
            assert examples[0] == result
    assert len(set(results.values())) == 4


def test_a_negative_index_is_the_same_example():
    examples = Augmented(list('abc'), drawn)
    assert examples[-1] == examples[2]
    with pytest.raises(IndexError):
        examples[3]
    assert [label for label, _ in examples] == list('abc')


def test_numpy_s_global_state_is_left_alone():
    numpy.random.seed(0)
    before = numpy.random.get_state()[1].copy()
    Augmented([1], drawn)[0]
    epoch_order(0, 0, 10)
    assert (numpy.random.get_state()[1] == before).all()

from experiments.models.vgg import CIFARVGG16

import chainer
import numpy


def test_it_has_the_known_number_of_parameters():
    # By hand: 9 times 3·64 + 64·64 + 64·128 + 128·128 + 128·256 + 2·256·256 + 256·512 + 5·512·512
    # = 9 · 1,634,496 weights; a bias, a gamma and a beta for 2·64 + 2·128 + 3·256 + 6·512 = 4,224
    # channels; the classifier, 512·10 + 10.
    count = 14_710_464 + 3 * 4_224 + 5_130
    assert CIFARVGG16(10).count_params() == count == 14_728_266


def test_dropout_is_there_when_it_trains_only_and_if_it_is_asked_for():
    x = numpy.random.RandomState(0).standard_normal((4, 3, 32, 32)).astype(numpy.float32)
    model = CIFARVGG16(10, dropout=0.5)

    def differs():
        with chainer.no_backprop_mode():
            return (model(x).array != model(x).array).any()

    assert differs()
    with chainer.using_config('train', False):
        assert not differs()
    model.dropout = 0.0
    assert not differs()

from experiments.models.resnet_cifar import CIFARResNet, PreActivationResNet

import pytest


@pytest.mark.parametrize(
    'depth, paper, count', [(20, 0.27, 269_722), (56, 0.85, 853_018), (110, 1.7, 1_727_962)]
)
def test_a_resnet_has_the_parameters_of_the_paper(depth, paper, count):
    # By hand, with n blocks a stage. Convolutions: 3·16·9 = 432 first; 2n of 16·16·9 = 2,304; one
    # of 16·32·9 = 4,608 and 2n - 1 of 9,216; one of 32·64·9 = 18,432 and 2n - 1 of 36,864. Gamma
    # and beta a channel, after the first and after 2n of each width. Classifier: 64·10 + 10.
    # n = 3: 432 + 13,824 + 50,688 + 202,752 + 1,376 + 650 = 269,722.
    n = (depth - 2) // 6
    convolutions = 432 + 2 * n * 2304 + 4608 + 18432 + (2 * n - 1) * (9216 + 36864)
    assert convolutions + 2 * (16 + 2 * n * (16 + 32 + 64)) + 650 == count
    assert CIFARResNet(depth, 10).count_params() == count
    # In millions, to the two figures that the paper (table 6) prints.
    assert float(f'{count / 1e6:.2g}') == paper


def test_a_hundred_classes_change_the_classifier_only():
    assert CIFARResNet(20, 100).count_params() == 269_722 + 65 * 90


@pytest.mark.parametrize('depth', [18, 21, 2, 0, -4])
def test_a_resnet_depth_that_there_is_not_is_refused_in_one_line(depth):
    with pytest.raises(ValueError) as error:
        CIFARResNet(depth, 10)
    assert str(error.value) == f'depth: given {depth}, allowed: 6n + 2, such as 20, 56 or 110'


def test_a_preactivation_resnet_has_the_parameters_of_the_paper():
    # By hand: 18 blocks a stage, the inner convolutions w = 16, 32, 64 channels wide, i = 16, 64,
    # 128 channels in. A stage's first block has 2i + 2w + 2w in batch normalization and
    # iw + 9ww + 4ww + 4iw in convolutions; the 17 others have 12w and 17ww. That is
    # 4,704 + 17 · 4,544 = 81,952, 23,808 + 17 · 17,792 = 326,272 and 94,720 + 17 · 70,400 =
    # 1,291,520. First convolution 432, last batch normalization 512, classifier 256·10 + 10.
    count = 81_952 + 326_272 + 1_291_520 + 432 + 512 + 2_570
    assert PreActivationResNet(164, 10).count_params() == count == 1_703_258
    assert round(count / 1e6, 1) == 1.7  # the paper's figure, in millions


@pytest.mark.parametrize('depth', [163, 165, 2, 0])
def test_a_preactivation_depth_that_there_is_not_is_refused_in_one_line(depth):
    with pytest.raises(ValueError) as error:
        PreActivationResNet(depth, 10)
    assert str(error.value) == f'depth: given {depth}, allowed: 9n + 2, such as 164'

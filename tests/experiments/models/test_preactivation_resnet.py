from experiments.models.preactivation_resnet import PreActivationResNet

import pytest


def test_it_has_the_parameters_of_the_paper():
    # By hand: 18 blocks a stage, the inner convolutions w = 16, 32, 64 channels wide, i = 16, 64,
    # 128 channels in. A stage's first block has 2i + 2w + 2w in batch normalization and
    # iw + 9ww + 4ww + 4iw in convolutions; the 17 others have 12w and 17ww. That is
    # 4,704 + 17 · 4,544 = 81,952, 23,808 + 17 · 17,792 = 326,272 and 94,720 + 17 · 70,400 =
    # 1,291,520. First convolution 432, last batch normalization 512, classifier 256·10 + 10.
    count = 81_952 + 326_272 + 1_291_520 + 432 + 512 + 2_570
    assert PreActivationResNet(164, 10).count_params() == count == 1_703_258
    assert round(count / 1e6, 1) == 1.7  # the paper's figure, in millions


@pytest.mark.parametrize('depth', [163, 165, 2, 0])
def test_a_depth_that_there_is_not_is_refused_in_one_line(depth):
    with pytest.raises(ValueError) as error:
        PreActivationResNet(depth, 10)
    assert str(error.value) == f'depth: given {depth}, allowed: 9n + 2, such as 164'

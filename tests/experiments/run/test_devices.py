"""A device is named as Chainer names it."""

from chainerlp import compat
from experiments.config.errors import ConfigError
from experiments.run import devices

import chainer
import pytest


def test_a_device_that_is_not_there_is_an_error_of_one_line():
    assert devices.get('@numpy') == devices.get('-1') == chainer.get_device('@numpy')
    reason = compat.why_no_cupy()
    if reason is None:
        pytest.skip('there is a GPU')
    with pytest.raises(ConfigError) as error:
        devices.get('@cupy:0')
    assert str(error.value) == (
        f'--device @cupy:0: {reason}; allowed: @numpy, or @cupy:0 with CuPy and a GPU'
    )
    with pytest.raises(ConfigError, match='^--device nowhere: .*; allowed: @numpy, or @cupy:0'):
        devices.get('nowhere')

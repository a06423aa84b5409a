"""What follows when a gradient is inf or NaN (found_inf): skip the update, back off, regrow.

On a GPU the device skips it (:mod:`~chainerlp.gated_update`), and the host learns of it when it
comes to the next update.
"""

import copy
import dataclasses
from typing import Optional

from chainerlp.gpu import on_gpu
from chainerlp.true_gradients import are_finite

import chainer

# Clean updates after which gradients that were made smaller grow again.
_GROWTH_INTERVAL = 200
# Backing off further would take even the largest gradient out of float16.
_SMALLEST_BACKOFF = 2.0**-30
# Where this did not help either, size is not what is wrong: √0 has no finite gradient at any scale.
_MOST_OVERFLOWS_IN_A_ROW = 31
# Overflows that come again and again, with clean updates in between, may be the data's fault and no
# matter of size at all; they make gradients smaller down to this.
_SMALLEST_FOR_RECURRING = 2.0**-10


@dataclasses.dataclass(eq=False)
class BackwardPass:
    """A backward pass, which is judged by the updates that are made with its gradients.

    Parameters whose gradients it has added to remember it, since other optimizers than the one
    that ran it may update them.

    Attributes:
        run_by (~chainerlp.AdaptiveLossScaling): Whose scales and back-off it was run with.
        loss_is_finite (bool or 0-d bool array): Whether its loss was finite.
        culprit (str): The first gradient that was not finite, if it was looked for and found.
    """

    run_by: object
    loss_is_finite: object
    culprit: Optional[str] = None

    def remember(self, param, is_first):
        """Notes that it has added to a parameter's gradient, or has made it if ``is_first``."""
        passes = () if is_first else getattr(param, '_backward_passes', ())
        param._backward_passes = (*passes, self)


def forget(params):
    """Forgets the passes of parameters: an update has been made with their gradients."""
    for param in params:
        param._backward_passes = ()


def passes_of(params):
    """Returns the backward passes that the gradients of parameters are of, each once."""
    passes = (each for param in params for each in getattr(param, '_backward_passes', ()))
    return list(dict.fromkeys(passes))


def found_inf(params):
    """Returns whether a gradient of parameters is inf or NaN; on a GPU it waits for the answer."""
    for device in {param.device for param in params}:
        with chainer.using_device(device):
            if not are_finite([param for param in params if param.device == device]):
                return True
    return False


def is_matter_of_scales(verdicts):
    """Returns whether updates overflowed though the losses of those that did were finite.

    Args:
        verdicts (list of tuple of bool): For each update, whether a gradient was not finite, and
            whether all losses were finite.
    """
    overflowed = [loss_is_finite for found_inf, loss_is_finite in verdicts if found_inf]
    return bool(overflowed) and all(overflowed)


class Recovery:
    """Decides, after updates, by how much gradients are kept smaller; counts skipped updates.

    - A first overflow leads to fresh scales only. If the next update overflows too, ``backoff`` is
      halved, and again for every further one.
    - The first clean update after such a row leads to a try at full size: the data may have been
      bad for long enough to take gradients out of float16. If the try overflows, ``backoff`` goes
      back to where gradients were finite, and is doubled after every 200 clean updates, up to 1.
    - An overflow within 200 updates of another, clean ones in between, halves ``backoff`` too, down
      to 2^-10, and is followed by no try: large batches among small ones would else always be
      skipped.
    - A loss that is not finite is no matter of scales and leaves ``backoff`` as it is. Neither is
      what overflows at 2^-30, too: ``backoff`` is 1 until an update is clean.

    Design, section 4.

    Attributes:
        skipped (int): Number of updates that were skipped.
        skipped_in_a_row (int): How many of the last updates were skipped.
        backoff (float): What all gradients are multiplied by at present, a power of two up to 1.
    """

    def __init__(self):
        self.skipped = 0
        self.skipped_in_a_row = 0
        self.backoff = 1.0
        self._clean = 0
        self._overflows_in_a_row = 0
        self._overflowed_lately = False
        self._fallback = 1.0  # where a try at full size goes back to; 1 when there is none to make

    def count(self, found_inf):
        """Counts an update of the own parameters, which is skipped if ``found_inf``."""
        self.skipped += found_inf
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if found_inf else 0

    def after(self, verdicts):
        """Returns the state after the updates that were made with one's latest backward passes.

        It is a new one, or this one if there was no update. For ``verdicts`` see
        :func:`is_matter_of_scales`.
        """
        if not verdicts:
            return self
        next_one = copy.copy(self)
        found_inf = any(found_inf for found_inf, _ in verdicts)
        next_one.update(found_inf, is_matter_of_scales(verdicts))
        return next_one

    def update(self, found_inf, loss_is_finite=True):
        """Adapts ``backoff`` to whether a gradient was inf or NaN, and all losses were finite."""
        if found_inf:
            self._back_off(loss_is_finite)
        else:
            self._regrow()

    def _back_off(self, loss_is_finite):
        self._clean = 0
        if loss_is_finite:
            if self._overflows_in_a_row >= _MOST_OVERFLOWS_IN_A_ROW:
                self._fallback = self.backoff = 1.0
            elif self._is_trying():
                self.backoff = self._fallback
            elif self._overflows_in_a_row:
                self.backoff = max(self.backoff / 2, _SMALLEST_BACKOFF)
            elif self._overflowed_lately:
                smallest = min(self.backoff, _SMALLEST_FOR_RECURRING)
                self._fallback = self.backoff = max(self.backoff / 2, smallest)
            self._overflowed_lately = True
        self._overflows_in_a_row = self._overflows_in_a_row + 1 if loss_is_finite else 0

    def _regrow(self):
        self._overflows_in_a_row = 0
        self._clean += 1
        self._overflowed_lately &= self._clean < _GROWTH_INTERVAL
        if self._is_trying():
            self._fallback = 1.0
        elif self.backoff < self._fallback == 1.0:
            self._fallback, self.backoff = self.backoff, 1.0
        elif self._clean % _GROWTH_INTERVAL == 0:
            self.backoff = min(1.0, self.backoff * 2)
            if self.backoff == 1.0:
                self._fallback = 1.0

    def _is_trying(self):
        return self._fallback < self.backoff == 1.0

    def serialize(self, serializer):
        """Saves or loads the state."""
        self.skipped = int(serializer('skipped', self.skipped))
        self.backoff = float(serializer('backoff', self.backoff))
        self._clean = int(serializer('clean', self._clean))
        # Two keys are those of older snapshots, in which the first was a bool.
        self._overflows_in_a_row = int(serializer('just_overflowed', self._overflows_in_a_row))
        self._overflowed_lately = bool(serializer('overflowed_lately', self._overflowed_lately))
        self._fallback = float(serializer('refuge', self._fallback))


class PendingUpdate:
    """An update of which only the device knows whether it was taken back.

    Args:
        is_finite (0-d bool array): Whether all gradients were finite.
        saturated (list of 0-d bool array): Whether a parameter left float16's range.
        counters (list of tuple): What :func:`~chainerlp.gated_update.counters_of` gave before it.
        passes (list of BackwardPass): Those that the gradients are of.
        is_stale (bool): Whether the pass was begun before the host knew of an overflow.
    """

    def __init__(self, is_finite, saturated, counters, passes, is_stale):
        self.passes = passes
        self.is_stale = is_stale
        self._counters = counters
        self._unknown = [each for each in passes if on_gpu(each.loss_is_finite)]
        losses = [each.loss_is_finite for each in self._unknown]
        self._flags, self._has_arrived = (is_finite, *losses, *saturated), None
        if on_gpu(is_finite):
            self._flags, self._has_arrived = _sent_to_host(self._flags)

    def wait(self):
        """Finds out what became of it, and takes back what the host had counted.

        It waits only if the host is more than an update ahead of the device.

        Returns:
            tuple of bool: Whether a gradient was not finite, and whether a parameter was saturated.
        """
        if self._has_arrived is not None and not self._has_arrived.done:
            self._has_arrived.synchronize()
        is_finite, *others = map(bool, self._flags)
        for each in self._unknown:
            each.loss_is_finite = others.pop(0)
        if not is_finite:
            for rule, counters_before in self._counters:
                vars(rule).update(counters_before)
        return not is_finite, is_finite and any(others)


def _sent_to_host(flags):
    import cupy
    import cupyx

    on_host = [cupyx.empty_pinned(flag.shape, flag.dtype) for flag in flags]
    for flag, target in zip(flags, on_host):
        flag.get(stream=cupy.cuda.get_current_stream(), out=target, blocking=False)
    has_arrived = cupy.cuda.Event(disable_timing=True)
    has_arrived.record()
    return on_host, has_arrived

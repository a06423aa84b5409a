"""What follows when a gradient is inf or NaN (found_inf): skip the update, back off, regrow."""

# Clean updates after which gradients that were made smaller grow again.
_GROWTH_INTERVAL = 200
# Backing off further would take even the largest gradient out of float16.
_SMALLEST_BACKOFF = 2.0**-30
# Overflows that come again and again, with clean updates in between, may be the data's fault and no
# matter of size at all; they make gradients smaller down to this.
_SMALLEST_FOR_RECURRING = 2.0**-10


class Recovery:
    """Counts skipped updates, and decides by how much gradients are kept smaller.

    - A first overflow leads to fresh scales only. If the next update overflows too, ``backoff`` is
      halved, and again for every further one.
    - The first clean update after such a row leads to a try at full size: the data may have been
      bad for long enough to take gradients out of float16. If the try overflows, ``backoff`` goes
      back to where gradients were finite, and is doubled after every 200 clean updates, up to 1.
    - An overflow within 200 updates of another, clean ones in between, halves ``backoff`` too, down
      to 2^-10, and is followed by no try: large batches among small ones would else always be
      skipped.
    - A loss that is not finite is no matter of scales and leaves ``backoff`` as it is.

    Design, section 4.

    Attributes:
        skipped (int): Number of updates that were skipped.
        backoff (float): What all gradients are multiplied by at present, a power of two up to 1.
    """

    def __init__(self):
        self.skipped = 0
        self.backoff = 1.0
        self._clean = 0
        self._just_overflowed = False
        self._overflowed_lately = False
        self._refuge = 1.0  # where a try at full size goes back to; 1 when there is none to make

    def update(self, found_inf, loss_is_finite=True):
        """Takes note of an update.

        Args:
            found_inf (bool): Whether a gradient was not finite, so that the update was skipped.
            loss_is_finite (bool): Whether the loss was finite.
        """
        if found_inf:
            self._back_off(loss_is_finite)
        else:
            self._regrow()

    def _back_off(self, loss_is_finite):
        self.skipped += 1
        self._clean = 0
        if loss_is_finite:
            if self._is_trying():
                self.backoff = self._refuge
            elif self._just_overflowed:
                self.backoff = max(self.backoff / 2, _SMALLEST_BACKOFF)
            elif self._overflowed_lately:
                smallest = min(self.backoff, _SMALLEST_FOR_RECURRING)
                self._refuge = self.backoff = max(self.backoff / 2, smallest)
            self._overflowed_lately = True
        self._just_overflowed = loss_is_finite

    def _regrow(self):
        self._just_overflowed = False
        self._clean += 1
        self._overflowed_lately &= self._clean < _GROWTH_INTERVAL
        if self._is_trying():
            self._refuge = 1.0
        elif self.backoff < self._refuge == 1.0:
            self._refuge, self.backoff = self.backoff, 1.0
        elif self._clean % _GROWTH_INTERVAL == 0:
            self.backoff = min(1.0, self.backoff * 2)
            if self.backoff == 1.0:
                self._refuge = 1.0

    def _is_trying(self):
        return self._refuge < self.backoff == 1.0

    def serialize(self, serializer):
        """Saves or loads the state."""
        self.skipped = int(serializer('skipped', self.skipped))
        self.backoff = float(serializer('backoff', self.backoff))
        self._clean = int(serializer('clean', self._clean))
        self._just_overflowed = bool(serializer('just_overflowed', self._just_overflowed))
        self._overflowed_lately = bool(serializer('overflowed_lately', self._overflowed_lately))
        self._refuge = float(serializer('refuge', self._refuge))

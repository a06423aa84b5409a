"""A function is replaced once, and still says what it is."""

import inspect

from chainerlp.compat.replacing import replace


class Owner:
    def method(self, x, y=2):
        """Adds."""
        return x + y


def doubled(method):
    def doubling(self, *args):
        return 2 * method(self, *args)

    return doubling


def test_a_method_is_replaced_once_and_keeps_its_name_documentation_and_signature():
    original = Owner.method
    for _ in range(2):
        replace(Owner, 'method', doubled)
    assert Owner().method(1) == 6
    assert Owner.method.__wrapped__ is original
    assert Owner.method.__name__ == 'method'
    assert Owner.method.__doc__ == 'Adds.'
    assert inspect.signature(Owner.method) == inspect.signature(original)

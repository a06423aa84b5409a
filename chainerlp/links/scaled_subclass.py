"""Scaled counterparts of the subclasses that users write of Chainer's links, made on the fly."""

import functools
import types


class ScaledSubclass:
    """Comes before the user's class and the scaled link; lets instances be copied and pickled.

    A class made on the fly cannot be found by name, so what is pickled are the two that it is made
    from.
    """

    def __reduce_ex__(self, protocol):
        reduced = super().__reduce_ex__(max(protocol, 2))
        if isinstance(reduced, str):
            return reduced
        make, arguments, *rest = reduced
        if not arguments or arguments[0] is not type(self):  # the user's class sees to it
            return reduced
        return (_make, (make, *type(self).scaled_from, *arguments[1:]), *rest)


def _make(make, original, counterpart, *arguments):
    return make(scaled_subclass(original, counterpart), *arguments)


@functools.cache
def scaled_subclass(original, counterpart):
    """Returns the scaled class of a user's class; the same one whenever it is asked for.

    It is a subclass of both, and the user's class comes first: whatever it overrides stays in
    force.

    Args:
        original (type): A subclass of one of Chainer's links.
        counterpart (type): The scaled counterpart of that link of Chainer's.

    Returns:
        type: The class, with the attribute ``scaled_from``: the pair of both.
    """
    namespace = {
        '__doc__': f'{original.__name__} with a scaled data gradient.',
        '__module__': original.__module__,
        '__qualname__': f'Scaled{original.__qualname__}',
        'scaled_from': (original, counterpart),
    }
    return types.new_class(
        f'Scaled{original.__name__}',
        (ScaledSubclass, original, counterpart),
        exec_body=lambda body: body.update(namespace),
    )

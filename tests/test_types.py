"""The public names say what they take and return."""

import inspect
import re
import typing

import chainerlp

import pytest

MODULES = (
    chainerlp,
    chainerlp.policies,
    chainerlp.extensions,
    chainerlp.functions,
    chainerlp.links,
    chainerlp.formats,
    chainerlp.optimizer_hooks,
)
# What users' code relies on: names, order and defaults of the arguments.
CONTRACT = {
    'AdaptiveLossScaling': (
        "(optimizer, policy=None, initial_scale='auto', scale_weights=None, compute_dtype=None,"
        ' gradient_format=None)'
    ),
    'backward': (
        '(loss, initial_scale=1.0, retain_grad=False, backoff=1.0, enable_double_backprop=False)'
    ),
    'convert': ('(link, policy, scale_weights=None, compute_dtype=None, gradient_format=None)'),
    'restore': '(link)',
    'unscaled_grad': '(param)',
    'gradient_error': (
        '(model, lossfun, *batch, policy=None, initial_scale=1.0, compute_dtype=None,'
        ' gradient_format=None, show=True)'
    ),
    'policies.Adaptive': (
        '(threshold=0.001, max_scale=16.0, max_total_scale=1024.0, power_of_two=True, interval=1,'
        " format='float16', variance='sum')"
    ),
    'policies.PerSample': (
        '(threshold=0.001, max_scale=inf, max_total_scale=inf, power_of_two=True, interval=1,'
        " format='float16')"
    ),
    'policies.Fixed': '(scale)',
    'extensions.ScaleReport': (
        "(filename='scales.csv', trigger=(100, 'iteration'), layers=None, histogram=False)"
    ),
    'extensions.PlotScales': "(filename='scales.csv', threshold=None)",
}


def own_functions(kind):
    """Yields the methods that a class, or a mixin of it, has of its own, and how they are named."""
    for base in kind.__mro__:
        if base.__module__.split('.')[0] == 'chainerlp':
            for name, value in vars(base).items():
                value = value.fget if isinstance(value, property) else value
                value = inspect.unwrap(value)
                is_seen = name[0] != '_' or name in ('__init__', '__call__')
                if is_seen and inspect.isfunction(value) and of(value).startswith('chainerlp'):
                    yield f'{base.__module__}.{base.__name__}.{name}', value


def of(value):
    return getattr(value, '__module__', '')


def public_functions():
    found = {}
    for module in MODULES:
        here = module.__name__
        own = [name for name, value in vars(module).items() if of(value) == here and name[0] != '_']
        for name in getattr(module, '__all__', own):
            value = getattr(module, name)
            if inspect.isclass(value):
                found.update(own_functions(value))
            elif inspect.isfunction(value):
                found[f'{value.__module__}.{name}'] = value
    return found


FUNCTIONS = public_functions()


def test_what_is_looked_at_is_all_there_is():
    assert {
        'chainerlp.backprop.backward',
        'chainerlp.optimizers.AdaptiveLossScaling.__init__',
        'chainerlp.optimizers.AdaptiveLossScaling.skipped',
        'chainerlp.policies.policy.Bounded.scale',
        'chainerlp.functions.scaled_function.ScaledFunction.backward_scaled',
        'chainerlp.links.scaled_links.ScaledLinear.forward',
        'chainerlp.extensions.scale_report.ScaleReport.__call__',
    } <= set(FUNCTIONS)


@pytest.mark.parametrize('name', sorted(FUNCTIONS))
def test_every_argument_and_what_is_returned_has_a_type_that_help_shows(name):
    signature = inspect.signature(FUNCTIONS[name])
    hints = typing.get_type_hints(FUNCTIONS[name])  # NameError, if one names what is not there
    arguments = [argument for argument in signature.parameters if argument != 'self']
    assert [*filter(hints.get, arguments)] == arguments
    assert 'return' in hints
    assert 'ForwardRef' not in str(signature) and ' at 0x' not in str(signature)


@pytest.mark.parametrize('name', sorted(FUNCTIONS))
def test_the_docstring_has_the_arguments_in_their_order(name):
    _, _, args = (inspect.getdoc(FUNCTIONS[name]) or '').partition('\nArgs:\n')
    documented = re.findall(r'^    \*{0,2}(\w+)(?: \(|:)', args.partition('\n\n')[0], re.MULTILINE)
    arguments = inspect.signature(FUNCTIONS[name]).parameters
    if name == 'chainerlp.policies.policy.Policy.scale':  # it tells of one that some policies take
        documented.remove('window')
    assert documented == [] or documented == [*filter('self'.__ne__, arguments)]


@pytest.mark.parametrize('name', CONTRACT)
def test_the_arguments_are_those_that_code_elsewhere_relies_on(name):
    value = chainerlp
    for part in name.split('.'):
        value = getattr(value, part)
    signature = inspect.signature(value)
    bare = [each.replace(annotation=each.empty) for each in signature.parameters.values()]
    plain = signature.replace(parameters=bare, return_annotation=signature.empty)
    assert str(plain) == CONTRACT[name]

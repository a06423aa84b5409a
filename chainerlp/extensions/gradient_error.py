"""How far a model's gradients are off: against a float32 pass of the same weights and draws."""

import contextlib
import dataclasses
import functools
import math
import os
import statistics
import warnings
from collections.abc import Sequence
from typing import Any, Callable, Optional

from chainerlp import backprop, functions, links
from chainerlp.extensions import files
from chainerlp.extensions.layer_probe import LayerProbe
from chainerlp.model_state import drawing_alike, loss_of, preserved
from chainerlp.policies import Policy
from chainerlp.statistics import count_underflow_and_overflow
from chainerlp.true_gradients import unscaled_grad
from chainerlp.types import Trigger

import chainer
import numpy
from chainer import training
from chainer.training import extension
from chainer.utils import type_check

_SMALLEST_PART = 2.0**-20  # of the norm of all gradients: what is less says nothing


@dataclasses.dataclass(frozen=True)
class GradientErrors:
    """The result of :func:`gradient_error`; ``str()`` gives it as a table.

    Attributes:
        parameters (dict of str to float): Of each parameter with a gradient ‖g − g32‖ / ‖g32‖, by
            its path; NaN where g32 is next to nothing, 2^-20 of that of all parameters or less, as
            before batch normalization, which takes out what a bias adds.
        nonzero (dict of tuple to tuple): Of each use of a layer, by the path of the link and the
            number of the use: the share of the elements of the gradient that it rounds (gx; of a
            float32 layer with a ``compute_dtype``, gy) that are not zero afterwards, and the share
            in the float32 pass; NaN if that was not looked at there, since x wants no gradient.
    """

    parameters: dict[str, float]
    nonzero: dict[tuple[str, int], tuple[float, float]]

    @property
    def median(self) -> float:
        """float: The median over the parameters; NaN if there is none."""
        return _of_known(statistics.median, self.parameters.values())

    @property
    def worst(self) -> float:
        """float: The largest; NaN if there is none."""
        return _of_known(max, self.parameters.values())

    def __str__(self):
        width = max(map(len, [*self.parameters, *(path for path, _ in self.nonzero), 'parameter']))
        lines = [f'{"parameter":{width}}  error']
        lines += [f'{path:{width}}  {error:.3g}' for path, error in self.parameters.items()]
        lines += ['', f'{"layer":{width}}  nonzero  in float32']
        for (path, call), (share, reference) in self.nonzero.items():
            name = path if not call else f'{path} #{call}'
            lines.append(f'{name:{width}}  {share:7.2%}  {reference:10.2%}')
        lines += ['', f'median error {self.median:.3g}, worst {self.worst:.3g}']
        return '\n'.join(lines)


def gradient_error(
    model: chainer.Link,
    lossfun: Callable[..., chainer.Variable],
    *batch: Any,
    policy: Optional[Policy] = None,
    initial_scale: float = 1.0,
    compute_dtype: Optional[str] = None,
    gradient_format: Optional[str] = None,
    show: bool = True,
) -> GradientErrors:
    """Compares a model's gradients with those of a float32 pass.

    Both passes have the same weights, those of the model, the same data and the same random draws.
    In the float32 pass all floats of parameters, of links and of the batch are float32, and nothing
    is scaled or rounded to less. The underflow rate of a layer says what rounding loses *given*
    what came from above; this says what has been lost in all.

    The model is restored afterwards, and random generators are as they were.

    Args:
        model (~chainer.Link): The model, converted or not.
        lossfun (callable): Loss function, as for an optimizer's ``update``.
        *batch: Its arguments.
        policy (~chainerlp.policies.Policy): What scales the layers; ``None`` leaves the model as it
            is: with the scales that its layers would choose anew, if it is converted.
        initial_scale (float): What the gradient of the loss is multiplied by.
        compute_dtype (str): As for :func:`~chainerlp.convert`; it needs a ``policy``.
        gradient_format (str): Likewise.
        show (bool): Whether to print the table.

    Returns:
        GradientErrors: The errors of the parameters, and the layers' shares of nonzero elements.

    Raises:
        TypeError: If ``model`` is no link, or ``lossfun`` cannot be called or returns no variable.
        ValueError: If a format is given without a ``policy``.
    """
    if not isinstance(model, chainer.Link):
        raise TypeError(f'model must be a chainer.Link, not {type(model).__name__}')
    if not callable(lossfun):
        raise TypeError(f'lossfun must be callable, not {type(lossfun).__name__}')
    if policy is None and (compute_dtype or gradient_format):
        raise ValueError(
            f'{compute_dtype or gradient_format!r} is given without a policy: give both, or neither'
            ' for the model as it is'
        )

    def run(lossfun, *batch):
        loss = loss_of(lossfun, batch)
        model.cleargrads()
        if any(isinstance(link, links.ScaledLink) for link in model.links()):
            backprop.backward(loss, initial_scale)
        else:
            loss.backward(loss_scale=None if initial_scale == 1 else initial_scale)

    with preserved(model):
        if policy is not None:
            links.convert(model, policy, None, compute_dtype, gradient_format)
        for link in model.links():
            if isinstance(link, links.ScaledLink):
                link.layer_scale = link.layer_scale.anew()
        errors = _compare(model, lossfun, batch, run)
    if show:
        print(errors)
    return errors


class GradientError(extension.Extension):
    """Trainer extension that measures how far gradients are off during a training.

    At its trigger it runs two passes of one batch on the model as it is, see
    :func:`gradient_error`: one as the optimizer would (wrapped or not, with its scales), and one in
    float32. It changes nothing: weights, scales, running statistics and random draws are
    afterwards what they would have been without it. It writes ``gradient_error.csv`` (iteration,
    parameter, error) and ``nonzero.csv`` (iteration, layer, call, nonzero, nonzero_float32) to the
    trainer's folder, draws the errors over the training in ``gradient_error.png`` if matplotlib is
    there, and reports:

    - ``gradient_error/median``, ``gradient_error/worst``: over the parameters,
    - ``gradient_error/nonzero``: mean over the layers of the share of nonzero elements.

    Where the loss cannot be formed in float32, as with a constant in float16, it warns instead.

    The batch is always the same: as many examples as the main iterator's batch has, spread over
    its data set.

    Args:
        trigger: When to measure: a trigger, or a pair such as ``(1000, 'iteration')``.
        examples (list): The examples of the batch; by default see above.
        optimizer (str): The name of the optimizer whose model is looked at.
    """

    default_name = 'GradientError'
    priority = extension.PRIORITY_WRITER

    def __init__(
        self,
        trigger: Trigger = (1000, 'iteration'),
        examples: Optional[Sequence[Any]] = None,
        optimizer: str = 'main',
    ) -> None:
        self.trigger = training.get_trigger(trigger)
        self._examples = examples
        self._optimizer = optimizer
        self._has_started = False

    def __call__(self, trainer: training.Trainer) -> None:
        """Measures, writes, draws and reports."""
        updater = trainer.updater
        optimizer = updater.get_optimizer(self._optimizer)
        model = optimizer.target
        lossfun = getattr(updater, 'loss_func', None) or model
        batch = batch_of(updater, self._examples)
        if isinstance(batch[0], dict):  # as Chainer's updaters do
            lossfun = functools.partial(_with_keywords, lossfun)

        def run(lossfun, *batch):
            if hasattr(optimizer, 'trial'):
                optimizer.trial(lossfun, *batch)
                return
            loss = loss_of(lossfun, batch)
            model.cleargrads()
            loss.backward(loss_scale=optimizer._loss_scale)

        try:
            errors = _compare(model, lossfun, batch, run)
        except type_check.InvalidType as error:
            _warn(f'nothing is measured, as the loss cannot be formed in float32: {error.expect}')
            return
        if getattr(getattr(optimizer, 'communicator', None), 'rank', 0) == 0:
            self._write(trainer, errors)
        shares = [share for share, _ in errors.nonzero.values()]
        chainer.report(
            {
                'gradient_error/median': errors.median,
                'gradient_error/worst': errors.worst,
                'gradient_error/nonzero': _of_known(statistics.fmean, shares),
            }
        )

    def _write(self, trainer, errors):
        iteration = trainer.updater.iteration
        of_parameters = [(iteration, *item) for item in errors.parameters.items()]
        of_layers = [(iteration, *use, *shares) for use, shares in errors.nonzero.items()]
        try:
            for name, kind, rows in (
                ('gradient_error.csv', files.ErrorRow, of_parameters),
                ('nonzero.csv', files.NonzeroRow, of_layers),
            ):
                path = os.path.join(trainer.out, name)
                if not self._has_started or not os.path.exists(path):
                    files.start(path, iteration, kind)
                files.append(path, rows)
            self._has_started = True
            _draw(os.path.join(trainer.out, 'gradient_error.png'), trainer.out)
        except OSError as error:
            _warn(f'iteration {iteration} is missing in {trainer.out}: {error.strerror}')
        except ValueError as error:
            _warn(f'gradient_error.csv in {trainer.out} is damaged, and not drawn: {error}')


def batch_of(updater, examples=None):
    """Returns the arguments of the loss function for one batch, always the same, a tuple.

    Args:
        updater (~chainer.training.updaters.StandardUpdater): The training's.
        examples (list): The examples; by default as many as its batches have, spread over its data.
    """
    device = getattr(updater, 'device', None) or chainer.get_device('@numpy')
    with drawing_alike(device):  # examples may be augmented
        if examples is None:
            iterator = updater.get_iterator('main')
            size, count = len(iterator.dataset), iterator.batch_size
            places = sorted({index * size // count for index in range(count)})
            examples = [iterator.dataset[place] for place in places]
        batch = updater.converter(examples, device)
    return batch if isinstance(batch, tuple) else (batch,)


def _warn(message):
    warnings.warn(f'GradientError: {message}', RuntimeWarning, stacklevel=4)


def _with_keywords(lossfun, batch):
    return lossfun(**batch)


def _draw(path, folder):
    with contextlib.suppress(ImportError):
        from chainerlp.extensions import pictures

        rows = files.read(os.path.join(folder, 'gradient_error.csv'), files.ErrorRow)
        if any(math.isfinite(row.error) for row in rows):
            with files.atomic_write(path) as unfinished:
                pictures.gradient_error(rows).savefig(unfinished)


def _compare(model, lossfun, batch, run):
    """Runs a pass as the model is, and one in float32 from the same state, and restores it."""
    models = {'main': model}
    with preserved(model), drawing_alike(model.device):
        with LayerProbe(models, _nonzero_share) as probe:
            run(lossfun, *batch)
        found = {path: unscaled_grad(param) for path, param in model.namedparams()}
        shares = {(path, call): measured for path, call, measured in probe.take()}
    with preserved(model), drawing_alike(model.device):
        _to_float32(model)
        in_float32 = chainer.using_config('dtype', numpy.dtype('float32'))
        with in_float32, LayerProbe(models, _nonzero_share_in_float32) as probe:
            loss = loss_of(lossfun, _as_float32(batch))
            model.cleargrads()
            loss.backward()
        exact = {path: param.grad for path, param in model.namedparams()}
        exact_shares = {(path, call): measured for path, call, measured in probe.take()}
    exact = {
        path: array.astype(numpy.float64) for path, array in exact.items() if array is not None
    }
    sizes = {path: float((array**2).sum()) ** 0.5 for path, array in exact.items()}
    smallest = _SMALLEST_PART * math.hypot(*sizes.values())
    return GradientErrors(
        {
            path: _relative_error(gradient, exact[path], sizes[path], smallest)
            for path, gradient in found.items()
            if gradient is not None and path in exact
        },
        {
            use: (float(share), float(exact_shares.get(use, {}).get(of, math.nan)))
            for use, (of, share) in shares.items()
        },
    )


def _nonzero_share(function, in_data, gy, _):
    """Returns which gradient a layer rounds, and the share of it that is not zero afterwards."""
    product = functions.gradient_to_round(function, in_data, gy).product()
    product *= getattr(function, 'scale', 1.0)
    lost, _ = count_underflow_and_overflow(product, functions.rounded_to(function))
    of = 'gx' if functions.computes_in(function) is None else 'gy'
    return of, (_count_nonzero(product) - lost) / max(product.size, 1)


def _nonzero_share_in_float32(function, in_data, gy, _):
    gx = functions.gradient_to_round(function, in_data, gy).product()
    arrays = {'gx': gx, 'gy': gy}
    return {of: _count_nonzero(array) / max(array.size, 1) for of, array in arrays.items()}


def _count_nonzero(array):
    return chainer.backend.get_array_module(array).count_nonzero(array)


def _relative_error(gradient, exact, size, smallest):
    error = float(((gradient - exact) ** 2).sum()) ** 0.5
    if not math.isfinite(error):
        return math.inf
    return error / size if size > smallest else math.nan


def _to_float32(model):
    links.restore(model)
    for link in model.links():
        for name, value in list(vars(link).items()):
            if isinstance(value, chainer.Parameter) or getattr(value, 'dtype', None) != 'float16':
                continue
            if isinstance(value, chainer.Variable):  # a state
                vars(link)[name] = chainer.Variable(value.array.astype(numpy.float32))
            elif isinstance(value, chainer.get_array_types()):
                vars(link)[name] = value.astype(numpy.float32)
    for param in model.params(include_uninit=False):
        if param.dtype == numpy.float16:
            param.cleargrad()
            param.array = param.array.astype(numpy.float32)


def _as_float32(value):
    if isinstance(value, (tuple, list)):
        return type(value)(map(_as_float32, value))
    if isinstance(value, dict):
        return {key: _as_float32(item) for key, item in value.items()}
    return value.astype(numpy.float32) if getattr(value, 'dtype', None) == numpy.float16 else value


def _of_known(function, values):
    known = [value for value in values if not math.isnan(value)]
    return function(known) if known else math.nan

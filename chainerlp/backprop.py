"""The backward pass that carries a total scale beside every gradient, through any graph.

Every backward in Chainer is linear in the gradients that it is given, so a scale passes through
ReLU, batch normalization, pooling, a user's own function, unchanged; only scaled functions change
it. Where several gradients of one array meet, they are joined. Design, section 4.
"""

import collections
import contextlib
import heapq
import traceback

from chainerlp import multi_node
from chainerlp.functions import ScaledFunction, has_data_gradient
from chainerlp.scaled_array import ScaledArray, align, gradient_of, join, set_gradient

import chainer
import numpy
from chainer import backend, variable
from chainer.functions.util.forget import Forget


def backward(loss, initial_scale=1.0, retain_grad=False, backoff=1.0, enable_double_backprop=False):
    """Runs backpropagation with a scale of its own for every gradient.

    Like ``loss.backward()``, but scaled layers scale the gradients that they pass down. A gradient
    that arrives at a parameter stays scaled, and its total scale goes to ``param._loss_scale``,
    where Chainer's update rules divide by it; :func:`unscaled_grad` gives the true one. A gradient
    that a parameter has already is added to.

    Args:
        loss (~chainer.Variable): The loss. If it is not a scalar, ``loss.grad`` has to be set.
        initial_scale (float): The scale that the pass begins with.
        retain_grad (bool): Keep the gradients of intermediate variables, with their scales in
            ``_loss_scale``.
        backoff (float): A power of two, at most 1, by which all gradients are kept smaller.
        enable_double_backprop (bool): Must be ``False``.

    Raises:
        ValueError: If the loss is not a scalar and has no gradient.
        NotImplementedError: If ``enable_double_backprop`` is set: the choice of a scale has no
            derivative.
    """
    if enable_double_backprop:
        raise NotImplementedError(
            'a scaled backward pass cannot be differentiated: use chainer.grad with'
            ' enable_double_backprop=True for the inner gradient, and this for the loss made of it'
        )
    scale = initial_scale * backoff
    gradient = _initial_gradient(loss, scale)
    loss.grad_var = None
    uses = collections.Counter()
    _number_calls([loss], uses)

    def step(function, indexes, outputs, arrived):
        if retain_grad:
            for y, output_gradient in zip(outputs, arrived):
                _store(y, output_gradient)
        return _step(function, indexes, arrived, backoff, run_inside)

    def run_inside(outputs, roots, inputs):
        _number_calls(outputs, uses)
        _run(roots, step, _accumulate)

    _run([(loss.node, gradient)], step, _accumulate)


def gradients_at_first_layers(loss, initial_scale):
    """Returns what arrives at the scaled layers that a backward pass comes to first.

    Nothing is stored, no layer chooses a scale, and nothing is sent to other workers.

    Args:
        loss (~chainer.Variable): As for :func:`backward`.
        initial_scale (float): As for :func:`backward`.

    Returns:
        list of :ref:`ndarray`: A gradient for each of these layers, times ``initial_scale``.
    """
    arrays = []

    def step(function, indexes, outputs, arrived):
        # Not further than where workers exchange gradients: each searches at a time of its own.
        if isinstance(function, ScaledFunction) or multi_node.communicates(function):
            arrays.extend(g.array for g in arrived if g is not None)
            return []
        return _step(function, indexes, arrived, 1.0, run_inside)

    def run_inside(outputs, roots, inputs):
        def accumulate(leaf, gradients):
            if leaf in inputs:
                _accumulate(leaf, gradients)

        _run(roots, step, accumulate)

    root = (loss.node, _initial_gradient(loss, initial_scale))
    _run([root], step, lambda leaf, gradients: None)
    return arrays


def unscaled_grad(param):
    """Returns the true gradient of a parameter.

    Args:
        param (~chainer.Variable): A parameter after a backward pass, by :func:`backward` or
            Chainer's own.

    Returns:
        :ref:`ndarray`: A new float32 array (float64 for a float64 gradient), or ``None`` if there
        is no gradient.
    """
    gradient = gradient_of(param)
    return None if gradient is None else gradient.true()


def _initial_gradient(loss, scale):
    gradient = loss.grad
    if gradient is None:
        if loss.size != 1 and not _stands_for_what_was_sent(loss):
            raise ValueError(
                f'the loss has the shape {loss.shape} and no gradient: reduce it to a scalar, or'
                ' set loss.grad'
            )
        with chainer.using_device(loss.device):
            gradient = loss.xp.ones_like(loss.array)
    with chainer.using_device(loss.device):
        return ScaledArray(gradient).to(scale)


def _stands_for_what_was_sent(loss):
    # An empty variable, from which the gradients that another worker sends back are waited for.
    creator = loss.creator_node
    return loss.size == 0 and creator is not None and multi_node.communicates(creator)


def _number_calls(outputs, uses):
    """Tells each scaled function which use of its layer it is, in the order of the forward pass.

    Args:
        outputs (list of ~chainer.Variable): The ends of the graph.
        uses (collections.Counter): How often each layer was used in this pass before: what is
            recomputed counts on from there.
    """
    by_layer = collections.defaultdict(list)
    functions = [y.creator_node for y in outputs]
    seen = set()
    while functions:
        function = functions.pop()
        if function is None or function in seen:
            continue
        seen.add(function)
        functions.extend(x.creator_node for x in function.inputs)
        if isinstance(function, ScaledFunction):
            by_layer[id(function.layer_scale)].append(function)
    for layer, functions in by_layer.items():
        for function in sorted(functions, key=lambda use: use.serial):
            function.call = uses[layer]
            uses[layer] += 1


class _Agenda:
    """The functions that are to be run backward, the last of the forward pass first."""

    def __init__(self):
        self._heap = []
        self._seen = set()

    def add(self, function):
        if function not in self._seen:
            heapq.heappush(self._heap, (-function.rank, len(self._seen), function))
            self._seen.add(function)

    def __iter__(self):
        while self._heap:
            yield heapq.heappop(self._heap)[-1]


def _run(roots, step, accumulate):
    """Walks the graph, from outputs back to their leaves.

    Args:
        roots (list of tuple): The nodes of the outputs, each with its gradient.
        step (callable): Runs one function backward; takes it, the indexes of the inputs that want a
            gradient, the output nodes and their gradients; returns pairs of index and gradient.
        accumulate (callable): Takes a leaf and the list of its gradients.
    """
    gradients = collections.defaultdict(list)  # by node; joined when all have arrived
    leaves = {}  # in order of arrival
    agenda = _Agenda()

    def hand_on(node, gradient):
        gradients[node].append(gradient)
        if node.creator_node is None:
            leaves[node] = None
        else:
            agenda.add(node.creator_node)

    for node, gradient in roots:
        hand_on(node, gradient)
    # A gradient that overflows is no accident here: the optimizer finds it and skips the update.
    quiet = numpy.errstate(over='ignore', invalid='ignore')
    with chainer.using_config('enable_backprop', False), quiet:
        for function in agenda:
            outputs = [y() for y in function.outputs]  # weak references
            arrived = [None if y is None else _join(gradients.pop(y, [])) for y in outputs]
            indexes = tuple(i for i, x in enumerate(function.inputs) if x.requires_grad)
            if not indexes:
                continue
            for index, gradient in step(function, indexes, outputs, arrived):
                node = function.inputs[index]
                variable._check_grad_type(function, node, True, gradient.array)
                hand_on(node, gradient)
        for leaf in leaves:
            accumulate(leaf, gradients.pop(leaf))


def _accumulate(leaf, gradients):
    holder = leaf.get_variable_or_none()
    present = None if holder is None else gradient_of(holder)
    _store(leaf, _join(gradients if present is None else [present, *gradients]))


def _join(gradients):
    if len(gradients) < 2:
        return gradients[0] if gradients else None
    arrays = [gradient.array for gradient in gradients]
    with chainer.using_device(backend.get_device_from_array(*arrays)):
        return join(gradients)


def _store(node, gradient):
    holder = None if node is None else node.get_variable_or_none()
    if holder is not None and gradient is not None:
        set_gradient(holder, gradient)


def _step(function, indexes, arrived, backoff, run_inside):
    """Runs one function backward; returns pairs of input index and gradient.

    ``run_inside`` goes on inside ``F.forget``: takes the outputs that were computed anew, the roots
    as :func:`_run` does, and the set of nodes whose gradients are wanted.
    """
    in_data = tuple(x.data for x in function.inputs)
    arrays = [None if g is None else g.array for g in arrived]
    with chainer.using_device(backend.get_device_from_array(*in_data, *arrays)):
        aligned, scale = _at_one_scale(function, arrived)
        out_grad = tuple(None if g is None else g.array for g in aligned)
        hooks = _hooks(function)
        for hook in hooks:
            hook.backward_preprocess(function, in_data, out_grad)
        with _stack_shown(function):
            if isinstance(function, ScaledFunction):
                gradients = function.backward_scaled(indexes, aligned[0], backoff)
            elif isinstance(function, Forget):
                gradients = _recompute_backward(function, indexes, aligned, run_inside)
            else:
                if has_data_gradient(function):  # for who looks at layers that are not scaled
                    function.total_scale = scale
                gradients = _plain_backward(function, indexes, out_grad, scale)
        pairs = [(index, g) for index, g in zip(indexes, gradients) if g is not None]
        if chainer.is_debug():
            _check_values(function, pairs)
        for hook in hooks:
            hook.backward_postprocess(function, in_data, out_grad)
    return pairs


def _at_one_scale(function, arrived):
    """Returns the gradients of a function's outputs at one scale, and what its inputs' carry."""
    present = [g for g in arrived if g is not None]
    if not present:
        return arrived, 1.0
    aligned, scale = align(present), None
    if multi_node.communicates(function):
        aligned, scale = multi_node.exchange_scales(function, aligned)
    scale = aligned[0].scale if scale is None else scale
    aligned = iter(aligned)
    return [None if g is None else next(aligned) for g in arrived], scale


def _plain_backward(function, indexes, out_grad, scale):
    """Calls a function's own backward and returns one gradient (or ``None``) for each index."""
    grad_outputs = tuple(
        None if array is None else chainer.as_variable(array) for array in out_grad
    )
    own = type(function).backward_accumulate
    if own is not chainer.FunctionNode.backward_accumulate:
        gradients = function.backward_accumulate(indexes, grad_outputs, (None,) * len(indexes))
    else:
        gradients = function.backward(indexes, grad_outputs)
        if len(gradients) == len(function.inputs):
            gradients = [gradients[i] for i in indexes]
        elif len(gradients) != len(indexes):
            raise ValueError(
                f'backward of {function.label} returned {len(gradients)} gradients, not'
                f' {len(function.inputs)}, one an input, or {len(indexes)}, one an input that needs'
                ' it'
            )
    return [
        None if g is None or g.raw_array is None else ScaledArray(g.raw_array, scale)
        for g in gradients
    ]


def _recompute_backward(function, indexes, arrived, run_inside):
    """Runs ``F.forget`` backward: what Chainer's does, with scales inside as well.

    Chainer's runs a plain backward pass inside, which would also leave the parameters that it
    reaches without the scale of their gradients.
    """
    inputs = [chainer.Variable(x.array) for x in function.get_retained_inputs()]
    with chainer.force_backprop_mode(), chainer.using_config('in_recomputing', True):
        outputs = function.func(*inputs)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    roots = [(y.node, g) for y, g in zip(outputs, arrived) if g is not None]
    run_inside(outputs, roots, {x.node for x in inputs})
    return [gradient_of(inputs[i]) for i in indexes]


def _hooks(function):
    hooks = chainer.get_function_hooks()
    if function._n_local_function_hooks:
        hooks = {**hooks, **function.local_function_hooks}
    return list(hooks.values())


@contextlib.contextmanager
def _stack_shown(function):
    """Adds to an error where the function was called, if Chainer noted it (debug mode)."""
    try:
        yield
    except Exception as error:
        if function.stack is not None:
            stack = ''.join(traceback.format_list(function.stack[:-1]))
            first = (
                f'{error.args[0] if error.args else ""}\n{function.label} was called here:\n{stack}'
            )
            error.args = (first,) + error.args[1:]
        raise


def _check_values(function, pairs):
    for _, gradient in pairs:
        if bool(backend.get_array_module(gradient.array).isnan(gradient.array).any()):
            raise RuntimeError(f'NaN is detected on backward computation of {function.label}')

"""The backward pass that carries a total scale beside every gradient, through any graph.

Every backward in Chainer is linear in the gradients that it is given, so a scale passes through
ReLU, batch normalization, pooling, a user's own function, unchanged. Only scaled functions change
it: by what :mod:`~chainerlp.layer_scale` chooses, as :mod:`~chainerlp.functions.scaled_function`
applies it. Where several gradients of one array meet they are joined, and where one comes to a
parameter its scale is divided out, by :mod:`~chainerlp.scaled_array`. Design, section 4.
"""

import collections
import contextlib
import heapq

from chainerlp import functions, multi_node
from chainerlp.functions import ScaledFunction
from chainerlp.functions.unscaled_backward import (
    check_values,
    hooks_of,
    needs_true_gradient,
    non_finite_gradient,
    plain_backward,
    stack_shown,
)
from chainerlp.gpu import number_for
from chainerlp.scaled_array import (
    MARGIN,
    ScaledArray,
    align,
    join,
    round_to_fit,
)
from chainerlp.true_gradients import (
    can_be_held,
    gradient_of,
    hold,
    set_true_gradient,
    true_sum,
    true_sums,
)
from chainerlp.types import Scale

import chainer
import numpy
from chainer import backend, variable
from chainer.functions.util.forget import Forget

_SET_AT_ONCE = 1 << 24  # bytes of gradients


def backward(
    loss: chainer.Variable,
    initial_scale: Scale = 1.0,
    retain_grad: bool = False,
    backoff: float = 1.0,
    enable_double_backprop: bool = False,
) -> None:
    """Runs backpropagation with a scale of its own for every gradient.

    Like ``loss.backward()``, but scaled layers scale the gradients that they pass down. The true
    gradient of a parameter is in ``param.grad``: in float32 also where the parameter is float16, so
    that nothing of it is lost; update it by an optimizer with ``use_fp32_update()``. A gradient
    that a parameter has already is added to.

    Args:
        loss (~chainer.Variable): The loss. If it is not a scalar, ``loss.grad`` has to be set.
        initial_scale (float or 0-d array): The scale that the pass begins with.
        retain_grad (bool): Keep the true gradients of intermediate variables.
        backoff (float): A power of two, at most 1, by which all gradients are kept smaller.
        enable_double_backprop (bool): Must be ``False``.

    Raises:
        ValueError: If the loss is not a scalar and has no gradient.
        NotImplementedError: If ``enable_double_backprop`` is set: the choice of a scale has no
            derivative.
    """
    scaled = ScaledBackprop(retain_grad, enable_double_backprop, backoff)
    scaled.run(loss, initial_scale)


class ScaledBackprop:
    """One scaled backward pass, with what its caller wants to know of it.

    Args:
        retain_grad (bool): As for :func:`backward`.
        enable_double_backprop (bool): Likewise.
        backoff (float): Likewise.
        margin (float): Powers of two that sums leave below the largest number.
        layer_scales (callable): Takes one of Chainer's own layer functions, such as ``F.linear``'s,
            and returns the :class:`~chainerlp.layer_scale.LayerScale` to scale it by, or ``None``.
        recomputing (callable): Returns what ``F.forget`` is to recompute in, a context manager.
        on_parameter (callable): Called with each parameter that got a gradient, and whether it had
            none before.
        find_culprit (bool): Whether to look for the first gradient that is not finite;
            waits for the device after each.

    Attributes:
        first_gradients (list of ScaledArray): Float16 gradients that no layer could scale: those
            that arrived at the layers nearest to the loss, and at parameters before and of these.
        scaled (set of int): The ids of the layers' scales that were asked.
        culprit (str): What :attr:`find_culprit` found, ``None`` if all was finite.
    """

    def __init__(
        self,
        retain_grad=False,
        enable_double_backprop=False,
        backoff=1.0,
        margin=MARGIN,
        layer_scales=None,
        recomputing=contextlib.nullcontext,
        on_parameter=lambda param, is_first: None,
        find_culprit=False,
    ):
        if enable_double_backprop:
            raise NotImplementedError(
                'a scaled backward pass cannot be differentiated: use chainer.grad with'
                ' enable_double_backprop=True for the inner gradient, and this for the loss made of'
                ' it'
            )
        self._retain_grad = retain_grad
        self._backoff = backoff
        self._margin = margin
        self._layer_scales = layer_scales
        self._recomputing = recomputing
        self._on_parameter = on_parameter
        self._find_culprit = find_culprit
        self._uses = collections.Counter()
        self._stored = set()
        self._arrived = []  # parameters, their gradients, and whether there were none before
        self._arrived_bytes = 0
        self.first_gradients = []
        self.scaled = set()
        self.culprit = None

    def run(self, loss, initial_scale=1.0):
        """Runs the pass; see :func:`backward`."""
        scale = initial_scale if self._backoff == 1 else initial_scale * self._backoff
        gradient = _initial_gradient(loss, scale)
        self._stored.add(id(gradient.array))  # it may be the user's own
        loss.grad_var = None
        functions.number_calls([loss], self._uses)
        self._walk([(loss.node, gradient)], {loss.node}, self._accumulate)

    def _walk(self, roots, unscaled, accumulate):
        """Walks the graph, from outputs back to their leaves.

        Args:
            roots (list of tuple): The nodes of the outputs, each with its gradient.
            unscaled (set): Nodes whose gradients have come through no scaled layer; it grows.
            accumulate (callable): Takes a leaf, the list of its gradients, and whether it is among
                ``unscaled``.
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
        # A gradient that overflows is no accident here: the optimizer finds it and skips the
        # update.
        quiet = numpy.errstate(over='ignore', invalid='ignore')
        with chainer.using_config('enable_backprop', False), quiet:
            for function in agenda:
                # Weak references. An output that was unchained since is a leaf.
                outputs = [y() for y in function.outputs]
                outputs = [
                    y if y is not None and y.creator_node is function else None for y in outputs
                ]
                arrived = [
                    None if y is None else _join(gradients.pop(y, []), self._margin)
                    for y in outputs
                ]
                if self._retain_grad:
                    for y, gradient in zip(outputs, arrived):
                        self._store(y, gradient)
                indexes = tuple(i for i, x in enumerate(function.inputs) if x.requires_grad)
                if not indexes:
                    continue
                is_unscaled = not unscaled.isdisjoint(y for y in outputs if y is not None)
                for index, gradient in self._step(function, indexes, arrived, is_unscaled):
                    node = function.inputs[index]
                    if not functions.is_made_in_float32(function):
                        variable._check_grad_type(function, node, True, gradient.array)
                    if is_unscaled and not self._scales(function, index):
                        unscaled.add(node)
                    hand_on(node, gradient)
            for leaf in leaves:
                accumulate(leaf, gradients.pop(leaf), leaf in unscaled)
            self._set_gradients()

    def _accumulate(self, leaf, gradients, is_unscaled):
        holder = leaf.get_variable_or_none()
        if holder is None:
            return
        if is_unscaled:
            self.first_gradients += [g for g in gradients if g.array.dtype == numpy.float16]
        present = gradient_of(holder)
        if present is not None:
            gradients = [present, *gradients]
        is_own = id(gradients[0].array) not in self._stored
        if len(gradients) == 1 and is_own and can_be_held(holder, gradients[0]):
            hold(holder, gradients[0])
            self._on_parameter(holder, present is None)
            return
        self._arrived.append((holder, gradients, present is None))
        self._arrived_bytes += gradients[0].array.nbytes
        # All at once save launches, and keep what they are made of for longer.
        if self._arrived_bytes > _SET_AT_ONCE:
            self._set_gradients()

    def _set_gradients(self):
        arrived, self._arrived, self._arrived_bytes = self._arrived, [], 0
        arrays = true_sums([gradients for _, gradients, _ in arrived])
        for (holder, _, is_first), array in zip(arrived, arrays):
            # Hooks write to it, but it may be another parameter's gradient too (p + q), or a
            # read-only view (of a sum).
            if id(array) in self._stored or not array.flags.owndata:
                with chainer.using_device(backend.get_device_from_array(array)):
                    array = array.copy()
            self._stored.add(id(array))
            set_true_gradient(holder, array)
            self._on_parameter(holder, is_first)

    def _store(self, node, gradient):
        holder = None if node is None else node.get_variable_or_none()
        if holder is not None and gradient is not None:
            with chainer.using_device(backend.get_device_from_array(gradient.array)):
                array = true_sum([gradient])
                self._stored.add(id(array))
                set_true_gradient(holder, array)

    def _step(self, function, indexes, arrived, is_unscaled):
        """Runs one function backward; returns pairs of input index and gradient."""
        in_data = tuple(x.data for x in function.inputs)
        arrays = [None if g is None else g.array for g in arrived]
        with chainer.using_device(backend.get_device_from_array(*in_data, *arrays)):
            aligned, scale = _at_one_scale(function, arrived, self._margin)
            out_grad = tuple(None if g is None else g.array for g in aligned)
            hooks = hooks_of(function)
            for hook in hooks:
                hook.backward_preprocess(function, in_data, out_grad)
            with stack_shown(function):
                layer_scale = self._layer_scale_of(function)
                if layer_scale is not None or isinstance(function, ScaledFunction):
                    gradients = self._backward_layer(
                        function, indexes, aligned[0], layer_scale, is_unscaled
                    )
                elif isinstance(function, Forget):
                    gradients = self._recompute(function, indexes, aligned, is_unscaled)
                elif functions.is_made_in_float32(function):
                    if is_unscaled:
                        self.first_gradients.append(aligned[0])
                    gradients = functions.backward_in_float32(
                        function, indexes, aligned[0], self._margin
                    )
                else:
                    if needs_true_gradient(function):
                        aligned, scale = [None if g is None else g.to(1.0) for g in aligned], 1.0
                        out_grad = tuple(None if g is None else g.array for g in aligned)
                    if functions.rounds_gradient(function):  # for who looks at unscaled layers
                        function.total_scale = scale
                    gradients = plain_backward(function, indexes, out_grad, scale)
            pairs = [(index, g) for index, g in zip(indexes, gradients) if g is not None]
            if chainer.is_debug():
                check_values(function, pairs)
            if self._find_culprit and self.culprit is None:
                self.culprit = non_finite_gradient(function, pairs)
            for hook in hooks:
                hook.backward_postprocess(function, in_data, out_grad)
        return pairs

    def _layer_scale_of(self, function):
        """Returns what scales one of Chainer's own layers; ``None`` if nothing does."""
        if self._layer_scales is None or not functions.is_plain_layer(function):
            return None
        return self._layer_scales(function)

    def _scales(self, function, index):
        """Returns whether the gradient of an input has a scale of the function's own choice."""
        layer_scale = getattr(function, 'layer_scale', None) or self._layer_scale_of(function)
        is_half = function.inputs[index].dtype == numpy.float16
        if layer_scale is None or not (is_half or layer_scale.gradient_format):
            return False
        return index in getattr(function, 'data_inputs', (0,)) or layer_scale.scale_weights

    def _backward_layer(self, function, indexes, gy, layer_scale, is_unscaled):
        if is_unscaled and gy.array.dtype == numpy.float16:
            self.first_gradients.append(gy)
        if layer_scale is not None:
            self.scaled.add(id(layer_scale))
            function.call = self._uses[id(layer_scale)]
            self._uses[id(layer_scale)] += 1
            return functions.backward_plain_layer(function, indexes, gy, layer_scale, self._backoff)
        is_half = numpy.float16 in (x.dtype for x in function.inputs)
        if is_half or functions.computes_in(function) or function.gradient_format:
            self.scaled.add(id(function.layer_scale))
        return function.backward_scaled(indexes, gy, self._backoff)

    def _recompute(self, function, indexes, arrived, is_unscaled):
        """Runs ``F.forget`` backward: what Chainer's does, with scales inside as well.

        Chainer's runs a plain backward pass inside.
        """
        inputs = [chainer.Variable(x.array) for x in function.get_retained_inputs()]
        in_recomputing = chainer.using_config('in_recomputing', True)
        with chainer.force_backprop_mode(), in_recomputing, self._recomputing():
            outputs = function.func(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        functions.number_calls(outputs, self._uses)
        roots = [(y.node, g) for y, g in zip(outputs, arrived) if g is not None]
        of_inputs = {}

        def accumulate(leaf, gradients, is_unscaled):
            if leaf in nodes:  # what is made in float32 leaves it so in leaves
                gradients = [
                    g if g.array.dtype == leaf.dtype else round_to_fit(g, leaf.dtype, self._margin)
                    for g in gradients
                ]
                of_inputs[leaf] = _join(gradients, self._margin)
            else:
                self._accumulate(leaf, gradients, is_unscaled)

        nodes = {x.node for x in inputs}
        unscaled = {node for node, _ in roots} if is_unscaled else set()
        self._walk(roots, unscaled, accumulate)
        return [of_inputs.get(inputs[i].node) for i in indexes]


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
        return ScaledArray(gradient).to(number_for(gradient, scale))


def _stands_for_what_was_sent(loss):
    # An empty variable, from which the gradients that another worker sends back are waited for.
    creator = loss.creator_node
    return loss.size == 0 and creator is not None and multi_node.communicates(creator)


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


def _join(gradients, margin):
    if len(gradients) < 2:
        return gradients[0] if gradients else None
    arrays = [gradient.array for gradient in gradients]
    with chainer.using_device(backend.get_device_from_array(*arrays)):
        return join(gradients, margin)


def _at_one_scale(function, arrived, margin):
    """Returns the gradients of a function's outputs at one scale, and what its inputs' carry."""
    present = [g for g in arrived if g is not None]
    if not present:
        return arrived, 1.0
    aligned, scale = align(present, margin), None
    if multi_node.communicates(function):
        aligned, scale = multi_node.exchange_scales(function, aligned, margin)
    scale = aligned[0].scale if scale is None else scale
    aligned = iter(aligned)
    return [None if g is None else next(aligned) for g in arrived], scale

"""The rules of the chips, one function each: its docstring is the rule's text, the error's text and its row in the
support table. ``{name}`` in a docstring is the number of that name in the chip's ``limits``.

Each function yields a ``Breach`` for everything that breaks its rule. Rules of severity "note" do not refuse anything:
they say what the chip does differently. Limits: Speck Dev Kit Datasheet V1.0, see ``chip.yaml``.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Add, Concat, Conv2d, Feedback, Input, Neuron, Output, Relu, SumPool2d
from neurodeploy.target import Finding, Rule
from neurodeploy.targets.dynapcnn.chip import Chip
from neurodeploy.targets.dynapcnn.input_paths import InputPath
from neurodeploy.targets.dynapcnn.layers import CoreLayer


@dataclass(frozen=True)
class Breach:
    """One place where a rule is broken; ``layer`` is set by rules on graphs and by the runner for rules on layers."""

    value: str
    limit: str
    remedy: str
    layer: str = ""


Severity = Literal["error", "note"]
Scope = Literal["graph", "inputs", "layer", "network"]
Breaches = Iterator[Breach]


@dataclass(frozen=True)
class Constraint:
    """A rule and the function that looks for breaches, on a whole graph, on one layer or on all layers."""

    code: str
    template: str
    severity: Severity
    scope: Scope
    find: Callable[[Any, Chip], Breaches]

    def rule(self, chip: Chip) -> Rule:
        """The rule with the chip's numbers."""
        numbers = {name: getattr(chip.limits, name) for name in type(chip.limits).model_fields}
        return Rule(self.code, self.template.format(cores=len(chip.cores.memories), **numbers), self.severity)


CONSTRAINTS: list[Constraint] = []


def _constraint(
    scope: Scope, code: str, severity: Severity = "error"
) -> Callable[[Callable[[Any, Chip], Breaches]], Callable[[Any, Chip], Breaches]]:
    def add(find: Callable[[Any, Chip], Breaches]) -> Callable[[Any, Chip], Breaches]:
        text = " ".join(inspect.cleandoc(find.__doc__ or "").split())
        CONSTRAINTS.append(Constraint(code, text, severity, scope, find))
        return find

    return add


def broken(scope: Scope, subject: Any, chip: Chip) -> list[Finding]:
    """Every breach of the rules of one scope.

    Args:
        scope: ``"graph"``, ``"inputs"``, ``"layer"`` or ``"network"``.
        subject: a ``Graph``, all ``InputPath``s, a ``CoreLayer``, or all layers as name -> ``CoreLayer``.
        chip: whose limits.
    """
    own_name = subject.name if isinstance(subject, CoreLayer) else ""
    return [
        Finding(breach.layer or own_name, constraint.rule(chip), breach.value, breach.limit, breach.remedy)
        for constraint in CONSTRAINTS
        if constraint.scope == scope
        for breach in constraint.find(subject, chip)
    ]


# Rules on the graph: the pattern input -> (convolution -> neurons -> sum-pooling*)+ -> output.


@_constraint("graph", "unsupported-node")
def only_what_a_core_has(graph: Graph, chip: Chip) -> Breaches:
    """A network consists of convolutions (or linear layers), neurons, poolings, additions and concatenations of
    spikes, and loops on request.
    """
    known = (Input, Output, Conv2d, Neuron, SumPool2d, Add, Concat, Feedback)
    for name, node in graph.nodes.items():
        # Exact kinds: an average pooling is a sum pooling to Python, but not to the chip.
        if type(node) not in known:
            remedy = "replace it by layers that a core has, or remove it."
            if isinstance(node, Relu):
                remedy = "this is an ANN: convert it to spiking neurons first (neurodeploy convert)."
            yield Breach(f"a {node.kind} node", ", ".join(kind.kind for kind in known), remedy, name)


@_constraint("graph", "map-input")
def input_is_a_map(graph: Graph, chip: Chip) -> Breaches:
    """The input is a map (C, H, W): an event has a feature, a y and an x."""
    for name, node in graph.nodes.items():
        if isinstance(node, Input) and len(node.shape) != 3:
            remedy = f"give the input the shape ({node.shape[0]}, 1, 1)."
            yield Breach(f"shape {node.shape}", "3 dimensions", remedy, name)


@_constraint("graph", "weight-without-neuron")
def neurons_after_weights(graph: Graph, chip: Chip) -> Breaches:
    """Every convolution or linear layer is followed by exactly one layer of neurons, and by nothing else."""
    for name, node in graph.nodes.items():
        if isinstance(node, Conv2d):
            after = graph.successors(name)
            if len(after) != 1 or not isinstance(graph.nodes[after[0]], Neuron):
                kinds = ", ".join(f"{other} ({graph.nodes[other].kind})" for other in after)
                remedy = "put a spiking layer directly after it (for the last layer too: the chip sends spikes)."
                yield Breach(f"followed by {kinds}", "one layer of neurons", remedy, name)


@_constraint("graph", "neuron-without-weight")
def weights_before_neurons(graph: Graph, chip: Chip) -> Breaches:
    """Every layer of neurons directly follows a convolution or linear layer."""
    for name, node in graph.nodes.items():
        if isinstance(node, Neuron):
            (before,) = graph.predecessors(name)
            if not isinstance(graph.nodes[before], Conv2d):
                remedy = "put a convolution directly before it (a 1 x 1 convolution with the identity changes nothing)."
                yield Breach(f"follows {before} ({graph.nodes[before].kind})", "a convolution", remedy, name)


@_constraint("graph", "pool-after-last-layer")
def no_pooling_after_the_last_layer(graph: Graph, chip: Chip) -> Breaches:
    """The output is read from neurons: the host sees the spikes of a core before any pooling or
    addition."""
    for name, node in graph.nodes.items():
        if isinstance(node, Output):
            for before in graph.predecessors(name):
                other = graph.nodes[before]
                if not isinstance(other, (Neuron, Conv2d)):
                    remedy = "remove it (sum the output spikes on the host), or end with a spiking layer."
                    yield Breach(f"{name} reads a {other.kind}", "neurons", remedy, before)


# Rules on the inputs and their way to the first layers.


def _sensor_paths(paths: Sequence[InputPath]) -> list[InputPath]:
    return [path for path in paths if path.before is not None]


@_constraint("inputs", "several-inputs", "note")
def inputs_share_one_stream(paths: Sequence[InputPath], chip: Chip) -> Breaches:
    """Several inputs share one stream of events: the features of the second begin where those of the first end."""
    first = 0
    for path in paths:
        if first:
            yield Breach(f"features from {first}", "0", f"give its events p = {first} and up.", path.name)
        first += path.given_shape[0]


@_constraint("inputs", "sensor-inputs")
def one_input_through_the_sensor(paths: Sequence[InputPath], chip: Chip) -> Breaches:
    """One input goes through the sensor's pre-processing: the one that is pooled before its first layer, or that the
    settings name.
    """
    for path in _sensor_paths(paths)[1:]:
        remedy = "pool its events before they enter (use a smaller sensor size), or give its first layer a stride."
        yield Breach(f"{', '.join(other.name for other in _sensor_paths(paths))}", "1 input", remedy, path.name)


@_constraint("inputs", "sensor-events")
def two_polarities(paths: Sequence[InputPath], chip: Chip) -> Breaches:
    """What goes through the sensor's pre-processing has one or two features, the polarities, and a map of at most
    {input_size} x {input_size}.
    """
    limit = chip.limits.input_size.value
    for path in _sensor_paths(paths):
        if path.shape[0] > 2 or max(path.given_shape[1:]) > limit:
            remedy = "pool its events before they enter (use a smaller sensor size), or give the first layer a stride."
            yield Breach(f"input shape {path.given_shape}", f"(2, {limit}, {limit})", remedy, path.name)


@_constraint("inputs", "sensor-destinations")
def two_destinations_of_the_sensor(paths: Sequence[InputPath], chip: Chip) -> Breaches:
    """The sensor's pre-processing feeds at most {destinations} layers, none of them with a feature shift."""
    limit = chip.limits.destinations.value
    for path in _sensor_paths(paths):
        names = ", ".join(end.layer for end in path.ends)
        if len(path.ends) > limit:
            yield Breach(f"{len(path.ends)} ({names})", str(limit), "branch behind the first layer.", path.name)
        if any(end.feature_shift for end in path.ends):
            remedy = "make this input the first in the concatenation."
            yield Breach(f"{path.name} is not the first of what is joined", "shift 0", remedy, path.name)


@_constraint("inputs", "sensor-pooling")
def pooling_of_the_sensor(paths: Sequence[InputPath], chip: Chip) -> Breaches:
    """The sensor's pre-processing pools by one of {poolings} in y and in x, the same for all layers it feeds, with a
    stride equal to the kernel and no padding.
    """
    for path in _sensor_paths(paths):
        sides = {end.pooling for end in path.ends}
        plain = all(pool.stride == pool.kernel and pool.padding == (0, 0) for end in path.ends for pool in end.pools)
        given = path.before.pooling if path.before else (1, 1)
        total = {(py * given[0], px * given[1]) for py, px in sides}
        if (
            len(sides) > 1
            or not plain
            or not {side for pair in total for side in pair} <= set(chip.limits.poolings.value)
        ):
            value = " and ".join(map(str, sorted(total))) if plain else "windows that overlap or leave gaps"
            remedy = "pool by 1, 2 or 4 in all, the same way for every layer that reads this input."
            yield Breach(value, f"{chip.limits.poolings}, one of them", remedy, path.name)


@_constraint("inputs", "sensor-live")
def there_is_a_sensor(paths: Sequence[InputPath], chip: Chip) -> Breaches:
    """The sensor is connected only on a chip that has one."""
    for path in _sensor_paths(paths):
        if path.before is not None and path.before.pass_sensor_events and not chip.sensor.value:
            yield Breach("live", "a chip without sensor", "leave out live; the host's events pass.", path.name)


@_constraint("inputs", "sensor-region")
def region_fits_the_pooling(paths: Sequence[InputPath], chip: Chip) -> Breaches:
    """Where the network pools the sensor's events first, the region of interest begins at a multiple of that pooling
    and, if it is mirrored, ends at one.
    """
    for path in _sensor_paths(paths):
        if path.dvs is None and path.before is not None:
            value = f"rows and columns from {path.before.origin} to {path.before.cut}, pooled by {path.ends[0].pooling}"
            yield Breach(value, "multiples", "move the region, or pool in the settings instead.", path.name)


# Rules on one layer.


@_constraint("layer", "kernel-square")
def kernel_is_square(layer: CoreLayer, chip: Chip) -> Breaches:
    """The kernel is square (the configuration holds one side)."""
    ky, kx = layer.conv.weight.shape[2:]
    if ky != kx:
        side = max(ky, kx)
        yield Breach(f"{ky} x {kx}", "square", f"pad the kernel with zeros to {side} x {side}.")


@_constraint("layer", "kernel-size")
def kernel_is_small(layer: CoreLayer, chip: Chip) -> Breaches:
    """A side of the kernel is 1 to {kernel_size}; a linear layer is a convolution as large as its input map."""
    side, limit = max(layer.conv.weight.shape[2:]), chip.limits.kernel_size.value
    if side > limit:
        remedy = f"use a kernel of at most {limit}; before a linear layer, pool or stride to at most {limit} x {limit}."
        yield Breach(str(side), str(limit), remedy)


@_constraint("layer", "stride")
def stride_is_a_shift(layer: CoreLayer, chip: Chip) -> Breaches:
    """A stride is one of {strides}, in y and x independently."""
    allowed = chip.limits.strides.value
    for axis, stride in zip("yx", layer.conv.stride, strict=True):
        if stride not in allowed:
            nearest = min(allowed, key=lambda value: abs(value - stride))
            yield Breach(f"{axis} stride {stride}", f"{chip.limits.strides}", f"use stride {nearest}.")


@_constraint("layer", "padding")
def padding_is_small(layer: CoreLayer, chip: Chip) -> Breaches:
    """A padding is 0 to {padding}, in y and x independently."""
    limit = chip.limits.padding.value
    for axis, padding in zip("yx", layer.conv.padding, strict=True):
        if not 0 <= padding <= limit:
            yield Breach(f"{axis} padding {padding}", f"0 to {limit}", f"use a padding of at most {limit}.")


@_constraint("layer", "dilation")
def no_dilation(layer: CoreLayer, chip: Chip) -> Breaches:
    """The dilation is 1 (the configuration has no field for it)."""
    if tuple(layer.conv.dilation) != (1, 1):
        side = max(d * (k - 1) + 1 for d, k in zip(layer.conv.dilation, layer.conv.weight.shape[2:], strict=True))
        remedy = f"write the kernel out with zeros as {side} x {side}, or train with dilation 1."
        yield Breach(f"dilation {tuple(layer.conv.dilation)}", "1", remedy)


@_constraint("layer", "groups")
def no_groups(layer: CoreLayer, chip: Chip) -> Breaches:
    """A convolution has one group (the configuration has no field for it)."""
    if layer.conv.groups != 1:
        remedy = "write the weights out as one group with zeros between the groups, or train with groups=1."
        yield Breach(f"{layer.conv.groups} groups", "1", remedy)


@_constraint("layer", "input-size")
def input_map_is_small(layer: CoreLayer, chip: Chip) -> Breaches:
    """The input map is at most {input_size} x {input_size}."""
    _, h, w = layer.input_shape
    limit = chip.limits.input_size.value
    if max(h, w) > limit:
        yield Breach(f"{h} x {w}", f"{limit} x {limit}", "crop or pool the input, or stride or pool the layer before.")


@_constraint("layer", "neuron-size")
def neuron_map_is_small(layer: CoreLayer, chip: Chip) -> Breaches:
    """The map of neurons, before pooling, is at most {neuron_size} x {neuron_size}."""
    _, h, w = layer.output_shape
    limit = chip.limits.neuron_size.value
    if max(h, w) > limit:
        remedy = "use a larger stride in this layer (pooling after it does not help), or a smaller input."
        yield Breach(f"{h} x {w}", f"{limit} x {limit}", remedy)


@_constraint("layer", "input-features")
def few_input_features(layer: CoreLayer, chip: Chip) -> Breaches:
    """A layer has at most {features} input features."""
    c, limit = layer.input_shape[0], chip.limits.features.value
    if c > limit:
        yield Breach(str(c), str(limit), f"use at most {limit} features in the layer before.")


@_constraint("layer", "output-features")
def few_output_features(layer: CoreLayer, chip: Chip) -> Breaches:
    """A layer has at most {features} output features."""
    f, limit = layer.output_shape[0], chip.limits.features.value
    if f > limit:
        yield Breach(str(f), str(limit), f"use at most {limit} features in this layer.")


@_constraint("layer", "fan-out")
def few_destinations(layer: CoreLayer, chip: Chip) -> Breaches:
    """A layer feeds at most {destinations} layers."""
    count, limit = len(layer.destinations), chip.limits.destinations.value
    if count > limit:
        names = ", ".join(destination.layer for destination in layer.destinations)
        yield Breach(f"{count} ({names})", str(limit), f"keep {limit} branches, or pass the spikes on in a chain.")


@_constraint("layer", "pool-shape")
def pooling_is_plain(layer: CoreLayer, chip: Chip) -> Breaches:
    """A pooling is square, its stride equals its kernel, and it has no padding."""
    for pool in (pool for destination in layer.destinations for pool in destination.pools):
        (ky, kx), stride, padding = pool.kernel, tuple(pool.stride), tuple(pool.padding)
        if ky != kx or stride != (ky, kx) or padding != (0, 0):
            value = f"kernel {(ky, kx)}, stride {stride}, padding {padding}"
            side = min(chip.limits.poolings.value, key=lambda side: (abs(side - ky), side))
            yield Breach(value, "square, stride = kernel, padding 0", f"use a pooling of {side} with stride {side}.")


@_constraint("layer", "pool-size")
def pooling_is_a_shift(layer: CoreLayer, chip: Chip) -> Breaches:
    """The poolings between two layers multiply to one of {poolings}."""
    allowed = chip.limits.poolings.value
    for destination in layer.destinations:
        for size in sorted(set(destination.pooling)):
            if size not in allowed:
                nearest = min(allowed, key=lambda value: abs(value - size))
                remedy = f"pool by {nearest}, or use the stride of {destination.layer}."
                yield Breach(f"{size} on the way to {destination.layer}", f"{chip.limits.poolings}", remedy)


@_constraint("layer", "threshold-shared")
def one_threshold(layer: CoreLayer, chip: Chip) -> Breaches:
    """All neurons of a layer share one threshold and one lower bound."""
    for name, values in (("threshold", layer.neuron.threshold), ("v_min", layer.neuron.v_min)):
        if values is not None and len(distinct := np.unique(values)) > 1:
            remedy = "train with one value per layer."
            yield Breach(f"{name} from {distinct[0]:g} to {distinct[-1]:g}", "one value", remedy)


@_constraint("layer", "threshold-range")
def threshold_in_range(layer: CoreLayer, chip: Chip) -> Breaches:
    """The threshold is at least {lowest_threshold} and fits {state_bits} bits once quantized; 0 would fire at every
    event.
    """
    threshold = np.asarray(layer.neuron.threshold)
    highest = 2 ** (chip.limits.state_bits.value - 1) - 1
    if not layer.is_integer:
        if not np.all(np.isfinite(threshold)) or np.min(threshold) <= 0:
            yield Breach(f"threshold {np.min(threshold):g}", "above 0", "use a positive threshold.")
    elif np.min(threshold) < chip.limits.lowest_threshold.value or np.max(threshold) > highest:
        remedy = "bring the weights and the threshold to a similar size: scale the weights down, or the threshold up."
        yield Breach(f"threshold {int(np.min(threshold))}", f"{chip.limits.lowest_threshold} to {highest}", remedy)


@_constraint("layer", "v-min-range")
def v_min_in_range(layer: CoreLayer, chip: Chip) -> Breaches:
    """The lower bound of the potential is at most {highest_v_min} and fits {state_bits} bits once quantized; 0 is a
    known fault of the chip.
    """
    if layer.neuron.v_min is None:
        return
    v_min = np.asarray(layer.neuron.v_min)
    lowest = -(2 ** (chip.limits.state_bits.value - 1))
    remedy = "use v_min=None (no bound) or the negative of the threshold."
    if not layer.is_integer:
        if not np.all(v_min < 0):
            yield Breach(f"v_min {np.max(v_min):g}", "below 0", remedy)
    elif np.max(v_min) > chip.limits.highest_v_min.value or np.min(v_min) < lowest:
        yield Breach(f"v_min {int(np.max(v_min))}", f"{lowest} to {chip.limits.highest_v_min}", remedy)


@_constraint("layer", "decay")
def no_decay(layer: CoreLayer, chip: Chip) -> Breaches:
    """Neurons integrate without decay (IAF): the chip has a linear leak only, its biases on the slow clock."""
    if np.any(layer.neuron.decay != 1):
        decay = float(np.min(layer.neuron.decay))
        yield Breach(f"decay {decay:g} (a LIF neuron)", "1", "train with IAF neurons; a negative bias leaks linearly.")


@_constraint("layer", "input-gain")
def no_input_gain(layer: CoreLayer, chip: Chip) -> Breaches:
    """The input of a neuron is not scaled: the input gain is 1."""
    if np.any(layer.neuron.input_gain != 1):
        gain = float(np.min(layer.neuron.input_gain))
        yield Breach(f"input gain {gain:g}", "1", "multiply the weights (and bias) of the layer by the gain.")


@_constraint("layer", "reset")
def reset_subtracts_or_zeroes(layer: CoreLayer, chip: Chip) -> Breaches:
    """A spike subtracts the threshold or sets the potential to 0."""
    if layer.neuron.reset not in ("subtract", "zero"):
        yield Breach(f'reset "{layer.neuron.reset}"', "subtract, zero", 'use reset="subtract" or "zero".')


@_constraint("layer", "compare")
def fires_at_the_threshold(layer: CoreLayer, chip: Chip) -> Breaches:
    """A neuron fires when its potential reaches the threshold (``>=``), not only above it."""
    if layer.neuron.compare != ">=":
        remedy = 'train with ">=", or load the network with compare=">=": only potentials equal to it differ.'
        yield Breach(f'compare "{layer.neuron.compare}"', ">=", remedy)


@_constraint("layer", "initial-v")
def initial_potential_in_range(layer: CoreLayer, chip: Chip) -> Breaches:
    """The initial potential of a neuron is not below the lower bound and fits {state_bits} bits once quantized."""
    if layer.neuron.initial_v is None:
        return
    values, v_min = np.asarray(layer.neuron.initial_v), layer.neuron.v_min
    limit = 2 ** (chip.limits.state_bits.value - 1)
    lowest = -limit if v_min is None else np.max(v_min)
    if layer.is_integer:
        in_range = np.min(values) >= lowest and np.max(values) < limit
    else:
        in_range = np.all(np.isfinite(values)) and (v_min is None or np.min(values) >= lowest)
    if not in_range:
        value = f"{np.min(values):g} to {np.max(values):g}"
        limits = f"{int(lowest)} to {limit - 1}" if layer.is_integer else "finite, at or above v_min"
        yield Breach(value, limits, "start from potentials between the lower bound and the threshold, or from 0.")


@_constraint("layer", "weight-range")
def weights_fit(layer: CoreLayer, chip: Chip) -> Breaches:
    """Quantized weights fit {weight_bits} bits."""
    yield from _range(layer, layer.conv.weight, chip.limits.weight_bits.value, "weights")


@_constraint("layer", "bias-range")
def biases_fit(layer: CoreLayer, chip: Chip) -> Breaches:
    """Quantized biases fit {bias_bits} bits, one per output feature."""
    if layer.conv.bias is not None:
        yield from _range(layer, layer.conv.bias, chip.limits.bias_bits.value, "biases")


def _range(layer: CoreLayer, values: Any, bits: int, what: str) -> Breaches:
    if not np.issubdtype(values.dtype, np.integer):
        if not np.all(np.isfinite(values)):
            yield Breach(f"{what} that are not finite", "finite numbers", "train again: the training diverged.")
        return
    lowest, highest = int(np.min(values)), int(np.max(values))
    if lowest < -(2 ** (bits - 1)) or highest >= 2 ** (bits - 1):
        remedy = "quantize with a smaller scale (neurodeploy quantize chooses one that fits)."
        yield Breach(f"{what} {lowest} to {highest}", f"{-(2 ** (bits - 1))} to {2 ** (bits - 1) - 1}", remedy)


@_constraint("layer", "one-spike-per-event", "note")
def at_most_one_spike_per_event(layer: CoreLayer, chip: Chip) -> Breaches:
    """A neuron fires at most once per incoming event and keeps the rest; with weights up to the threshold, initial
    potentials below it and no positive bias this never shows.
    """
    if not layer.fires_once:
        value = f"largest weight {np.max(layer.conv.weight):g}, threshold {np.min(layer.neuron.threshold):g}"
        if layer.conv.bias is not None:
            value += f", largest bias {np.max(layer.conv.bias):g}"
        yield Breach(
            value, "largest weight <= threshold, no bias > 0", "validate: spikes may come later than in the network."
        )


@_constraint("layer", "bias-on-clock", "note")
def bias_acts_on_the_slow_clock(layer: CoreLayer, chip: Chip) -> Breaches:
    """A bias is added on each tick of the slow clock, not at each time step, and never by an event."""
    if layer.has_bias and layer.conv.bias is not None:
        remedy = "train without bias, or run the slow clock at one tick per time step."
        yield Breach(f"{np.count_nonzero(layer.conv.bias)} biases", "no bias", remedy)


@_constraint("layer", "positive-bias", "note")
def positive_bias_may_fire(layer: CoreLayer, chip: Chip) -> Breaches:
    """Whether a positive bias can make a neuron fire on a clock tick is not documented."""
    if layer.conv.bias is not None and np.any(layer.conv.bias > 0):
        value = f"largest bias {np.max(layer.conv.bias):g}"
        yield Breach(value, "0", "train with biases <= 0, or emulate with both settings of the switch.")


@_constraint("layer", "pool-remainder", "note")
def pooling_divides_the_map(layer: CoreLayer, chip: Chip) -> Breaches:
    """Where a map is no multiple of the pooling after it, the spikes of its last rows and columns fall outside the next
    layer's input and are dropped.
    """
    _, h, w = layer.output_shape
    for destination in layer.destinations:
        py, px = destination.pooling
        if h % py or w % px:
            remedy = "choose kernel, stride and padding so that the map is a multiple of the pooling."
            yield Breach(f"{h} x {w} neurons, pooling {py} to {destination.layer}", f"multiple of {py}", remedy)


@_constraint("layer", "v-min-per-event", "note")
def v_min_clips_at_each_event(layer: CoreLayer, chip: Chip) -> Breaches:
    """The lower bound clips at each event, not once per time step, so the order of events within a step matters."""
    v_min, lowest = layer.neuron.v_min, -(2 ** (chip.limits.state_bits.value - 1))
    if v_min is not None and not (layer.is_integer and np.max(v_min) == lowest):
        remedy = "use v_min=None unless the network was trained with this bound."
        yield Breach(f"v_min {np.max(v_min):g}", "no bound", remedy)


# Rules on all layers together.


@_constraint("network", "link-shape")
def senders_fit_receivers(layers: Mapping[str, CoreLayer], chip: Chip) -> Breaches:
    """What a layer sends, after pooling, is the input map of the layer it feeds."""
    for layer in layers.values():
        f, h, w = layer.output_shape
        for destination in layer.destinations:
            c, *size = layers[destination.layer].input_shape
            pooled = [side // pool for side, pool in zip((h, w), destination.pooling, strict=True)]
            if pooled != size or f + destination.feature_shift > c:
                value = f"sends {(f + destination.feature_shift, *pooled)} to {destination.layer}"
                yield Breach(value, f"{(c, *size)}", "change the pooling between the two layers.", layer.name)


@_constraint("network", "recurrence", "note")
def loops_have_no_time_steps(layers: Mapping[str, CoreLayer], chip: Chip) -> Breaches:
    """Loops (recurrent connections) are taken on request only: the chip has no time steps, so that spikes come back as
    soon as they are processed instead of one step later, and a loop may deadlock the chip (sinabs documentation).
    """
    place = {name: index for index, name in enumerate(layers)}
    for layer in layers.values():
        for destination in layer.destinations:
            if place[destination.layer] <= place[layer.name]:
                value = f"{layer.name} sends back to {destination.layer}"
                remedy = "validate: keep its spikes few (an inhibitory loop falls silent), or train without it."
                yield Breach(value, "no loop", remedy, layer.name)


def codes(findings: Iterable[Finding]) -> list[str]:
    """The codes of the rules, in the order found."""
    return [finding.rule.code for finding in findings]

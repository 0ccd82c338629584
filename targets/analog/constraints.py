"""The rules of analog chips, one function each: its docstring is the rule's text, the error's text and its row in the
support table. ``{name}`` in a docstring is a number of the chip, see ``numbers_of``.

Each function yields a ``Breach`` for everything that breaks its rule. Rules of severity "note" refuse nothing: they say
what the chip does differently. A rule that a chip has no use for (``needs`` is None there) is not in its list.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from neurodeploy.errors import ConstraintError, MappingError, NeurodeployError, QuantizeError
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import (
    BatchNorm2d,
    Conv2d,
    CubaLIF,
    Delay,
    Feedback,
    Flatten,
    Input,
    Linear,
    Membrane,
    Output,
    Relu,
)
from neurodeploy.target import Finding, Rule
from neurodeploy.targets.analog.chip import AnalogChip
from neurodeploy.targets.analog.dac import LARGEST_ERROR
from neurodeploy.targets.analog.dynapse2_placement import place
from neurodeploy.targets.analog.network import AnalogNetwork, Wanted
from neurodeploy.targets.analog.neuron_words import TIMES, refractory_range, time_setting
from neurodeploy.targets.analog.settings import Settings

Severity = Literal["error", "note"]
Scope = Literal["graph", "network"]


@dataclass(frozen=True)
class Breach:
    """One place where a rule is broken."""

    layer: str
    value: str
    limit: str
    remedy: str


@dataclass(frozen=True)
class Case:
    """What a rule is asked about; ``network`` is empty for rules on graphs."""

    graph: Graph
    network: AnalogNetwork
    chip: AnalogChip
    settings: Settings


Breaches = Iterator[Breach]
Find = Callable[[Case], Breaches]


@dataclass(frozen=True)
class Constraint:
    """A rule and the function that looks for breaches; ``needs``: the number without which a chip has no such rule."""

    code: str
    template: str
    severity: Severity
    scope: Scope
    needs: str
    find: Find

    def rule(self, chip: AnalogChip) -> Rule:
        """The rule with the chip's numbers."""
        return Rule(self.code, self.template.format(**numbers_of(chip)), self.severity)


CONSTRAINTS: list[Constraint] = []

#: Largest relative error, in percent, as the rules say it.
_PERCENT = f"{100 * LARGEST_ERROR:g}"


def numbers_of(chip: AnalogChip) -> Mapping[str, object]:
    """The numbers that rules name, None where the chip has no such limit; times in ms of the network."""
    fabric, acceleration = chip.fabric, chip.time.acceleration.value
    shortest, longest = refractory_range(chip)
    parameters = chip.parameters
    ranges = [parameters.tau_mem.range, parameters.tau_syn_exc.range]
    low_high = [None if one is None else [1e3 * acceleration * end for end in one.value] for one in ranges]
    shared = parameters.tau_mem.scope != "neuron"
    fan_in = fabric.fan_in.value
    return {
        "chip": chip.title,
        "fan_in": fan_in,
        "merged_fan_in": None if fan_in is None else fan_in * fabric.max_merge.value,
        "merge": fabric.max_merge.value if fabric.max_merge.value > 1 else None,
        "circuits": None if fabric.neurons is None else fabric.neurons * fabric.chips.value,
        "cores": fabric.cores.value * fabric.chips.value if shared else None,
        "longest_t_ref": f"{1e3 * acceleration * longest:g}" if np.isfinite(longest) else None,
        "shortest_t_ref": f"{1e3 * acceleration * shortest:g}" if shortest > 0 else None,
        "tau_mem": None if low_high[0] is None else f"{low_high[0][0]:g} to {low_high[0][1]:g}",
        "tau_syn": None if low_high[1] is None else f"{low_high[1][0]:g} to {low_high[1][1]:g}",
        "tags": None if fabric.tag_bits.value is None else 1 << fabric.tag_bits.value,
        "destinations": None
        if fabric.destinations.value is None
        else fabric.destinations.value - fabric.destinations_for_monitor.value,
        "hops": fabric.hops.value,
        "rest_reset": True if parameters.reset is None else None,
        "rounded": None if parameters.tau_mem.dac.kind == "exact" else True,
        "percent": _PERCENT,
    }


def rules_of(chip: AnalogChip) -> list[Constraint]:
    """The rules that the chip has, in the order of the support table."""
    numbers = numbers_of(chip)
    return [one for one in CONSTRAINTS if not one.needs or numbers[one.needs] is not None]


def broken(scope: Scope, case: Case) -> list[Finding]:
    """Every breach of the rules of one scope."""
    return [
        Finding(breach.layer, constraint.rule(case.chip), breach.value, breach.limit, breach.remedy)
        for constraint in rules_of(case.chip)
        if constraint.scope == scope
        for breach in constraint.find(case)
    ]


def refusal(findings: Sequence[Finding], chip: AnalogChip) -> ConstraintError:
    """The findings that are errors, one at least, as one error; its code is that of the first."""
    errors = [finding for finding in findings if finding.rule.severity == "error"]
    message, remedy = errors[0].message, errors[0].remedy
    if len(errors) > 1:
        lines = [f"  {finding.message} Remedy: {finding.remedy}" for finding in errors]
        message = "\n".join([f"{len(errors)} rules of {chip.name} are broken.", *lines, ""])
        remedy = "see each line."
    return ConstraintError(message, remedy=remedy, code=errors[0].rule.code)


def _constraint(scope: Scope, code: str, severity: Severity = "error", needs: str = "") -> Callable[[Find], Find]:
    def add(find: Find) -> Find:
        text = " ".join(inspect.cleandoc(find.__doc__ or "").split())
        CONSTRAINTS.append(Constraint(code, text, severity, scope, needs, find))
        return find

    return add


# Rules on the graph: input -> (weights -> neurons in continuous time)+ -> output.

_TRAIN = (
    "train in continuous time (nd.nn.SpikeTimeLinear) and read it with nd.trace(module, sample, time_unit_s=...); a "
    "NIR file of CubaLIF neurons is read so with nd.load(path, continuous_time=True)."
)


@_constraint("graph", "continuous-time")
def neurons_in_continuous_time(case: Case) -> Breaches:
    """Neurons are current-based LIF neurons in continuous time; networks that were trained in time steps, and units of
    an ANN, compute something else.
    """
    for name, node in case.graph.nodes.items():
        if isinstance(node, Membrane | Relu):
            yield Breach(name, f"a {node.kind}", "CubaLIF", _TRAIN)


@_constraint("graph", "loops")
def no_loops(case: Case) -> Breaches:
    """Spikes go forward: connections back to an earlier layer or to the same are not mapped."""
    for name, node in case.graph.nodes.items():
        if isinstance(node, Feedback):
            yield Breach(name, "a Feedback", "none", "train a network without recurrent connections.")


@_constraint("graph", "delays")
def no_delays(case: Case) -> Breaches:
    """A spike acts at once: connections have no delay of their own."""
    for name, node in case.graph.nodes.items():
        if isinstance(node, Delay):
            yield Breach(name, "a Delay", "none", "train without delays, or delay the input spikes on the host.")


@_constraint("graph", "batch-norm")
def no_normalisation(case: Case) -> Breaches:
    """A chip has no normalisation: it is fused into the weights before."""
    for name, node in case.graph.nodes.items():
        if isinstance(node, BatchNorm2d):
            yield Breach(
                name, "a BatchNorm2d", "none", "fuse it into the layer before it, or train without (spike times)."
            )


@_constraint("graph", "bias")
def no_biases(case: Case) -> Breaches:
    """Layers have no bias: nothing but spikes drives a neuron."""
    for name, node in case.graph.nodes.items():
        if isinstance(node, Linear | Conv2d) and node.bias is not None and np.any(node.bias):
            yield Breach(
                name,
                f"{np.count_nonzero(node.bias)} biases",
                "none",
                "train with bias=False, or add an input that always fires at the same time.",
            )


@_constraint("graph", "unsupported-node")
def only_layers_of_spike_times(case: Case) -> Breaches:
    """A network is one chain: an input, linear layers or convolutions with neurons directly behind each, an output.
    Maps may be flattened.
    """
    weights, others = (Linear, Conv2d), (Membrane, Relu, Feedback, Delay, BatchNorm2d)  # others: a rule says more
    nodes = case.graph.nodes
    known = (*weights, CubaLIF, Flatten, Input, Output)
    inputs = [name for name, node in nodes.items() if isinstance(node, Input)]
    if len(inputs) != 1 or not any(isinstance(node, (*weights, *others)) for node in nodes.values()):
        yield Breach("", f"{len(inputs)} inputs, {len(nodes)} nodes", "one input, layers", "use one chain of layers.")
    for name, node in nodes.items():
        after = [nodes[other] for other in case.graph.successors(name)]
        if isinstance(node, (*others, Output)):
            continue
        if not isinstance(node, known):
            remedy = "remove it (a stride instead of a pooling, one chain instead of branches)."
            yield Breach(name, f"a {node.kind}", ", ".join(kind.kind for kind in known), remedy)
        elif len(after) != 1:
            yield Breach(name, f"feeds {len(after)} nodes", "one", "use a network without branches.")
        elif (isinstance(node, weights) and not isinstance(after[0], (CubaLIF, *others))) or (
            isinstance(after[0], CubaLIF) and not isinstance(node, weights)
        ):
            remedy = "put one layer of neurons directly behind every layer of weights."
            yield Breach(name, f"a {node.kind} before a {after[0].kind}", "weights, then neurons", remedy)


@_constraint("graph", "soft-reset")
def hard_reset(case: Case) -> Breaches:
    """A spike sets the potential to the reset potential; no chip subtracts the threshold instead."""
    for name, node in case.graph.nodes.items():
        if isinstance(node, CubaLIF) and node.reset != "value":
            remedy = 'train with SpikeTimeNeuron(reset="value", t_ref=...); one spike at most: t_ref=inf.'
            yield Breach(name, f"reset {node.reset!r}", "'value'", remedy)


@_constraint("graph", "one-run")
def one_length_of_a_run(case: Case) -> Breaches:
    """All layers run for the same time: t_max is one number of the network."""
    lengths = {name: node.t_max for name, node in case.graph.nodes.items() if isinstance(node, CubaLIF)}
    if len(set(lengths.values())) > 1:
        found = ", ".join(f"{name} {'endless' if t is None else f'{t:g} s'}" for name, t in lengths.items())
        yield Breach("", found, "one t_max", "give every layer the same t_max.")


# Rules on the layers and the numbers of the chip.


@_constraint("network", "fan-in", needs="fan_in")
def inputs_of_a_neuron(case: Case) -> Breaches:
    """A neuron has at most {merged_fan_in} inputs whose weights are not 0."""
    if case.chip.weights.levels.value == "four_currents":
        return  # the mapper says so, when it knows which weights round to 0
    limit = int(str(numbers_of(case.chip)["merged_fan_in"]))
    for layer in case.network.layers:
        most = int(layer.fan_in.max(initial=0))
        if most > limit:
            remedy = f"prune the smallest weights, nd.prune_fan_in(graph, {limit}), and fine-tune with them held at 0."
            yield Breach(layer.name, f"{most} inputs", str(limit), remedy)


@_constraint("network", "merged", "note", needs="merge")
def circuits_are_merged(case: Case) -> Breaches:
    """A neuron with more than {fan_in} inputs is several circuits whose membranes are joined, {merge} at most; it has
    the mean of their constants, and each synapse moves it less.
    """
    limit = case.chip.fabric.fan_in.value
    for layer in case.network.layers:
        most = int(layer.fan_in.max(initial=0))
        if limit is not None and limit < most <= limit * case.chip.fabric.max_merge.value:
            remedy = f"nothing has to be done; nd.prune_fan_in(graph, {limit}) would save circuits."
            yield Breach(layer.name, f"{most} inputs, {-(-most // limit)} circuits", str(limit), remedy)


@_constraint("network", "neurons", needs="circuits")
def neurons_of_the_network(case: Case) -> Breaches:
    """The neurons of all layers have circuits of their own; there are {circuits}."""
    limit = int(str(numbers_of(case.chip)["circuits"]))
    each, most = case.chip.fabric.fan_in.value, case.chip.fabric.max_merge.value
    needed = 0
    for layer in case.network.layers:
        merged = 1 if each is None else min(most, max(1, -(-int(layer.fan_in.max(initial=0)) // each)))
        needed += layer.parameters.neurons * merged
    if needed > limit:
        yield Breach(
            "", f"{needed} circuits", str(limit), "use fewer neurons, or fewer inputs where circuits are merged."
        )


@_constraint("network", "time-constants", needs="tau_mem")
def times_within_the_converters(case: Case) -> Breaches:
    """Membrane time constants are {tau_mem} ms, synaptic ones {tau_syn} ms (in the network's time)."""
    for layer in case.network.layers:
        for name in TIMES[:3]:
            try:
                time_setting(layer, case.chip, name)
            except QuantizeError:
                row = 1e3 * getattr(layer.parameters, name)
                found = f"{row.min():g} ms" if row.min() == row.max() else f"{row.min():g} to {row.max():g} ms"
                limit = str(numbers_of(case.chip)["tau_mem" if name == "tau_mem" else "tau_syn"])
                remedy = "choose another time_unit_s, or other constants."
                yield Breach(layer.name, f"{name} {found}", f"{limit} ms", remedy)


@_constraint("network", "refractory", needs="longest_t_ref")
def refractory_time_covers_the_run(case: Case) -> Breaches:
    """A neuron that may fire once is held until the run is over: refractory times are at most {longest_t_ref} ms (in
    the network's time), so a run of such neurons is no longer.
    """
    acceleration = case.chip.time.acceleration.value
    longest = refractory_range(case.chip)[1] * acceleration
    for layer in case.network.layers:
        endless, finite = np.isinf(layer.parameters.t_ref), layer.parameters.t_ref[np.isfinite(layer.parameters.t_ref)]
        if endless.any():
            reached = float(time_setting(layer, case.chip, "t_ref").value[endless].min()) * acceleration
            if case.network.t_max > reached * (1 + 1e-9):
                found = (
                    "an endless run" if np.isinf(case.network.t_max) else f"a run of {1e3 * case.network.t_max:g} ms"
                )
                remedy = "give a t_max that is covered, or a smaller time_unit_s; or train with several spikes."
                yield Breach(layer.name, f"{found} with t_ref = inf", f"{1e3 * reached:g} ms", remedy)
        elif finite.size and finite.max() > longest:
            found = f"t_ref {1e3 * finite.max():g} ms"
            yield Breach(layer.name, found, f"{1e3 * longest:g} ms", "choose a shorter refractory time or time_unit_s.")


@_constraint("network", "shortest-refractory", "note", needs="shortest_t_ref")
def refractory_times_have_a_least(case: Case) -> Breaches:
    """Refractory times are at least {shortest_t_ref} ms (in the network's time); shorter ones become that."""
    shortest = refractory_range(case.chip)[0] * case.chip.time.acceleration.value
    for layer in case.network.layers:
        least = float(layer.parameters.t_ref.min(initial=np.inf))
        if least < shortest:
            remedy = f"train with t_ref={shortest:g} seconds, in the network's unit of time."
            yield Breach(layer.name, f"t_ref {1e3 * least:g} ms", f"{1e3 * shortest:g} ms", remedy)


@_constraint("network", "reset-to-rest", needs="rest_reset")
def reset_potential_is_the_rest(case: Case) -> Breaches:
    """Neurons are reset to their rest: there is no other reset potential."""
    for layer in case.network.layers:
        if layer.parameters.v_reset.any():
            worst = float(np.abs(layer.parameters.v_reset).max())
            yield Breach(layer.name, f"v_reset up to {worst:g} from the rest", "0", "train with v_reset=0.")


@_constraint("network", "below-rest", "note", needs="rest_reset")
def the_membrane_stays_above_its_rest(case: Case) -> Breaches:
    """The circuit's membrane current cannot fall below its rest, so inhibition before excitation is lost; in the
    emulation it lowers the potential.
    """
    for layer in case.network.layers:
        if count := int(np.count_nonzero(layer.parameters.weight < 0)):
            remedy = "see how much it matters: full_circuit and run_stepped (targets/analog/README.md, DYNAP-SE2)."
            yield Breach(layer.name, f"{count} inhibitory weights", "", remedy)


@_constraint("network", "shared-parameters", needs="cores")
def cores_share_their_parameters(case: Case) -> Breaches:
    """The neurons of a core have their time constants, thresholds and refractory time in common; there are {cores}
    cores, and nothing is averaged.
    """
    cores, size = int(str(numbers_of(case.chip)["cores"])), case.chip.fabric.neurons_per_core.value or 1
    try:
        place({layer.name: layer.parameters for layer in case.network.layers}, cores=cores, neurons_per_core=size)
    except ConstraintError as error:
        yield Breach("", error.message, str(cores), error.remedy)
    except MappingError:
        pass  # too many neurons, whatever their constants: another rule says so


@_constraint("network", "parameter-error", needs="rounded")
def close_enough(case: Case) -> Breaches:
    """Every parameter is within {percent} % of what was asked for, unless that is allowed (settings: allow_error)."""
    if not case.settings.allow_error:
        yield from _errors(case)


@_constraint("network", "allowed-error", "note", needs="rounded")
def errors_that_were_allowed(case: Case) -> Breaches:
    """A parameter is more than {percent} % from what was asked for, which the settings allow."""
    if case.settings.allow_error:
        yield from _errors(case)


def _errors(case: Case) -> Breaches:
    for layer in case.network.layers:
        for name in TIMES:
            error = _error(layer, case.chip, name)
            if error > LARGEST_ERROR:
                remedy = "choose another time_unit_s or constant, or settings allow_error (--allow-error)."
                yield Breach(layer.name, f"{name} is {100 * error:.1f} % off", f"{_PERCENT} %", remedy)


def _error(layer: Wanted, chip: AnalogChip, name: str) -> float:
    try:
        return time_setting(layer, chip, name).largest_error
    except QuantizeError:
        return 0.0  # outside the range: another rule says so


def placement_rules(chip: AnalogChip) -> list[Rule]:
    """The rules that only placing a network can check."""
    numbers = numbers_of(chip)
    found = []
    if numbers["tags"] is not None:
        text = "Spikes are told apart by tags: those that reach one core differ, and there are {tags}."
        found.append(Rule("tags", text.format(**numbers), "error"))
    if numbers["destinations"] is not None:
        text = "The neurons that hear a neuron are on at most {destinations} chips, no more than {hops} hops away."
        found.append(Rule("fan-out", text.format(**numbers), "error"))
    if chip.parameters.weight_current is not None:
        found.append(Rule("converters", _CONVERTERS, "error"))
    if numbers["circuits"] is not None:
        found.append(Rule("placement", _PLACEMENT, "error"))
    return found


_CONVERTERS = "The currents that stand for weights, thresholds and gains are within the ranges of their converters."
_PLACEMENT = "Every neuron and every connection has a place; where none is left, the message says what is missing."


def rule_of(error: NeurodeployError, chip: AnalogChip) -> Rule:
    """The rule that an error of a mapper is about."""
    known = {rule.code: rule for rule in [*(one.rule(chip) for one in rules_of(chip)), *placement_rules(chip)]}
    if error.code in known:
        return known[error.code]
    if isinstance(error, QuantizeError):
        return Rule("converters", _CONVERTERS, "error")
    return Rule("placement", _PLACEMENT, "error")

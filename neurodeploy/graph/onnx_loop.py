"""Nodes of a loop as one ``Scan``: its body is one time step of all of them, written by the same writers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike
from onnx import helper

from neurodeploy.graph.nodes import Feedback
from neurodeploy.graph.onnx_build import untyped
from neurodeploy.graph.onnx_context import Context, Table, Value, write_node


@dataclass
class _State:
    """A state of the loop: of one node, ``[B, *shape]`` in the body."""

    name: str
    label: str
    shape: Sequence[int]
    default: str
    dtype: DTypeLike
    before: str
    after: str = ""


@dataclass
class _StepContext(Context):
    """One time step: states come from the step before instead of from the model's inputs."""

    states: dict[tuple[str, str], _State] = field(default_factory=dict)

    def state(self, name: str, label: str, shape: Sequence[int], default: str, dtype: DTypeLike) -> str:
        """The state before the step."""
        before = self.builder.name(f"{name}.{label}.before")
        self.states[name, label] = _State(name, label, shape, default, dtype, before)
        return before

    def next_state(self, name: str, label: str, shape: Sequence[int], final: str, dtype: DTypeLike) -> None:
        """The state behind the step."""
        self.states[name, label].after = final


def write_loop(context: Context, table: Table, unit: Sequence[str], values: Mapping[str, Value]) -> dict[str, Value]:
    """Write the nodes of one loop.

    Args:
        context: of the model.
        table: how each kind is written.
        unit: the nodes, in the order of one step; a Feedback gives what it received in the step before.
        values: what the nodes before the loop produce.

    Returns:
        What the loop's nodes produce over all steps, ``[T * B, *shape]``, for those that others use.

    Raises:
        GraphError: a node has no ONNX form.
    """
    graph, builder = context.graph, context.builder
    builder.own(unit[0], graph.nodes[unit[0]])
    one_step = _one_step(context, unit[0])
    entering = list(dict.fromkeys(source for name in unit for source in graph.predecessors(name) if source not in unit))
    used = [name for name in unit if any(after not in unit for after in graph.successors(name))]
    with builder.body() as body:
        step = _StepContext(graph, builder, context.arrays, one_step, context.scales)
        now = {name: Value(builder.name(f"{name}.entering"), values[name].dtype) for name in entering}
        for name in unit:
            node = graph.nodes[name]
            builder.own(name, node)
            if isinstance(node, Feedback):
                zero = builder.constant(f"{name}.default", np.zeros((), np.float32))
                now[name] = Value(step.state(name, "v", node.shape, zero, np.float32), np.dtype(np.float32))
            else:
                now[name] = write_node(step, table, name, [now[source] for source in graph.predecessors(name)])
        for name in unit:
            node = graph.nodes[name]
            if isinstance(node, Feedback):
                (source,) = graph.predecessors(name)
                after = builder.add("Identity", [now[source].name], f"{name}.after")
                step.next_state(name, "v", node.shape, after, np.float32)
        results = [builder.add("Identity", [now[name].name], f"{name}.result") for name in used]
    builder.own(unit[0], graph.nodes[unit[0]])
    states = step.states.values()
    initial = [
        context.complete(
            state.name, context.state(state.name, state.label, state.shape, state.default, state.dtype), state.default
        )
        for state in states
    ]
    sequences = [context.by_step(f"{name}.entering", values[name], graph.shapes[name]) for name in entering]
    scan_body = helper.make_graph(
        body,
        "step",
        [untyped(state.before, state.dtype) for state in states]
        + [untyped(now[name].name, now[name].dtype) for name in entering],
        [untyped(state.after, state.dtype) for state in states]
        + [untyped(result, now[name].dtype) for name, result in zip(used, results, strict=True)],
    )
    outputs = builder.call(
        "Scan",
        [*initial, *sequences],
        [*(f"{state.name}.{state.label}_final" for state in states), *(f"{name}.by_step" for name in used)],
        num_scan_inputs=len(sequences),
        body=scan_body,
    )
    for state, final in zip(states, outputs, strict=False):
        context.next_state(state.name, state.label, state.shape, final, state.dtype)
    found: dict[str, Value] = {}
    for name, steps in zip(used, outputs[len(states) :], strict=True):
        builder.own(name, graph.nodes[name])
        folded = builder.integers(f"{name}.folded.shape", [-1, *graph.shapes[name]])
        found[name] = Value(builder.add("Reshape", [steps, folded], name), now[name].dtype)
    return found


def _one_step(context: Context, name: str) -> str:
    """(1, B)."""
    builder = context.builder
    one, two = builder.integers(f"{name}.loop.one", [1]), builder.integers(f"{name}.loop.two", [2])
    batch = builder.add("Slice", [context.steps_batch, one, two], f"{name}.loop.batch")
    return builder.add("Concat", [one, batch], f"{name}.loop.step_batch", axis=0)

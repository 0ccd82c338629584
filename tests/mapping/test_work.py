"""Busy items on fast cores: as much work there as any placement can have."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from neurodeploy.mapping.placement import Core, Item, fitting, place, placeable

SIZES = [(4, 1), (1, 4), (2, 8), (8, 2), (8, 8)]
CORES = [Core(number, {"kernel": kernel, "neuron": neuron}) for number, (kernel, neuron) in enumerate(SIZES)]
FAST = (0, 2)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(SIZES), st.integers(0, 9)), min_size=1, max_size=5))
def test_no_placement_does_more_work_on_the_fast_cores(layers):
    items = [Item(f"n{i}", {"kernel": size[0], "neuron": size[1]}) for i, (size, _) in enumerate(layers)]
    work = {f"n{i}": float(amount) for i, (_, amount) in enumerate(layers)}
    if not placeable(items, CORES):
        return

    def on_fast(cores):
        return sum(work[item.name] for item, core in zip(items, cores, strict=True) if core in FAST)

    choices = [fitting(item, CORES) for item in items]
    every = (cores for cores in itertools.product(*choices) if len(set(cores)) == len(cores))
    found = place(items, CORES, work=work, fast=FAST)
    assert [core in choice for core, choice in zip(found.values(), choices, strict=True)] == [True] * len(items)
    assert len(set(found.values())) == len(items)
    assert on_fast(found.values()) == max(map(on_fast, every))


def test_the_busiest_layer_alone_is_not_what_counts():
    """a on a fast core pushes c and d off them: 3 against 4."""
    cores_of = {"a": (0, 2), "b": (1, 3), "c": (0, 3), "d": (1, 2)}
    cores = [Core(n, {name: int(n in of) for name, of in cores_of.items()}) for n in range(4)]
    items = [Item(name, {name: 1}) for name in cores_of]
    found = place(items, cores, work={"a": 3.0, "c": 2.0, "d": 2.0}, fast=(0, 1))
    assert {found["c"], found["d"]} == {0, 1}


def test_without_work_nothing_changes():
    items = [Item("a", {"kernel": 1, "neuron": 1}), Item("b", {"kernel": 4, "neuron": 1})]
    assert place(items, CORES, work={}, fast=FAST) == place(items, CORES)
    assert place(items, CORES, work={"a": 0.0}, fast=(3,)) == place(items, CORES)

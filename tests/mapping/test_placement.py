"""The placement is exact: found whenever brute force finds one, and explained by a minimal conflict when not."""

from itertools import combinations, permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodeploy.errors import ConfigError, MappingError
from neurodeploy.mapping.matching import conflict, match
from neurodeploy.mapping.placement import Core, Item, place, placeable

CHOICES = st.integers(1, 6).flatmap(
    lambda cores: st.lists(st.sets(st.integers(0, cores - 1)).map(sorted), min_size=1, max_size=6)
)


def exists(choices):
    cores = sorted({core for choice in choices for core in choice})
    return any(
        all(core in choice for core, choice in zip(order, choices, strict=True))
        for order in permutations(cores, len(choices))
    )


@settings(max_examples=200, deadline=None)
@given(CHOICES)
def test_found_if_and_only_if_brute_force_finds_one(choices):
    found = match(choices)
    given_ = [core for core in found if core is not None]
    assert len(set(given_)) == len(given_)
    assert all(core is None or core in choice for core, choice in zip(found, choices, strict=True))
    assert (None not in found) == exists(choices)


@settings(max_examples=200, deadline=None)
@given(CHOICES)
def test_the_matching_is_maximum(choices):
    size = sum(core is not None for core in match(choices))
    largest = max(n for n in range(len(choices) + 1) if any(exists(part) for part in combinations(choices, n)))
    assert size == largest


@settings(max_examples=200, deadline=None)
@given(CHOICES)
def test_the_conflict_is_a_minimal_hall_violator(choices):
    found = match(choices)
    if None not in found:
        return
    members = conflict(choices, found)
    assert len({core for i in members for core in choices[i]}) < len(members)
    for left_out in members:
        assert exists([choices[i] for i in members if i != left_out])


def test_the_lowest_core_that_allows_completion():
    assert match([[0, 1], [0], [2, 3]]) == [1, 0, 2]


CORES = [Core(0, {"a": 10, "b": 10}), Core(1, {"a": 20, "b": 5}), Core(2, {"a": 10, "b": 10})]


def test_items_are_placed_in_order():
    items = [Item("x", {"a": 1, "b": 6}), Item("y", {"a": 1, "b": 1}), Item("z", {"a": 10, "b": 10})]
    assert place(items, CORES) == {"x": 0, "y": 1, "z": 2}
    assert placeable(items, CORES)


def test_no_core_is_large_enough():
    with pytest.raises(MappingError) as caught:
        place([Item("x", {"a": 1, "b": 1}), Item("y", {"a": 15, "b": 6})], CORES)
    assert caught.value.code == "placement"
    text = str(caught.value)
    assert "y fits none of the 3 cores" in text
    assert "core 0, 2: a 15 > 10 words (50 % too big)" in text
    assert "core 1: b 6 > 5 words (20 % too big)" in text
    assert "Remedy: make y smaller" in text
    assert "x needs" not in text


def test_all_layers_that_fit_nowhere_are_named():
    with pytest.raises(MappingError) as caught:
        place([Item("x", {"a": 99, "b": 1}), Item("y", {"a": 15, "b": 6})], CORES)
    assert "x needs" in str(caught.value)
    assert "y needs" in str(caught.value)


def test_several_layers_for_too_few_cores():
    items = [Item("x", {"a": 1, "b": 6}), Item("y", {"a": 1, "b": 7}), Item("z", {"a": 1, "b": 8})]
    with pytest.raises(MappingError, match=r"3 layers \(x, y, z\) need a core each, and only 2 \(0, 2\)"):
        place(items, CORES)


def test_more_layers_than_cores():
    with pytest.raises(MappingError, match="the network has 4 layers, the chip has 3 cores") as caught:
        place([Item(name, {"a": 1, "b": 1}) for name in "wxyz"], CORES)
    assert caught.value.code == "too-many-layers"


ITEMS = [Item("x", {"a": 1, "b": 1}), Item("y", {"a": 1, "b": 1})]


@pytest.mark.parametrize("choice", [[2, 0], {"x": 2, "y": 0}, {0: 2, 1: 0}, (2, 0)])
def test_a_choice_is_kept(choice):
    assert place(ITEMS, CORES, choice=choice) == {"x": 2, "y": 0}


def test_a_partial_choice_leaves_the_rest_free():
    assert place(ITEMS, CORES, choice={"y": 0}) == {"x": 1, "y": 0}


@pytest.mark.parametrize(
    ("choice", "text"),
    [
        ("best", "layer2core_map is 'best'"),
        (None, "layer2core_map is None"),
        (3, "layer2core_map is 3"),
        ([0, 1.0], "gives y the core 1.0"),
        ({True: 0}, "names the layer True"),
        ([0], "lists 1 cores for 2 layers"),
        ([0, 3], "gives y the core 3"),
        ([0, True], "gives y the core True"),
        ([0, "1"], "gives y the core '1'"),
        ({"q": 0}, "names the layer 'q'"),
        ({2: 0}, "names the layer 2"),
        ([1, 1], "gives core 1 to x, y"),
    ],
)
def test_a_wrong_choice_is_refused(choice, text):
    with pytest.raises(ConfigError, match=text) as caught:
        place(ITEMS, CORES, choice=choice)
    assert caught.value.code == "layer2core-map"


def test_a_choice_that_does_not_fit_names_the_cores_that_do():
    with pytest.raises(MappingError, match=r"core 1, which is too small: b 6 > 5 .* Remedy: use core 0, 2 for it"):
        place([Item("x", {"a": 1, "b": 6})], CORES, choice=[1])


def test_a_choice_that_blocks_the_others():
    items = [Item("x", {"a": 1, "b": 1}), Item("y", {"a": 15, "b": 1})]
    with pytest.raises(MappingError, match='Remedy: use layer2core_map="auto"'):
        place(items, CORES, choice={"x": 1})

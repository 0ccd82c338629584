"""Tags and destinations of DYNAP-SE2: every spike arrives where it is listened for, and is mistaken for no other."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodeploy.errors import MappingError
from neurodeploy.targets.analog.dynapse2_routing import Destination, Network, Source, route

NETWORK = Network(positions=tuple((chip, 0) for chip in range(9)), cores=4, tags=2048, words=3, hops=7)
HOST = None


def on_core(count, *listeners):
    return [Source(f"input {number}", HOST, listeners) for number in range(count)]


def test_a_spike_to_two_chips_has_two_destinations():
    (words,) = route([Source("hidden 0", 0, ((0, 2), (1, 1), (1, 3)))], NETWORK)
    assert words == (Destination(0, (2,), 0, 0), Destination(0, (1, 3), 1, 0))


def test_hops_count_from_the_neurons_own_chip():
    (words,) = route([Source("hidden 0", 2, ((0, 0), (3, 1)))], NETWORK)
    assert [(word.x_hop, word.y_hop) for word in words] == [(-2, 0), (1, 0)]


def test_three_chips_are_reached_and_four_are_not():
    far = tuple((chip, 0) for chip in range(4))
    assert len(route([Source("hidden 7", 0, far[:3])], NETWORK)[0]) == 3
    with pytest.raises(MappingError, match=r"hidden 7: its spikes go to 4 chips; a neuron has 3 destination words"):
        route([Source("hidden 7", 0, far)], NETWORK)


def test_the_host_may_send_to_any_number_of_chips():
    words = route([Source("input 0", HOST, tuple((chip, 1) for chip in range(4)))], NETWORK)[0]
    assert [word.x_hop for word in words] == [0, 1, 2, 3]


def test_seven_hops_are_reached_and_eight_are_not():
    assert route([Source("hidden 0", 0, ((7, 0),))], NETWORK)[0][0].x_hop == 7
    with pytest.raises(MappingError, match=r"hidden 0: chip 8 is 8 hops away in x"):
        route([Source("hidden 0", 0, ((8, 0),))], NETWORK)


def test_a_core_tells_2048_sources_apart_and_not_2049():
    words = route(on_core(2048, (0, 0)), NETWORK)
    assert [word[0].tag for word in words] == list(range(2048))
    with pytest.raises(
        MappingError, match=r"core 0 of chip 0 has synapses for 2049 different sources.*tells 2048 apart"
    ):
        route(on_core(2049, (0, 0)), NETWORK)


def test_tags_are_used_again_in_other_cores():
    sources = [*on_core(2048, (0, 0)), *on_core(2048, (0, 1)), *on_core(2048, (1, 0))]
    assert max(word.tag for words in route(sources, NETWORK) for word in words) == 2047


def test_a_spike_of_an_unheard_source_goes_nowhere():
    assert route([Source("hidden 0", 0, ())], NETWORK) == [()]


def test_hops_follow_the_positions_of_the_chips():
    square = replace(NETWORK, positions=((0, 0), (1, 0), (0, -1), (1, -1)))
    (words,) = route([Source("hidden 0", 1, ((2, 0),))], square)
    assert words == (Destination(0, (0,), -1, -1),)
    assert list(square.arrivals(1, words[0])) == [(2, 0, 0)]


def test_a_word_beyond_the_chips_arrives_nowhere():
    assert list(NETWORK.arrivals(3, Destination(5, (0, 1, 2, 3), -7, -7))) == []


places = st.tuples(st.integers(0, 2), st.integers(0, 3))


@given(
    st.lists(
        st.tuples(st.one_of(st.none(), st.integers(0, 2)), st.sets(places, max_size=6).map(tuple)),
        min_size=1,
        max_size=40,
    )
)
@settings(max_examples=60, deadline=None)
def test_spikes_arrive_where_they_are_heard_and_under_a_tag_of_their_own(network):
    sources = [Source(f"source {number}", chip, listeners) for number, (chip, listeners) in enumerate(network)]
    seen = {}
    for source, words in zip(sources, route(sources, NETWORK), strict=True):
        found = [arrival for word in words for arrival in NETWORK.arrivals(source.chip, word)]
        assert sorted((chip, core) for chip, core, _ in found) == sorted(source.listeners)
        for arrival in found:
            assert seen.setdefault(arrival, source) is source

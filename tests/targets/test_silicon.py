"""Measured silicon: spike counts of the first layer of a network on a Speck2f, per digit, channel, row and column."""

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.events import load_npz
from neurodeploy.targets.dynapcnn.emulator import Emulator
from neurodeploy.targets.dynapcnn.specification import Specification
from tests.shared_data import MEASURED_ON_CHIP, SHARED, needs_shared
from tests.targets.programs import core, program


@needs_shared
@pytest.mark.parametrize("digit", MEASURED_ON_CHIP)
def test_first_layer_equals_the_chip_as_published(digit: int) -> None:
    import nir

    recording, n_events, chip_spikes, emulated_spikes, difference, _ = MEASURED_ON_CHIP[digit]
    node = nir.read(str(SHARED / "speck-reference" / "cnn_sinabs.nir")).nodes["0"]
    # The scale of the measured configuration: the most negative weight reaches -128, v_min = -threshold.
    scale = 128 / np.abs(node.weight.min())
    threshold = int(np.rint(scale))
    layer = core(
        np.rint(node.weight * scale),
        (2, 34, 34),
        stride=(2, 2),
        padding=(1, 1),
        high=threshold,
        low=-threshold,
    )
    events, label = load_npz(SHARED / "nmnist-small" / "nmnist_test.npz", sensor_size=(2, 34, 34))[recording]
    run = Emulator(program(layer)).run(events)
    chip = np.load(SHARED / "speck-reference" / "speck_activity_digits0to4.npy")[digit]
    counts = run.counts["layer0"]
    assert label == digit
    assert len(events) == n_events
    assert counts.sum() == emulated_spikes == run.counters["layer0"]["spikes"] == len(run.spikes)
    assert chip.sum() == chip_spikes
    assert np.abs(counts.astype(np.int64) - chip).sum() == difference


@needs_shared
def test_the_whole_network_equals_the_specification_on_a_real_recording() -> None:
    program = nd.compile(SHARED / "speck-reference" / "cnn_sinabs.nir", target="speck2f", v_min="-threshold").program
    events, _ = load_npz(SHARED / "nmnist-small" / "nmnist_test.npz", sensor_size=(2, 34, 34))[0]
    expected, emulated = Specification(program).run(events[:250]), Emulator(program).run(events[:250])
    assert all(counter["spikes"] > 20 for counter in list(expected.counters.values())[:-1])
    assert emulated.counters == expected.counters
    assert np.array_equal(emulated.spikes, expected.spikes)

"""The currents that the words set, in the full equations of the circuits, make the spikes of the nominal neurons."""

import numpy as np
import pytest

from neurodeploy.errors import ProgramError
from neurodeploy.target import load_target
from neurodeploy.targets.analog.dynapse2 import map_network
from neurodeploy.targets.analog.dynapse2_circuit import full_circuit
from neurodeploy.targets.analog.emulator import run_layer
from neurodeploy.targets.analog.network import AnalogNetwork, Wanted
from neurodeploy.targets.analog.parameters import LayerParameters
from neurodeploy.targets.analog.settings import Settings
from neurodeploy.targets.analog.stepped import run_stepped

CHIP = load_target("dynapse2").chip
UNIT = 0.01


def program(weight):
    constants = {
        "tau_mem": 2 * UNIT,
        "tau_syn_exc": UNIT,
        "tau_syn_inh": UNIT,
        "threshold": 1.0,
        "v_reset": 0.0,
        "t_ref": np.inf,
    }
    rows = {name: np.full(weight.shape[1], value) for name, value in constants.items()}
    layer = Wanted("layer", "input", LayerParameters(weight / UNIT, **rows), 1)
    return map_network(AnalogNetwork(weight.shape[0], (layer,), 6 * UNIT), CHIP, Settings()).program


def both(weight):
    """First spikes of the circuits and of the nominal neurons, in units."""
    found = program(weight)
    times = np.random.default_rng(1).uniform(0, 2 * UNIT, size=(8, weight.shape[0], 1))
    circuit = run_stepped(times, full_circuit(found, CHIP, "layer"), max_spikes=1, t_max=found.t_max)
    nominal = run_layer(times, found.layers[0].nominal, max_spikes=1, t_max=found.t_max)
    return circuit[..., 0] / UNIT, nominal[..., 0] / UNIT


def test_excited_circuits_fire_when_the_nominal_neurons_do():
    circuit, nominal = both(np.random.default_rng(0).uniform(0.8, 2.0, size=(5, 300)))
    assert np.isfinite(nominal).all()
    late = circuit - nominal
    # The membrane current starts at 0.5 pA with a gain current of 22 pA before it is in its linear range.
    assert 0 < np.median(late) < 0.01
    assert np.abs(late).max() < 0.05


def test_a_circuit_cannot_be_inhibited_below_its_rest():
    weight = np.random.default_rng(0).uniform(0.8, 2.0, size=(5, 300))
    weight[0] *= -2
    circuit, nominal = both(weight)
    fired = np.isfinite(circuit) & np.isfinite(nominal)
    assert np.isfinite(circuit).sum() > np.isfinite(nominal).sum()
    assert (circuit[fired] - nominal[fired]).min() < -0.1


def test_an_unknown_layer_is_refused():
    with pytest.raises(ProgramError, match="no layer 'other'"):
        full_circuit(program(np.ones((2, 2))), CHIP, "other")

"""Files for BrainScaleS-2's tools: the network as NIR, as a PyNN script, its weights, targets for calibration.

The tools' own files (calibrations, lola and haldls containers) need their C++ libraries and have no documented layout:
none is written here. All times are the chip's own.
"""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pprint import pformat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.files import replacing
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nir_writer import save_nir
from neurodeploy.graph.nodes import CubaLIF, Input, Linear, Node, Output
from neurodeploy.targets.analog.bss2 import COLUMNS
from neurodeploy.targets.analog.chip import AnalogChip
from neurodeploy.targets.analog.kit_files import NEVER_LOADED, script, write_kit_files
from neurodeploy.targets.analog.program import INPUT, AnalogLayer, AnalogProgram
from neurodeploy.targets.analog.settings import Settings

Weights = NDArray[np.int64]
Floats = NDArray[np.float64]

SCRIPT = "pynn_network.py"

#: Targets of circuits that are not in use, and of what the program does not set: calix' defaults
#: (``calix/spiking/neuron.py``, ``NeuronCalibTarget``); times in seconds.
DEFAULTS = {
    "leak": 80,
    "reset": 70,
    "threshold": 125,
    "tau_mem": 10e-6,
    "tau_syn": 10e-6,
    "membrane_capacitance": 63,
    "refractory_time": 2e-6,
}


def write_files(program: AnalogProgram, graph: Graph, chip: AnalogChip, folder: Path, settings: Settings) -> list[Path]:
    """Write ``network.nir``, ``weights.npz``, ``calib_target.json`` and ``pynn_network.py`` into ``folder``.

    PyNN's calibrated cells are single circuits, so that there is no script for a network with merged ones; that of an
    earlier network is removed then.

    Raises:
        ConfigError: a file cannot be written.
    """
    del graph  # the program has it as it is on the chip
    weights = {layer.name: weight_codes(program, layer) for layer in program.layers}
    network = network_in_chip_time(program)
    contents: dict[str, bytes | str] = {
        "weights.npz": _npz(weights),
        "calib_target.json": json.dumps(calibration_target(program, chip), indent=1) + "\n",
    }
    if all(layer.neuron_sites.shape[1] == 1 for layer in program.layers):
        contents[SCRIPT] = pynn_script(program)
    else:
        (folder / SCRIPT).unlink(missing_ok=True)
    paths = write_kit_files(folder, contents)
    return [*paths, _write_nir(network, folder / "network.nir", settings)]


def weight_codes(program: AnalogProgram, layer: AnalogLayer) -> Weights:
    """Weights ``[inputs, N]`` as the chip stores them, -63 to 63; odd rows of its synapses inhibit."""
    code = {(array, row, column): weight for array, row, column, weight, _ in program.configuration["synapses"]}
    found = np.zeros(layer.synapse_sites.shape, np.int64)
    for index in np.argwhere(layer.synapse_sites >= 0):
        place, column = divmod(int(layer.synapse_sites[*index]), COLUMNS)
        array, row = divmod(place, COLUMNS)
        found[*index] = code[array, row, column] * (-1 if row % 2 else 1)
    return found


def network_in_chip_time(program: AnalogProgram) -> Graph:
    """What the chip computes without mismatch, in the chip's own seconds.

    The potential that an input of weight w would settle at is w, as in NIR with ``r = 1``, from which hxtorch takes the
    largest membrane capacitor, the one that the program uses.
    """
    faster = program.acceleration
    nodes: dict[str, Node] = {INPUT: Input((program.inputs,))}
    edges = []
    ends = {INPUT: INPUT}
    for layer in program.layers:
        nominal, neuron = layer.nominal, f"{layer.name}.neuron"
        nodes[layer.name] = Linear((nominal.weight * nominal.tau_mem).T.astype(np.float64))
        nodes[neuron] = CubaLIF(
            tau_mem=nominal.tau_mem / faster,
            tau_syn_exc=nominal.tau_syn_exc / faster,
            tau_syn_inh=nominal.tau_syn_inh / faster,
            threshold=nominal.threshold,
            input_gain=faster / nominal.tau_mem,
            max_spikes=layer.max_spikes,
            t_max=program.t_max / faster if np.isfinite(program.t_max) else None,
            v_reset=nominal.v_reset,
            t_ref=nominal.t_ref / faster,
        )
        edges += [(ends[layer.source], layer.name), (layer.name, neuron)]
        ends[layer.name] = neuron
    nodes["output"] = Output()
    return Graph(nodes, (*edges, (ends[program.layers[-1].name], "output")))


def calibration_target(program: AnalogProgram, chip: AnalogChip) -> dict[str, Any]:
    """JSON-ready: the fields of calix' ``NeuronCalibTarget`` for all circuits; potentials in LSB, times in seconds."""
    circuits = chip.fabric.neurons or 2 * COLUMNS
    target: dict[str, Any] = {
        name: np.full((2, circuits) if name == "tau_syn" else circuits, value) for name, value in DEFAULTS.items()
    }
    for layer, configured in zip(program.layers, program.configuration["layers"], strict=True):
        for sites in layer.neuron_sites.T:
            for name, values in _cells(program, layer, configured["membrane_capacitance"]).items():
                target[name][..., sites] = values
    gain = program.configuration["gain"]
    return {
        "note": NEVER_LOADED,
        "target": program.target,
        "gain_lsb_per_s": gain["lsb_per_s"],
        "NeuronCalibTarget": {
            **{name: values.tolist() for name, values in target.items()},
            "i_synin_gm": [gain["i_synin_gm"]] * 2,
            "synapse_dac_bias": gain["synapse_dac_bias"],
            "holdoff_time": 0.0,
        },
    }


def pynn_script(program: AnalogProgram) -> str:
    """The script that builds the network with ``pynn_brainscales.brainscales2``; it reads ``weights.npz``."""
    gain = program.configuration["gain"]
    layers = []
    for layer, configured in zip(program.layers, program.configuration["layers"], strict=True):
        values = _cells(program, layer, configured["membrane_capacitance"])
        cells = {
            "v_rest": values["leak"],
            "v_reset": values["reset"],
            "v_thresh": values["threshold"],
            "tau_m": np.round(values["tau_mem"] * 1e6, 9),
            "tau_syn_E": np.round(values["tau_syn"][0] * 1e6, 9),
            "tau_syn_I": np.round(values["tau_syn"][1] * 1e6, 9),
            "cm": values["membrane_capacitance"],
            "tau_refrac": np.round(values["refractory_time"] * 1e6, 9),
            "i_synin_gm_E": gain["i_synin_gm"],
            "i_synin_gm_I": gain["i_synin_gm"],
            "synapse_dac_bias": gain["synapse_dac_bias"],
        }
        layers.append(
            {
                "name": layer.name,
                "source": layer.source,
                "neurons": layer.neurons,
                "cells": {name: _one_if_equal(np.asarray(value)) for name, value in cells.items()},
            }
        )
    constants = {
        "GAIN_LSB_PER_S": repr(gain["lsb_per_s"]),
        "ACCELERATION": repr(program.acceleration),
        "T_MAX": repr(program.t_max if np.isfinite(program.t_max) else None),
        "INPUTS": repr(program.inputs),
        "LAYERS": pformat(layers, width=116, sort_dicts=False),
    }
    lines = []
    for line in script(SCRIPT).splitlines():
        name, assigned, _ = line.partition(" = ")
        lines.append(f"{name} = {constants[name]}" if assigned and name in constants else line)
    return "\n".join(lines) + "\n"


def _cells(program: AnalogProgram, layer: AnalogLayer, capacitance: int) -> dict[str, NDArray[Any]]:
    """What the calibration is to reach for each neuron of a layer, by calix' names: ``[N]``, ``tau_syn`` ``[2, N]``.

    The column ADC, against which it measures potentials, has whole steps.
    """
    nominal, faster = layer.nominal, program.acceleration

    def lsb(potential: Floats) -> Weights:
        return np.rint(layer.rest + layer.potential_unit * potential).astype(np.int64)

    def seconds(time: Floats) -> Floats:
        # To the femtosecond: 32 us that became 32.000000000000004 would be out of the tools' range.
        return np.round(time / faster, 15)

    return {
        "leak": lsb(np.zeros(layer.neurons)),
        "reset": lsb(nominal.v_reset),
        "threshold": lsb(nominal.threshold),
        "tau_mem": seconds(nominal.tau_mem),
        "tau_syn": seconds(np.stack([nominal.tau_syn_exc, nominal.tau_syn_inh])),
        "membrane_capacitance": np.full(layer.neurons, capacitance),
        "refractory_time": seconds(nominal.t_ref),
    }


def _one_if_equal(values: NDArray[Any]) -> Any:
    """One number where all are the same, as PyNN takes both."""
    return values.flat[0].item() if (values == values.flat[0]).all() else values.tolist()


def _write_nir(graph: Graph, path: Path, settings: Settings) -> Path:
    import h5py

    with replacing(path) as temporary:
        save_nir(graph, temporary, tau_unit=settings.nir_tau_unit)
        with h5py.File(temporary, "a") as file:
            file.attrs["note"] = NEVER_LOADED  # readers of NIR look at datasets only
    return path


def _npz(arrays: Mapping[str, Weights]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = NEVER_LOADED.encode("ascii")
        for name, array in arrays.items():
            entry = io.BytesIO()
            np.save(entry, array.astype(np.int8), allow_pickle=False)
            # A fixed date: the same weights give the same bytes.
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), entry.getvalue())
    return content.getvalue()

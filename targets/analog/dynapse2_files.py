"""Files for DYNAP-SE2's kits: a patch of samna's configuration, a script that applies it, a map of inputs and outputs.

Samna's whole configuration cannot be written without samna: its defaults and hidden fields are not published. So the
patch names what a program sets, by its path in samna's objects, and nothing else. Names of fields and the JSON of
events are those of rockpool's mirror of samna (``samna_alias``).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import EventError
from neurodeploy.files import write_text
from neurodeploy.graph.graph import Graph
from neurodeploy.targets.analog.chip import AnalogChip
from neurodeploy.targets.analog.dynapse2_nominal import limits_of
from neurodeploy.targets.analog.dynapse2_routing import Destination
from neurodeploy.targets.analog.dynapse2_words import WEIGHTS, Words, words_of_dict
from neurodeploy.targets.analog.kit_files import NEVER_LOADED, script, write_kit_files
from neurodeploy.targets.analog.program import AnalogProgram
from neurodeploy.targets.analog.settings import Settings

#: In every file; the version counts changes of what is below these fields.
FORMAT = "neurodeploy-dynapse2"
VERSION = 1

#: Switches of the neurons in use, all off: no constant current, no adaptation, alive, membrane with a fixed threshold,
#: dendrites that give currents, no alpha-shaped responses.
LATCHES = (
    "latch_so_dc",
    "latch_so_adaptation",
    "latch_soif_kill",
    "latch_soif_type",
    "latch_de_conductance",
    "latch_deam_alpha",
)

#: Time stamps of the FPGA, in microseconds, are 32 bits.
MAX_TIME_US = 2**32 - 1


def write_files(program: AnalogProgram, graph: Graph, chip: AnalogChip, folder: Path, settings: Settings) -> list[Path]:
    """Write ``config.patch.json``, ``load_samna.py`` and ``input_map.json`` into ``folder``.

    Raises:
        ConfigError: a file cannot be written.
        ProgramError: the program's configuration is damaged.
    """
    del graph, settings  # the words say everything
    words = words_of_dict(program.configuration, limits_of(chip))
    return write_kit_files(
        folder,
        {
            "config.patch.json": _lines({**_header(program), "patch": patch_of(words, chip)}),
            "input_map.json": _lines({**_header(program), **input_map(words, chip)}),
            "load_samna.py": script("load_samna.py"),
        },
    )


def patch_of(words: Words, chip: AnalogChip) -> dict[str, Any]:
    """What to set in samna's configuration: path -> fields, or fields of each word of a list from its beginning."""
    patch: dict[str, Any] = {}
    for core in words.cores:
        place = f"chips/{core.chip}/cores/{core.core}"
        for name, (coarse, fine) in core.biases.items():
            patch[f"{place}/parameters/{name}"] = {"coarse_value": coarse, "fine_value": fine}
        for neuron in core.neurons:
            path = f"{place}/neurons/{neuron.neuron}"
            patch[path] = dict.fromkeys(LATCHES, False)
            patch[f"{path}/synapses"] = [
                {
                    "dendrite": word.dendrite,
                    "weight": [bool(word.mask >> bit & 1) for bit in range(len(WEIGHTS))],
                    "tag": word.tag,
                    "stp": False,
                    "precise_delay": False,
                    "mismatched_delay": False,
                }
                for word in neuron.synapses
            ]
            patch[f"{path}/destinations"] = [_address(word, chip) for word in neuron.destinations]
    return patch


def input_map(words: Words, chip: AnalogChip) -> dict[str, Any]:
    """Where the host's spikes go and its neurons' spikes come from.

    ``channels[c]``: the events that a spike on channel c becomes. ``outputs``: by tag, layer and neuron of a spike that
    reaches the host.
    """
    return {
        "channels": [[_address(word, chip) for word in events] for events in words.inputs],
        "outputs": [
            {"tag": tag, "layer": layer, "neuron": neuron} for tag, (layer, neuron) in enumerate(words.monitor)
        ],
    }


def write_input_events(
    path: str | Path, program: AnalogProgram, chip: AnalogChip, times: NDArray[np.float64], *, start_us: int = 0
) -> None:
    """Write the spikes of one sample as the JSON of samna's ``NormalGridEvent``, all or nothing.

    ``{"events": [...]}``, in the order of their times; spikes at one time keep the order of their channels.

    Args:
        path: of the file.
        program: for the chip.
        chip: the chip.
        times: float64 ``[inputs, slots]``, seconds of the network; ``inf``: no spike.
        start_us: time stamp of time 0.

    Raises:
        EventError: ``times`` has another shape, is negative or NaN, or goes beyond 32 bits of microseconds.
        ProgramError: the program's configuration is damaged.
        ConfigError: the file cannot be written.
    """
    if times.ndim != 2 or times.shape[0] != program.inputs or not (times >= 0).all():
        raise EventError(
            f"times has shape {times.shape} or a value that is no time; it must be [{program.inputs}, slots], from 0.",
            remedy="give the spike times of one sample, inf where there is none.",
            code="spike-times",
        )
    words = words_of_dict(program.configuration, limits_of(chip))
    channel, slot = np.nonzero(np.isfinite(times))
    stamps = start_us + np.rint(times[channel, slot] / program.acceleration * 1e6)
    if stamps.size and stamps.max() > MAX_TIME_US:
        raise EventError(
            f"the last spike is at {stamps.max():.0f} us; time stamps are 32 bits of microseconds.",
            remedy="start earlier, or send the sample in pieces.",
            code="time-range",
        )
    order = np.argsort(stamps, kind="stable")
    events = [
        _normal_grid_event(word, int(stamps[index]), chip) for index in order for word in words.inputs[channel[index]]
    ]
    write_text(path, _lines({**_header(program), "events": events}))


def _normal_grid_event(word: Destination, stamp: int, chip: AnalogChip) -> dict[str, Any]:
    # samna's JSON is that of the cereal library: lists are objects with the fields value0, value1, ...
    cores = {f"value{core}": core in word.cores for core in range(chip.fabric.cores.value)}
    event = {"core": cores, "xHop": word.x_hop, "yHop": word.y_hop, "tag": word.tag}
    return {"value0": {"event": event, "timestamp": stamp}}


def _address(word: Destination, chip: AnalogChip) -> dict[str, Any]:
    cores = [core in word.cores for core in range(chip.fabric.cores.value)]
    return {"core": cores, "x_hop": word.x_hop, "y_hop": word.y_hop, "tag": word.tag}


def _header(program: AnalogProgram) -> dict[str, Any]:
    return {"format": FORMAT, "version": VERSION, "target": program.target, "note": NEVER_LOADED}


def _lines(data: Mapping[str, Any]) -> str:
    """JSON with one line for each entry of the largest parts."""
    parts = []
    for key, value in data.items():
        if isinstance(value, dict) and value:
            inner = ",\n".join(f"{json.dumps(name)}: {json.dumps(part)}" for name, part in value.items())
            text = "{\n" + inner + "\n}"
        elif isinstance(value, list) and value:
            text = "[\n" + ",\n".join(map(json.dumps, value)) + "\n]"
        else:
            text = json.dumps(value)
        parts.append(f"{json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"

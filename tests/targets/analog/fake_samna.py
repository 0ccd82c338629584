"""A substitute for samna's module of DYNAP-SE2, with the attributes that public code uses and no others.

As with bound C++ objects, unknown attributes cannot be set, lists have a fixed length, and those of words are copies.
"""
# ruff: noqa: RUF012

import copy
import enum
import json
from types import SimpleNamespace


class Dendrite(enum.Enum):
    none = 0
    ampa = 1024
    gaba = 512
    nmda = 256
    shunt = 128


def flags(count):
    return lambda: [False] * count


def words(kind, count):
    return lambda: [kind() for _ in range(count)]


class Bound:
    FIELDS = {}

    def __init__(self):
        for name, default in self.FIELDS.items():
            object.__setattr__(self, "_" + name, default() if callable(default) else default)

    def __getattr__(self, name):
        if name not in type(self).FIELDS:
            raise AttributeError(f"{type(self).__name__} has no attribute {name}")
        value = object.__getattribute__(self, "_" + name)
        # Words of a neuron are values: what is read is a copy. Chips, cores, neurons and parameters are references.
        return copy.deepcopy(value) if name in ("synapses", "destinations", "weight", "core") else value

    def __setattr__(self, name, value):
        old = getattr(self, name)
        if type(value) is not type(old):
            raise TypeError(f"{name}: {value!r} is no {type(old).__name__}")
        if isinstance(value, list) and (len(value) != len(old) or {type(item) for item in value} != {type(old[0])}):
            raise TypeError(f"{name}: {len(old)} of {type(old[0]).__name__}")
        if isinstance(value, int) and not isinstance(value, bool) and not self.LOW[name] <= value <= self.HIGH[name]:
            raise ValueError(f"{name}: {value}")
        object.__setattr__(self, "_" + name, copy.deepcopy(value))

    LOW = {"coarse_value": 0, "fine_value": 0, "tag": 0, "x_hop": -7, "y_hop": -7, "monitored_neuron": 0}
    HIGH = {"coarse_value": 5, "fine_value": 255, "tag": 2047, "x_hop": 7, "y_hop": 7, "monitored_neuron": 255}

    def plain(self):
        return {name: plain(getattr(self, name)) for name in self.FIELDS}


def plain(value):
    if isinstance(value, Bound):
        return value.plain()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.name if isinstance(value, Dendrite) else value


class Dynapse2Parameter(Bound):
    FIELDS = {"coarse_value": 0, "fine_value": 0}


class Dynapse2Synapse(Bound):
    FIELDS = {
        "dendrite": Dendrite.none,
        "stp": False,
        "weight": flags(4),
        "precise_delay": False,
        "mismatched_delay": False,
        "tag": 0,
    }


class Dynapse2Destination(Bound):
    FIELDS = {"core": flags(4), "x_hop": 0, "y_hop": 0, "tag": 0}


LATCHES = "so_dc so_adaptation soif_kill coho_ca_mem ho_enable ho_so_de deam_ampa denm_nmda de_conductance deam_alpha"
LATCHES += " denm_alpha de_mux soif_type ho_active"


class Dynapse2Neuron(Bound):
    FIELDS = {
        "synapses": words(Dynapse2Synapse, 64),
        "destinations": words(Dynapse2Destination, 4),
        **{f"latch_{name}": name == "soif_kill" for name in LATCHES.split()},
    }


PARAMETERS = (
    "SOIF_LEAK_N SOIF_GAIN_N SOIF_REFR_N SOIF_DC_P SOIF_SPKTHR_P DEAM_ETAU_P DEAM_EGAIN_P DENM_ETAU_P DENM_EGAIN_P"
)
PARAMETERS += " DEGA_ITAU_P DEGA_IGAIN_P DESC_ITAU_P DESC_IGAIN_P SYAM_W0_P SYAM_W1_P SYAM_W2_P SYAM_W3_P SYPD_EXT_N"


class Dynapse2Core(Bound):
    FIELDS = {
        "neurons": words(Dynapse2Neuron, 256),
        "parameters": lambda: {name: Dynapse2Parameter() for name in PARAMETERS.split()},
        "neuron_monitoring_on": False,
        "monitored_neuron": 0,
    }


class Dynapse2Chip(Bound):
    FIELDS = {"cores": words(Dynapse2Core, 4)}


class Dynapse2Configuration(Bound):
    """Of one chip: 256 * 64 * 4 words take long enough to make."""

    FIELDS = {"chips": words(Dynapse2Chip, 1)}

    def to_json(self):
        return json.dumps({"value0": self.plain()})


dynapse2 = SimpleNamespace(Dynapse2Configuration=Dynapse2Configuration, Dendrite=Dendrite)

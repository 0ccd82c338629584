"""Program files: the same bytes every time, every field back, and nothing damaged or edited gets through."""

import copy
import hashlib
import itertools
import json
import random

import numpy as np
import pytest

from neurodeploy.errors import ProgramError
from neurodeploy.files import canonical_json
from neurodeploy.graph.graph import Graph
from neurodeploy.graph.nodes import Conv2d, Input, Neuron, Output
from neurodeploy.program_file import MAX_BYTES, program_hash, program_text, read_program, write_program
from neurodeploy.target import load_target
from tests.targets.networks import chain, weights

SPECK = load_target("speck2f")


def small():
    """Two layers, not square anywhere, with bias, reset to zero and initial potentials."""
    rng = np.random.default_rng(3)
    nodes = {
        "in": Input((2, 7, 12)),
        "first": Conv2d(weights((3, 2, 2, 2)), np.array([-9, 300, 0], np.int16), (1, 2), (1, 0)),
        "spike": Neuron(
            np.array(90, np.int16),
            np.array(-90, np.int16),
            reset="zero",
            initial_v=rng.integers(-90, 90, (3, 8, 6)).astype(np.int16),
        ),
        "second": Conv2d(weights((2, 3, 3, 3))),
        "spike2": Neuron(np.array(400, np.int16), np.array(-32768, np.int16)),
        "out": Output(),
    }
    names = list(nodes)
    return Graph(nodes, tuple(itertools.pairwise(names)))


def compiled(graph):
    return SPECK.family.lower(SPECK.family.map(graph, SPECK.chip))


PROGRAM = compiled(small())
DATA = PROGRAM.to_dict()


def same(a, b):
    assert a.to_dict() == b.to_dict()
    for one, other in zip(a.cores, b.cores, strict=True):
        for name in one.__dataclass_fields__:
            left, right = getattr(one, name), getattr(other, name)
            if isinstance(left, np.ndarray):
                assert left.dtype == right.dtype
                assert right.flags.c_contiguous
                assert np.array_equal(left, right)
            else:
                assert left == right
                assert type(left) is type(right)


def test_every_field_comes_back(tmp_path):
    write_program(tmp_path / "program.json", PROGRAM)
    same(PROGRAM, read_program(tmp_path / "program.json"))


@pytest.mark.parametrize("name", ["speck2e", "speck2f"])
def test_a_program_knows_its_chip(name, tmp_path):
    target = load_target(name)
    program = target.family.lower(target.family.map(chain((1, 6, 6), [(2, 3, 1, 0, 4), (3, 1, 1, 0, 1)]), target.chip))
    write_program(tmp_path / "p.json", program)
    again = read_program(tmp_path / "p.json")
    assert again.target == name
    same(program, again)


def test_the_bytes_are_the_same_every_time(tmp_path):
    for name in ("a", "b"):
        write_program(tmp_path / name, compiled(small()))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    same_again = read_program(tmp_path / "a")
    assert program_text(same_again) == (tmp_path / "a").read_text()
    assert json.loads((tmp_path / "a").read_text())["sha256"] == program_hash(PROGRAM)


def test_the_layout_of_the_file():
    header = json.loads(program_text(PROGRAM))
    assert header["format"] == "neurodeploy-program"
    assert header["version"] == 1
    assert (header["target"], header["family"]) == ("speck2f", "dynapcnn")
    content = {name: value for name, value in header.items() if name != "sha256"}
    assert header["sha256"] == hashlib.sha256(canonical_json(content).encode()).hexdigest()
    layer = header["program"]["cnn_layers"]["0"]
    assert layer["dimensions"] == {
        "input_shape": {"feature_count": 2, "size": {"x": 12, "y": 7}},
        "output_shape": {"feature_count": 3, "size": {"x": 6, "y": 8}},
        "padding": {"x": 0, "y": 1},
        "stride": {"x": 2, "y": 1},
        "kernel_size": 2,
    }
    # samna's order is [out][in][x][y]; ours in memory is [out][in][y][x].
    assert layer["weights"][1][0][0][1] == PROGRAM.cores[0].weights[1, 0, 1, 0]
    assert layer["neurons_initial_value"][2][5][7] == PROGRAM.cores[0].neurons_initial_value[2, 7, 5]
    assert layer["destinations"] == [
        {"enable": True, "layer": 1, "pooling": 1, "feature_shift": 0},
        {"enable": False, "layer": 0, "pooling": 1, "feature_shift": 0},
    ]


def signed(data, **header):
    """A file with a correct hash around any data: what an attacker, or a program of another origin, could write."""
    content = {"format": "neurodeploy-program", "version": 1, "target": "speck2f", "family": "dynapcnn"}
    content |= {"program": data} | header
    return json.dumps(content | {"sha256": hashlib.sha256(canonical_json(content).encode()).hexdigest()})


def refused(path, text, code=None):
    path.write_text(text)
    with pytest.raises(ProgramError) as caught:
        read_program(path)
    assert caught.value.remedy
    assert str(path) in caught.value.message
    if code:
        assert caught.value.code == code
    return str(caught.value)


def test_bad_files(tmp_path):
    path = tmp_path / "program.json"
    good = program_text(PROGRAM)
    with pytest.raises(ProgramError, match="cannot be read") as caught:
        read_program(tmp_path / "none.json")
    assert caught.value.code == "program-missing"
    with pytest.raises(ProgramError, match="cannot be read"):
        read_program(tmp_path)
    refused(path, "", "program-json")
    refused(path, "null", "program-format")
    refused(path, "[1, 2]", "program-format")
    refused(path, '{"format": "other"}', "program-format")
    refused(path, "[" * 100_000, "program-json")
    refused(path, '{"format": ' + "9" * 10_000 + "}", "program-json")
    refused(path, good.replace('"entry_core":0', '"entry_core":NaN'), "program-json")
    refused(path, good.replace('"entry_core":0', '"entry_core":1e999'), "program-hash")
    refused(path, good.replace('"entry_core":0', '"entry_core":1'), "program-hash")
    refused(path, good.replace('"entry_core":0', '"entry_core":0,"entry_core":0'), "program-json")
    refused(path, good.replace('"version":1', '"version":2'), "program-version")
    refused(path, good.replace('"version":1', '"version":true'), "program-version")
    refused(path, good.replace(',"version":1', ""), "program-version")
    refused(path, good.replace('"family":"dynapcnn",', ""), "program-header")
    refused(path, good.replace('"family"', '"extra":0,"family"'), "program-header")
    refused(path, good.replace('"target":"speck2f"', '"target":"speck2e"'), "program-hash")
    refused(path, signed(DATA, target="speck9"), "program-target")
    refused(path, signed(DATA, target=["speck2f"]), "program-target")
    refused(path, signed(DATA, target="../speck2f"), "program-target")
    refused(path, signed(DATA, family="other"), "program-target")
    refused(path, signed(DATA, target="speck2e"), "program-field")
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(ProgramError, match="not valid JSON"):
        read_program(path)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    path = tmp_path / "program.json"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(ProgramError, match="a program has at most") as caught:
        read_program(path)
    assert caught.value.code == "program-size"


def changed(path, value):
    """A copy of the program's data with the field at ``path`` replaced, or removed when the value is ``...``."""
    data = copy.deepcopy(DATA)
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    if value is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return data


FIRST = ("cnn_layers", "0")


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("target",), "speck2e", "not 'speck2f'"),
        (("entry_core",), 5, "holds no layer"),
        (("entry_core",), True, "must be an integer"),
        (("layers",), [], "list of 1 to 9"),
        (("layers",), {}, "must be a list"),
        (("layers", 0, "name"), 7, "must be a text"),
        (("layers", 0, "name"), "second", "no other layer has"),
        (("layers", 0, "core"), 1, "holds 'first' already|already"),
        (("layers", 0, "core"), 9, "integer from 0 to 8"),
        (("layers", 0, "core"), 2, "lacks 2"),
        (("layers", 0, "extra"), 2, "unknown fields: 'extra'"),
        (FIRST, ..., "lacks 0"),
        (("cnn_layers", "7"), {}, "unknown fields"),
        ((*FIRST, "weights"), ..., "lacks weights"),
        ((*FIRST, "weights"), [], "must have the shape"),
        ((*FIRST, "weights"), None, "must have the shape"),
        ((*FIRST, "weights", 0, 0, 0, 0), 128, "integers from -128 to 127"),
        ((*FIRST, "weights", 0, 0, 0, 0), 1.0, "integers from"),
        ((*FIRST, "weights", 0, 0, 0, 0), True, "integers from"),
        ((*FIRST, "weights", 0, 0, 0), [1, 2, 3], "must have the shape"),
        ((*FIRST, "biases"), [1], "must have the shape"),
        ((*FIRST, "biases", 0), 32768, "integers from -32768"),
        ((*FIRST, "neurons_initial_value"), [[[0]]], "must have the shape"),
        ((*FIRST, "threshold_high"), 0, "breaks a rule of speck2f"),
        ((*FIRST, "threshold_high"), 32768, "integer from"),
        ((*FIRST, "threshold_low"), 0, "breaks a rule of speck2f"),
        ((*FIRST, "return_to_zero"), 1, "true or false"),
        ((*FIRST, "leak_enable"), False, "the biases say the opposite"),
        (("cnn_layers", "1", "leak_enable"), True, "the biases say the opposite"),
        ((*FIRST, "monitor_enable"), None, "true or false"),
        ((*FIRST, "dimensions", "kernel_size"), 3, "must have the shape"),
        ((*FIRST, "dimensions", "stride"), {"x": 3, "y": 1}, "kernel, stride and padding give"),
        ((*FIRST, "dimensions", "stride", "x"), 0, "integer from 1"),
        ((*FIRST, "dimensions", "padding", "y"), -1, "integer from 0"),
        ((*FIRST, "dimensions", "input_shape", "feature_count"), 3, "must have the shape"),
        ((*FIRST, "dimensions", "input_shape", "size", "x"), 14, "kernel, stride and padding give"),
        ((*FIRST, "destinations"), [], "must be a list of 2"),
        ((*FIRST, "destinations", 0, "layer"), 0, "breaks a rule"),
        ((*FIRST, "destinations", 0, "layer"), 3, "holds no layer"),
        ((*FIRST, "destinations", 0, "pooling"), 3, "breaks a rule"),
        ((*FIRST, "destinations", 0, "pooling"), 2, "breaks a rule"),
        ((*FIRST, "destinations", 0, "feature_shift"), 1, "breaks a rule"),
        ((*FIRST, "destinations", 0, "enable"), False, "is not enabled, but not empty"),
        ((*FIRST, "destinations", 1, "pooling"), 2, "is not enabled, but not empty"),
    ],
)
def test_every_field_is_checked_even_with_a_correct_hash(path, value, text, tmp_path):
    with pytest.raises(ProgramError, match=text) as caught:
        SPECK.family.read_program(changed(path, value), SPECK.chip)
    assert caught.value.code == "program-field"
    refused(tmp_path / "program.json", signed(changed(path, value)), "program-field")


def test_a_program_too_large_for_its_core_is_refused():
    graph = chain((1, 12, 12), [(20, 1, 1, 0, 1), (32, 5, 1, 0, 1)])
    data = compiled(graph).to_dict()
    assert data["layers"][1] == {"name": "conv1", "core": 3}
    data["layers"][1]["core"] = 1
    data["cnn_layers"]["1"] = data["cnn_layers"].pop("3")
    data["cnn_layers"]["0"]["destinations"][0]["layer"] = 1
    with pytest.raises(ProgramError, match="does not hold 'conv1': kernel 20480 > 16384 words"):
        SPECK.family.read_program(data, SPECK.chip)


def test_damaged_bytes_are_refused_or_mean_the_same(tmp_path):
    good = program_text(PROGRAM).encode()
    path = tmp_path / "program.json"
    chance = random.Random(7)
    survived = 0
    for _ in range(600):
        damaged = bytearray(good)
        kind = chance.randrange(3)
        place = chance.randrange(len(good))
        if kind == 0:
            damaged[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del damaged[place:]
        else:
            damaged[place:place] = bytes(chance.randrange(256) for _ in range(3))
        path.write_bytes(damaged)
        try:
            read = read_program(path)
        except ProgramError:
            continue
        else:
            # Only white space between tokens can change without a trace.
            same(PROGRAM, read)
            survived += 1
    assert survived < 6


VALUES = (None, True, False, 0, 1, -1, 2, 255, 256, 65536, 2**31, 2**70, -(2**70), 0.5, "", "0", "x", [], [[]], {}, [0])


def test_edited_fields_with_a_correct_hash_never_crash():
    chance = random.Random(11)
    for _ in range(1500):
        data = copy.deepcopy(DATA)
        inner, key = None, None
        value = data
        while isinstance(value, (dict, list)) and value and (inner is None or chance.random() < 0.85):
            inner = value
            key = chance.choice(list(inner)) if isinstance(inner, dict) else chance.randrange(len(inner))
            value = inner[key]
        if chance.random() < 0.15:
            del inner[key]
        else:
            inner[key] = chance.choice(VALUES)
        try:
            program = SPECK.family.read_program(data, SPECK.chip)
        except ProgramError:
            continue
        else:
            # What is accepted is a whole program: it is written as it was read.
            assert program.to_dict() == data

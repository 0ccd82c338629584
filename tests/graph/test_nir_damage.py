"""Damaged and hostile NIR files: a graph or one clear error, never a crash, a hang or memory without bound."""

import resource
from itertools import pairwise

import h5py
import nir
import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.errors import NeurodeployError
from neurodeploy.graph.graph import Graph

CASES = 250

WORDS = (0, 1, 2**31, 2**40, 2**63 - 1, 2**64 - 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A NIR file with the usual kinds of nodes."""
    rng = np.random.default_rng(0)
    nodes = {
        "input": nir.Input(np.array([2, 10, 10])),
        "conv": nir.Conv2d((10, 10), rng.normal(size=(4, 2, 3, 3)), 1, 0, 1, 1, np.zeros(4)),
        "if0": nir.IF(r=np.ones((4, 8, 8)), v_threshold=np.ones((4, 8, 8)), v_reset=np.zeros((4, 8, 8))),
        "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flat": nir.Flatten({"input": np.array([4, 4, 4])}, start_dim=0, end_dim=-1),
        "fc": nir.Affine(rng.normal(size=(3, 64)), np.zeros(3)),
        "if1": nir.IF(r=np.ones(3), v_threshold=np.ones(3), v_reset=np.zeros(3)),
        "output": nir.Output(np.array([3])),
    }
    names = list(nodes)
    path = tmp_path_factory.mktemp("nir") / "whole.nir"
    nir.write(path, nir.NIRGraph(nodes, list(pairwise(names))))
    nd.load(path)
    return path.read_bytes()


def attempt(path):
    """Whether the file is read; anything but a graph or an error of ours with a remedy fails the test."""
    try:
        return isinstance(nd.load(path), Graph)
    except NeurodeployError as error:
        if not error.remedy or path.name not in str(error):
            raise
        return False


def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def damage(rng, data):
    data = bytearray(data)
    spot = int(rng.integers(0, len(data)))
    kind = rng.integers(4)
    if kind == 0:
        del data[spot:]
    elif kind == 1:
        for at in rng.integers(0, len(data), int(rng.integers(1, 30))):
            data[at] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        # Sizes and addresses in the structure are words of eight bytes.
        spot -= spot % 8
        data[spot : spot + 8] = WORDS[rng.integers(len(WORDS))].to_bytes(8, "little")
    else:
        data[spot : spot + 64] = rng.bytes(64)
    return bytes(data)


def test_flipped_cut_and_overwritten_bytes(whole, tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / "damaged.nir"
    before = peak_mib()
    read = 0
    for _ in range(CASES):
        path.write_bytes(damage(rng, whole))
        read += attempt(path)
    assert read < CASES - CASES // 10
    # The file has some tens of kB; h5py's caches and numpy's buffers stay far below this.
    assert peak_mib() < before + 500


def test_every_place_a_file_can_be_cut_off_at(whole, tmp_path):
    path = tmp_path / "cut.nir"
    for length in np.linspace(0, len(whole) - 1, 60, dtype=int):
        path.write_bytes(whole[:length])
        attempt(path)


WRONG = {
    "text": "abc",
    "bytes": np.bytes_(b"\xff\xfe"),
    "nan": np.full((4, 2, 3, 3), np.nan),
    "inf": np.full((4, 2, 3, 3), np.inf),
    "complex": np.ones((4, 2, 3, 3), complex),
    "bool": np.ones((4, 2, 3, 3), bool),
    "huge": np.full((4, 2, 3, 3), 1e300),
    "scalar": np.float32(1),
    "empty": np.zeros((0, 2, 3, 3)),
    "five axes": np.ones((1, 1, 1, 1, 1)),
    "other shape": np.ones((4, 3, 3, 3)),
    "negative": np.int64(-3),
    "large integer": np.uint64(2**64 - 1),
    "records": np.zeros(3, [("a", "i4"), ("b", "f4")]),
    "references": None,
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numpy's, about casts of impossible numbers
@pytest.mark.parametrize("part", range(4))
def test_fields_of_the_wrong_type_shape_or_size(whole, tmp_path, part):
    path = tmp_path / "wrong.nir"
    path.write_bytes(whole)
    fields = []
    with h5py.File(path) as file:
        file.visititems(lambda name, item: fields.append(name) if isinstance(item, h5py.Dataset) else None)
    assert len(fields) > 30
    for number, field in enumerate(fields):
        for kind in list(WRONG)[(part + number) % 4 :: 4]:  # every field meets every fourth kind in each part
            path.write_bytes(whole)
            with h5py.File(path, "r+") as file:
                del file[field]
                file[field] = file.ref if kind == "references" else WRONG[kind]
            attempt(path)


def test_missing_fields_and_groups(whole, tmp_path):
    path = tmp_path / "missing.nir"
    path.write_bytes(whole)
    names = []
    with h5py.File(path) as file:
        file.visit(names.append)
    for name in names:
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            del file[name]
        attempt(path)


def test_a_claim_of_a_terabyte_is_refused(whole, tmp_path):
    path = tmp_path / "claim.nir"
    path.write_bytes(whole)
    before = peak_mib()
    with h5py.File(path, "r+") as file:
        del file["node/nodes/fc/weight"]
        file.create_dataset("node/nodes/fc/weight", (10**6, 10**6), "f4")
    assert not attempt(path)
    assert peak_mib() < before + 500

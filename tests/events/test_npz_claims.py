"""Archives whose headers claim what is not there: sizes without bound, types that are no numbers."""

import io
import resource
import zipfile

import numpy as np
import pytest
from numpy.lib import format as npy

from neurodeploy.errors import EventError
from neurodeploy.events import dataset, load_npz, read_events

COLUMN = ("<i8", (10,), bytes(80))


def archive(path, **members):
    """An archive whose members have headers and data of their own."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, (dtype, shape, data) in members.items():
            content = io.BytesIO()
            npy.write_array_header_1_0(content, {"descr": dtype, "fortran_order": False, "shape": shape})
            file.writestr(f"{name}.npy", content.getvalue() + data)


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        ("<i8", (10**10,)),
        ("<i8", (10**15,)),
        ("<i8", (2**62, 4)),
        ("<i8", (-5,)),
        ("|V0", (10**12,)),
        ("<U1000000000", (5,)),
        ("|S5", (4,)),
        ("<f8", (10,)),
        ("<M8[us]", (10,)),
        ("O", (3,)),
    ],
)
@pytest.mark.parametrize("column", ["t", "x", "p"])
def test_claims_of_size_and_type(tmp_path, column, dtype, shape):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = tmp_path / "claims.npz"
    archive(path, **{**dict.fromkeys("txyp", COLUMN), column: (dtype, shape, bytes(80))})
    with pytest.raises(EventError, match=r"claims.npz.*Remedy"):
        read_events(path)
    with pytest.raises(EventError, match=r"claims.npz.*Remedy"):
        load_npz(path, sensor_size=(2, 34, 34))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 300 * 1024  # kB


def test_an_archive_that_unpacks_to_more_than_is_read_at_once(tmp_path, monkeypatch):
    path = tmp_path / "bomb.npz"
    np.savez_compressed(path, t=np.zeros(10**6, np.int64), x=[0], y=[0], p=[0])
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(dataset, "_MOST_BYTES", 10**6)
    with pytest.raises(EventError, match="unpacks to 8"):
        read_events(path)

"""HDF5 files are tried in another process: whatever happens there ends in one error here."""

import os
import subprocess
import sys
import time

import h5py
import numpy as np
import pytest

from neurodeploy import guarded_read
from neurodeploy.guarded_read import check_hdf5


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.h5"
    with h5py.File(path, "w") as file:
        file["group/data"] = np.arange(1000)
        file["text"] = "words"
        file["nothing"] = h5py.Empty("f4")
        lists = file.create_dataset("lists", (3,), h5py.vlen_dtype(np.float32))
        lists[1] = np.ones(4, np.float32)
        file.create_dataset("packed", data=np.zeros((3000, 100)), compression="gzip")  # 2.4 MB in a few kB
    return path


def test_a_good_file_passes_and_one_process_serves_all(good, tmp_path):
    check_hdf5(good)
    first = guarded_read._process
    for index in range(20):
        copy = tmp_path / f"{index}.h5"
        copy.write_bytes(good.read_bytes())
        check_hdf5(copy)
    assert guarded_read._process is first


def test_a_file_that_settled_is_tried_once_and_again_when_it_changes(good):
    os.utime(good, ns=(0, time.time_ns() - 10**10))
    check_hdf5(good)
    tried = len(guarded_read._known_good)
    check_hdf5(good)
    assert len(guarded_read._known_good) == tried
    with good.open("r+b") as file:
        file.write(b"x" * 100)
    with pytest.raises(ValueError, match="signature"):
        check_hdf5(good)


def test_missing_files_and_other_files(tmp_path):
    with pytest.raises(OSError, match="absent"):
        check_hdf5(tmp_path / "absent.h5")
    for content in (b"", b"x", b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + b"\0" * 5000):
        (tmp_path / "other.h5").write_bytes(content)
        with pytest.raises(ValueError):  # noqa: PT011 - the library's words
            check_hdf5(tmp_path / "other.h5")


def test_huge_declared_sizes_links_and_nesting_are_refused(tmp_path):
    path = tmp_path / "bad.h5"

    def refused(match, fill):
        path.unlink(missing_ok=True)
        with h5py.File(path, "w") as file:
            fill(file)
        with pytest.raises(ValueError, match=match):
            check_hdf5(path)

    refused("claims 8000000000000 bytes", lambda file: file.create_dataset("a", (10**12,), "f8"))
    refused("claims", lambda file: file.create_dataset("a", (10**9,), "f8", chunks=(10**7,), compression="gzip"))
    refused("link to another file", lambda file: file.__setitem__("a", h5py.ExternalLink("/etc/passwd", "b")))
    refused("nested", lambda file: file.create_group("/".join(["a"] * 100)))

    def circle(file):
        inner = file.create_group("a/b")
        inner["c"] = file["a"]

    refused("nested", circle)

    def elsewhere(file):
        file.create_dataset("a", (4,), "u1", external=[("/etc/passwd", 0, 4)])

    refused("other files", elsewhere)


@pytest.mark.parametrize(
    ("program", "seconds", "match"),
    [
        ("import time; time.sleep(1000)", 0.5, "stopped after"),
        ("import os; input(); os.abort()", 60, "crashed"),
        ("import sys; sys.exit()", 60, "crashed"),
        ("input(); print('half a line', end='')", 60, "crashed"),
    ],
)
def test_a_trial_that_hangs_or_crashes_is_one_error_and_the_next_file_is_read(
    good, tmp_path, monkeypatch, program, seconds, match
):
    (tmp_path / "trial.py").write_text(program)
    with monkeypatch.context() as patch:
        patch.setattr(guarded_read, "_process", None)
        patch.setattr(guarded_read, "_TRIAL", tmp_path / "trial.py")
        patch.setattr(guarded_read, "_SECONDS", seconds)
        with pytest.raises(ValueError, match=match):
            check_hdf5(good)
    check_hdf5(good)


def test_the_process_ends_with_the_one_that_started_it(good):
    code = f"""
from neurodeploy import guarded_read
guarded_read.check_hdf5({str(good)!r})
print(guarded_read._process.pid)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    pid = int(done.stdout)
    for _ in range(1000):
        try:
            os.kill(pid, 0)
            state = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]  # noqa: SIM115
        except (ProcessLookupError, FileNotFoundError):
            return
        if state == "Z":
            return
        time.sleep(0.01)
    pytest.fail("the trial process is still there")

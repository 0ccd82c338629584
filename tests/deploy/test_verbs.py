"""deploy, devices and compare as a user types them, with and without the vendor's library."""

import sys
from dataclasses import replace

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.events.dataset import save_npz
from neurodeploy.recorded_file import read_recorded, write_recorded
from neurodeploy.targets.dynapcnn import samna_adapter, samna_package

KIT = "speck2fdevkit:0"


@pytest.fixture
def folder(tmp_path, deployment, recordings):
    deployment.save(tmp_path / "run")
    save_npz(tmp_path / "data.npz", recordings)
    return tmp_path


@pytest.fixture
def without_samna(monkeypatch):
    monkeypatch.setattr(samna_package, "_package_folders", list)
    monkeypatch.setattr(samna_package, "_listed_files", list)


def deploy(folder, *flags):
    return ("deploy", folder / "run", "--device", KIT, "--events", folder / "data.npz", "--index", 0, *flags)


def test_a_dry_run_needs_no_vendor_package_and_writes_nothing(folder, cli, without_samna):
    before = sorted(path.name for path in (folder / "run").iterdir())
    result = cli(*deploy(folder, "--dry-run"))
    assert (result.code, result.err) == (0, "")
    for text in ("n0", "n4 (core", "300 events", "in real time", "nothing was sent and nothing written"):
        assert text in result.out
    assert sorted(path.name for path in (folder / "run").iterdir()) == before
    plan = cli(*deploy(folder, "--dry-run", "--json")).json["plan"]
    assert [(route["layer"], route["monitored"]) for route in plan["routes"]] == [("n0", True), ("n4", True)]
    assert "samna" not in sys.modules


def test_without_the_library_the_exit_code_is_3(folder, cli, without_samna):
    for arguments in (deploy(folder), ("devices",)):
        result = cli(*arguments)
        assert result.code == 3
        assert "error[samna-missing]" in result.err
        assert samna_package.VENDOR_INDEX in result.err
    assert not (folder / "run" / "device.json").exists()


def test_devices(cli, samna, monkeypatch):
    result = cli("devices")
    assert result.code == 0
    assert KIT in result.out
    assert cli("devices", "--json").json == {"devices": [{"device": KIT, "target": "speck2f"}]}
    assert "looked for: speck2edevkit, speck2e" in cli("devices", "speck2e").out


def test_deploy_then_compare(folder, cli, samna):
    assert cli(*deploy(folder)).code == 0
    events = ("--events", folder / "data.npz", "--index", 0)
    path = folder / "run" / "events_hw.npz"
    result = cli("compare", folder / "run", path, *events, "--min-equal", 1)
    assert result.code == 0
    assert "100.00 %" in result.out
    recorded = read_recorded(path)
    write_recorded(path, replace(recorded, spikes=recorded.spikes[5:]))
    rows = cli("compare", folder / "run", path, *events, "--json").json["layers"]
    assert sum(row["sum_abs_difference"] for row in rows.values()) == 5
    failed = cli("compare", folder / "run", path, *events, "--min-equal", 1, "--json")
    assert failed.code == 1
    assert failed.json["error"]["code"] == "min-equal"


def test_usage_errors(folder, cli, samna):
    assert cli("deploy", folder / "run", "--events", folder / "data.npz").code == 2
    assert "device-target" in cli(*deploy(folder, "--device", "speck2edevkit:0")).err
    missing = cli("compare", folder / "run", folder / "none.npz", "--events", folder / "data.npz", "--index", 0)
    assert (missing.code, "file-missing" in missing.err) == (2, True)


def test_the_help_says_what_was_not_tried(cli):
    for verb in ("deploy", "devices", "compare"):
        assert cli(verb, "--help").code == 0
    assert "Not loaded by the vendor tool yet" in " ".join(cli("deploy", "--help").out.split())
    assert "not loaded by the vendor tool yet" in " ".join((samna_adapter.__doc__ or "").lower().split())


def test_the_public_name(deployment, recordings):
    counts = {"n4": deployment.emulate(recordings[0][0]).counts("n4").astype(np.float32)}
    assert nd.compare_with_chip(deployment, counts, recordings[0][0]).equal_share == 1

"""The whole way on a substitute kit, whose answers must be the emulator's."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.deploy.deploy import connected, deploy
from neurodeploy.deploy.lock import lock_path, locked
from neurodeploy.deploy.plan import make_plan
from neurodeploy.device import DeviceName
from neurodeploy.errors import ConfigError, DeviceError, EmulationError, EventError, ProgramError
from neurodeploy.graph.nodes import Conv2d, Flatten, Linear
from neurodeploy.recorded_file import read_recorded
from neurodeploy.target import TARGETS, load_target
from neurodeploy.targets.dynapcnn.samna_adapter import SamnaVendor
from tests.cli.conftest import chain, neuron, weights
from tests.deploy.fake_samna import Board, DvsEvent, Spike, fake_samna
from tests.targets.networks import as_float
from tests.targets.test_split import LARGE, random_events

KIT = "speck2fdevkit:0"


def test_what_the_kit_sends_is_what_the_emulator_says(samna, board, deployment, recordings, tmp_path):
    events, _ = recordings[0]
    deployed = deploy(deployment, KIT, events, tmp_path / "out")
    expected = deployment.emulate(events).spikes
    assert len(expected) > 200  # more than the kit hands over at a time
    found = deployed.recorded.spikes
    assert sorted(found.tolist()) == sorted((i, t + 7, c, y, x) for i, t, c, y, x in expected.tolist())
    assert (np.diff(found["t"]) >= 0).all()
    assert deployed.recorded.layers == deployment.program.layers
    comparison = nd.compare_with_chip(deployment, deployed.recorded, events)
    assert list(comparison.layers) == ["n0", "n4"]
    assert comparison.equal_share == 1
    assert samna.open_boards == []


def test_every_recording_starts_from_the_initial_state(samna, board, deployment, recordings):
    vendor = SamnaVendor(load_target("speck2f").chip)
    with vendor.open(DeviceName.parse(KIT)) as kit:
        runs = [kit.run(deployment.program, recordings[0][0]) for _ in range(2)]
    assert board.log.count("apply") == 2
    assert runs[0].spikes.tolist() == runs[1].spikes.tolist()


def test_the_files(samna, deployment, recordings, tmp_path):
    events, _ = recordings[0]
    deployed = deploy(deployment, KIT, events, tmp_path / "out", flash=True)
    device = json.loads((tmp_path / "out" / "device.json").read_text())
    assert device["plan"]["device"] == KIT
    assert device["vendor"] == "samna 0.0-fake"
    assert "not loaded by the vendor tool yet" in device["status"]
    assert device["spikes"]["n4"] == int(deployment.emulate(events).output_counts.sum())
    recorded = read_recorded(tmp_path / "out" / "events_hw.npz")
    assert recorded.spikes.tolist() == deployed.recorded.spikes.tolist()
    assert (recorded.layers, recorded.monitored) == (deployment.program.layers, ("n0", "n4"))
    power = (tmp_path / "out" / "power.csv").read_text().splitlines()
    assert power[:3] == ["t_us,rail,power_mw", "0,io,1", "0,ram,2"]
    assert power[-1] == "10000,vdda,5"
    assert (tmp_path / "out" / "flash.bin").read_bytes() == bytes([1, 2, 255])
    assert "value0" in json.loads((tmp_path / "out" / "configuration.vendor.json").read_text())


def test_events_that_are_no_spikes_of_a_layer_are_counted(samna, board, deployment, recordings, tmp_path):
    sensor = Spike()
    sensor.layer, sensor.feature, sensor.y, sensor.x, sensor.timestamp = 13, 0, 0, 0, 0
    board.foreign = [DvsEvent(), sensor, DvsEvent()]
    events, _ = recordings[0]
    deployed = deploy(deployment, KIT, events, tmp_path)
    assert deployed.run.other_events == {"DvsEvent": 2, "Spike of layer 13": 1}
    assert len(deployed.recorded.spikes) == len(deployment.emulate(events).spikes)


@pytest.fixture
def biased():
    head = [Flatten(), Linear(weights(3, 400), np.array([0, 0, 0.05], np.float32)), neuron()]
    return nd.compile(chain(Conv2d(weights(4, 2, 3, 3)), neuron(), *head), target="speck2f")


def test_the_slow_clock_runs_while_the_recording_does(samna, board, biased, recordings, tmp_path):
    events, _ = recordings[0]
    with pytest.raises(EmulationError, match="slow_clock_hz"):
        deploy(biased, KIT, events, tmp_path)
    with pytest.raises(ConfigError, match="whole hertz"):
        deploy(biased, KIT, events, tmp_path, slow_clock_hz=99.5)
    assert board.log == []
    deployed = deploy(biased, KIT, events, tmp_path, slow_clock_hz=1000)
    assert board.slow_clock_hz == 1000
    assert board.log.index("slow clock on") < board.log.index("slow clock off")
    expected = biased.emulate(events, slow_clock_hz=1000)
    assert len(deployed.recorded.spikes) == int(expected.output_counts.sum()) > 0


def test_a_kit_that_holds_something_else_is_not_trusted(samna, board, deployment, recordings, tmp_path):
    def damage(configuration):
        configuration.cnn_layers[deployment.program.entry_core].threshold_low = -3

    board.damage = damage
    with pytest.raises(ProgramError, match=r"threshold_low: -3 instead of") as caught:
        deploy(deployment, KIT, recordings[0][0], tmp_path)
    assert caught.value.code == "read-back"
    assert samna.open_boards == []
    assert not (tmp_path / "events_hw.npz").exists()


def test_a_chip_that_never_stops_is_an_error(samna, board, deployment, recordings, tmp_path):
    board.never_quiet = True
    with pytest.raises(DeviceError, match="still sends events 10 s after"):
        deploy(deployment, KIT, recordings[0][0], tmp_path)


def test_times_beyond_32_bits_are_refused(samna, deployment, recordings, tmp_path):
    events = recordings[0][0].copy()
    events["t"] += 2**32
    with pytest.raises(EventError, match="32 bits of microseconds"):
        deploy(deployment, KIT, events, tmp_path)


def test_boards_are_counted_by_kind_and_address(samna, monkeypatch):
    fake = fake_samna(("Speck2fDevKit", Board()), ("Davis 346", Board()), ("Speck2fModuleDevKit", Board()))
    second = Board()
    fake.device.get_all_devices().append(None)  # a copy: what others see does not change
    monkeypatch.setattr("neurodeploy.targets.dynapcnn.samna_adapter.load_samna", lambda: fake)
    assert [str(kit) for kit, _ in connected(["speck2f"])] == [KIT, "speck2fmodule:0"]
    fake = fake_samna(("Speck2fDevKit", Board()), ("Speck2fDevKit", second))
    vendor = SamnaVendor(load_target("speck2f").chip)
    # The lower address comes first; it is the one listed last.
    assert [info.board is second for _, info in vendor._found()] == [True, False]


def test_what_the_library_raises_is_one_message(samna, board, deployment, recordings, tmp_path):
    def broken(*arguments):
        raise RuntimeError("usb transfer failed")

    board.get_stop_watch = broken
    with pytest.raises(DeviceError, match="failed while it used speck2fdevkit:0: RuntimeError: usb transfer") as caught:
        deploy(deployment, KIT, recordings[0][0], tmp_path)
    assert (caught.value.code, caught.value.exit_code) == ("samna-failed", 3)
    assert samna.open_boards == []
    samna.device.open_device = broken
    with pytest.raises(DeviceError, match="cannot open speck2fdevkit:0: RuntimeError"):
        deploy(deployment, KIT, recordings[0][0], tmp_path)
    del samna.device.get_all_devices
    with pytest.raises(DeviceError, match=r"cannot list the kits: AttributeError: .*get_all_devices"):
        connected(["speck2f"])


def test_the_clock_starts_when_everything_is_ready(samna, board, deployment, recordings, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(Spike, "__init__", lambda spike: made.append(board.watch_on), raising=False)
    deploy(deployment, KIT, recordings[0][0], tmp_path)
    assert made[:300] == [False] * 300  # the host's events; later ones are the chip's


def test_a_recording_without_events(samna, deployment, recordings, tmp_path):
    deployed = deploy(deployment, KIT, recordings[0][0][:0], tmp_path, until_us=1000, power_hz=None)
    assert len(deployed.recorded.spikes) == len(deployed.run.power) == 0
    assert (tmp_path / "power.csv").read_text() == "t_us,rail,power_mw\n"


def test_recorded_spikes_serve_the_first_divergence(samna, deployment, recordings, tmp_path):
    events, _ = recordings[0]
    recorded = deploy(deployment, KIT, events, tmp_path).recorded
    given = {"recorded": recorded.spikes, "recorded_layers": recorded.monitored, "tolerance_us": 10}
    assert nd.first_divergence(deployment, events, "event_driven", "recorded", **given) is None


def test_routes_end_with_the_kit(samna, deployment, recordings, tmp_path):
    deploy(deployment, KIT, recordings[0][0], tmp_path)
    assert samna.running == []


def test_a_missing_kit_names_the_boards(samna, deployment, recordings, tmp_path):
    with pytest.raises(DeviceError, match=r"speck2fdevkit \(Speck2fDevKit\).*connected: speck2fdevkit:0") as caught:
        deploy(deployment, "speck2fdevkit:1", recordings[0][0], tmp_path)
    assert (caught.value.code, caught.value.exit_code) == ("kit-missing", 3)
    assert (tmp_path / "configuration.vendor.json").exists()  # the vendor's file needs no kit


def test_a_kit_in_use_is_named_with_the_process(samna, deployment, recordings, tmp_path):
    # Another process holds the lock; it says so, and waits until its input closes.
    text = (
        "import sys, tempfile; tempfile.gettempdir = lambda: sys.argv[1]\n"
        "from neurodeploy.deploy.lock import locked\n"
        "from neurodeploy.device import DeviceName\n"
        "with locked(DeviceName('speck2fdevkit')): print('held', flush=True); sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", text, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(DeviceError, match=rf"in use by the process with id {other.pid} ") as caught:
            deploy(deployment, KIT, recordings[0][0], tmp_path)
        assert (caught.value.code, caught.value.exit_code) == ("kit-locked", 3)
        other.communicate()
    with locked(DeviceName.parse(KIT)):  # the lock of an ended process is free
        assert lock_path(DeviceName.parse(KIT)).read_text() == f"{os.getpid()}\n"
    deploy(deployment, KIT, recordings[0][0], tmp_path)


@pytest.mark.parametrize("text", ["", ":0", "speck2fdevkit:", "speck2fdevkit:x", "speck2fdevkit:-1", "a:1:2"])
def test_malformed_device_names(text):
    with pytest.raises(ConfigError, match="name:index"):
        DeviceName.parse(text)


def test_the_plan_checks_the_device(deployment, recordings):
    events, _ = recordings[0]
    with pytest.raises(DeviceError, match=r"no kind of kit called 'lab'.*speck2fdevkit"):
        make_plan(deployment, "lab:0", events)
    with pytest.raises(ConfigError, match="has a speck2e; the program is for speck2f"):
        make_plan(deployment, "speck2edevkit:0", events)
    plan = make_plan(deployment, "Speck2fDevKit", events, until_us=50_000)
    assert (str(plan.device), plan.events, plan.duration_us) == (KIT, 300, 50_000)
    assert plan.monitored == ("n0", "n4")
    assert [route.takes_input for route in plan.routes] == [True, False]
    assert plan.routes[0].destinations[0].startswith("n4 (core ")


def test_a_chip_of_ones_own_has_kits_of_its_own(samna, small_graph, recordings, tmp_path):
    text = (TARGETS / "speck2f" / "chip.yaml").read_text()
    own = text.replace("name: speck2f\n", "name: mine\n").replace("speck2fdevkit", "labkit")
    (tmp_path / "mine.yaml").write_text(own)
    deployment = nd.compile(small_graph, target=tmp_path / "mine.yaml")
    deployed = deploy(deployment, "labkit", recordings[0][0], tmp_path / "out")
    assert deployed.plan.target == "mine"
    (tmp_path / "mine.yaml").write_text(own[: own.index("devices:")] + "devices: []\n")
    without = nd.compile(small_graph, target=tmp_path / "mine.yaml")
    with pytest.raises(ConfigError, match=r"has a speck2f; the program is for mine.*no kit has a mine"):
        make_plan(without, KIT, recordings[0][0])


def test_a_split_layer_is_one_layer_in_the_recording(samna, board, tmp_path):
    deployment = nd.compile(as_float(LARGE), monitor_layers=["conv1", "conv2"])
    events = random_events(np.random.default_rng(0), (2, 34, 34), 12)
    deployed = deploy(deployment, KIT, events, tmp_path / "out")
    expected = deployment.emulate(events, record=["conv1", "conv2"]).spikes
    assert set(expected["c"][expected["layer"] == 1] // 32) == {0, 1}  # both parts fired
    later = sorted((i, t + 7, c, y, x) for i, t, c, y, x in expected.tolist())
    assert sorted(deployed.recorded.spikes.tolist()) == later
    assert deployed.recorded.monitored == ("conv1", "conv2")
    assert nd.compare_with_chip(deployment, deployed.recorded, events).equal_share == 1


@pytest.mark.parametrize("shape", [(16, 12), (15, 14)])
def test_events_reach_the_chip_through_the_pre_processing(samna, board, tmp_path, small_graph, shape):
    region = {"y": 1, "x": 0, "height": 12, "width": 12}
    settings = {"dvs": {"sensor_size": shape, "region": region, "mirror_x": True}, "decimators": {"n4": 2}}
    deployment = nd.compile(small_graph, settings=settings)
    events = random_events(np.random.default_rng(0), (2, *shape), 300)
    deployed = deploy(deployment, KIT, events, tmp_path / "out")
    expected = deployment.emulate(events, record=["n4"]).spikes
    later = sorted((i, t + 7, c, y, x) for i, t, c, y, x in expected.tolist())
    assert sorted(deployed.recorded.spikes.tolist()) == later
    assert len(later) > 0

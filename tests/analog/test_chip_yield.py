"""The yield of a network on many virtual chips: the same wherever it is computed, and what the parts say."""

import numpy as np
import pytest

import neurodeploy as nd
from neurodeploy.analog.monte_carlo import CAUSES, Conditions, only
from neurodeploy.errors import ConfigError
from neurodeploy.events import SpikeTimes, save_spike_times
from neurodeploy.executor import InProcess, ProcessPool
from tests.cli.conftest import cli  # noqa: F401
from tests.targets.analog.networks import chain, spikes


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("yield")
    nd.compile(chain(), target="bss2").save(folder / "run")
    deployment = nd.open(folder / "run")
    # What the network without mismatch answers is right: its accuracy is 1 but for patterns without an answer.
    answers = deployment.emulate(spikes()).answers()
    save_spike_times(folder / "data.npz", SpikeTimes(spikes(), np.maximum(answers, 0)))
    return folder / "run", folder / "data.npz", float(np.mean(answers >= 0))


def test_the_same_here_and_in_other_processes(run):
    folder, data, nominal = run
    here = nd.chip_yield(folder, data, chips=5, first_serial=3, study=2, executor=InProcess())
    there = nd.chip_yield(folder, data, chips=5, first_serial=3, study=2, executor=ProcessPool(2))
    assert here.accuracies.tolist() == there.accuracies.tolist()
    assert here.to_dict(0.5) == there.to_dict(0.5)
    assert here.nominal == nominal
    assert here.serials.tolist() == [3, 4, 5, 6, 7]
    assert len(set(here.accuracies.tolist())) > 1
    assert list(here.causes) == list(CAUSES)
    assert here.assumptions


def test_a_chip_is_its_serial_number(run):
    folder, data, _ = run
    many = nd.chip_yield(folder, data, chips=4)
    two = nd.chip_yield(folder, data, chips=2, first_serial=2)
    assert many.accuracies[2:].tolist() == two.accuracies.tolist()
    patterns = nd.open(folder).emulate(spikes(), serial=2, noise=True).answers()
    labels = np.load(data)["labels"]
    assert two.accuracies[0] == np.mean(patterns == labels)


def test_conditions_matter(run):
    folder, data, _ = run
    raw = nd.chip_yield(folder, data, chips=6, conditions=Conditions(noise=False))
    trimmed = nd.chip_yield(folder, data, chips=6, conditions=Conditions(calibration="residual", noise=False))
    assert trimmed.accuracies.mean() > raw.accuracies.mean()
    assert trimmed.settings["calibration"] == "residual"
    first = nd.chip_yield(folder, data, chips=2, samples=5)
    assert first.patterns == 5


def test_a_group_of_deviations_alone(run):
    deployment = nd.open(run[0])
    (found, _) = deployment.virtual_chip(0).deviations(deployment.program)
    kept = only(found, CAUSES["time constants"])
    assert np.array_equal(kept.tau_mem, found.tau_mem)
    assert (kept.weight == 1).all()
    assert (kept.threshold_shift == 0).all()
    assert (kept.t_ref == 1).all()
    assert only(found, CAUSES["trial noise"]).apply(deployment.program.layers[0].nominal) == (
        deployment.program.layers[0].nominal
    )


def test_what_cannot_be_run_is_refused(run, tmp_path):
    folder, data, _ = run
    with pytest.raises(ConfigError, match="0 chips"):
        nd.chip_yield(folder, data, chips=0)
    with pytest.raises(ConfigError, match="3 chips, 4 of them"):
        nd.chip_yield(folder, data, chips=3, study=4)
    save_spike_times(tmp_path / "other.npz", SpikeTimes(spikes(), np.full(len(spikes()), 9)))
    with pytest.raises(ConfigError, match="10 classes, the network has 3 outputs"):
        nd.chip_yield(folder, tmp_path / "other.npz")
    with pytest.raises(ConfigError, match="not a compiled run folder"):
        nd.chip_yield(tmp_path, data)


def test_the_verb(cli, run, tmp_path):  # noqa: F811
    folder, data, nominal = run
    options = ("--data", data, "--chips", 4, "--causes", 2, "--workers", 1, "--above", 0.1)
    done = cli("yield", folder, *options, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert "of 4 virtual bss2 chips stay above 10.0%" in done.out
    assert "thresholds and resets" in done.out
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {"yield.json", "yield.csv", "yield.svg", "yield.html", "yield.yaml"}
    found = cli("yield", folder, *options, "-o", tmp_path / "out", "--json").json
    assert found["accuracy"]["nominal"] == nominal
    again = cli("yield", folder, "--config", tmp_path / "out" / "yield.yaml", "--json").json
    assert again == found
    few = cli("yield", folder, *options[:-1], 1.0, "--min-share", 1.0, "-o", tmp_path / "out", "--json")
    assert few.code == 1
    assert few.json["error"]["code"] == "yield"
    assert few.json["above"] == 1.0
    wrong = cli("yield", folder, "--data", data, "--above", 93)
    assert wrong.code == 2
    assert "above is 93" in wrong.err
    assert cli("yield", folder, "--data", data, "--executor", "threads").code == 2
    assert cli("yield", tmp_path, "--data", data).code == 2

"""What Triton compiled of spike times and accumulation, run without a GPU (``ptx_on_cpu.py``), against the processor's.

NEURODEPLOY_ALL_KERNELS=1 adds all that the interpreter checks (minutes).
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")

from neurodeploy.gpu import flags, launch
from neurodeploy.kernel import Neuron
from neurodeploy.kernels import saf
from tests.gpu import saf_cases, spike_time_cases
from tests.gpu.ptx_on_cpu import COMPILER, run_compiled
from tests.gpu.spike_time_cases import HARD, ONCE, SOFT

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")


@pytest.fixture(autouse=True)
def compiled_on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "run", run_compiled)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    flags.flags(torch.device("cpu")).zero_()


@pytest.mark.parametrize(
    ("ratios", "each", "options", "dtype"),
    [((2.0,), False, SOFT, torch.float64), ((3.3, 0.6, 1 + 1e-9), True, HARD, torch.float32)],
    ids=["quadratic", "all-solvers"],
)
def test_spike_times(ratios: tuple[float, ...], each: bool, options: dict[str, Any], dtype: torch.dtype) -> None:
    for ratio in ratios:
        neuron = spike_time_cases.neurons(ratio, 50, each, options)
        tensors = spike_time_cases.case(neuron, dtype, batch=3, inputs=40, slots=3, count=50)
        counts = spike_time_cases.check_against_cpu(*tensors, neuron, device="cpu", max_spikes=400)
        assert int(counts.sum()) > 500


@pytest.mark.parametrize("size", [1, 16])
def test_sizes_that_the_compiler_knows(size: int) -> None:
    """Integers of 1 become constants, multiples of 16 are declared as such."""
    neuron = spike_time_cases.neurons(2.0, 0, False, ONCE)
    times = torch.linspace(0, 0.04, size * size, dtype=torch.float64).reshape(size, size, 1)
    weight = (torch.rand(size, size, dtype=torch.float64) + 2) / neuron.peak_response()
    counts = spike_time_cases.check_against_cpu(times, weight, neuron, device="cpu", max_spikes=size)
    assert (counts == 1).all()


@pytest.mark.parametrize(
    ("form", "spikes", "dtype"),
    [("closed", "multi", torch.float32), ("recurrent", 2, torch.float64), ("lif", "single", torch.float32)],
)
def test_spike_accumulation(form: saf.Form, spikes: object, dtype: torch.dtype) -> None:
    neuron = Neuron(spikes=spikes)  # type: ignore[arg-type]
    saf_cases.check_against_cpu(form, neuron, dtype, (5, 3, 1013), per_neuron=True, device="cpu")


@pytest.mark.skipif(not os.environ.get("NEURODEPLOY_ALL_KERNELS"), reason="set NEURODEPLOY_ALL_KERNELS=1")
def test_all_that_the_interpreter_checks() -> None:
    files = sorted((Path(__file__).parent / "interpreted").glob("check_*.py"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *map(str, files)],
        env={**os.environ, "NEURODEPLOY_RUN_PTX": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

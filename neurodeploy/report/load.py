"""The report's section on load, latency and energy: one recording against the published figures of the chip."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from neurodeploy.deployment import Deployment
from neurodeploy.emulate.workload import Workload, WorkloadMeter
from neurodeploy.events.array import make_events
from neurodeploy.report import charts
from neurodeploy.target import SPIKE_DTYPE

BIN_US = 1000


def load_section(deployment: Deployment, sample: Mapping[str, NDArray[Any]]) -> dict[str, Any] | None:
    """What the page shows of the load of the recording in ``sample.npz``; None for a recording without events."""
    if not sample["t"].size:
        return None
    load = _workload(deployment, sample)
    cores = []
    for core in load.cores:
        peak, at = load.peak(core)
        cores.append(
            {
                "core": core.core,
                "part": core.part,
                "svg": Markup(charts.rates(load.rate(core).tolist(), core.limit.value)),
                "mean": f"{float(np.mean(load.rate(core))) / 1e6:.3g}",
                "peak": f"{peak / 1e6:.3g}",
                "at": f"{at / 1e3:g}",
                "limit": f"{core.limit.value / 1e6:g}",
                "over": peak > core.limit.value,
                "delay": f"{core.largest_delay_us:,.1f}",
            }
        )
    latency = load.latency
    return {
        "bin_ms": f"{load.bin_us / 1e3:g}",
        "cores": cores,
        "sources": list(dict.fromkeys(f"{core.limit.value / 1e6:g} M: {core.limit.source}" for core in load.cores)),
        "warnings": load.warnings,
        "latency": None
        if latency is None
        else {
            "median": f"{latency.median_us:,.1f}",
            "p99": f"{latency.p99_us:,.1f}",
            "largest": f"{latency.largest_us:,.1f}",
            "answers": f"{latency.answers:,}",
        },
        "energy": load.energy.rows(),
    }


def _workload(deployment: Deployment, sample: Mapping[str, NDArray[Any]]) -> Workload:
    target = deployment.load_target()
    events = make_events(sample["t"], sample["x"], sample["y"], sample["p"])
    spikes = np.empty(sample["layer"].size, SPIKE_DTYPE)
    for name, key in (("layer", "layer"), ("t", "spike_t"), ("c", "c"), ("y", "spike_y"), ("x", "spike_x")):
        spikes[name] = sample[key]
    meter = WorkloadMeter(target.family.performance(target.chip), BIN_US, 0)
    meter.add(target.family.work(deployment.program, events, spikes), spikes.size)
    return meter.result(int(sample["duration_us"]))

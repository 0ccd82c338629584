"""A published gap, explained and closed: 98.5 % in simulation and 95.4 % on the chip, from one NIR file.

The network is the convolutional one of the NIR paper (Pedersen et al. 2024), the recordings 100 of N-MNIST's test set.

python examples/06_a_published_gap.py [--data FOLDER] [--out FOLDER] [--all]

FOLDER holds speck-reference/cnn_sinabs.nir and nmnist-small/nmnist_test.npz; by default ../shared/data beside the
repository, and without the files there is nothing to show. Time steps take long, so that by default the waterfall is
made of the recordings that the chip gets wrong and 20 more; --all takes the whole set, some minutes. --out keeps the
run folder with its report.html.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np

import neurodeploy as nd
from neurodeploy.events import load_npz
from neurodeploy.quantize import with_v_min
from neurodeploy.report.report import write_report
from neurodeploy.validation.sample import write_sample

parser = argparse.ArgumentParser()
parser.add_argument("--data", type=Path, default=Path(__file__).resolve().parents[2] / "shared" / "data")
parser.add_argument("--out", type=Path)
parser.add_argument("--all", action="store_true")
options = parser.parse_args()
network = options.data / "speck-reference" / "cnn_sinabs.nir"
recordings_file = options.data / "nmnist-small" / "nmnist_test.npz"
if not (network.is_file() and recordings_file.is_file()):
    print(f"{network} and {recordings_file} are not here: nothing to show.")
    sys.exit()

# 1. As published. NIR has no lower bound of the potential; sinabs, which ran this file on the chip, takes -threshold.
graph = with_v_min(nd.load(network), "-threshold")
recordings = load_npz(recordings_file, sensor_size=(2, 34, 34))
published = nd.compile(graph, target="speck2f")
chip = nd.validate(published, recordings, runs=["event_driven"])
print(f"as published, event by event: {chip.accuracy['event_driven']:.0%} of {len(recordings)} recordings")

# 2. Why? One change at a time from the trained network in time steps to the chip's events; the bars sum to the gap.
wrong = np.flatnonzero(chip.runs["event_driven"].predictions != chip.labels)
chosen = recordings if options.all else recordings.subset([*wrong, *np.setdiff1d(np.arange(20), wrong)])
gap = nd.validate(published, chosen, runs=["float", "event_driven"])
right = {name: round(share * len(chosen)) for name, share in gap.accuracy.items()}
print(f"of {len(chosen)} recordings: {right['float']} right in time steps, {right['event_driven']} on the chip")
for bar in gap.waterfall.bars:
    print(f"  {bar.cause:20s} {bar.gained} became right, {bar.lost} became wrong")
cause, points = min(gap.waterfall.points.items(), key=lambda item: item[1])
print(
    f"the cause: {cause} ({points:+.1f} points). The bound clips at every event on the chip, once a step in training."
)
print(f"it begins in recording {gap.divergent_recording}: {gap.first_divergence}")

# 3. Which bound closes the gap? All integers of the chip's 16-bit potential are there to be used.
sweep = nd.sweep(graph, recordings, v_min=["-threshold", -4, "lowest"])
for row in sweep.rows:
    print(f"  v_min {row.v_min}: {row.accuracy:.0%}, {row.synops:,.0f} SynOps a recording")
best = sweep.best
print(f"closed by v_min={best.v_min!r}: {best.accuracy:.0%}")

# 4. The deployment that ships: validated, with other orders of event delivery, its load, and a page to look at.
deployment = nd.compile(graph, target="speck2f", v_min=best.v_min)
orders = nd.order_robustness(deployment, recordings, orders=3)
print(f"in {len(orders.trials)} other orders of delivery {orders.answers_changed:.1%} of the answers change")
load = deployment.workload(recordings[0][0])
busiest = max(load.cores, key=lambda core: load.peak(core)[0] / core.limit.value)
peak, at_us = load.peak(busiest)
print(
    f"busiest core: {busiest.part}, {peak / 1e6:.1f} M SynOps/s at {at_us / 1e3:g} ms ({busiest.limit.value / 1e6:g} M)"
)
for warning in load.warnings:
    print(f"  {warning}")
with tempfile.TemporaryDirectory() as temporary:
    folder = options.out or Path(temporary)
    published.save(folder)
    gap.save(folder)
    write_sample(folder, published, chosen)
    sweep.save(folder)
    page = write_report(folder)
    print(f"{page.name}: {page.stat().st_size // 1024} kB" + (f" in {folder}" if options.out else ""))

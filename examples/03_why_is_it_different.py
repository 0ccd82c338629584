"""A network that loses accuracy on the chip: split the loss by cause, find the first spike that differs, close the gap.

python examples/03_why_is_it_different.py
"""

import torch
from torch import nn

import neurodeploy as nd
from neurodeploy.events import dataset_to_raster, simulate_digit_events

DT_US = 2000
train, test = simulate_digit_events(600, 100, seed=0)


def quick_network(v_min):
    """A network made in a second: random filters, and a readout fitted to their spikes by least squares."""
    torch.manual_seed(3)
    filters = nn.Conv2d(2, 12, kernel_size=5, stride=2, padding=1, bias=False)
    filters.weight.data -= filters.weight.data.mean((1, 2, 3), keepdim=True)
    features = nn.Sequential(
        filters,
        nd.nn.IAF(threshold=0.5, v_min=None if v_min is None else 0.5 * v_min, batch_size=1),
        nd.nn.SumPool2d(2),
    )
    rasters = (torch.from_numpy(dataset_to_raster(train, [i], dt_us=DT_US)[0]) for i in range(len(train)))
    with torch.no_grad():
        spikes = torch.stack([features(raster).sum(0).flatten() for raster in rasters])  # [recordings, 768]
    spikes /= spikes.mean()
    goal = nn.functional.one_hot(torch.from_numpy(train.labels), 10).float()
    readout = nn.Linear(spikes.shape[1], 10, bias=False)
    readout.weight.data = torch.linalg.solve(spikes.T @ spikes + 30 * torch.eye(spikes.shape[1]), spikes.T @ goal).T
    readout.weight.data *= 2 / readout.weight.data.abs().max()
    network = nn.Sequential(*features, nn.Flatten(), readout, nd.nn.IAF(threshold=1.0, v_min=v_min, batch_size=1))
    return nd.trace(network, torch.zeros(1, 2, 34, 34))


# 1. How large is the gap, and what does it come from? The neurons are bounded at minus their threshold, as is usual in
# training for this chip. The bars sum to the gap.
graph = quick_network(v_min=-1.0)
deployment = nd.compile(graph, target="speck2f")
gap = nd.validate(deployment, test, dt_us=DT_US)
print(f"accuracy: {gap.accuracy['float']:.0%} as trained, {gap.accuracy['event_driven']:.0%} event by event")
for bar in gap.waterfall.bars:
    print(f"  {bar.cause:20s} {bar.points:+6.1f} points ({bar.gained} became right, {bar.lost} became wrong)")
print(f"  both bars of v_min: {gap.waterfall.points['v_min']:+.1f} points")

# 2. Where does it begin? The first neuron and time at which two runs of one recording differ.
events, label = test[gap.divergent_recording]
print("first difference:", nd.first_divergence(deployment, events, "time_stepped", "event_driven", dt_us=DT_US))

# 3. Which setting helps? The same network compiled in other ways.
result = nd.sweep(graph, test, v_min=[None, -4, "lowest"], weight_bits=[8, 4])
for row in result.rows:
    bound = "as trained" if row.v_min is None else row.v_min
    print(f"  v_min {bound}, {row.weight_bits} bits: {row.accuracy:.0%}, {row.synops:,.0f} SynOps a recording")

# 4. The bound is the cause, so leave it out of training too.
unbounded = nd.compile(quick_network(v_min=None), target="speck2f")
closed = nd.validate(unbounded, test, dt_us=DT_US)
print(f"trained without v_min: {closed.accuracy['float']:.0%}, event by event {closed.accuracy['event_driven']:.0%}")

# 5. How long may a time step be so that training sees what the chip does?
for name, compiled in (("with v_min", deployment), ("without", unbounded)):
    advice = nd.largest_dt(compiled, test[:30], [1000, 4000, 16_000], min_agreement=0.95, max_rate_difference=0.1)
    for step in advice.candidates:
        print(f"  {name}, {step.dt_us} us: {step.agreement:.0%} agree, spike rates {step.rate_difference:.0%} apart")
    print(f"{name}: " + ("no step is short enough" if advice.dt_us is None else f"at most {advice.dt_us} us"))

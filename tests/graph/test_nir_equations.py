"""Every NIR node kind against its own equation: differential equations are integrated at high precision.

Tolerances are derived where they are used. ``EPS`` is the relative rounding of one float32: the graph's factors of a
step are float32, everything else here is float64.
"""

import nir
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.signal import correlate

from neurodeploy.graph.nir_reader import read_nir
from neurodeploy.graph.simulate import simulate

pytest.importorskip("torch")

EPS = 2.0**-24
DT = 1e-3
STEPS = 60
rng = np.random.default_rng(5)


def load(tmp_path, node, shape, **options):
    """The graph of a file with this one node between Input and Output."""
    path = tmp_path / "node.nir"
    nodes = {"in": nir.Input({"input": np.array(shape)}), "n": node, "out": nir.Output({"output": np.array([1])})}
    nir.write(path, nir.NIRGraph(nodes, [("in", "n"), ("n", "out")], type_check=False))
    return read_nir(path, **options)


def run(graph, x):
    return simulate(graph, x, dtype="float64")


def integrate(derivative, start, x):
    """States at the ends of the steps, for inputs that are constant over a step; relative error about 1e-12."""
    states, state = [], np.asarray(start, np.float64)
    for value in x:
        solved = solve_ivp(
            lambda _t, y, value=value: derivative(y, value), (0, DT), state, "DOP853", rtol=1e-12, atol=1e-15
        )
        state = solved.y[:, -1]
        states.append(state)
    return np.array(states)


def crossing(derivative, start, threshold, component=0):
    """When a potential first rises through the threshold, in seconds."""

    def reached(_t, y):
        return y[component] - threshold

    reached.terminal, reached.direction = True, 1
    solved = solve_ivp(lambda _t, y: derivative(y), (0, 10), start, "DOP853", events=reached, rtol=1e-12, atol=1e-15)
    return float(solved.t_events[0][0])


def full(*values):
    return [np.full(2, value, np.float64) for value in values]


#: Two neurons with different parameters: tau (s), r, v_leak.
TAU, R, V_LEAK = np.array([0.01, 0.004]), np.array([2.0, 0.5]), np.array([0.25, -0.125])
STEP_CURRENT = np.repeat(rng.normal(size=(6, 2)), 10, 0)


def schemes():
    return pytest.mark.parametrize("scheme", ["euler", "zoh", "exp_delta"])


def deviation(scheme, v, x):
    """Bound of |discrete - continuous| for LI under a current that is constant over the steps (see graph/README.md)."""
    h = (DT / TAU).max()
    rounding = 2 * STEPS * EPS * (np.abs(v).max() + np.abs(R * x).max())
    target = V_LEAK + R * x
    if scheme == "euler":
        # e' = a e + (a - exp(-h)) (v - target): a geometric series with the sum |a - exp(-h)| / h.
        return rounding + (np.expm1(-h) + h) / h * max(np.abs(v - target).max(), np.abs(V_LEAK - target).max(), 2)
    if scheme == "exp_delta":
        # Only the gain differs, h instead of 1 - exp(-h).
        return rounding + (h / -np.expm1(-h) - 1) * np.abs(R * x).max()
    return rounding


@schemes()
def test_li(tmp_path, scheme):
    graph = load(tmp_path, nir.LI(TAU, R, V_LEAK), (2,), dt_us=DT * 1e6, scheme=scheme)
    expected = integrate(lambda v, x: (V_LEAK - v + R * x) / TAU, [0, 0], STEP_CURRENT)
    error = np.abs(run(graph, STEP_CURRENT) - expected).max()
    bound = deviation(scheme, expected, STEP_CURRENT)
    assert error <= bound
    if scheme != "zoh":
        assert error > deviation("zoh", expected, STEP_CURRENT)  # the schemes do differ


def test_i(tmp_path):
    graph = load(tmp_path, nir.I(R), (2,))
    # The input of a step is a charge: a current of x / dt over the step.
    expected = integrate(lambda _v, x: R * x / DT, [0, 0], STEP_CURRENT)
    assert np.abs(run(graph, STEP_CURRENT) - expected).max() <= 2 * STEPS * EPS * np.abs(R * STEP_CURRENT).sum(0).max()


@schemes()
def test_lif(tmp_path, scheme):
    """A constant current: intervals between spikes are those of the equation, rounded up to whole steps."""
    threshold, v_reset, current = 0.8, 0.1, 0.6
    node = nir.LIF(*full(0.01, 2.0, 0.05, threshold), v_reset=np.full(2, v_reset))
    graph = load(tmp_path, node, (2,), dt_us=DT * 1e6, scheme=scheme, compare=">")
    found = np.flatnonzero(run(graph, np.full((STEPS, 2), current))[:, 0]) + 1

    def derivative(v):
        return (0.05 - v + 2.0 * current) / 0.01

    h = DT / 0.01
    slack = 4 * STEPS * EPS
    if scheme == "euler":
        slack += (np.expm1(-h) + h) / h * 1.25  # 1.25 = v_leak + r x, the largest distance from it
    elif scheme == "exp_delta":
        slack += (h / -np.expm1(-h) - 1) * 2.0 * current
    assert len(found) > 3
    for start, intervals in ((0.0, found[:1]), (v_reset, np.diff(found))):
        earliest, latest = (crossing(derivative, [start], threshold + sign * slack) for sign in (-1, 1))
        assert (intervals >= np.ceil(earliest / DT)).all()
        assert (intervals <= np.ceil(latest / DT)).all()
        if scheme == "zoh":
            assert np.ceil(earliest / DT) == np.ceil(latest / DT)  # nothing is left open


def test_if(tmp_path):
    threshold, v_reset, r, charge = 1.0, -0.25, 2.0, 0.07
    graph = load(tmp_path, nir.IF(*full(r, threshold), np.full(2, v_reset)), (2,), compare=">")
    found = np.flatnonzero(run(graph, np.full((STEPS, 2), charge))[:, 0]) + 1
    for start, intervals in ((0.0, found[:1]), (v_reset, np.diff(found))):
        time = crossing(lambda _v: [r * charge / DT], [start], threshold)
        assert len(intervals)
        assert (intervals == np.ceil(time / DT)).all()


CUBA = {"tau_syn": 0.005, "tau_mem": 0.02, "r": 1.5, "v_leak": 0.05, "w_in": 2.0}


def cuba(y, x):
    current, v = y
    return [
        (-current + CUBA["w_in"] * x) / CUBA["tau_syn"],
        (CUBA["v_leak"] - v + CUBA["r"] * current) / CUBA["tau_mem"],
    ]


def cuba_slack(states):
    # The membrane takes the current at the end of a step for all of it: off by at most the current's change in a step.
    currents = np.concatenate([[0], states[:, 0]])
    return CUBA["r"] * np.abs(np.diff(currents)).max() + 8 * STEPS * EPS * np.abs(states).max()


def test_cuba_li(tmp_path):
    values = {key: np.full(2, value) for key, value in CUBA.items()}
    graph = load(tmp_path, nir.CubaLI(**values), (2,), dt_us=DT * 1e6, scheme="zoh")
    expected = integrate(cuba, [0, 0], STEP_CURRENT[:, 0])
    assert np.abs(run(graph, STEP_CURRENT)[:, 0] - expected[:, 1]).max() <= cuba_slack(expected)
    synapse = simulate(graph, STEP_CURRENT, dtype="float64")
    assert synapse.shape == (STEPS, 2)


def test_the_synaptic_current_of_cuba_li_is_exact(tmp_path):
    values = {key: np.full(2, value) for key, value in {**CUBA, "r": 1.0}.items()}
    synapse = load(tmp_path, nir.CubaLI(**values), (2,), dt_us=DT * 1e6, scheme="zoh").nodes["n.synapse"]
    assert synapse.decay == np.float32(np.exp(-DT / CUBA["tau_syn"]))
    assert synapse.input_gain == np.float32(CUBA["w_in"] * (1 - np.exp(-DT / CUBA["tau_syn"])))


def test_cuba_lif(tmp_path):
    threshold, current = 1.0, 1.1
    values = {key: np.full(2, value) for key, value in CUBA.items()}
    node = nir.CubaLIF(**values, v_threshold=np.full(2, threshold), v_reset=np.zeros(2))
    graph = load(tmp_path, node, (2,), dt_us=DT * 1e6, scheme="zoh", compare=">")
    x = np.full((STEPS, 2), current)
    first = np.flatnonzero(run(graph, x)[:, 0])[0] + 1
    slack = cuba_slack(integrate(cuba, [0, 0], x[:, 0]))
    earliest, latest = (
        crossing(lambda y: cuba(y, current), [0, 0], threshold + sign * slack, component=1) for sign in (-1, 1)
    )
    assert np.ceil(earliest / DT) <= first <= np.ceil(latest / DT)


#: Inputs of the single-neuron experiment of the NIR paper: one step in ten, dt 100 us (paper/01_lif, BSD-3).
PULSES = "0000001000000000000000100001000110010100110111111111110000000000000111111111111000001100000000000000"


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [
        # exact, Nengo, Norse, snnTorch, SpiNNaker2
        ("euler", [460, 510, 710, 760]),
        ("zoh", [460, 510, 710, 760]),
        # sinabs, rockpool
        ("exp_delta", [450, 500, 710, 760]),
    ],
)
@pytest.mark.parametrize("compare", [">", ">="])
def test_the_schemes_give_the_published_spike_times(tmp_path, scheme, expected, compare):
    node = nir.LIF(*(np.array([value]) for value in (0.0025, 1.0, 0.0, 0.1)))
    graph = load(tmp_path, node, (1,), dt_us=100, scheme=scheme, compare=compare, reset="subtract")
    x = np.array([[float(pulse)] + [0.0] * 9 for pulse in PULSES]).reshape(-1, 1)
    assert np.flatnonzero(run(graph, x)[:, 0]).tolist() == expected


def test_threshold(tmp_path):
    x = np.array([[0.5, 0.5], [0.75, 0.25]])
    graph = load(tmp_path, nir.Threshold(np.array([0.5, 0.25])), (2,), compare=">")
    assert run(graph, x).tolist() == [[0, 1], [1, 0]]


def test_scale_and_linear_maps(tmp_path):
    weight, bias = rng.normal(size=(3, 2)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    assert np.array_equal(run(load(tmp_path, nir.Scale(R), (2,)), STEP_CURRENT), R * STEP_CURRENT)
    for node, shift in ((nir.Affine(weight, bias), bias), (nir.Linear(weight), 0)):
        # A sum of three terms in float64.
        found, expected = run(load(tmp_path, node, (2,)), STEP_CURRENT), STEP_CURRENT @ weight.T + shift
        assert np.abs(found - expected).max() <= 8 * 2.0**-53 * (np.abs(STEP_CURRENT) @ np.abs(weight.T) + 1).max() * 3


def test_delay(tmp_path):
    node = nir.Delay(np.array([0.003, 0.0104]))
    graph = load(tmp_path, node, (2,), dt_us=1000)
    found = run(graph, STEP_CURRENT)
    assert np.array_equal(found[3:, 0], STEP_CURRENT[:-3, 0])
    assert np.array_equal(found[10:, 1], STEP_CURRENT[:-10, 1])
    assert not found[:3, 0].any()
    (entry,) = (entry for entry in graph.fidelity if entry.node == "n")
    assert entry.status == "approximated"
    assert entry.remarks[0].bound == pytest.approx(400, rel=1e-6)  # us: 10.4 steps became 10


@pytest.mark.parametrize("groups", [1, 2])
def test_convolutions(tmp_path, groups):
    x = rng.normal(size=(3, 4, 7, 9))
    weight = rng.normal(size=(6, 4 // groups, 3, 2)).astype(np.float32)
    bias = rng.normal(size=6).astype(np.float32)
    node = nir.Conv2d((7, 9), weight, (2, 1), (1, 0), (1, 3), groups, bias)
    found = run(load(tmp_path, node, (4, 7, 9)), x)
    spread = np.zeros((6, 4 // groups, 3, 4))  # dilation 3 in x: zeros between the columns
    spread[..., ::3] = weight
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
    for out in range(6):
        first = out // (6 // groups) * (4 // groups)
        for t in range(3):
            maps = [correlate(padded[t, first + c], spread[out, c], "valid") for c in range(4 // groups)]
            expected = (sum(maps) + bias[out])[::2]
            assert found[t, out].shape == expected.shape
            assert np.abs(found[t, out] - expected).max() <= 64 * 2.0**-53 * np.abs(weight).sum() * np.abs(x).max()
    one_d = nir.Conv1d(9, weight[:, :, 0], 2, 1, 3, groups, bias)
    found = run(load(tmp_path, one_d, (4, 9)), x[:, :, 0])
    padded = np.pad(x[:, :, 0], ((0, 0), (0, 0), (1, 1)))
    for out in range(6):
        first = out // (6 // groups) * (4 // groups)
        rows = [correlate(padded[1, first + c], spread[out, c, 0], "valid") for c in range(4 // groups)]
        assert np.abs(found[1, out] - (sum(rows) + bias[out])[::2]).max() <= 1e-12


def test_pooling_and_flatten(tmp_path):
    x = rng.normal(size=(3, 2, 6, 9))
    window = (np.array([2, 3]), np.array([2, 3]), np.array([0, 0]))
    sums = x.reshape(3, 2, 3, 2, 3, 3).sum((3, 5))
    assert np.abs(run(load(tmp_path, nir.SumPool2d(*window), (2, 6, 9)), x) - sums).max() <= 1e-14
    assert np.abs(run(load(tmp_path, nir.AvgPool2d(*window), (2, 6, 9)), x) - sums / 6).max() <= 1e-14
    flat = load(tmp_path, nir.Flatten({"input": np.array([2, 6, 9])}, 0, -1), (2, 6, 9))
    assert np.array_equal(run(flat, x), x.reshape(3, -1))

"""Networks on spike accumulations: the spikes of LIF neurons, the gradients of OTTT, and what is refused."""

from collections.abc import Callable, Iterator
from math import log
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from neurodeploy import nn
from neurodeploy.errors import KernelError
from neurodeploy.kernels.saf import reference, weight_sums

DTYPE = torch.float64
METHODS = [("saf_e", "closed"), ("saf_e", "recurrent"), ("ottt", "auto")]
STEPS = 12


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def tau_of(decay: float) -> torch.Tensor:
    return torch.tensor(-1 / log(decay), dtype=DTYPE)


def neurons(decay: float, threshold: float = 1.0, norm_input: bool = False, spikes: Any = "single") -> nn.SpikingLayer:
    if decay == 1.0:
        return nn.IAF(threshold=torch.tensor(threshold, dtype=DTYPE), spikes=spikes, surrogate=nn.Sigmoid())
    return nn.LIF(
        tau_of(decay),
        norm_input=norm_input,
        threshold=torch.tensor(threshold, dtype=DTYPE),
        spikes=spikes,
        surrogate=nn.Sigmoid(),
    )


def network(decay: float = 0.5, threshold: float = 1.0, norm_input: bool = False, spikes: Any = "single") -> Any:
    """Three layers whose neurons fire in a fair share of the steps."""
    modules: list[torch.nn.Module] = []
    for inputs, outputs in ((12, 30), (30, 20), (20, 7)):
        linear = torch.nn.Linear(inputs, outputs)
        scale = 1 / (1 - decay) if norm_input else 1.0
        torch.nn.init.normal_(linear.weight, 0.2 * scale * threshold / inputs**0.5, scale * threshold / inputs**0.5)
        modules += [linear, neurons(decay, threshold, norm_input, spikes)]
    return torch.nn.Sequential(*modules).to(DTYPE)


def images(steps: int = STEPS) -> torch.Tensor:
    return torch.rand(8, steps, 12, dtype=DTYPE)


def weighted(net: Any) -> list[Any]:
    return [module for module in net if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)]


def gradients(net: Any, loss: torch.Tensor) -> list[torch.Tensor]:
    return list(torch.autograd.grad(loss, [p for module in weighted(net) for p in module.parameters()]))


def relative(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


def squares(output: torch.Tensor) -> torch.Tensor:
    """A loss whose gradient differs from step to step: output (B, T, ...)."""
    steps = torch.arange(output.shape[1], dtype=output.dtype)
    return (output - torch.sin(steps)[:, None]).square().sum()


# The forward pass


@pytest.mark.parametrize(("method", "form"), METHODS)
@pytest.mark.parametrize("steps", [6, 32, 500])
@pytest.mark.parametrize(("decay", "norm_input"), [(0.5, False), (0.9, False), (0.9, True), (1.0, False)])
def test_spikes_are_those_of_the_network(decay: float, norm_input: bool, steps: int, method: Any, form: Any) -> None:
    net, x = network(decay, 0.7, norm_input), images(steps)
    with torch.no_grad():
        spikes = net(x)
        assert 0.01 < float(spikes.mean()) < 0.9
        for chunk in (1, 7, None):
            assert torch.equal(nn.SAF(net, method, form=form, chunk=chunk)(x), spikes)


@pytest.mark.parametrize(("method", "form"), METHODS)
@pytest.mark.parametrize("spikes", ["multi", 2])
def test_several_spikes_in_a_step(spikes: Any, method: Any, form: Any) -> None:
    net, x = network(0.9, 0.3, spikes=spikes), 3 * images()
    with torch.no_grad():
        assert float(net(x).max()) >= 2
        assert torch.equal(nn.SAF(net, method, form=form)(x), net(x))


def test_saf_f_gives_the_weighted_mean() -> None:
    net, x = network(0.9, 0.7), images()
    with torch.no_grad():
        weights = 0.9 ** torch.arange(STEPS - 1, -1, -1, dtype=DTYPE)
        expected = (net(x) * weights[:, None]).sum(1) / weights.sum()
        for chunk in (1, 5, None):
            assert relative(nn.SAF(net, "saf_f", chunk=chunk)(x), expected) <= 1e-14


@pytest.mark.parametrize(("method", "online"), [("saf_e", False), ("saf_e", True), ("saf_f", False)])
def test_a_trained_network_is_a_plain_one(method: Any, online: bool) -> None:
    """In float64 spike for spike; in float32 rounding may move a spike that is within it of the threshold."""
    x, target = images(), torch.arange(8) % 7
    for dtype, allowed in ((DTYPE, 0.0), (torch.float32, 1e-3)):
        net = network(0.9, 0.7).to(dtype)
        trained = nn.SAF(net, method, online=online)
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        losses = [trained.train_batch(x.to(dtype), target, F.cross_entropy, optimizer).loss for _ in range(15)]
        assert losses[-1] < losses[0]
        plain = network(0.9, 0.7).to(dtype)
        plain.load_state_dict(trained.net.state_dict())
        with torch.no_grad():
            spikes = plain(x.to(dtype))
            assert float(spikes.mean()) > 1e-3
            assert float((nn.SAF(net)(x.to(dtype)) != spikes).double().mean()) <= allowed


# Gradients


def ottt_by_hand(net: Any, x: torch.Tensor, update: Callable[[list[torch.Tensor]], None] | None = None) -> Any:
    """OTTT written out: LIF steps, traces, d^l_t = (W^T d^{l+1}_t) * sg, grad W_t = d_t a_t^T, bias gradient c_t d_t.

    Loss per step: that of ``squares``. Returns summed gradients and spikes [B, T, n]; ``update`` gets those of a step.
    """
    linears, layers = weighted(net), [module for module in net if isinstance(module, nn.SpikingLayer)]
    decay, count = float(layers[0].decay), len(linears)
    after: list[Any] = [0.0] * count
    traces: list[Any] = [0.0] * (count + 1)
    total = [torch.zeros_like(p) for linear in linears for p in linear.parameters()]
    c, outputs = 0.0, []
    with torch.no_grad():
        for t in range(x.shape[1]):
            c, s, potentials = 1.0 + decay * c, x[:, t], []
            traces[0] = decay * traces[0] + s
            for i, (linear, layer) in enumerate(zip(linears, layers, strict=True)):
                u = decay * after[i] + layer.input_gain * linear(s)
                s = (u >= layer.threshold).to(u)
                after[i] = u - layer.threshold * s
                traces[i + 1] = decay * traces[i + 1] + s
                potentials.append(u)
            outputs.append(s)
            d, grads = 2 * (s - torch.sin(torch.tensor(float(t), dtype=DTYPE))), []
            for i in reversed(range(count)):
                slope = reference.surrogate_gradient(
                    layers[i].surrogate, potentials[i] - layers[i].threshold, layers[i].threshold
                )
                d = d * slope * layers[i].input_gain
                grads[:0] = [d.t() @ traces[i], c * d.sum(0)]
                d = d @ linears[i].weight
            total = [a + b for a, b in zip(total, grads, strict=True)]
            if update is not None:
                update(grads)
    return total, torch.stack(outputs, 1)


@pytest.mark.parametrize(("method", "form"), METHODS)
@pytest.mark.parametrize(("decay", "norm_input"), [(0.5, False), (0.9, True), (1.0, False)])
def test_gradients_are_those_of_ottt(decay: float, norm_input: bool, method: Any, form: Any) -> None:
    net, x = network(decay, 0.7, norm_input), images()
    expected, spikes = ottt_by_hand(net, x)
    for chunk in (1, 5, None):
        output = nn.SAF(net, method, form=form, chunk=chunk)(x)
        assert torch.equal(output, spikes)
        for got, wanted in zip(gradients(net, squares(output)), expected, strict=True):
            assert relative(got, wanted) <= 1e-12


def test_every_step_has_the_gradient_of_ottt() -> None:
    net, x = network(0.9, 0.7), images()
    per_step: list[list[torch.Tensor]] = []
    ottt_by_hand(net, x, per_step.append)
    trained = nn.SAF(net)
    for t, expected in enumerate(per_step):
        output = trained.advance(x[:, t : t + 1])
        loss = (output - torch.sin(torch.tensor(float(t), dtype=DTYPE))).square().sum()
        for got, wanted in zip(gradients(net, loss), expected, strict=True):
            assert relative(got, wanted) <= 1e-12


@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_online_updates_follow_ottt_and_the_closed_form_would_not(decay: float) -> None:
    rate, x = 0.003, images()

    def trained(run: Callable[[Any, Any], None]) -> list[torch.Tensor]:
        torch.manual_seed(1)
        net = network(decay, 0.7)
        parameters = [p for linear in weighted(net) for p in linear.parameters()]

        def update(grads: list[torch.Tensor]) -> None:
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.data -= rate * grad  # .data: the guard against changed weights does not see it

        for _ in range(3):
            run(net, update)
        return [p.detach() for p in parameters]

    def by_accumulation(form: str, method: str = "saf_e") -> Callable[[Any, Any], None]:
        def run(net: Any, update: Any) -> None:
            network_ = nn.SAF(net, method, form=form)  # type: ignore[arg-type]
            for t in range(STEPS):
                output = network_.advance(x[:, t : t + 1])
                loss = (output - torch.sin(torch.tensor(float(t), dtype=DTYPE))).square().sum()
                update(gradients(net, loss))

        return run

    expected = trained(lambda net, update: ottt_by_hand(net, x, update))
    start = [p.detach() for linear in weighted(_seeded(decay)) for p in linear.parameters()]
    for run in (by_accumulation("recurrent"), by_accumulation("auto", "ottt")):
        for got, wanted in zip(trained(run), expected, strict=True):
            assert relative(got, wanted) <= 1e-10
    wrong = trained(by_accumulation("closed"))
    moved = torch.cat([(e - s).flatten() for e, s in zip(expected, start, strict=True)])
    apart = torch.cat([(w - e).flatten() for w, e in zip(wrong, expected, strict=True)])
    assert float(apart.norm() / moved.norm()) > 1e-3


def _seeded(decay: float) -> Any:
    torch.manual_seed(1)
    return network(decay, 0.7)


def test_online_training_is_ottt_o() -> None:
    x, target = images(), torch.arange(8) % 7
    results = []
    for method in ("saf_e", "ottt"):
        torch.manual_seed(3)
        net = network(0.5)
        trained = nn.SAF(net, method, online=True)  # type: ignore[arg-type]
        optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
        losses = [trained.train_batch(x, target, F.cross_entropy, optimizer).loss for _ in range(3)]
        results.append((losses, list(net.parameters())))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-10)
    for first, second in zip(results[0][1], results[1][1], strict=True):
        assert relative(first.detach(), second.detach()) <= 1e-10


@pytest.mark.parametrize("threshold", [1.0, 0.7, 2.5])
@pytest.mark.parametrize("decay", [0.5, 0.9, 1.0])
def test_saf_f_is_spike_representation(decay: float, threshold: float) -> None:
    """Rates r = a_T / c_T with the derivative of clamp(m / threshold, 0, 1), m = W r_in + bias, by autograd."""
    net, x = network(decay, threshold), images()
    c, threshold = weight_sums(0.0, decay, STEPS)[-1], float(net[1].threshold)
    weights = (decay ** torch.arange(STEPS - 1, -1, -1, dtype=DTYPE))[:, None] / c
    rate, spikes = (x * weights).sum(1), x
    saturated = []
    for linear, layer in zip(weighted(net), (m for m in net if isinstance(m, nn.SpikingLayer)), strict=True):
        with torch.no_grad():
            spikes = layer(linear(spikes))
        clamped = (linear(rate) / threshold).clamp(0, 1)
        rate = clamped + ((spikes * weights).sum(1) - clamped).detach()
        saturated.append(float(((clamped == 0) | (clamped == 1)).double().mean()))
    assert min(saturated) > 0.01  # both the slope and its ends are met
    assert max(saturated) < 0.95
    expected = gradients(net, (rate - 0.3).square().sum())
    output = nn.SAF(net, "saf_f")(x)
    assert relative(output.detach(), rate.detach()) <= 1e-12
    for got, wanted in zip(gradients(net, (output - 0.3).square().sum()), expected, strict=True):
        assert relative(got, wanted) <= 1e-12


def test_saf_f_with_the_surrogate_is_the_last_step_of_saf_e() -> None:
    net, x = network(0.9, 0.7), images()
    c = weight_sums(0.0, 0.9, STEPS)[-1]
    got = gradients(net, nn.SAF(net, "saf_f", slope="surrogate")(x).sum())
    expected = gradients(net, nn.SAF(net)(x)[:, -1].sum() / c)
    assert all(relative(g, e) <= 1e-12 for g, e in zip(got, expected, strict=True))


@pytest.mark.parametrize(("method", "form"), METHODS)
def test_one_layer_has_the_gradient_of_backpropagation_without_resets(method: Any, form: Any) -> None:
    """Bias trace c_t included: an untraced bias is off by far more than the tolerance."""
    net, x = network(0.9, 0.7)[4:], torch.rand(8, STEPS, 20, dtype=DTYPE)
    got = gradients(net, squares(nn.SAF(net, method, form=form)(x)))
    slayer = nn.LIF(
        net[1].tau_mem,
        norm_input=False,
        threshold=net[1].threshold,
        spikes="single",
        surrogate=nn.Sigmoid(),
        algorithm="slayer",
    )
    expected = gradients(net, squares(slayer(net[0](x))))
    assert all(relative(g, e) <= 1e-12 for g, e in zip(got, expected, strict=True))


def test_hidden_layers_are_biased_as_documented() -> None:
    """Against back-propagation without resets: the last layer is equal, hidden ones are near (README has a table)."""
    net, x = network(0.5, 0.7), images()
    got = gradients(net, squares(nn.SAF(net)(x)))
    for layer in (module for module in net if isinstance(module, nn.SpikingLayer)):
        layer.algorithm = "slayer"
        layer.__setstate__(layer.__getstate__())  # loads the kernel of the new name
    expected = gradients(net, squares(net(x)))
    cosines = [float(F.cosine_similarity(g.flatten(), e.flatten(), dim=0)) for g, e in zip(got, expected, strict=True)]
    assert cosines[4] == pytest.approx(1.0, abs=1e-12)
    assert cosines[5] == pytest.approx(1.0, abs=1e-12)
    assert all(0.9 < cosine < 0.999 for cosine in cosines[:4])


# Networks


def convolutions(**options: Any) -> Any:
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 6, 3, padding="same", dilation=2),
        neurons(0.5),
        torch.nn.AvgPool2d(2),
        torch.nn.Conv2d(6, 4, 3, stride=2, padding=1, groups=2),
        nn.SumPool2d(2),
        neurons(0.5, 0.6),
        torch.nn.Flatten(),
        torch.nn.Linear(4 * 2 * 2, 3),
    )
    for module in weighted(net)[:2]:
        torch.nn.init.normal_(module.weight, 0.05, 0.4)
    for module in net:
        if isinstance(module, nn.SpikingLayer):
            module.num_timesteps = 5
    return net.to(DTYPE)


def test_convolutions_pooling_and_a_readout() -> None:
    net, x = convolutions(), torch.rand(3, 5, 2, 16, 16, dtype=DTYPE)
    plain = net(x.flatten(0, 1)).unflatten(0, (3, 5))
    results = []
    for method, form in METHODS:
        for chunk in (1, 2, None):
            output = nn.SAF(net, method, form=form, chunk=chunk)(x)  # type: ignore[arg-type]
            assert relative(output.detach(), plain.detach()) <= 1e-12
            results.append(gradients(net, squares(output)))
    for other in results[1:]:
        assert all(relative(o, r) <= 1e-12 for o, r in zip(other, results[0], strict=True))
    assert nn.SAF(net, "saf_f")(x).shape == (3, 3)


def test_nested_and_wrapped_networks_are_read() -> None:
    net, x = convolutions(), torch.rand(3, 5, 2, 16, 16, dtype=DTYPE)
    wrapped = torch.nn.Sequential(
        torch.nn.Sequential(nn.OverTime(net[0]), net[1]), nn.OverTime(net[2:5]), net[5], torch.nn.Flatten(2), net[7]
    )
    with torch.no_grad():
        assert torch.equal(nn.SAF(wrapped)(x), nn.SAF(net)(x))


def test_a_layer_may_stand_at_several_places() -> None:
    linear, lif = torch.nn.Linear(12, 12), neurons(0.5, threshold=0.2)
    net = torch.nn.Sequential(torch.nn.Linear(12, 12), lif, linear, lif, linear, lif).to(DTYPE)
    x = images()
    for method, form in METHODS:
        output = nn.SAF(net, method, form=form)(x)  # type: ignore[arg-type]
        assert torch.equal(output.detach(), net(x).detach())
        assert 0.05 < float(output.detach().mean()) < 0.95
    lateral = nn.Feedback(lif, lif, torch.nn.Linear(12, 12, bias=False).to(DTYPE))
    refused("saf-feedback", lambda: nn.SAF(net, feedback=[lateral]))


def test_a_bias_on_the_last_of_several_axes() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(12, 9), neurons(0.5, 0.4)).to(DTYPE)
    torch.nn.init.uniform_(net[0].bias, 0.0, 0.4)
    x = torch.rand(4, 4, 3, 12, dtype=DTYPE)  # as many samples as steps: c_t must go along the steps
    factors, results = torch.randn(4, 4, 3, 9, dtype=DTYPE), []
    for chunk in (1, None):
        output = nn.SAF(net, chunk=chunk)(x)
        assert torch.equal(output.detach(), net(x).detach())
        results.append(gradients(net, (factors * output).sum()))
    assert all(relative(a, b) <= 1e-12 for a, b in zip(*results, strict=True))


def test_thresholds_per_channel() -> None:
    net, x = convolutions(), torch.rand(3, 5, 2, 16, 16, dtype=DTYPE)
    net[1] = nn.LIF(tau_of(0.5), norm_input=False, threshold=torch.rand(6, 1, 1) + 0.5, spikes="single").to(DTYPE)
    net[1].num_timesteps = 5
    with torch.no_grad():
        assert relative(nn.SAF(net)(x), net(x.flatten(0, 1)).unflatten(0, (3, 5))) <= 1e-12


def test_parametrized_weights_learn() -> None:
    net = network(0.5)
    torch.nn.utils.parametrizations.weight_norm(net[0])
    trained = nn.SAF(net, online=True)
    before = [p.detach().clone() for p in net[0].parameters()]
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    trained.train_batch(images(), torch.arange(8) % 7, F.cross_entropy, optimizer)
    assert all(not torch.equal(a, b) for a, b in zip(before, net[0].parameters(), strict=True))


# Feedback


def with_feedback() -> tuple[Any, list[nn.Feedback]]:
    """Last layer to the first, and the second layer to itself."""
    net = network(0.9, 0.7)
    back, side = (torch.nn.Linear(*sizes, bias=False).to(DTYPE) for sizes in ((7, 30), (20, 20)))
    torch.nn.init.normal_(back.weight, 0.1, 0.3)
    torch.nn.init.normal_(side.weight, -0.1, 0.3)
    return net, [nn.Feedback(net[5], net[1], back), nn.Feedback(net[3], net[3], side)]


def feedback_by_hand(net: Any, feedback: list[nn.Feedback], x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """LIF steps with delayed spikes, and OTTT's gradients of the three weights and of the two connections."""
    linears, layers = weighted(net), [net[1], net[3], net[5]]
    into = {0: (2, feedback[0].module.weight), 1: (1, feedback[1].module.weight)}
    decay, threshold = 0.9, layers[0].threshold
    after, trace, spikes = [0.0] * 3, [torch.zeros(8, n, dtype=DTYPE) for n in (12, 30, 20, 7)], [0.0] * 3
    grads = [torch.zeros_like(w) for w in (*(linear.weight for linear in linears), *(into[i][1] for i in (0, 1)))]
    outputs = []
    with torch.no_grad():
        for t in range(x.shape[1]):
            old_trace, old_spikes, s, u = list(trace), list(spikes), x[:, t], [torch.empty(0)] * 3
            trace[0] = decay * trace[0] + s
            for i, linear in enumerate(linears):
                current = linear(s)
                if i in into and t > 0:
                    current = current + old_spikes[into[i][0]] @ into[i][1].t()
                u[i] = decay * after[i] + current
                s = (u[i] >= threshold).to(u[i])
                after[i], spikes[i] = u[i] - threshold * s, s  # type: ignore[call-overload]
                trace[i + 1] = decay * trace[i + 1] + s
            outputs.append(s)
            d = 2 * (s - torch.sin(torch.tensor(float(t), dtype=DTYPE)))
            for i in reversed(range(3)):
                d = d * reference.surrogate_gradient(layers[i].surrogate, u[i] - threshold, threshold)
                grads[i] += d.t() @ trace[i]
                if i in into:
                    grads[3 + i] += d.t() @ old_trace[into[i][0] + 1]
                d = d @ linears[i].weight
    return torch.stack(outputs, 1), grads


@pytest.mark.parametrize(("method", "form"), METHODS)
def test_feedback_and_lateral_connections(method: Any, form: Any) -> None:
    net, feedback = with_feedback()
    x = images(30)
    expected, wanted = feedback_by_hand(net, feedback, x)
    assert not torch.equal(expected, net(x))
    output = nn.SAF(net, method, form=form, feedback=feedback)(x)
    assert torch.equal(output, expected)
    weights = [*(linear.weight for linear in weighted(net)), *(item.module.weight for item in feedback)]
    for got, want in zip(torch.autograd.grad(squares(output), weights), wanted, strict=True):
        assert relative(got, want) <= 1e-12


def test_feedback_trains_with_saf_f_and_is_part_of_the_module() -> None:
    net, feedback = with_feedback()
    trained = nn.SAF(net, "saf_f", feedback=feedback)
    assert sum(p.numel() for p in trained.parameters()) == sum(p.numel() for p in net.parameters()) + 210 + 400
    optimizer = torch.optim.SGD(trained.parameters(), 0.1)
    before = [item.module.weight.detach().clone() for item in feedback]
    trained.train_batch(images(), torch.arange(8) % 7, F.cross_entropy, optimizer)
    assert all(not torch.equal(b, item.module.weight) for b, item in zip(before, feedback, strict=True))


# Memory


def saved_bytes(run: Callable[[], Any], net: torch.nn.Module) -> int:
    """Bytes that autograd keeps of ``run``, each storage once, without those of parameters and constants."""
    constant = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *net.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in constant:
            kept[storage.data_ptr()] = storage  # held, so that no address is used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(storage.nbytes() for storage in kept.values() if storage.nbytes() > 8)


def test_saf_f_keeps_the_last_step_only() -> None:
    """Of each layer its input's accumulation, and a byte per neuron, whatever the number of steps."""
    net, batch = network(0.9), 8
    one_step = batch * sum(8 * inputs + outputs for inputs, outputs in ((12, 30), (30, 20), (20, 7)))
    for steps in (1, 6, 100):
        for chunk in (1, None):
            trained, x = nn.SAF(net, "saf_f", chunk=chunk), images(steps)
            assert saved_bytes(lambda: trained(x), net) == one_step  # noqa: B023


@pytest.mark.parametrize(("method", "form"), METHODS)
def test_per_step_training_keeps_one_step(method: Any, form: Any) -> None:
    net = network(0.9)
    trained = nn.SAF(net, method, form=form)
    sizes = []
    for _ in range(5):
        x = images(1)
        sizes.append(saved_bytes(lambda: trained.advance(x), net))  # noqa: B023
    one_step = 8 * sum(inputs + outputs for inputs, outputs in ((12, 30), (30, 20), (20, 7))) * 8
    assert sizes == [one_step] * 5


# What is refused


def refused(code: str, make: Callable[[], Any]) -> str:
    with pytest.raises(KernelError, match="Remedy: ") as caught:
        make()
    assert caught.value.code == code
    return str(caught.value)


def test_the_closed_form_is_refused_where_weights_change() -> None:
    net = network()
    message = refused("saf-closed-form-online", lambda: nn.SAF(net, "saf_e", online=True, form="closed"))
    assert "past inputs" in message
    assert "form='recurrent'" in message
    refused("saf-f-online", lambda: nn.SAF(net, "saf_f", online=True))
    trained = nn.SAF(net, "saf_e", form="closed")
    trained.advance(images(2))
    with torch.no_grad():
        net[2].weight.mul_(0.9)
    refused("saf-closed-form-online", lambda: trained.advance(images(2)))
    trained.reset_states()
    trained.advance(images(2))
    recurrent = nn.SAF(net, "saf_e", form="recurrent")
    recurrent.advance(images(2))
    with torch.no_grad():
        net[2].weight.mul_(0.9)
    recurrent.advance(images(2))


@pytest.mark.parametrize(
    ("module", "code"),
    [
        (torch.nn.MaxPool2d(2), "saf-module"),
        (torch.nn.BatchNorm1d(30), "saf-module"),
        (torch.nn.Dropout(), "saf-module"),
        (nn.CubaLIF(2.0, 2.0), "saf-module"),
        (torch.nn.Flatten(0), "saf-module"),
        (torch.nn.Linear(30, 30), "saf-weights"),
        (torch.nn.Conv2d(3, 3, 2, padding="same"), "saf-padding"),
        (torch.nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular"), "saf-padding"),
        (nn.LIF(3.0, spikes="single"), "saf-decay"),
        (nn.LIF(torch.tensor([2.0, 3.0]), spikes="single"), "saf-decay"),
        (nn.LIF(2.0, spikes="single", reset="zero"), "saf-reset"),
        (nn.LIF(2.0, spikes="single", v_min=-1.0), "saf-v-min"),
        (nn.LIF(2.0, spikes="single", learn_threshold=True), "saf-learnt"),
        (nn.LIF(2.0, spikes="single", learn_tau=True), "saf-learnt"),
        (nn.LIF(2.0, spikes="single", record_v=True), "saf-record-v"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_modules_that_cannot_run_on_accumulations(module: torch.nn.Module, code: str) -> None:
    first = [] if "padding" in code else [torch.nn.Linear(12, 30)]
    refused(code, lambda: nn.SAF(torch.nn.Sequential(*first, module, nn.LIF(2.0, spikes="single"))))


def test_arguments_and_inputs() -> None:
    net = network()
    refused("saf-method", lambda: nn.SAF(net, "saf"))  # type: ignore[arg-type]
    refused("saf-form", lambda: nn.SAF(net, form="open"))  # type: ignore[arg-type]
    refused("saf-form", lambda: nn.SAF(net, "saf_f", form="recurrent"))
    refused("saf-form", lambda: nn.SAF(net, "ottt", form="closed"))
    refused("saf-slope", lambda: nn.SAF(net, "saf_f", slope="linear"))  # type: ignore[arg-type]
    for chunk in (0, True, 2.5):
        refused("saf-chunk", lambda chunk=chunk: nn.SAF(net, chunk=chunk))
    refused("saf-chunk", lambda: nn.SAF(net, online=True, chunk=2))
    refused("saf-module", lambda: nn.SAF(torch.nn.Sequential(torch.nn.Linear(3, 3))))
    refused("saf-f-advance", lambda: nn.SAF(net, "saf_f").advance(images()))
    refused("layer-shape", lambda: nn.SAF(net)(images()[:, :0]))
    refused("layer-shape", lambda: nn.SAF(net)(images()[0]))
    refused("saf-input-gradient", lambda: nn.SAF(net)(images().requires_grad_()))
    net[1] = nn.LIF(tau_of(0.5), threshold=torch.ones(29), spikes="single", norm_input=False)
    refused("layer-parameter-shape", lambda: nn.SAF(net)(images()))


def test_feedback_that_cannot_run() -> None:
    net = network()
    good = torch.nn.Linear(7, 30, bias=False).to(DTYPE)
    refused("saf-chunk", lambda: nn.SAF(net, feedback=[nn.Feedback(net[5], net[1], good)], chunk=None))
    refused("saf-feedback", lambda: nn.SAF(net, feedback=[nn.Feedback(network()[5], net[1], good)]))
    refused("saf-feedback", lambda: nn.SAF(net, feedback=[nn.Feedback(net[5], net[1], torch.nn.Linear(7, 30))]))
    short = torch.nn.Linear(7, 1, bias=False).to(DTYPE)
    refused("saf-feedback", lambda: nn.SAF(net, feedback=[nn.Feedback(net[5], net[1], short)])(images()))

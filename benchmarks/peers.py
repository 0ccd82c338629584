"""The LIF neuron (one spike per step, soft reset) as other libraries compute it, for ``training_cpu.py``.

``v = decay * v + x``, ``s = [v >= 1]``, ``v = v - s`` with ``decay = exp(-1 / 20)``. Each peer runs its own code in its
own order of axes, in the surrogate it shares with ours where there is one.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch

TAU = 20.0
THRESHOLD = 1.0
DECAY = float(torch.exp(torch.tensor(-1.0 / TAU)))
CHUNK = 10
"""Steps per compiled graph: a whole sequence unrolled takes minutes to compile."""

Layer = Callable[[torch.Tensor], torch.Tensor]
Order = Literal["BT", "TB"]


class Pass(NamedTuple):
    """One forward and backward pass: spikes and gradient [B, T, N], seconds of both and of the first (if separable)."""

    spikes: torch.Tensor
    grad: torch.Tensor
    total_s: float
    forward_s: float | None = None


Run = Callable[[], Pass]


@dataclass(frozen=True)
class Peer:
    """A library's neuron.

    Attributes:
        name: as printed.
        package: its distribution.
        order: of the axes it takes.
        surrogate: "arctan" or "exponential" as in ours, or "own" where it has neither.
        layer: makes the function from currents to spikes, in ``order``; None where it is no torch function.
        build: makes one pass on (x, dL/ds), both [B, T, N]; default: ``layer`` under autograd.
        delayed: its spikes come one step later, so that they cannot be compared.
    """

    name: str
    package: str
    order: Order
    surrogate: Literal["arctan", "exponential", "own"]
    layer: Callable[[], Layer] | None
    build: Callable[[torch.Tensor, torch.Tensor], Run] | None = None
    delayed: bool = False

    def run(self, x: torch.Tensor, weights: torch.Tensor) -> Run:
        """Make one pass over a layer of neurons."""
        if self.build is not None:
            return self.build(x, weights)
        assert self.layer is not None
        return autograd_pass(self.layer(), x, weights, self.order)


def autograd_pass(layer: Layer, x: torch.Tensor, weights: torch.Tensor, order: Order = "BT") -> Run:
    """Time ``layer`` in its own order of axes; results are views in [B, T, N]."""
    turned = order == "TB"
    leaf = (x.transpose(0, 1).contiguous() if turned else x.clone()).requires_grad_()
    weights = weights.transpose(0, 1).contiguous() if turned else weights

    def run() -> Pass:
        leaf.grad = None
        start = time.perf_counter()
        spikes = layer(leaf)
        middle = time.perf_counter()
        spikes.backward(weights)
        end = time.perf_counter()
        assert leaf.grad is not None
        results = (spikes.detach(), leaf.grad)
        if turned:
            results = (results[0].transpose(0, 1), results[1].transpose(0, 1))
        return Pass(*results, end - start, middle - start)

    return run


def sinabs() -> Layer:
    from sinabs import activation, layers

    layer = layers.LIF(
        tau_mem=TAU,
        norm_input=False,
        spike_threshold=torch.tensor(THRESHOLD),
        spike_fn=activation.SingleSpike,
        surrogate_grad_fn=activation.SingleExponential(),
    )
    layer.tau_mem.requires_grad_(False)

    def forward(x: torch.Tensor) -> torch.Tensor:
        layer.reset_states()
        spikes: torch.Tensor = layer(x)
        return spikes

    return forward


def spikingjelly() -> Layer:
    from spikingjelly.activation_based import functional, neuron, surrogate

    layer = neuron.LIFNode(
        tau=1.0 / (1.0 - DECAY),
        decay_input=False,
        v_threshold=THRESHOLD,
        v_reset=None,
        surrogate_function=surrogate.ATan(alpha=2.0),
        step_mode="m",
    )

    def forward(x: torch.Tensor) -> torch.Tensor:
        functional.reset_net(layer)
        spikes: torch.Tensor = layer(x)
        return spikes

    return forward


def snntorch() -> Layer:
    import snntorch as library
    from snntorch import surrogate

    layer = library.Leaky(
        beta=DECAY,
        threshold=THRESHOLD,
        spike_grad=surrogate.atan(alpha=2.0),
        reset_mechanism="subtract",
        reset_delay=False,
    )

    def forward(x: torch.Tensor) -> torch.Tensor:
        v = torch.zeros_like(x[0])
        spikes = []
        for current in x.unbind(0):
            s, v = layer(current, v)
            spikes.append(s)
        return torch.stack(spikes)

    return forward


def norse() -> Layer:
    from norse.torch.functional import lif_box
    from norse.torch.functional.reset import reset_subtract

    neuron = lif_box.LIFBoxParameters(
        tau_mem_inv=torch.tensor(1.0 - DECAY), v_th=torch.tensor(THRESHOLD), reset_method=reset_subtract
    )

    def forward(x: torch.Tensor) -> torch.Tensor:
        state = lif_box.LIFBoxFeedForwardState(torch.zeros_like(x[0]))
        spikes = []
        for current in (x / (1.0 - DECAY)).unbind(0):  # Norse scales its input by dt / tau
            s, state = lif_box.lif_box_feed_forward_step(current, state, neuron, dt=1.0)
            spikes.append(s)
        return torch.stack(spikes)

    return forward


class Spike(torch.autograd.Function):
    """[v >= threshold] with the arctan surrogate of width 1/2."""

    @staticmethod
    def forward(ctx: Any, v: torch.Tensor) -> torch.Tensor:
        """Return the spikes."""
        ctx.save_for_backward(v)
        return (v >= THRESHOLD).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        """Return the surrogate gradient."""
        (v,) = ctx.saved_tensors
        return grads[0] / (1 + (torch.pi * (v - THRESHOLD)) ** 2)


class ExponentialSpike(Spike):
    """The same with the exponential surrogate of width 1/2: ``2 exp(-2 |v - threshold|)``."""

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        """Return the surrogate gradient."""
        (v,) = ctx.saved_tensors
        return grads[0] * 2 * torch.exp(-2 * (v - THRESHOLD).abs())


def steps(x: torch.Tensor, v: torch.Tensor, decay: float) -> tuple[torch.Tensor, torch.Tensor]:
    spikes = []
    for current in x.unbind(0):
        v = decay * v + current
        s = Spike.apply(v)  # type: ignore[no-untyped-call]
        v = v - THRESHOLD * s
        spikes.append(s)
    return torch.stack(spikes), v


def loop() -> Layer:
    return lambda x: steps(x, torch.zeros_like(x[0]), DECAY)[0]


def compiled_loop() -> Layer:
    torch._dynamo.reset()
    compiled = torch.compile(steps, fullgraph=True, dynamic=False)

    def forward(x: torch.Tensor) -> torch.Tensor:
        v, pieces = torch.zeros_like(x[0]), []
        for chunk in x.split(CHUNK):
            spikes, v = compiled(chunk, v, DECAY)
            pieces.append(spikes)
        return torch.cat(pieces)

    return forward


def definition(
    x: torch.Tensor,
    *,
    exponential: bool = False,
    detach_reset: bool = False,
    detach_every: int = 0,
) -> torch.Tensor:
    """The loop that decides what is correct: [T, B, N] to spikes, differentiable by autograd.

    Args:
        x: currents [T, B, N].
        exponential: the exponential surrogate instead of the arctan.
        detach_reset: no gradient through the reset (SLAYER).
        detach_every: no gradient from a segment of that many steps to the one before; 0: one segment.
    """
    v, spikes = torch.zeros_like(x[0]), []
    spike = ExponentialSpike if exponential else Spike
    for t, current in enumerate(x.unbind(0)):
        if detach_every and t % detach_every == 0:
            v = v.detach()
        v = DECAY * v + current
        s = spike.apply(v)  # type: ignore[no-untyped-call]
        v = v - THRESHOLD * (s.detach() if detach_reset else s)
        spikes.append(s)
    return torch.stack(spikes)


def _jax_pass(spikes_of: Callable[[Any], Any], x: torch.Tensor, weights: torch.Tensor) -> Run:
    """A jitted forward and backward pass over [T, B, N]; the halves are one program."""
    import jax

    @jax.jit
    def both(values: Any, gradient: Any) -> Any:
        spikes, pullback = jax.vjp(spikes_of, values)
        return spikes, pullback(gradient)[0]

    values, gradient = (jax.numpy.asarray(tensor.transpose(0, 1).contiguous().numpy()) for tensor in (x, weights))

    def run() -> Pass:
        start = time.perf_counter()
        results = jax.block_until_ready(both(values, gradient))
        total = time.perf_counter() - start
        spikes, grad = (torch.from_dlpack(result).transpose(0, 1) for result in results)
        return Pass(spikes, grad, total)

    return run


def jax_scan(x: torch.Tensor, weights: torch.Tensor) -> Run:
    import jax
    from jax import numpy as jnp

    @jax.custom_vjp
    def spike(v: Any) -> Any:
        return (v >= THRESHOLD).astype(v.dtype)

    spike.defvjp(
        lambda v: (spike(v), v),
        lambda v, gradient: (gradient / (1 + (jnp.pi * (v - THRESHOLD)) ** 2),),
    )

    def step(v: Any, current: Any) -> Any:
        v = DECAY * v + current
        s = spike(v)
        return v - THRESHOLD * s, s

    return _jax_pass(lambda values: jax.lax.scan(step, jnp.zeros_like(values[0]), values)[1], x, weights)


def spyx(x: torch.Tensor, weights: torch.Tensor) -> Run:
    from flax import nnx
    from spyx import axn
    from spyx import nn as library

    layer = library.LIF((x.shape[2],), beta=DECAY, threshold=THRESHOLD, activation=axn.arctan(k=1.0), rngs=nnx.Rngs(0))
    return _jax_pass(lambda values: library.run(layer, values)[0], x, weights)


LOOP = Peer("torch loop", "torch", "TB", "arctan", loop)
COMPILED = Peer("torch loop, compiled", "torch", "TB", "arctan", compiled_loop)
SINABS = Peer("sinabs", "sinabs", "BT", "exponential", sinabs)
PEERS = (
    COMPILED,
    LOOP,
    Peer("SpikingJelly", "spikingjelly", "TB", "arctan", spikingjelly),
    Peer("snnTorch", "snntorch", "TB", "arctan", snntorch),
    Peer("Norse", "norse", "TB", "own", norse),
    Peer("jax.lax.scan", "jax", "TB", "arctan", None, jax_scan),
    Peer("Spyx", "spyx", "TB", "own", None, spyx, delayed=True),
    SINABS,
)
"""lava-dl has no release for Python 3.11; it is not among them."""

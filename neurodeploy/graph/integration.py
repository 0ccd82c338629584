"""From continuous time to steps: the factors of one step of ``tau dv/dt = v_leak - v + r x``.

The three schemes are those that simulators use (see ``README.md`` for the derivation and who uses which).
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

#: ``euler``: ``1 - dt/tau``, ``r dt/tau``; ``zoh``: ``exp(-dt/tau)``, ``r (1 - exp(-dt/tau))``;
#: ``exp_delta``: ``exp(-dt/tau)``, ``r dt/tau`` (the input of a step arrives as one pulse: sinabs, rockpool).
Scheme = Literal["euler", "zoh", "exp_delta"]

Floats = NDArray[np.float64]


def step_factors(scheme: Scheme, dt_us: float, tau: NDArray[Any], r: NDArray[Any]) -> tuple[Floats, Floats]:
    """``decay`` and ``input_gain`` of one step, in float64.

    Args:
        scheme: the discretisation.
        dt_us: time step in microseconds.
        tau: time constants in seconds, above 0 (not checked), any shape.
        r: resistances; broadcast with ``tau``.
    """
    ratio = np.asarray(dt_us * 1e-6 / np.asarray(tau, np.float64))
    r = np.asarray(r, np.float64)
    decay = 1 - ratio if scheme == "euler" else np.exp(-ratio)
    gain = r * (-np.expm1(-ratio) if scheme == "zoh" else ratio)
    return np.asarray(decay), np.asarray(gain)


def continuous_parameters(
    scheme: Scheme, dt_us: float, decay: NDArray[Any], input_gain: NDArray[Any]
) -> tuple[Floats, Floats]:
    """The inverse of ``step_factors``: ``tau`` in seconds and ``r``; ``decay`` lies between 0 and 1, both excluded.

    ``decay`` may be 0 with ``euler``. Computed in float64, so that ``step_factors`` gives the same float32 again.
    """
    decay, gain = np.asarray(decay, np.float64), np.asarray(input_gain, np.float64)
    ratio = 1 - decay if scheme == "euler" else -np.log(decay)
    r = gain / (1 - decay if scheme == "zoh" else ratio)
    return np.asarray(dt_us * 1e-6 / ratio), np.asarray(r)

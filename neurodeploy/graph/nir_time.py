"""The time step of a NIR file, where its writer left it in the parameters."""

import numpy as np

from neurodeploy.graph.nir_file import Fields

#: Pairs of a time constant and the gain that frameworks in discrete time write as ``tau / dt``.
_PAIRS = (("tau", "r"), ("tau_mem", "r"), ("tau_syn", "w_in"))

#: Relative difference of the time steps of two neurons: they are stored in float32.
_SAME = 1e-5


def recover_dt_us(nodes: dict[str, Fields]) -> tuple[float | None, float | None]:
    """The time step that the parameters of a file imply, in microseconds.

    Frameworks that work in steps export ``v = decay v + x`` as ``r = tau / dt`` (and ``w_in = tau_syn / dt``), so that
    a step of forward Euler has the gain 1. Every pair then gives the same dt. One time constant alone may agree by
    chance: the step is only taken where two different ones do.

    Returns:
        The time step, and what a single time constant hints at; each None where there is none.
    """
    taus: list[float] = []
    steps: list[float] = []
    for fields in nodes.values():
        for tau_key, gain_key in _PAIRS:
            if tau_key in fields and gain_key in fields:
                tau, gain = np.broadcast_arrays(np.ravel(fields[tau_key]), np.ravel(fields[gain_key]))
                if tau.dtype.kind not in "fiu" or gain.dtype.kind not in "fiu" or not np.all(gain > 1):
                    return None, None
                taus += tau.astype(np.float64).tolist()
                steps += (tau / gain).tolist()
    if not steps or not np.isfinite(steps).all() or min(steps) <= 0:
        return None, None
    if max(steps) - min(steps) > _SAME * max(steps):
        return None, None
    found = float(np.mean(steps)) * 1e6
    # Writers compute tau and r in float32; a step that is round within that precision was meant to be round.
    if abs(found - (round_number := float(f"{found:.4g}"))) < 1e-6 * found:
        found = round_number
    several = max(taus) - min(taus) > _SAME * max(taus)
    return (found, found) if several else (None, found)

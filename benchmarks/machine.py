"""What all benchmarks share: the machine they ran on, times of interleaved calls, and peaks of memory."""

import ctypes
import gc
import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from neurodeploy import buffers


def machine(packages: Sequence[str] = ("torch",)) -> dict[str, Any]:
    """Return commit, processor, threads, and versions of ``packages``."""

    def git(*arguments: str) -> str:
        try:
            return subprocess.run(
                ("git", *arguments), cwd=Path(__file__).parent, capture_output=True, text=True, check=False
            ).stdout.strip()
        except OSError:  # no git on this machine
            return ""

    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        model = next(
            (line.split(":")[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line), ""
        )
    return {
        "commit": (git("rev-parse", "--short", "HEAD") or "unknown")
        + ("+changes" if git("status", "--porcelain", "-uno") else ""),
        "cpu": model,
        "cores": os.cpu_count(),
        "threads_used": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
    }


def version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def interleaved(
    runs: Mapping[str, Callable[[], Any]], rounds: int, seconds_each: float, burst: int
) -> dict[str, list[Any]]:
    """Results of every run, called ``burst`` times per round; a slow one leaves after ``seconds_each`` in all.

    A contender has its turns in every round, so that other load on the machine falls on all alike; the first call of a
    burst finds caches that another one has filled.
    """
    results: dict[str, list[Any]] = {name: [] for name in runs}
    spent = dict.fromkeys(runs, 0.0)
    for _ in range(rounds):
        for name, run in runs.items():
            for _ in range(burst):
                if spent[name] < seconds_each:
                    start = time.perf_counter()
                    results[name].append(run())
                    spent[name] += time.perf_counter() - start
    return results


def seconds(run: Callable[[], Any]) -> float:
    """Wall-clock time of one call."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_mib(run: Callable[[], Any]) -> float | None:
    """How far one call raises the resident memory of this process above what it was before; None where unknown.

    Memory that allocators keep for later is given back first, so that a call pays for all that it touches.
    """
    gc.collect()
    buffers.release()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    except (OSError, AttributeError):  # not Linux, or not allowed
        return None
    before = _status("VmRSS")
    kept = run()
    peak = _status("VmHWM")
    del kept
    return max(0.0, (peak - before) / 1024)


def _status(field: str) -> int:
    """Kibibytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))

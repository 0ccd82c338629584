"""What share of the chips of a kind will do what the network did: the numbers, a picture and a page."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import ConfigError
from neurodeploy.files import write_json, write_text

#: Half-width of a 95 % interval in standard deviations of the normal distribution.
Z_95 = 1.959964


@dataclass(frozen=True, eq=False)
class Yield:
    """Accuracies of many virtual chips with one program, on the same patterns.

    Attributes:
        target: name of the chip.
        nominal: accuracy of the program on a chip without deviations and noise, 0..1.
        serials: int64 ``[chips]``.
        accuracies: float64 ``[chips]``, 0..1.
        silent: float64 ``[chips]``, share of the patterns to which no output fired.
        patterns: number of patterns.
        settings: what the chips were run with, JSON-ready.
        causes: group of deviations -> float64 ``[chips of the study]``, accuracies where only this group deviates.
        assumptions: numbers of the chip's description that nobody published.
    """

    target: str
    nominal: float
    serials: NDArray[np.int64]
    accuracies: NDArray[np.float64]
    silent: NDArray[np.float64]
    patterns: int
    settings: Mapping[str, Any]
    causes: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    assumptions: Sequence[str] = ()

    def share_above(self, accuracy: float) -> float:
        """Share of the chips whose accuracy is at least so high."""
        return float(np.mean(self.accuracies >= accuracy))

    def interval(self, accuracy: float) -> tuple[float, float]:
        """95 % confidence interval of the share of all chips of the kind (Wilson 1927)."""
        n, p = len(self.accuracies), self.share_above(accuracy)
        middle = p + Z_95**2 / (2 * n)
        half = Z_95 * sqrt(p * (1 - p) / n + Z_95**2 / (4 * n * n))
        scale = 1 + Z_95**2 / n
        return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)

    def reached_by(self, share: float) -> float:
        """The highest accuracy that at least so large a share of the chips reaches."""
        falling = np.sort(self.accuracies)[::-1]
        return float(falling[max(1, ceil(round(share * falling.size, 9))) - 1])

    def statement(self, accuracy: float) -> str:
        """The result in one sentence."""
        low, high = self.interval(accuracy)
        return (
            f"{self.share_above(accuracy):.1%} of {len(self.accuracies):,} virtual {self.target} chips stay above "
            f"{accuracy:.1%} (95 % interval of the share: {low:.1%} to {high:.1%})."
        )

    def summary(self) -> dict[str, float]:
        """Accuracies: ``nominal``, ``mean``, ``sd`` and percentiles over the chips."""
        quantiles = {f"p{q}": float(np.quantile(self.accuracies, q / 100)) for q in (5, 25, 50, 75, 95)}
        mean, sd = float(self.accuracies.mean()), float(self.accuracies.std())
        return {"nominal": self.nominal, "mean": mean, "sd": sd, **quantiles}

    def to_dict(self, accuracy: float) -> dict[str, Any]:
        """JSON-ready data; ``accuracy``: the level that the statement is about."""
        return {
            "target": self.target,
            "chips": len(self.accuracies),
            "patterns": self.patterns,
            "above": accuracy,
            "share_above": self.share_above(accuracy),
            "interval": list(self.interval(accuracy)),
            "statement": self.statement(accuracy),
            "accuracy": self.summary(),
            "silent": float(self.silent.mean()),
            "causes": {name: float(np.mean(values)) for name, values in self.causes.items()},
            "settings": dict(self.settings),
            "assumptions": list(self.assumptions),
        }

    def save(self, folder: str | Path, accuracy: float) -> None:
        """Write ``yield.json``, ``yield.csv`` (a row per chip), ``yield.svg`` and ``yield.html`` (self-contained).

        Raises:
            ConfigError: the folder cannot be written to.
        """
        folder = Path(folder)
        write_json(folder / "yield.json", self.to_dict(accuracy))
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(("serial", "accuracy", "silent"))
        rows.writerows(zip(self.serials.tolist(), self.accuracies.tolist(), self.silent.tolist(), strict=True))
        write_text(folder / "yield.csv", text.getvalue())
        picture = yield_picture(self, accuracy)
        write_text(folder / "yield.svg", picture)
        write_text(folder / "yield.html", _page(self, accuracy, picture))


def default_level(nominal: float) -> float:
    """The level of the statement where none is given: two points below the program's own accuracy."""
    return max(0.0, round(nominal - 0.02, 4))


def check_level(accuracy: float) -> None:
    """Refuse a level that is no share.

    Raises:
        ConfigError: it is not between 0 and 1.
    """
    if not 0 <= accuracy <= 1:
        raise ConfigError(
            f"above is {accuracy:g}.", remedy="give an accuracy between 0 and 1, e.g. 0.9.", code="yield-level"
        )


def yield_picture(result: Yield, accuracy: float, *, width: int = 640, height: int = 360) -> str:
    """SVG: share of the chips that reach an accuracy, over the accuracy, above a histogram of the chips."""
    left, right, top, gap, foot = 52, 16, 16, 14, 40
    curve, counts_height = 210, height - 210 - top - gap - foot
    low = max(0.0, min(float(result.accuracies.min()), accuracy, result.nominal) - 0.01)
    high = min(1.0, max(float(result.accuracies.max()), accuracy, result.nominal) + 0.01)

    def x(value: float) -> float:
        return left + (width - left - right) * (value - low) / (high - low)

    def y(share: float) -> float:
        return top + curve * (1 - share)

    ordered = np.sort(result.accuracies)
    points = [(low, 1.0)]
    for index, value in enumerate(ordered):
        points += [(float(value), 1 - index / len(ordered)), (float(value), 1 - (index + 1) / len(ordered))]
    points.append((high, 0.0))
    path = "M" + " L".join(f"{x(a):.1f},{y(share):.1f}" for a, share in points)
    edges = np.linspace(low, high, 41)
    counts = np.histogram(result.accuracies, edges)[0]
    base = height - foot
    scale = counts_height / max(1, int(counts.max()))
    bars = "".join(
        f'<rect x="{x(a) + 0.5:.1f}" y="{base - count * scale:.1f}" width="{max(1.0, x(b) - x(a) - 1):.1f}" '
        f'height="{count * scale:.1f}" fill="#7aa6c2"><title>{count} chips: {a:.1%} to {b:.1%}</title></rect>'
        for a, b, count in zip(edges[:-1], edges[1:], counts, strict=True)
        if count
    )
    step = next(s for s in (0.01, 0.02, 0.05, 0.1, 0.2) if (high - low) / s <= 8 or s == 0.2)
    ticks = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    grid = "".join(
        f'<line x1="{x(t):.1f}" x2="{x(t):.1f}" y1="{top}" y2="{base}" stroke="#ddd"/>'
        f'<text x="{x(t):.1f}" y="{base + 15}" text-anchor="middle">{t:.0%}</text>'
        for t in map(float, ticks)
    ) + "".join(
        f'<line x1="{left}" x2="{width - right}" y1="{y(s):.1f}" y2="{y(s):.1f}" stroke="#ddd"/>'
        f'<text x="{left - 6}" y="{y(s) + 4:.1f}" text-anchor="end">{s:.0%}</text>'
        for s in (0, 0.25, 0.5, 0.75, 1)
    )
    share = result.share_above(accuracy)
    marks = (
        f'<line x1="{x(accuracy):.1f}" x2="{x(accuracy):.1f}" y1="{top}" y2="{base}" stroke="#c0392b" '
        f'stroke-dasharray="5 3"/><circle cx="{x(accuracy):.1f}" cy="{y(share):.1f}" r="4" fill="#c0392b"/>'
        f'<line x1="{x(result.nominal):.1f}" x2="{x(result.nominal):.1f}" y1="{top}" y2="{base}" stroke="#2c7a4b" '
        f'stroke-dasharray="2 3"/>'
    )
    key = (
        f'<text x="{left + 10}" y="{y(0.16):.1f}" fill="#c0392b">{share:.1%} of {len(ordered):,} chips reach '
        f'{accuracy:.1%}</text><text x="{left + 10}" y="{y(0.07):.1f}" fill="#2c7a4b">without mismatch: '
        f"{result.nominal:.1%}</text>"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" font-family="sans-serif" font-size="12" fill="#333"><rect width="{width}" height="{height}" '
        f'fill="#fff"/>{grid}{bars}<path d="{path}" fill="none" stroke="#1f4e79" stroke-width="2"/>{marks}{key}'
        f'<text x="{(left + width - right) / 2:.0f}" y="{height - 8}" text-anchor="middle">accuracy of a chip; above: '
        "share of the chips that reach it, below: their number</text></svg>\n"
    )


def _page(result: Yield, accuracy: float, picture: str) -> str:
    from jinja2 import Environment

    template = resources.files("neurodeploy.analog").joinpath("yield.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        statement=result.statement(accuracy),
        picture=picture,
        summary=result.summary(),
        patterns=result.patterns,
        silent=float(result.silent.mean()),
        causes={name: float(np.mean(values)) for name, values in result.causes.items()},
        study=len(next(iter(result.causes.values()), ())),
        settings=result.settings,
        assumptions=result.assumptions,
        target=result.target,
    )

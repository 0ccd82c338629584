"""The accuracy-latency-SynOps curve as an SVG file of its own."""

import math
from html import escape

from neurodeploy.conversion.latency import LatencyCurve

_STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.title{font-weight:600}.axis{stroke:#888}.grid{stroke:#e4e4e4}"
    ".ann{stroke:#888;stroke-dasharray:5 4}.line{fill:none;stroke:#1f6fb2;stroke-width:2}.dot{fill:#1f6fb2}"
)


def curve_picture(curve: LatencyCurve, accuracy_ann: float) -> str:
    """Accuracy over latency, with the SynOps per image until then below; the ANN's accuracy as a dashed line.

    The horizontal axis is logarithmic. The vertical one starts below the lowest point, and says where.
    """

    left, right, top, bottom, width, height = 62, 34, 34, 62, 640, 376
    times = [point.latency_us for point in curve.points]
    lowest = min([point.accuracy for point in curve.points] + [accuracy_ann])
    low = max(0, math.floor(10 * lowest - 1e-9)) / 10
    first, last = math.log(times[0]), math.log(times[-1])

    def x(latency_us: float) -> float:
        return left + (width - left - right) * ((math.log(latency_us) - first) / ((last - first) or 1.0))

    def y(accuracy: float) -> float:
        return top + (height - top - bottom) * (1 - accuracy) / ((1 - low) or 1.0)

    title = escape(f"{curve.target}, event by event: {curve.images} images")
    parts = [f'<text class="title" x="{left}" y="18">{title}</text>']
    ticks = round((1 - low) * 10)
    for tick in range(ticks + 1):
        level = low + (1 - low) * tick / max(ticks, 1)
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(level):.1f}" y2="{y(level):.1f}"/>'
            f'<text x="{left - 8}" y="{y(level) + 4:.1f}" text-anchor="end">{level:.0%}</text>'
        )
    parts.append(
        f'<line class="ann" x1="{left}" x2="{width - right}" y1="{y(accuracy_ann):.1f}" y2="{y(accuracy_ann):.1f}"/>'
        f'<text x="{left + 4}" y="{y(accuracy_ann) - 6:.1f}">ANN {accuracy_ann:.2%}</text>'
    )
    path = " ".join(f"{x(point.latency_us):.1f},{y(point.accuracy):.1f}" for point in curve.points)
    parts.append(f'<polyline class="line" points="{path}"/>')
    for point in curve.points:
        at, level = x(point.latency_us), y(point.accuracy)
        parts.append(
            f'<circle class="dot" cx="{at:.1f}" cy="{level:.1f}" r="4"><title>{point.latency_us / 1000:g} ms: '
            f"{point.accuracy:.2%}, {point.synops:,.0f} SynOps</title></circle>"
            f'<text x="{max(at, left + 24):.1f}" y="{level + 18:.1f}" text-anchor="middle">{point.accuracy:.1%}</text>'
            f'<text x="{at:.1f}" y="{height - bottom + 16}" text-anchor="middle">{point.latency_us / 1000:g} ms</text>'
            f'<text x="{at:.1f}" y="{height - bottom + 32}" text-anchor="middle">{_short(point.synops)}</text>'
        )
    base = height - bottom
    parts.append(
        f'<line class="axis" x1="{left}" x2="{width - right}" y1="{base}" y2="{base}"/>'
        f'<text x="{(left + width - right) / 2}" y="{height - 8}" text-anchor="middle">'
        "latency, and SynOps per image until then</text>"
    )
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{_STYLE}</style>'
        f'<rect width="{width}" height="{height}" fill="white"/>{"".join(parts)}</svg>\n'
    )


def _short(number: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"

"""Small charts as SVG text. Colours and fonts come from the page's style sheet (``report.html.j2``)."""

from collections.abc import Sequence
from html import escape


def bars(values: Sequence[float], labels: Sequence[str], *, step: int = 27, height: int = 90) -> str:
    """Vertical bars with a label under each; the tallest fills the height."""
    top, foot = 4, 16
    width = step * max(len(values), 1)
    peak = max([*values, 1e-12])
    parts = []
    for index, (value, label) in enumerate(zip(values, labels, strict=True)):
        tall = (height - top - foot) * value / peak
        x = index * step
        place = f'x="{x + 1:.1f}" y="{height - foot - tall:.1f}" width="{step - 2:.1f}" height="{tall:.1f}"'
        parts.append(
            f'<rect class="bar" {place}><title>{escape(label)}: {value:g}</title></rect>'
            f'<text class="tick" x="{x + step / 2:.1f}" y="{height - 4}" text-anchor="middle">{escape(label)}</text>'
        )
    axis = f'<line class="axis" x1="0" x2="{width}" y1="{height - foot}" y2="{height - foot}"/>'
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{"".join(parts)}{axis}</svg>'
    )


def meter(used: float, limit: float, *, width: int = 120) -> str:
    """A horizontal bar that shows ``used`` of ``limit``."""
    share = used / limit if limit else 0.0
    return (
        f'<svg class="meter" viewBox="0 0 {width} 10" width="{width}" height="10" role="img">'
        f"<title>{used:g} of {limit:g} ({share:.1%})</title>"
        f'<rect class="track" width="{width}" height="10" rx="2"/>'
        f'<rect class="bar" width="{width * min(share, 1):.1f}" height="10" rx="2"/></svg>'
    )


def network(boxes: Sequence[tuple[str, Sequence[str]]], *, box: tuple[int, int] = (138, 74), gap: int = 26) -> str:
    """A chain of labelled boxes, left to right, wrapped after six.

    Args:
        boxes: (title, lines of text) per box.
        box: width and height of one box.
        gap: space for the arrow between two boxes.
    """
    w, h = box
    per_row = 6
    rows = (len(boxes) + per_row - 1) // per_row
    width, height = per_row * (w + gap), rows * (h + gap)
    parts = []
    for index, (title, lines) in enumerate(boxes):
        x, y = (index % per_row) * (w + gap), (index // per_row) * (h + gap) + 2
        text = "".join(
            f'<text class="small" x="{x + 8}" y="{y + 32 + 13 * i}">{escape(line)}</text>'
            for i, line in enumerate(lines)
        )
        parts.append(
            f'<rect class="box" x="{x + 1}" y="{y}" width="{w}" height="{h}" rx="5"/>'
            f'<text class="name" x="{x + 8}" y="{y + 17}">{escape(title)}</text>{text}'
        )
        if index + 1 < len(boxes):
            middle = y + h / 2
            parts.append(f'<path class="arrow" d="M{x + w + 4} {middle} h{gap - 9} m-5 -4 l5 4 l-5 4"/>')
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{"".join(parts)}</svg>'

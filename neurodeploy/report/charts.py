"""Small charts as SVG text. Colours and fonts come from the page's style sheet (``report.html.j2``)."""

from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise


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


def waterfall(start: float, steps: Sequence[tuple[str, float]], *, names: tuple[str, str], step: int = 132) -> str:
    """Columns from a first value to a last one, with a floating column per change between them.

    The axis starts a little below the lowest level, not at 0, and says where.

    Args:
        start: the first value, a share of 1.
        steps: (label, change) per column, changes as shares of 1.
        names: labels of the first and the last column.
        step: width of a column with its gap.
    """
    top, foot, left, height = 18, 20, 20, 190
    levels = [start]
    for _, change in steps:
        levels.append(levels[-1] + change)
    low = max(0.0, min(levels) - max(0.02, max(levels) - min(levels)))
    high = max(max(levels), low + 1e-9)

    def at(level: float) -> float:
        return top + (height - top - foot) * (high - level) / (high - low)

    floating = [
        (label, before, after, "gain" if after >= before else "loss", f"{100 * change:+.4g}")
        for (label, change), before, after in zip(steps, levels[:-1], levels[1:], strict=True)
    ]
    first = (names[0], low, levels[0], "bar", f"{levels[0]:.1%}")
    columns = [first, *floating, (names[1], low, levels[-1], "bar", f"{levels[-1]:.1%}")]
    parts = []
    for index, (label, before, after, kind, value) in enumerate(columns):
        upper, lower = at(max(before, after)), at(min(before, after))
        x = left + index * step
        place = f'x="{x + 14}" y="{upper:.1f}" width="{step - 28}" height="{max(lower - upper, 1.5):.1f}"'
        middle = f'x="{x + step / 2:.0f}" text-anchor="middle"'
        parts.append(
            f'<rect class="{kind}" {place}><title>{escape(label)}: {value}</title></rect>'
            f'<text class="value" {middle} y="{upper - 4:.1f}">{value}</text>'
            f'<text class="small" {middle} y="{height - 5}">{escape(label)}</text>'
        )
        if index + 1 < len(columns):
            level = f"{at(after):.1f}"
            parts.append(f'<line class="axis" x1="{x + step - 14}" x2="{x + step + 14}" y1="{level}" y2="{level}"/>')
    width, base = left + step * len(columns), height - foot
    axis = (
        f'<line class="axis" x1="0" x2="{width}" y1="{base}" y2="{base}"/>'
        f'<text class="tick" x="0" y="{base - 3}">{low:.0%}</text>'
    )
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg {size} role="img">{axis}{"".join(parts)}</svg>'


def meter(used: float, limit: float, *, width: int = 120) -> str:
    """A horizontal bar that shows ``used`` of ``limit``."""
    share = used / limit if limit else 0.0
    return (
        f'<svg class="meter" viewBox="0 0 {width} 10" width="{width}" height="10" role="img">'
        f"<title>{used:g} of {limit:g} ({share:.1%})</title>"
        f'<rect class="track" width="{width}" height="10" rx="2"/>'
        f'<rect class="bar" width="{width * min(share, 1):.1f}" height="10" rx="2"/></svg>'
    )


def rates(values: Sequence[float], limit: float, *, width: int = 300, height: int = 34) -> str:
    """A rate over time as bars from left to right, and a line at ``limit`` where it is in sight.

    More values than pixels are drawn as the largest of each pixel; bars above the limit stand out.
    """
    peak = max([*values, 1e-12])
    high = max(peak, limit) if limit < 4 * peak else peak
    columns = min(len(values), width)
    edges = [index * len(values) // max(columns, 1) for index in range(columns + 1)]
    step = width / max(columns, 1)
    parts = []
    for index, (first, last) in enumerate(pairwise(edges)):
        value = max(values[first:last])
        tall = (height - 2) * value / high
        kind = "loss" if value > limit else "bar"
        if value:
            place = f'x="{index * step:.2f}" y="{height - tall:.1f}"'
            parts.append(f'<rect class="{kind}" {place} width="{max(step - 0.3, 0.7):.2f}" height="{tall:.1f}"/>')
    if limit <= high:
        y = f"{height - (height - 2) * limit / high:.1f}"
        parts.append(f'<line class="limit" x1="0" x2="{width}" y1="{y}" y2="{y}"/>')
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return f'<svg {size} role="img"><title>peak {peak:g}, limit {limit:g}</title>{"".join(parts)}</svg>'


def network(
    boxes: Mapping[str, Sequence[str]],
    arrows: Sequence[tuple[str, str]],
    *,
    box: tuple[int, int] = (138, 74),
    gap: int = 26,
) -> str:
    """Labelled boxes joined by arrows. A chain is wrapped after six; branches stand below each other.

    Args:
        boxes: title -> lines of text, every box after those that lead to it; an arrow to an earlier box is a loop.
        arrows: (title, title) pairs.
        box: width and height of one box, in pixels.
        gap: space for the arrow between two boxes, in pixels.
    """
    w, h = box
    titles = list(boxes)
    is_chain = list(arrows) == list(pairwise(titles))
    if is_chain:
        cells = {title: (index % 6, index // 6) for index, title in enumerate(titles)}
    else:
        cells = _branched(titles, arrows)
    corners = {title: (column * (w + gap), row * (h + gap) + 2) for title, (column, row) in cells.items()}
    width = max(x for x, _ in corners.values()) + w + gap
    height = max(y for _, y in corners.values()) + h + gap
    parts = []
    passing: dict[int, int] = {}  # row -> arrows that already run below it
    for before, after in arrows:
        (x, y), (to_x, to_y) = corners[before], corners[after]
        middle, to_middle = y + h / 2, to_y + h / 2
        start, end = x + w + 4, to_x - 5
        (column, row), (to_column, to_row) = cells[before], cells[after]
        if is_chain and to_row != row:  # the next row of a wrapped chain
            path = f"M{start} {middle} h{gap - 9}"
        elif to_column == column + 1:
            path = f"M{start} {middle} C{start + gap} {middle} {end - gap} {to_middle} {end} {to_middle}"
        else:  # over other columns, or back: between the rows, where no box is
            below = row if to_row >= row else row - 1
            passing[below] = passing.get(below, 0) + 1
            level = 2 + below * (h + gap) + h + gap * (0.2 + 0.2 * (passing[below] % 4))
            out, back = start + gap / 2, end - gap / 2
            path = f"M{start} {middle} C{out} {middle} {start} {level:g} {out} {level:g} H{back} "
            path += f"C{end} {level:g} {back} {to_middle} {end} {to_middle}"
        parts.append(f'<path class="arrow" d="{path} m-5 -4 l5 4 l-5 4"/>')
    for title, lines in boxes.items():
        x, y = corners[title]
        text = "".join(
            f'<text class="small" x="{x + 8}" y="{y + 32 + 13 * i}">{escape(line)}</text>'
            for i, line in enumerate(lines)
        )
        parts.append(
            f'<rect class="box" x="{x + 1}" y="{y}" width="{w}" height="{h}" rx="5"/>'
            f'<text class="name" x="{x + 8}" y="{y + 17}">{escape(title)}</text>{text}'
        )
    return f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">{"".join(parts)}</svg>'


def _branched(titles: Sequence[str], arrows: Sequence[tuple[str, str]]) -> dict[str, tuple[int, int]]:
    """(column, row) of every box: right of all that lead to it, and in the row of one of them where that is free."""
    cells: dict[str, tuple[int, int]] = {}
    for title in titles:
        before = [cells[source] for source, end in arrows if end == title and source in cells]
        column = max((found[0] + 1 for found in before), default=0)
        rows = (*(row for _, row in before), *range(len(titles)))
        cells[title] = column, next(row for row in rows if (column, row) not in cells.values())
    return cells

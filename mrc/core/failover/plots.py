"""Plots in SVG, as small as they can be: a timeline of steps, and lines over time.

What was not read is a grey area, and a gap one with a dashed edge; a line goes through neither. Colours come from the page's style.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mrc.core.failover.markup import Markup, element, joined

Number = float | str

WIDTH = 860
LEFT, RIGHT = 64, 12
ROW = 22
NAME_WIDTH, NAME_CHARACTERS_MAX = 172, 24


class Span(NamedTuple):
    """A stretch of time; both ends are shown."""

    begin_ms: int
    end_ms: int

    def at(self, at_ms: float, left: float, right: float) -> float:
        """Return where a time lies between two edges; one outside lies on an edge."""
        share = (at_ms - self.begin_ms) / max(1, self.end_ms - self.begin_ms)
        return left + min(1.0, max(0.0, share)) * (right - left)


class Bar(NamedTuple):
    """A row of a timeline; ``waits`` are parts of it. ``kind`` is a class of the page's style."""

    name: str
    spans: tuple[Span, ...]
    waits: tuple[Span, ...]
    said: str
    kind: str


class Mark(NamedTuple):
    """A moment, as a line through a plot; with ``before`` its words stand on the left where there is room."""

    at_ms: int
    said: str
    before: bool = False


class Line(NamedTuple):
    """A line of a plot: one value per time, or the word for why there is none. ``kind`` is a class of the page's style."""

    name: str
    values: tuple[Number, ...]
    kind: str


def timeline(span: Span, zero_ms: int, bars: Sequence[Bar], marks: Iterable[Mark]) -> Markup:
    """Return the steps as bars one below the other."""
    left, right, top = NAME_WIDTH, WIDTH - 76, 18
    height = top + ROW * len(bars)
    parts = [*_times(span, zero_ms, left, right, top, height)]
    for number, bar in enumerate(bars):
        y = top + ROW * number
        parts.append(element("text", _cut(bar.name), x=left - 8, y=y + 15, class_="name"))
        for part, kind in (*((one, bar.kind) for one in bar.spans), *((one, "wait") for one in bar.waits)):
            x, end = span.at(part.begin_ms, left, right), span.at(part.end_ms, left, right)
            parts.append(element("rect", x=x, y=y + 4, width=max(2.0, end - x), height=ROW - 9, class_=f"bar {kind}", rx=2))
        parts.append(element("text", bar.said, x=WIDTH, y=y + 15, class_="end"))
    parts += [_mark(mark, span, left, right, top, height) for mark in marks]
    return _svg(height + 22, parts, "Timeline of the steps")


def lines(
    title: str, span: Span, zero_ms: int, times: Sequence[int], gaps: Sequence[bool], drawn: Sequence[Line], marks: Iterable[Mark]
) -> Markup:
    """Return lines over time.

    Args:
        times: of the values, growing.
        gaps: per time, whether nothing was read for a while before it.
    """
    left, right, top, bottom = LEFT, WIDTH - RIGHT, 18, 138
    highest = max((value for line in drawn for value in line.values if not isinstance(value, str)), default=0.0)
    ticks = _ticks(highest)
    parts: list[Markup] = [
        element("rect", x=x, y=top, width=end - x, height=bottom - top, class_=kind)
        for x, end, kind in _holes(span, times, gaps, drawn, left, right)
    ]
    parts += _times(span, zero_ms, left, right, top, bottom)
    for tick in ticks:
        y = bottom - tick / ticks[-1] * (bottom - top)
        parts.append(element("line", x1=left, x2=right, y1=y, y2=y, class_="grid"))
        parts.append(element("text", f"{tick:,.6g}", x=left - 6, y=y + 4, class_="name"))
    for line in drawn:
        for run in _runs(times, gaps, line.values):
            points = [(span.at(at_ms, left, right), bottom - value / ticks[-1] * (bottom - top)) for at_ms, value in run]
            if len(points) == 1:
                parts.append(element("circle", cx=points[0][0], cy=points[0][1], r=2, class_=f"dot {line.kind}"))
            else:
                parts.append(element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in points), class_=f"line {line.kind}"))
    parts += [_mark(mark, span, left, right, top, bottom) for mark in marks]
    return _svg(bottom + 22, parts, title)


def _runs(times: Sequence[int], gaps: Sequence[bool], values: Sequence[Number]) -> list[list[tuple[int, float]]]:
    """Return the unbroken pieces of a line."""
    found: list[list[tuple[int, float]]] = []
    broken = True
    for at_ms, gap, value in zip(times, gaps, values, strict=True):
        if isinstance(value, str):
            broken = True
            continue
        if broken or gap:
            found.append([])
        found[-1].append((at_ms, value))
        broken = False
    return found


def _holes(
    span: Span, times: Sequence[int], gaps: Sequence[bool], drawn: Sequence[Line], left: float, right: float
) -> list[tuple[float, float, str]]:
    """Return the stretches in which a line has no value, with their kind; each reaches back to the time before."""
    found: list[tuple[float, float, str]] = []
    for number, at_ms in enumerate(times):
        unread = any(isinstance(line.values[number], str) for line in drawn)
        if number == 0 or not (gaps[number] or unread):
            continue
        x, end = span.at(times[number - 1], left, right), span.at(at_ms, left, right)
        found.append((x, end, "gap" if gaps[number] else "unread"))
    return found


def _ticks(highest: float) -> list[float]:
    """Return three to six round numbers from 0 to the first one that is not below ``highest``."""
    if highest <= 0:
        return [0.0, 1.0]
    rough = highest / 4
    unit = 10 ** math.floor(math.log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough)
    return [step * number for number in range(math.ceil(highest / step) + 1)]


def _times(span: Span, zero_ms: int, left: float, right: float, top: float, bottom: float) -> Iterable[Markup]:
    """Yield the grid of times, in seconds from ``zero_ms`` on."""
    step_s = next(
        (
            step
            for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400)
            if step * 8000 >= span.end_ms - span.begin_ms
        ),
        604800.0,
    )
    first = math.ceil((span.begin_ms - zero_ms) / 1000 / step_s)
    last = math.floor((span.end_ms - zero_ms) / 1000 / step_s)
    for number in range(first, min(last, first + 60) + 1):
        x = span.at(zero_ms + number * step_s * 1000, left, right)
        yield element("line", x1=x, x2=x, y1=top, y2=bottom, class_="grid")
        yield element("text", f"{number * step_s:.6g} s", x=x, y=bottom + 16, class_="tick")


def _mark(mark: Mark, span: Span, left: float, right: float, top: float, bottom: float) -> Markup:
    x = span.at(mark.at_ms, left, right)
    anchor = "end" if x > right - 80 or (mark.before and x > left + 80) else "start"
    said = element("text", mark.said, x=x + (-4 if anchor == "end" else 4), y=top - 6, class_="marked", text_anchor=anchor)
    return joined((element("line", x1=x, x2=x, y1=top - 14, y2=bottom, class_="mark"), said))


def _cut(name: str) -> str:
    return name if len(name) <= NAME_CHARACTERS_MAX else f"{name[: NAME_CHARACTERS_MAX - 1]}…"


def _svg(height: int, parts: Iterable[str], title: str) -> Markup:
    return element("svg", element("title", title), *parts, viewBox=f"0 0 {WIDTH} {height}", role="img", aria_label=title)

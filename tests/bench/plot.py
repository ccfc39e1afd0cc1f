"""Plots as SVG, written by hand: bars and lines, nothing to install."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WIDTH, _LABEL, _ROW = 760, 190, 30
_COLOURS = ("#1f6feb", "#8b949e", "#d29922", "#3fb950", "#a371f7")


def _page(height: int, title: str, shapes: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif" '
        f'font-size="13"><rect width="{_WIDTH}" height="{height}" fill="white"/>'
        f'<text x="12" y="24" font-size="16">{escape(title)}</text>{"".join(shapes)}</svg>\n'
    )


def bars(title: str, unit: str, values: Mapping[str, float]) -> str:
    """One bar a value, the first one in colour."""
    most = max(values.values())
    room = _WIDTH - _LABEL - 110
    shapes = []
    for i, (name, value) in enumerate(values.items()):
        y, length = 44 + i * _ROW, max(1.0, value / most * room)
        shapes += [
            f'<text x="{_LABEL - 8}" y="{y + 15}" text-anchor="end">{escape(name)}</text>',
            f'<rect x="{_LABEL}" y="{y}" width="{length:.1f}" height="20" fill="{_COLOURS[0 if i == 0 else 1]}"/>',
            f'<text x="{_LABEL + length + 6:.1f}" y="{y + 15}">{value:,.0f}</text>',
        ]
    height = 44 + len(values) * _ROW + 26
    shapes.append(f'<text x="{_LABEL}" y="{height - 8}" fill="#57606a">{escape(unit)}</text>')
    return _page(height, title, shapes)


def lines(title: str, across: str, up: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines over a logarithmic axis; both axes are named, every point has its value."""
    points = [point for each in series.values() for point in each]
    low, high = math.log10(min(x for x, _ in points)), math.log10(max(x for x, _ in points))
    most, left, bottom, width, height = max(y for _, y in points) * 1.1, 70, 300, _WIDTH - 140, 240
    shapes = [f'<path d="M{left} {bottom - height}V{bottom}H{left + width}" fill="none" stroke="#57606a"/>']
    for number, (name, each) in enumerate(series.items()):
        at = [(left + (math.log10(x) - low) / (high - low or 1) * width, bottom - y / most * height) for x, y in each]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        colour = _COLOURS[number % len(_COLOURS)]
        shapes.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (x, y), (real_x, real_y) in zip(at, each, strict=True):
            shapes.append(
                f'<text x="{x:.1f}" y="{y - 8:.1f}" text-anchor="middle" fill="{colour}">{real_y:,.0f}</text>'
            )
            shapes.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{real_x:,.0f}</text>')
        shapes.append(
            f'<text x="{left + 10}" y="{60 + number * 18}" fill="{colour}">{escape(name)}: {escape(up)}</text>'
        )
    shapes.append(f'<text x="{left + width}" y="{bottom + 38}" text-anchor="end">{escape(across)}</text>')
    return _page(bottom + 50, title, shapes)


def over_time(title: str, up: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """Lines over the minutes of a run, from zero up; each ends with its name and its last value."""
    points = [point for each in series.values() for point in each]
    longest, most = max(x for x, _ in points), max(y for _, y in points) * 1.1 or 1.0
    left, bottom, width, height, minutes = 70, 340, _WIDTH - 300, 280, longest / 60
    shapes = [f'<path d="M{left} {bottom - height}V{bottom}H{left + width}" fill="none" stroke="#57606a"/>']
    shapes += [
        f'<text x="{left + share * width:.0f}" y="{bottom + 18}" text-anchor="middle">{share * minutes:.0f} min</text>'
        for share in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    shapes += [
        f'<text x="{left - 6}" y="{bottom - share * height + 5:.0f}" text-anchor="end">{share * most:,.0f}</text>'
        for share in (0.0, 0.5, 1.0)
    ]
    shapes.append(f'<text x="12" y="{bottom - height - 8}" fill="#57606a">{escape(up)}</text>')
    for number, (name, each) in enumerate(sorted(series.items(), key=lambda one: -one[1][-1][1])):
        colour = _COLOURS[number % len(_COLOURS)]
        path = "L".join(f"{left + x / longest * width:.1f} {bottom - y / most * height:.1f}" for x, y in each)
        shapes.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        words = f"{escape(name)}: {each[-1][1]:,.0f}"
        shapes.append(f'<text x="{left + width + 10}" y="{70 + number * 20}" fill="{colour}">{words}</text>')
    return _page(bottom + 40, title, shapes)

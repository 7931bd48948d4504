"""Flow charts of Mermaid as pictures, drawn here: the script that draws them in a browser would have to be fetched, or shipped.

What is understood is what the pages use: ``flowchart TD``, and lines such as ``a --> b & c``. A chart of anything else stays text.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from attrs import define, field

_BLOCK = re.compile(r"^```mermaid\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_EDGES = re.compile(r"\s*([\w ./&-]+?) --> ([\w ./&-]+?)\s*")
_LETTER, _HEIGHT, _PAD, _GAP, _ROW = 8, 26, 12, 16, 64
_SWEEPS = 24


@define(eq=False)
class _Node:
    """A box, or with an empty ``name`` the place where a long arrow passes a row.

    Attributes:
        name: what is written in it.
        rank: its row.
        above: what points to it.
        below: what it points to.
        x: its middle.
    """

    name: str
    rank: int = 0
    above: list[_Node] = field(factory=list)
    below: list[_Node] = field(factory=list)
    x: float = 0.0

    @property
    def width(self) -> int:
        """In pixels."""
        return len(self.name) * _LETTER + 2 * _PAD if self.name else _GAP


def drawn(markdown: str) -> str:
    """A page whose flow charts are pictures."""
    return _BLOCK.sub(lambda match: _picture(match[1]) or match[0], markdown)


def edges(chart: str) -> list[tuple[str, str]] | None:
    """The arrows of a chart; None if it says anything else."""
    first, *lines = (line for line in chart.splitlines() if line.strip())
    found = [_EDGES.fullmatch(line) for line in lines]
    if first.strip() != "flowchart TD" or not lines or None in found:
        return None
    return [
        (start.strip(), end.strip())
        for match in found
        if match is not None
        for start, end in itertools.product(match[1].split("&"), match[2].split("&"))
    ]


def _picture(chart: str) -> str | None:
    arrows = edges(chart)
    if arrows is None:
        return None
    rows = _rows(arrows)
    width = _place(rows)
    shapes = []
    for node in itertools.chain(*rows):
        top = node.rank * _ROW + 1
        if node.name:
            shapes.append(f'<rect x="{node.x - node.width / 2:.0f}" y="{top}" width="{node.width}" height="{_HEIGHT}" rx="4"/>')
            shapes.append(f'<text x="{node.x:.0f}" y="{top + 17}">{node.name}</text>')
            shapes += [_arrow(node, child) for child in node.below]
    height = (len(rows) - 1) * _ROW + _HEIGHT + 2
    said = "; ".join(f"{start} to {end}" for start, end in arrows)
    return (
        f'<svg class="diagram" role="img" aria-label="Arrows: {said}" viewBox="-2 0 {width + 4:.0f} {height}" width="{width + 4:.0f}">'
        + "".join(shapes)
        + "</svg>"
    )


def _rows(arrows: Sequence[tuple[str, str]]) -> list[list[_Node]]:
    """Boxes by row, each below all that point to it; an arrow over several rows has a place in each that it passes."""
    nodes = {name: _Node(name) for arrow in arrows for name in arrow}
    for _ in nodes:
        for start, end in arrows:
            nodes[end].rank = max(nodes[end].rank, nodes[start].rank + 1)
    rows: list[list[_Node]] = [[] for _ in range(max(node.rank for node in nodes.values()) + 1)]
    for node in nodes.values():
        rows[node.rank].append(node)
    for start, end in arrows:
        last = nodes[start]
        for rank in range(last.rank + 1, nodes[end].rank):
            passing = _Node("", rank)
            rows[rank].append(passing)
            _join(last, passing)
            last = passing
        _join(last, nodes[end])
    return rows


def _join(above: _Node, below: _Node) -> None:
    above.below.append(below)
    below.above.append(above)


def _place(rows: list[list[_Node]]) -> float:
    """Order every row by the middle of its neighbours, up and down in turns, and give the boxes their places; returns the width."""
    width = max(sum(node.width + _GAP for node in row) for row in rows)
    for row in rows:
        _spread(row, width)
    for sweep in range(_SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            for node in row:
                near = node.above if sweep % 2 == 0 else node.below
                node.x = sum(other.x for other in near) / len(near) if near else node.x
            row.sort(key=lambda node: node.x)
            _apart(row, width)
    return width


def _spread(row: Sequence[_Node], width: float) -> None:
    free = (width - sum(node.width for node in row)) / (len(row) + 1)
    x = free
    for node in row:
        node.x = x + node.width / 2
        x += node.width + free


def _apart(row: Sequence[_Node], width: float) -> None:
    """Push boxes that overlap apart, to the right and then back from the edge."""
    edge = 0.0
    for node in row:
        node.x = max(node.x, edge + node.width / 2)
        edge = node.x + node.width / 2 + _GAP
    edge = width
    for node in reversed(row):
        node.x = min(node.x, edge - node.width / 2)
        edge = node.x - node.width / 2 - _GAP


def _arrow(start: _Node, end: _Node) -> str:
    """A curve from the lower edge of a box, through the places it passes, to the upper edge of another."""
    y = start.rank * _ROW + _HEIGHT + 1
    path, x = f"M{start.x:.0f} {y}", start.x
    while True:
        top = end.rank * _ROW + 1
        middle = (y + top) / 2
        tip = top - 6 if end.name else top
        path += f" C{x:.0f} {middle:.0f} {end.x:.0f} {middle:.0f} {end.x:.0f} {tip}"
        if end.name:
            head = f'<path class="head" d="M{end.x - 4:.0f} {top - 7} h8 l-4 7 z"/>'
            return f'<path d="{path}"/>{head}'
        y, x = top + _HEIGHT, end.x
        path += f" V{y}"
        (end,) = end.below

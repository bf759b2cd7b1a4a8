"""Mermaid diagrams as inline SVG, drawn when the site is built.

Mermaid itself is a megabyte of JavaScript that a theme loads from another host. The diagrams here
are few and small, so a part of its language is enough: `stateDiagram-v2` and `flowchart`, with
these lines and nothing else.

    A --> B: label              a transition; `[*]` is the start, or the end
    A["text<br>more"] --> B     a link; also `-.->`, `---`, `-->|label|`, and a node alone
    A:::kept                    a class, for site.css

The drawing is layered. Edges that would close a circle are turned round. A node's layer is its
longest way from a source, and every other layer belongs to the labels. A few sweeps order each
layer by the places of its neighbours. Places within a layer are then a least-squares fit that keeps
the order and the distances.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise

LINE_PX = 17
CHAR_PX = 6.9
LABEL_SHARE = 0.9
WRAP_CHARS = 20
GAP_PX = 26
LAYER_PX = 22
MARGIN_PX = 6
ARROW_PX = 8
SWEEPS = 24

_NODE = r'(\[\*\]|\w+)(?:\["([^"]*)"\])?(?::::(\w+))?'
_STATE_LINE = re.compile(r"(\[\*\]|\w+) --> (\[\*\]|\w+)(?:: (.+))?")
_FLOW_LINE = re.compile(rf"{_NODE}(?: (-->|-\.->|---)(?:\|([^|]+)\|)? {_NODE})?")


@dataclass(eq=False)
class Box:
    """Something that has a place: a node, the label of an edge, or a bend of one."""

    lines: list[str]
    kind: str
    width: float
    height: float
    layer: int = 0
    along: float = 0.0
    across: float = 0.0
    ups: list[Box] = field(default_factory=list)
    downs: list[Box] = field(default_factory=list)


@dataclass
class Edge:
    """From a node to another."""

    source: Box
    target: Box
    label: str
    style: str
    turned: bool = False
    chain: list[Box] = field(default_factory=list)


def svg(source: str) -> str:
    """Draw a diagram.

    Raises:
        ValueError: the source has a line that this module does not know.
    """
    kind, *lines = [
        line.strip()
        for line in source.strip().splitlines()
        if line.strip() and not line.strip().startswith("%%")
    ]
    sideways = kind == "flowchart LR"
    if kind not in ("stateDiagram-v2", "flowchart LR", "flowchart TD"):
        raise ValueError(
            f"a diagram begins with stateDiagram-v2, flowchart LR or TD, not with {kind!r}"
        )
    nodes, edges = (_states if kind == "stateDiagram-v2" else _flow)(lines)
    boxes = _layers(list(nodes.values()), edges, sideways=sideways)
    _place(boxes, sideways=sideways)
    return _drawing(
        list(nodes.values()), edges, [box for layer in boxes for box in layer], sideways=sideways
    )


# -- reading ---------------------------------------------------------------------------------------


def _states(lines: list[str]) -> tuple[dict[str, Box], list[Edge]]:
    nodes: dict[str, Box] = {}
    edges: list[Edge] = []
    for line in lines:
        match = _STATE_LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"not a transition: {line!r}")
        source, target, label = match.groups()
        ends = [
            nodes.setdefault(
                f"{name} {end}" if name == "[*]" else name,
                _terminal(end) if name == "[*]" else _node([name], "state"),
            )
            for name, end in ((source, "start"), (target, "end"))
        ]
        edges.append(Edge(*ends, label or "", "solid"))
    return nodes, edges


def _flow(lines: list[str]) -> tuple[dict[str, Box], list[Edge]]:
    nodes: dict[str, Box] = {}
    edges: list[Edge] = []

    def node(name: str, text: str | None, css_class: str | None) -> Box:
        if name not in nodes:
            nodes[name] = _node((text or name).split("<br>"), css_class or "plain")
        return nodes[name]

    for line in lines:
        if line.startswith("classDef "):
            continue  # colours for other readers of Mermaid; here they are in site.css
        match = _FLOW_LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"not a node or a link: {line!r}")
        source = node(*match.group(1, 2, 3))
        if match[4] is not None:
            styles = {"-->": "solid", "-.->": "dashed", "---": "line"}
            edges.append(
                Edge(source, node(*match.group(6, 7, 8)), match[5] or "", styles[match[4]])
            )
    return nodes, edges


def _node(lines: list[str], kind: str) -> Box:
    return Box(
        lines, kind, max(len(line) for line in lines) * CHAR_PX + 26, len(lines) * LINE_PX + 14
    )


def _terminal(kind: str) -> Box:
    return Box([], kind, 16, 16)


def _label(text: str) -> Box:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= WRAP_CHARS:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return Box(
        lines,
        "label",
        max(len(line) for line in lines) * CHAR_PX * LABEL_SHARE + 8,
        len(lines) * LINE_PX * LABEL_SHARE + 6,
    )


# -- layers ----------------------------------------------------------------------------------------


def _layers(nodes: list[Box], edges: list[Edge], *, sideways: bool) -> list[list[Box]]:
    """Give every node a layer, and every edge a box in each layer between; return all by layer."""
    _turn_circles(nodes, edges)
    step = 2 if any(edge.label for edge in edges) else 1
    for (
        _
    ) in nodes:  # the longest way is found after as many rounds as there are nodes, at the latest
        for edge in edges:
            upper, lower = _ends(edge)
            lower.layer = max(lower.layer, upper.layer + step)
    boxes = list(nodes)
    for edge in edges:
        upper, lower = _ends(edge)
        middle = (upper.layer + lower.layer) // 2
        for layer in range(upper.layer + 1, lower.layer):
            box = _label(edge.label) if layer == middle and edge.label else Box([], "bend", 8, 8)
            box.layer = layer
            edge.chain.append(box)
        way = [upper, *edge.chain, lower]
        for above, below in pairwise(way):
            above.downs.append(below)
            below.ups.append(above)
        boxes += edge.chain
    if sideways:
        for box in boxes:
            box.width, box.height = box.height, box.width
    layers: list[list[Box]] = [[] for _ in range(1 + max(box.layer for box in boxes))]
    for box in boxes:
        layers[box.layer].append(box)
    return _ordered(layers)


def _turn_circles(nodes: list[Box], edges: list[Edge]) -> None:
    """Turn the edges round that lead back to a node that the walk is still in."""
    inside: set[Box] = set()
    done: set[Box] = set()

    def walk(node: Box) -> None:
        inside.add(node)
        for edge in edges:
            if edge.source is node:
                if edge.target in inside:
                    edge.turned = True
                elif edge.target not in done:
                    walk(edge.target)
        inside.remove(node)
        done.add(node)

    for node in nodes:
        if node not in done:
            walk(node)


def _ends(edge: Edge) -> tuple[Box, Box]:
    return (edge.target, edge.source) if edge.turned else (edge.source, edge.target)


def _ordered(layers: list[list[Box]]) -> list[list[Box]]:
    """Order each layer by the mean place of its neighbours, downwards and upwards in turn.

    The order with the fewest crossings is kept.
    """
    best, least = [list(layer) for layer in layers], _crossings(layers)
    for sweep in range(SWEEPS):
        downwards = sweep % 2 == 0
        for layer in layers if downwards else reversed(layers):
            place = {box: at for one in layers for at, box in enumerate(one)}

            def mean(box: Box, place: dict[Box, int] = place, downwards: bool = downwards) -> float:
                near = box.ups if downwards else box.downs
                return sum(place[other] for other in near) / len(near) if near else place[box]

            layer.sort(key=mean)
        crossings = _crossings(layers)
        if crossings < least:
            best, least = [list(layer) for layer in layers], crossings
    return best


def _crossings(layers: list[list[Box]]) -> int:
    place = {box: at for layer in layers for at, box in enumerate(layer)}
    crossings = 0
    for layer in layers:
        lines = [(place[box], place[below]) for box in layer for below in box.downs]
        crossings += sum(
            1
            for at, one in enumerate(lines)
            for other in lines[at:]
            if (one[0] - other[0]) * (one[1] - other[1]) < 0
        )
    return crossings


# -- places ----------------------------------------------------------------------------------------


def _place(layers: list[list[Box]], *, sideways: bool) -> None:
    """Give every box its place: `across` within its layer, `along` from layer to layer."""
    gap = LINE_PX if sideways else GAP_PX
    for layer in layers:
        at = 0.0
        for box in layer:
            box.across = at + box.width / 2
            at += box.width + gap
    for sweep in range(SWEEPS):
        for layer in layers if sweep % 2 == 0 else reversed(layers):
            _fit(layer, gap)
    least = min(box.across - box.width / 2 for layer in layers for box in layer)
    at = MARGIN_PX + 0.0
    for layer in layers:
        height = max(box.height for box in layer)
        for box in layer:
            box.across += MARGIN_PX - least
            box.along = at + height / 2
        at += height + LAYER_PX


def _fit(layer: list[Box], gap: float) -> None:
    """Move a layer's boxes towards their neighbours, as close as order and distances allow.

    This is a least-squares fit by pooling adjacent violators.
    """
    offset, offsets = 0.0, []
    for at, box in enumerate(layer):
        if at:
            offset += (layer[at - 1].width + box.width) / 2 + gap
        offsets.append(offset)
    pools: list[tuple[float, float, int]] = []  # sum of wishes, weight, boxes
    for box, own in zip(layer, offsets, strict=True):
        near = [*box.ups, *box.downs]
        weight = 4.0 if box.kind in ("label", "bend") else 1.0
        wish = sum(other.across for other in near) / len(near) if near else box.across
        pools.append(((wish - own) * weight, weight, 1))
        while len(pools) > 1 and pools[-2][0] / pools[-2][1] > pools[-1][0] / pools[-1][1]:
            last, before = pools.pop(), pools.pop()
            pools.append((before[0] + last[0], before[1] + last[1], before[2] + last[2]))
    places = [total / weight for total, weight, boxes in pools for _ in range(boxes)]
    for box, place, own in zip(layer, places, offsets, strict=True):
        box.across = place + own


# -- drawing ---------------------------------------------------------------------------------------


def _drawing(nodes: list[Box], edges: list[Edge], boxes: list[Box], *, sideways: bool) -> str:
    def point(across: float, along: float) -> str:
        return f"{along:.1f},{across:.1f}" if sideways else f"{across:.1f},{along:.1f}"

    across = max(box.across + box.width / 2 for box in boxes) + MARGIN_PX
    along = max(box.along + box.height / 2 for box in boxes) + MARGIN_PX
    width, height = (along, across) if sideways else (across, along)
    said = escape(
        "Diagram: " + ", ".join(" ".join(node.lines) for node in nodes if node.lines), quote=True
    )
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}"'
    parts = [
        f'<div class="diagram"><svg role="img" aria-label="{said}" {size}>',
        *(_edge(edge, point) for edge in edges),
        *(_box(box, sideways=sideways) for box in boxes if box.kind != "bend"),
        "</svg></div>",
    ]
    return "".join(parts)


def _edge(edge: Edge, point: Callable[[float, float], str]) -> str:
    """Draw an edge as a smooth curve that leaves and meets its nodes at a right angle."""
    upper, lower = _ends(edge)
    way = [
        (_port(upper, upper.downs, (edge.chain or [lower])[0]), upper.along + upper.height / 2),
        *((box.across, box.along) for box in edge.chain),
        (_port(lower, lower.ups, (edge.chain or [upper])[-1]), lower.along - lower.height / 2),
    ]
    if edge.turned:
        way.reverse()
    slopes = [(0.0, (way[1][1] - way[0][1]) / 2)]
    for (x1, y1), (x2, _), (x3, y3) in zip(way, way[1:], way[2:], strict=False):
        turns_back = (x2 - x1) * (x3 - x2) <= 0  # a slope would make it overshoot here
        slopes.append((0.0 if turns_back else (x3 - x1) / 6, (y3 - y1) / 6))
    slopes.append((0.0, (way[-1][1] - way[-2][1]) / 2))
    path = f"M{point(*way[0])}"
    for ((x1, y1), (x2, y2)), ((dx1, dy1), (dx2, dy2)) in zip(
        pairwise(way), pairwise(slopes), strict=True
    ):
        path += f" C{point(x1 + dx1, y1 + dy1)} {point(x2 - dx2, y2 - dy2)} {point(x2, y2)}"
    curve = f'<path class="edge {edge.style}" d="{path}"/>'
    return curve if edge.style == "line" else curve + _head(way[-2], way[-1], point)


def _head(
    before: tuple[float, float], tip: tuple[float, float], point: Callable[[float, float], str]
) -> str:
    x, y = tip
    back = y - (ARROW_PX if y > before[1] else -ARROW_PX)
    half = ARROW_PX / 2
    corners = f"M{point(x - half, back)} L{point(x, y)} L{point(x + half, back)} z"
    return f'<path class="head" d="{corners}"/>'


def _port(node: Box, neighbours: list[Box], neighbour: Box) -> float:
    """Return where an edge meets a node; several share a side in the order of their ends."""
    order = sorted(neighbours, key=lambda box: box.across)
    share = (order.index(neighbour) + 1) / (len(order) + 1) - 0.5
    return node.across + share * node.width * 0.9


def _box(box: Box, *, sideways: bool) -> str:
    x, y, width, height = (
        (box.along, box.across, box.height, box.width)
        if sideways
        else (box.across, box.along, box.width, box.height)
    )
    at = f'cx="{x:.1f}" cy="{y:.1f}"'
    if box.kind == "start":
        return f'<circle class="terminal" {at} r="7"/>'
    if box.kind == "end":
        return f'<circle class="ring" {at} r="8"/><circle class="terminal" {at} r="5"/>'
    step = LINE_PX * (LABEL_SHARE if box.kind == "label" else 1)
    first = y - (len(box.lines) - 1) * step / 2
    texts = "".join(
        f'<tspan x="{x:.1f}" y="{first + step * row:.1f}">{escape(line)}</tspan>'
        for row, line in enumerate(box.lines)
    )
    corner = f'x="{x - width / 2:.1f}" y="{y - height / 2:.1f}"'
    frame = f'<rect {corner} width="{width:.1f}" height="{height:.1f}" rx="5"/>'
    return f'<g class="node {box.kind}">{frame}<text>{texts}</text></g>'

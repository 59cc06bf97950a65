"""Names beside the points of a scatter plot, placed so that they cover neither each other nor the points nor lines."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from cpt.report.drawing.style import GREY

FONT_SIZE = 5.5
_DISTANCES = (3.5, 6.0, 9.0, 13.0, 19.0, 26.0, 34.0)  # points
_ROUNDS = 6
_ANGLES = tuple(math.radians(angle) for angle in (0, 180, 90, 270, *range(30, 360, 30)))
_LEADER_FROM = 6.0  # points: a label further away gets a line to its point
_MARK, _CROSS, _LINE = 2.5, 4.0, 0.8  # points: half the width of what names stay away from


def place_labels(
    axes: Axes,
    points: np.ndarray,
    names: Mapping[int, tuple[str, object]],
    others: np.ndarray | None = None,
    lines: Sequence[np.ndarray] = (),
) -> None:
    """Write names beside some of the points (N, 2); call it when everything else is drawn.

    ``names`` is index -> (text, color). Each name takes the place with the least overlap with other names and the lines
    to their points, with the points, with the marks at ``others`` (M, 2) and with ``lines`` (corners (K, 2) each), and
    near to its point; a few rounds let early names give way.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    pixels = axes.transData.transform(points)
    taken = [_square(pixel, _MARK * scale) for pixel in pixels]
    if others is not None:
        taken += [_square(pixel, _CROSS * scale) for pixel in axes.transData.transform(others)]
    taken += [square for line in lines for square in _along(axes.transData.transform(line), scale)]
    texts = {
        index: axes.annotate(name, points[index], (0, 0), textcoords="offset points", fontsize=FONT_SIZE, color=color,
                             va="bottom")
        for index, (name, color) in names.items()
    }  # fmt: skip
    extents = {index: text.get_window_extent(canvas.get_renderer()) for index, text in texts.items()}
    boxes = _places(pixels, extents, _corners(taken), axes.bbox, scale)
    for index, text in texts.items():
        box = boxes[index]
        text.set_in_layout(False)
        text.set_position(((box.x0 - pixels[index][0]) / scale, (box.y0 - pixels[index][1]) / scale))
        _draw_leader(axes, pixels[index], box, scale)


def _places(
    pixels: np.ndarray, extents: Mapping[int, Bbox], fixed: np.ndarray, inside: Bbox, scale: float
) -> dict[int, Bbox]:
    """Return where the texts of some points stand, in pixels; ``fixed`` (B, 4) are the boxes they stay away from."""
    candidates = {
        index: [_place(pixels[index], extent, d * scale, a) for d in _DISTANCES for a in _ANGLES]
        for index, extent in extents.items()
    }
    own = {
        index: [_own_cost(place, pixels[index], fixed, inside, scale) for place in places]
        for index, places in candidates.items()
    }
    boxes: dict[int, Bbox] = {}
    for index in list(extents) * _ROUNDS:
        others = {other: box for other, box in boxes.items() if other != index}
        leaders = [square for other, box in others.items() for square in _leader(pixels[other], box, scale)]
        beside, crossed, point = _corners(list(others.values())), _corners(leaders), pixels[index]
        costs = [
            cost + _hidden(place, beside) + _hits([place], crossed) + _hits(_leader(point, place, scale), beside)
            for cost, place in zip(own[index], candidates[index], strict=True)
        ]
        boxes[index] = candidates[index][int(np.argmin(costs))]
    return boxes


def _square(center: np.ndarray, half: float) -> Bbox:
    return Bbox.from_bounds(center[0] - half, center[1] - half, 2 * half, 2 * half)


def _along(corners: np.ndarray, scale: float) -> list[Bbox]:
    """Return small squares along a line, in pixels."""
    found = []
    for start, end in pairwise(corners):
        steps = max(2, math.ceil(math.dist(start, end) / (2 * _LINE * scale)))
        found += [_square(start + share * (end - start), _LINE * scale) for share in np.linspace(0, 1, steps)]
    return found


def _leader(point: np.ndarray, box: Bbox, scale: float) -> list[Bbox]:
    """Return the squares along the line from a point to its name, which has none where it is near."""
    end = np.array(_nearest(point, box))
    return _along(np.array([point, end]), scale) if math.dist(point, end) > _LEADER_FROM * scale else []


def _corners(boxes: Sequence[Bbox]) -> np.ndarray:
    """Return left, bottom, right and top of boxes, (B, 4)."""
    return np.array([box.extents for box in boxes]).reshape(-1, 4)


def _place(point: np.ndarray, extent: Bbox, distance: float, angle: float) -> Bbox:
    """Return the box of a text that stands off ``point`` towards ``angle``."""
    dx, dy = math.cos(angle), math.sin(angle)
    x = point[0] + dx * distance + (dx - 1) / 2 * extent.width
    y = point[1] + dy * distance + (dy - 1) / 2 * extent.height
    return Bbox.from_bounds(x, y, extent.width, extent.height)


def _own_cost(box: Bbox, point: np.ndarray, fixed: np.ndarray, inside: Bbox, scale: float) -> float:
    """Return the cost of a place without the other names; a line to the point costs what it crosses, too."""
    area = box.width * box.height
    outside = 30 * (1 - _overlap(box, _corners([inside])).sum() / area)
    away = math.dist(point, _nearest(point, box)) / (15 * scale)
    return _hidden(box, fixed) + outside + away + 0.1 * _hits(_leader(point, box, scale), fixed)


def _hidden(box: Bbox, others: np.ndarray) -> float:
    """Return the cost of covering other boxes (B, 4)."""
    return 20 * float(_overlap(box, others).sum()) / (box.width * box.height)


def _hits(boxes: Sequence[Bbox], others: np.ndarray) -> float:
    """Return the cost of a line to a point that crosses other boxes (B, 4), or of a name that covers one."""
    return 0.3 * sum(int((_overlap(box, others) > 0).sum()) for box in boxes)


def _nearest(point: np.ndarray, box: Bbox) -> tuple[float, float]:
    """Return the point of a box that is nearest to ``point``."""
    return float(np.clip(point[0], box.x0, box.x1)), float(np.clip(point[1], box.y0, box.y1))


def _overlap(one: Bbox, others: np.ndarray) -> np.ndarray:
    """Return the areas that a box shares with others (B, 4), (B,)."""
    width = np.minimum(one.x1, others[:, 2]) - np.maximum(one.x0, others[:, 0])
    height = np.minimum(one.y1, others[:, 3]) - np.maximum(one.y0, others[:, 1])
    shared: np.ndarray = width.clip(min=0) * height.clip(min=0)
    return shared


def _draw_leader(axes: Axes, point: np.ndarray, box: Bbox, scale: float) -> None:
    end = _nearest(point, box)
    if math.dist(point, end) > _LEADER_FROM * scale:
        ends = axes.transData.inverted().transform(np.array([point, end]))
        axes.plot(*ends.T, color=GREY, linewidth=0.4, zorder=1, scalex=False, scaley=False)

"""Names beside the points of a scatter plot, placed so that they cover neither each other nor the points."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from cpt.report.drawing.style import GREY

FONT_SIZE = 5.5
_DISTANCES = (4.0, 8.0, 13.0, 19.0, 26.0)  # points
_ROUNDS = 4
_ANGLES = tuple(math.radians(angle) for angle in (0, 180, 90, 270, 45, 135, 225, 315))
_LEADER_FROM = 6.0  # points: a label further away gets a line to its point


def place_labels(axes: Axes, points: np.ndarray, names: Mapping[int, tuple[str, object]], others: np.ndarray) -> None:
    """Write names beside some of the points (N, 2); call it when everything else is drawn.

    ``names`` is index -> (text, color). Each name takes the place with the least overlap with other names, with the
    points and with the marks at ``others`` (M, 2), and near to its point; a few rounds let early names give way.
    """
    figure = axes.get_figure(root=True)
    assert figure is not None
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    pixels = axes.transData.transform(points)
    marks = [_square(pixel, 2 * scale) for pixel in pixels]
    marks += [_square(pixel, 4 * scale) for pixel in axes.transData.transform(others)]
    texts = {
        index: axes.annotate(name, points[index], (0, 0), textcoords="offset points", fontsize=FONT_SIZE, color=color)
        for index, (name, color) in names.items()
    }
    extents = {index: text.get_window_extent(canvas.get_renderer()) for index, text in texts.items()}
    boxes: dict[int, Bbox] = {}
    for index in list(texts) * _ROUNDS:
        taken = marks + [box for other, box in boxes.items() if other != index]
        places = [_place(pixels[index], extents[index], d * scale, a) for d in _DISTANCES for a in _ANGLES]
        costs = [_cost(place, pixels[index], taken, axes.bbox, scale) for place in places]
        boxes[index] = places[int(np.argmin(costs))]
    for index, text in texts.items():
        box = boxes[index]
        text.set_in_layout(False)
        text.set_position(((box.x0 - pixels[index][0]) / scale, (box.y0 - pixels[index][1]) / scale))
        _draw_leader(axes, pixels[index], box, scale)


def _square(center: np.ndarray, half: float) -> Bbox:
    return Bbox.from_bounds(center[0] - half, center[1] - half, 2 * half, 2 * half)


def _place(point: np.ndarray, extent: Bbox, distance: float, angle: float) -> Bbox:
    """Return the box of a text that stands off ``point`` towards ``angle``."""
    dx, dy = math.cos(angle), math.sin(angle)
    x = point[0] + dx * distance + (dx - 1) / 2 * extent.width
    y = point[1] + dy * distance + (dy - 1) / 2 * extent.height
    return Bbox.from_bounds(x, y, extent.width, extent.height)


def _cost(box: Bbox, point: np.ndarray, taken: Sequence[Bbox], inside: Bbox, scale: float) -> float:
    area = box.width * box.height
    hidden = sum(_overlap(box, other) for other in taken)
    outside = area - _overlap(box, inside)
    return 10 * hidden / area + 30 * outside / area + math.dist(point, _nearest(point, box)) / (15 * scale)


def _nearest(point: np.ndarray, box: Bbox) -> tuple[float, float]:
    """Return the point of a box that is nearest to ``point``."""
    return float(np.clip(point[0], box.x0, box.x1)), float(np.clip(point[1], box.y0, box.y1))


def _overlap(one: Bbox, other: Bbox) -> float:
    width = min(one.x1, other.x1) - max(one.x0, other.x0)
    height = min(one.y1, other.y1) - max(one.y0, other.y0)
    return max(width, 0.0) * max(height, 0.0)


def _draw_leader(axes: Axes, point: np.ndarray, box: Bbox, scale: float) -> None:
    end = _nearest(point, box)
    if math.dist(point, end) > _LEADER_FROM * scale:
        ends = axes.transData.inverted().transform(np.array([point, end]))
        axes.plot(*ends.T, color=GREY, linewidth=0.4, zorder=1, scalex=False, scaley=False)

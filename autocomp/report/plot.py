"""The front as a picture: quality against each cost. The only module that imports matplotlib."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, ScalarFormatter

from autocomp.files import write_bytes
from autocomp.report.panels import (
    CONTROL,
    DENSE,
    FRONT,
    OTHER,
    OTHER_FRONT,
    OUT_OF_BOUNDS,
    STOPPED,
    Panel,
    direction_of,
    panels_of,
)
from autocomp.report.placing import place
from autocomp.results import TrialResult
from autocomp.space.metrics import Direction
from autocomp.study.front import Front
from autocomp.titles import number, title

PANEL_INCHES = (5.0, 4.1)
DOTS_PER_INCH = 200
LOG_FROM = 4.0
"""A cost that spans more than this factor is drawn on a logarithmic axis."""
LED_FROM = 13.0
"""A label that is farther from its point, in points, is led to it by a line."""
TIGHT_TICKS = (1, 1.5, 2, 3, 5, 7)

# Okabe and Ito's colours, which the colour-blind can tell apart; the markers differ as well
BLUE, ORANGE, BLACK, GREY, PALE = "#0072B2", "#D55E00", "#000000", "#8c8c8c", "#c8c8c8"
STYLES: dict[str, dict[str, Any]] = {
    STOPPED: {"marker": "|", "color": PALE, "s": 30, "zorder": 1},
    OUT_OF_BOUNDS: {"marker": "x", "color": PALE, "s": 14, "linewidths": 0.9, "zorder": 1},
    OTHER: {"marker": "o", "color": GREY, "s": 12, "linewidths": 0, "zorder": 2},
    OTHER_FRONT: {
        "marker": "o",
        "facecolor": "white",
        "edgecolor": BLUE,
        "s": 30,
        "linewidths": 1.1,
        "zorder": 4,
    },
    FRONT: {"marker": "o", "facecolor": BLUE, "edgecolor": BLUE, "s": 34, "zorder": 5},
    CONTROL: {"marker": "s", "color": ORANGE, "s": 44, "zorder": 6},
    DENSE: {"marker": "D", "color": BLACK, "s": 44, "zorder": 7},
}
RC: Any = {
    "font.size": 9,
    "axes.labelsize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "figure.titlesize": 11,
    "legend.fontsize": 8.5,
}


def plot_front(
    path: Path,
    front: Front,
    results: Iterable[TrialResult],
    name: str,
    x: str | None = None,
    y: str | None = None,
) -> None:
    """Write a PNG with every trial and the front: the quality against each cost, side by side.

    With `x` or `y` a single plot of the metrics named. `name` is the study's, for the title.
    `StudyError` for a metric that no complete trial has, or if there is no complete trial.
    """
    results = list(results)
    panels = panels_of(front, results, x, y)
    width, height = PANEL_INCHES
    with mpl.rc_context(RC):
        figure = Figure(figsize=(width * len(panels), height), dpi=DOTS_PER_INCH)
        FigureCanvasAgg(figure)
        figure.set_layout_engine("constrained")
        grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)
        for axes, panel in zip(grid[0], panels, strict=True):
            _draw(axes, front, panel)
        grid[0][0].set_ylabel(title(panels[0].y))
        _legend(figure, panels)
        figure.suptitle(_heading(name, front, len(results)))
        figure.draw_without_rendering()
        for axes, panel in zip(grid[0], panels, strict=True):
            _label(axes, panel)
        picture = io.BytesIO()
        figure.savefig(picture, format="png", metadata={"Software": None})
    write_bytes(path, picture.getvalue())


def _draw(axes: Axes, front: Front, panel: Panel) -> None:
    for kind, style in STYLES.items():
        points = panel.points[kind]
        if points and kind != STOPPED:
            axes.scatter(*zip(*points, strict=True), **style)
    stopped = [x for x, _ in panel.points[STOPPED]]
    along_the_bottom = axes.get_xaxis_transform()
    axes.scatter(stopped, [0.02] * len(stopped), transform=along_the_bottom, **STYLES[STOPPED])
    if panel.stairs:
        axes.plot(*zip(*panel.stairs, strict=True), color=BLUE, linewidth=1.1, zorder=3)
    for x, y in panel.points[DENSE]:
        axes.axvline(x, color=BLACK, linewidth=0.6, alpha=0.35, linestyle=":", zorder=0)
        axes.axhline(y, color=BLACK, linewidth=0.6, alpha=0.35, linestyle=":", zorder=0)
    axes.set_xlabel(title(panel.x))
    axes.margins(0.06, 0.07)
    shown = [point for points in panel.points.values() for point in points]
    _scale(axes, "x", direction_of(front, panel.x), [x for x, _ in shown])
    _scale(axes, "y", direction_of(front, panel.y), [y for _, y in shown if not math.isnan(y)])
    axes.grid(color="#ececec", linewidth=0.6)
    axes.set_axisbelow(True)
    _bounds(axes, front, panel)


def _scale(
    axes: Axes, which: Literal["x", "y"], direction: Direction, values: Sequence[float]
) -> None:
    """A logarithmic axis for a cost that spans several factors, with numbers people read."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    axis = axes.xaxis if which == "x" else axes.yaxis
    if direction == "minimize" and low > 0 and high / low > LOG_FROM:
        axes.set(**{f"{which}scale": "log"})
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low > 12 else TIGHT_TICKS))
        axis.set_minor_formatter(NullFormatter())
        axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    elif high >= 10_000:
        axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    else:
        axis.set_major_formatter(ScalarFormatter(useOffset=False))


def _tick(value: float) -> str:
    return number(value) if abs(value) >= 1000 else f"{value:.4g}"


def _bounds(axes: Axes, front: Front, panel: Panel) -> None:
    """Shade what lies beyond the bounds of the space: all, if a bound lies beyond the axis."""
    objectives = {one.metric: one for one in front.objectives}
    for metric, span, limits in (
        (panel.x, axes.axvspan, axes.get_xlim()),
        (panel.y, axes.axhspan, axes.get_ylim()),
    ):
        one = objectives.get(metric)
        for bound, edge in ((one and one.at_most, limits[1]), (one and one.at_least, limits[0])):
            if not bound or (bound.of_dense and front.reference is None):
                continue
            limit = bound.value((front.reference or {}).get(metric))
            ends = sorted((min(max(limit, limits[0]), limits[1]), edge))
            span(*ends, color=BLACK, alpha=0.05, linewidth=0, zorder=0)
    axes.autoscale(False)


def _label(axes: Axes, panel: Panel) -> None:
    """Write each member's trial number beside it, where it hides nothing."""
    for (trial, point), offset in zip(panel.labels.items(), _offsets(axes, panel), strict=True):
        line = {"arrowstyle": "-", "color": BLUE, "linewidth": 0.4, "shrinkB": 3}
        axes.annotate(
            str(trial),
            point,
            offset,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=7.5,
            color=BLUE,
            zorder=8,
            path_effects=[withStroke(linewidth=1.8, foreground="white")],
            arrowprops=line if math.hypot(*offset) > LED_FROM else None,
        ).set_in_layout(False)


def _offsets(axes: Axes, panel: Panel) -> list[tuple[float, float]]:
    """From each member to the centre of its label, in points."""

    def pixels(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(float(x), float(y)) for x, y in map(axes.transData.transform, points)]

    frame = axes.get_window_extent()
    drawn = [one for kind, found in panel.points.items() if kind != STOPPED for one in found]
    anchors, size = pixels(panel.labels.values()), DOTS_PER_INCH / 72
    centres = place(
        anchors,
        sizes=[(size * (1.5 + 4.6 * len(str(trial))), size * 7.6) for trial in panel.labels],
        obstacles=pixels(drawn) + _along(pixels(panel.stairs)),
        frame=(frame.x0, frame.y0, frame.x1, frame.y1),
        radius=size * 3.4,
    )
    return [
        ((x - from_x) / size, (y - from_y) / size)
        for (x, y), (from_x, from_y) in zip(centres, anchors, strict=True)
    ]


def _along(corners: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points on a line through `corners`, in pixels, close enough that no label fits between."""
    points = []
    for (x, y), (to_x, to_y) in itertools.pairwise(corners):
        count = 1 + int(math.dist((x, y), (to_x, to_y)) / 15)
        points += [
            (x + (to_x - x) * i / count, y + (to_y - y) * i / count) for i in range(count + 1)
        ]
    return points


def _legend(figure: Figure, panels: Sequence[Panel]) -> None:
    """One legend for all panels, of the kinds of points there are."""
    kinds = [kind for kind in reversed(STYLES) if any(panel.points[kind] for panel in panels)]
    axes = figure.axes[0]
    handles = [axes.scatter([], [], **STYLES[kind]) for kind in kinds]
    figure.legend(
        handles,
        kinds,
        loc="outside lower center",
        ncols=4 if len(panels) > 1 else 2,
        frameon=False,
        handletextpad=0.2,
        columnspacing=1.4,
    )


def _heading(name: str, front: Front, trials: int) -> str:
    volume = "" if front.hypervolume is None else f", hypervolume {front.hypervolume:.3f}"
    separator = "\n" if len(name) > 24 else ": "
    return f"{name}{separator}{len(front.members)} of {trials} trials on the front{volume}"

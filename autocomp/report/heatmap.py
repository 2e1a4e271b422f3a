"""A picture of what each layer can bear."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from autocomp.files import write_bytes
from autocomp.report.plot import DOTS_PER_INCH, RC
from autocomp.report.sensitivity import Grid

ROW_INCHES, COLUMN_INCHES = 0.19, 0.75
LABEL_INCHES, MARGIN_INCHES = 3.2, 1.0
LETTER_INCHES = 0.035
"""How much higher a letter makes a heading, which is slanted."""
DARK_BELOW = 0.6
"""Of the colours' range: a cell below this is dark and so has a white figure."""
UNREAD = "#b00020"
"""Of words on white: no figure has this colour, and no cell that was read is white."""


def plot_heat_map(path: Path, found: Grid, name: str) -> None:
    """Write a PNG: a row a layer in the order of the readings, the darker the more quality is lost.

    `name` is the study's, for the title. A cell is white where nothing is known, and says so where
    a reading came to nothing.
    """
    left = np.array(
        [[row.get(one, np.nan) for one in found.headings] for row in found.left.values()]
    )  # (layers, headings)
    lowest, highest = (0.0, 1.0) if found.is_share else (_lowest(left), 0.0)
    layers = list(found.left)
    longest = max(map(len, found.headings), default=0)
    height = MARGIN_INCHES + LETTER_INCHES * longest + ROW_INCHES * len(layers)
    width = LABEL_INCHES + COLUMN_INCHES * len(found.headings)
    with mpl.rc_context(RC | {"font.size": 7, "axes.labelsize": 8, "figure.titlesize": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        image = axes.imshow(left, aspect="auto", cmap="cividis", vmin=lowest, vmax=highest)
        axes.set_xticks(range(len(found.headings)), found.headings, rotation=35, ha="left")
        axes.xaxis.tick_top()
        axes.set_yticks(range(len(layers)), layers)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for (row, column), value in np.ndenumerate(left):
            is_dark = value < lowest + DARK_BELOW * (highest - lowest)
            colour = UNREAD if np.isnan(value) else "white" if is_dark else "black"
            cell = found.cell(layers[row], found.headings[column])
            axes.text(column, row, cell, ha="center", va="center", color=colour)
        bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 4 / height), pad=0.02)
        bar.set_label(found.told)
        figure.suptitle(f"{name}: each layer alone, {found.training}")
        picture = io.BytesIO()
        figure.savefig(picture, dpi=DOTS_PER_INCH, format="png")
    write_bytes(path, picture.getvalue())


def _lowest(differences: NDArray[np.float64]) -> float:
    """The least of the differences; below 0 even where nothing is lost, for a range of colours."""
    known = differences[np.isfinite(differences)]
    least = float(known.min(initial=0.0))
    return least if least < 0 else -1.0

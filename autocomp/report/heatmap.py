"""A picture of what each layer can bear."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from autocomp.files import write_bytes
from autocomp.report.plot import DOTS_PER_INCH, RC
from autocomp.report.sensitivity import Grid

ROW_INCHES, COLUMN_INCHES = 0.19, 0.75
LABEL_INCHES, MARGIN_INCHES = 3.2, 1.0
LETTER_INCHES = 0.035
"""How much higher a letter makes a heading, which is slanted."""
DARK_BELOW = 0.6
"""A share below this has a dark cell and so a white figure."""


def plot_heat_map(path: Path, found: Grid, name: str) -> None:
    """Write a PNG: a row a layer in the order of the readings, the darker the more quality is lost.

    `name` is the study's, for the title. What was not read is left white.
    """
    shares = np.array(
        [[row.get(one, np.nan) for one in found.headings] for row in found.shares.values()]
    )  # (layers, headings)
    longest = max(map(len, found.headings), default=0)
    height = MARGIN_INCHES + LETTER_INCHES * longest + ROW_INCHES * len(found.shares)
    width = LABEL_INCHES + COLUMN_INCHES * len(found.headings)
    with mpl.rc_context(RC | {"font.size": 7, "axes.labelsize": 8, "figure.titlesize": 9}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        image = axes.imshow(shares, aspect="auto", cmap="cividis", vmin=0, vmax=1)
        axes.set_xticks(range(len(found.headings)), found.headings, rotation=35, ha="left")
        axes.xaxis.tick_top()
        axes.set_yticks(range(len(found.shares)), list(found.shares))
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for (row, column), share in np.ndenumerate(shares):
            if not np.isnan(share):
                colour = "white" if share < DARK_BELOW else "black"
                axes.text(column, row, f"{share:.0%}", ha="center", va="center", color=colour)
        bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 4 / height), pad=0.02)
        bar.set_label(found.told)
        figure.suptitle(f"{name}: each layer alone, {found.training}")
        picture = io.BytesIO()
        figure.savefig(picture, dpi=DOTS_PER_INCH, format="png")
    write_bytes(path, picture.getvalue())

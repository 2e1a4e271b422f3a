"""What commands print on standard output: tables and JSON."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

WIDE = 1000
"""Columns where there is no terminal to fit into: nothing is cut off on the way into a file."""
NUMBER = re.compile(r"\(?[-+]?[\d.,]*(e[-+]?\d+)?[%xMG]?\)?")
"""What goes to the right in its column: "0.97", "97%", "4.1x", "(0)", and nothing at all."""


def print_json(value: Any) -> None:
    """One JSON document; NaN and infinity, which JSON has not, are a bug."""
    print(json.dumps(value, indent=2, allow_nan=False))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table with numbers to the right; cells are shown as `shown` has them."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    cells = [[shown(cell) for cell in row] for row in rows]
    table = Table(box=None, pad_edge=False)
    for index, column in enumerate(columns):
        numeric = all(NUMBER.fullmatch(row[index]) for row in cells)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    console = Console(width=None if sys.stdout.isatty() else WIDE)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        print(line.rstrip())


def shown(value: object) -> str:
    """A cell as text: four significant digits, nothing for None, 0.0000 for next to nothing."""
    from autocomp.titles import NOTHING

    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if 0 < abs(value) < NOTHING:
        return "0.0000"
    return f"{value:,.0f}" if abs(value) >= 1e4 and math.isfinite(value) else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Seconds in the two units that matter: "0.3 s", "45 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    if seconds < 0.05:
        return "0 s"
    if seconds < 1:
        return f"{seconds:.1g} s"
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 24 else f"{hours // 24} d {hours % 24} h"

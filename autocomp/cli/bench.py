"""The command that times checkpoints beside one another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocomp.cli.output import print_json, print_table

if TYPE_CHECKING:
    from autocomp.ship.timing import CheckpointTiming

MOST_THREADS, MOST_EXAMPLES = 256, 1024


def add_to(app: typer.Typer) -> None:
    app.command()(bench)


def bench(
    checkpoints: Annotated[
        list[Path], typer.Argument(metavar="CKPT...", help="Checkpoints' folders.")
    ],
    threads: Annotated[str, typer.Option(help="Numbers of threads, such as 1,2.")] = "1",
    batch: Annotated[str, typer.Option(help="Batch sizes, such as 1,8.")] = "1",
    against: Annotated[
        Path | None, typer.Option(help="The checkpoint to compare with, by default the first.")
    ] = None,
    images: Annotated[
        list[Path] | None,
        typer.Option(help="A photo to read, by default some of the dev split; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Time checkpoints beside one another, from file to prediction, by part."""
    from dataclasses import asdict

    from autocomp.provenance import machine, versions
    from autocomp.ship.timing import time_checkpoints

    found = list(
        time_checkpoints(
            checkpoints,
            against=against,
            threads=_numbers("threads", threads, MOST_THREADS),
            batch_sizes=_numbers("batch", batch, MOST_EXAMPLES),
            images=images or (),
        )
    )
    if as_json:
        print_json(
            {
                "against": str(against or checkpoints[0]),
                "timings": [asdict(one) for one in found],
                "machine": machine(),
                "versions": versions(),
            }
        )
        return
    _print(found, against or checkpoints[0])


def _print(found: list[CheckpointTiming], against: Path) -> None:
    from autocomp.titles import title

    parts = list(dict.fromkeys(name for one in found for name in one.parts_ms))
    columns = ["checkpoint", "threads", "batch", "ms an image", "p90", "ratio", "+-"]
    columns += [*map(title, parts), "images/s", title("peak_rss_mb")]
    rows = [
        (
            one.checkpoint,
            one.threads,
            one.batch_size,
            one.example_ms,
            one.example_p90_ms,
            f"{one.ratio:.3f}",
            f"{(one.interval[1] - one.interval[0]) / 2:.3f}",
            *(one.parts_ms.get(name) for name in parts),
            one.examples_per_s,
            one.peak_rss_mb,
        )
        for one in found
    ]
    print_table(columns, rows)
    steps = ", over as many tokens" if any(one.endswith("_step_ms") for one in parts) else ""
    print(f"ratio: to {against}, called in turn{steps}")


def _numbers(option: str, text: str, most: int) -> list[int]:
    from autocomp.errors import UserError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part) <= most for part in parts):
        rule = f"must be whole numbers from 1 to {most}, separated by commas"
        raise UserError(f"{option}: {rule}, but got {text!r}")
    return list(dict.fromkeys(map(int, parts)))

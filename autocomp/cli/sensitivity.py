"""The command that shows what each layer can bear."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocomp.cli.logs import logger
from autocomp.cli.output import print_json, print_table
from autocomp.cli.progress import plain_training

if TYPE_CHECKING:
    from autocomp.study.sensitivity import Reading

RESULTS = Path("results")
HEAT_MAP = "sensitivity.png"


def add_to(app: typer.Typer) -> None:
    app.command()(sensitivity)


def sensitivity(
    space: Annotated[Path, typer.Argument(help="A space file.")],
    out: Annotated[
        Path | None, typer.Option(help="The folder; default results/NAME-sensitivity of the file.")
    ] = None,
    examples: Annotated[
        int, typer.Option(min=1, help="How many examples of dev quality is measured on.")
    ] = 200,
    retrain: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="STEPS",
            help="Retrain so long after pruning, and through the rounding of qat: true.",
        ),
    ] = 0,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Readings side by side; 0 takes them in this process.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure each layer alone at each width and ratio in the space; the same command resumes."""
    from autocomp.report.heatmap import plot_heat_map
    from autocomp.report.sensitivity import grid, sensitivity_table
    from autocomp.space.probes import held
    from autocomp.space.space import SearchSpace
    from autocomp.study.sensitivity import SENSITIVITY, measure_sensitivity

    loaded = SearchSpace.load(space)
    ending = f"-retrain-{retrain}" if retrain else ""
    directory = out or RESULTS / f"{space.stem}-sensitivity{ending}"
    found = measure_sensitivity(
        loaded,
        directory,
        examples=examples,
        retrain_steps=retrain,
        workers=workers,
        command=" ".join(["autocomp", *sys.argv[1:]]),
        on_training=plain_training,
        on_reading=_tell,
    )
    cells = grid(found, loaded.objectives)
    plot_heat_map(directory / HEAT_MAP, cells, space.stem)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    table = sensitivity_table(cells)
    rows = [[row[key] for key in table.columns] for row in table.rows]
    print_table(list(table.columns.values()), rows)
    for line in (*cells.reasons, *held(loaded)):
        print(line)
    print(f"{cells.told} on {found.examples} examples of dev, {cells.training}")
    print(f"files: {directory / SENSITIVITY}, {directory / HEAT_MAP}")


def _tell(reading: Reading, done: int, total: int) -> None:
    from autocomp.titles import step_in_short

    what = f"{reading.layer}: {step_in_short(reading.policy.steps[0])}"
    came = reading.status if reading.reason is None else f"{reading.status}: {reading.reason}"
    logger.info("%d of %d, %s, %s", done, total, what, came)

"""Commands about study folders: how far a search is, and the front it has found."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocomp.cli.logs import logger
from autocomp.cli.output import duration, print_json, print_table

if TYPE_CHECKING:
    from autocomp.study.front import Front
    from autocomp.study.study import Study

STUDY = typer.Argument(metavar="DIR", help="A study's folder.")
JSON = typer.Option("--json", help="Print one JSON object.")


def add_to(app: typer.Typer) -> None:
    app.command()(status)
    app.command()(front)


def status(
    directory: Annotated[Path, STUDY],
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Say how far a search is, and where its time goes."""
    from autocomp.study.study import Study

    study = Study.load(directory)
    if as_json:
        print_json(_status(study))
    else:
        _print_status(study)


def front(
    directory: Annotated[Path, STUDY],
    as_json: Annotated[bool, JSON] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print comma-separated values.")] = False,
    every: Annotated[bool, typer.Option("--all", help="Print every complete trial.")] = False,
    x: Annotated[str | None, typer.Option(help="Metric of the horizontal axis.")] = None,
    y: Annotated[str | None, typer.Option(help="Metric of the vertical axis.")] = None,
    plot: Annotated[bool, typer.Option(help="Draw front.png into the folder.")] = True,
) -> None:
    """Print the front of a study, and draw it."""
    from autocomp.errors import UserError
    from autocomp.study.study import Study

    if as_json and as_csv:
        raise UserError("front: must print --json or --csv, but got both")
    if not plot and (x or y):
        raise UserError("front: must draw the plot that --x and --y name, but got --no-plot")
    study = Study.load(directory)
    found = study.front_and_others() if every else study.front()
    image = draw(study, x, y) if plot else None
    if as_json:
        print_json(found.to_json())
    elif as_csv:
        print(found.to_csv(), end="")
    else:
        print_front(found)
        if image:
            print(f"plot: {image}")


def _counts(study: Study) -> dict[str, int]:
    counts = Counter(result.status for result in study.results.values())
    unfinished = len(set(study.policies) - set(study.results))
    return {**{one: counts[one] for one in ("complete", "stopped", "failed")}, "open": unfinished}


def _seconds(study: Study) -> dict[str, float]:
    """Seconds of all trials by stage, the longest first."""
    total: Counter[str] = Counter()
    for result in study.results.values():
        total.update(result.seconds)
    return {stage: round(spent, 3) for stage, spent in total.most_common()}


def _problems(study: Study) -> list[dict[str, str | int | None]]:
    return [
        {"trial": number, "status": result.status, "reason": result.reason}
        for number, result in study.results.items()
        if result.status != "complete"
    ]


def _status(study: Study) -> dict[str, object]:
    return {
        "directory": str(study.directory),
        "trials": _counts(study),
        "front_size": len(study.front().members),
        "hypervolume": study.front().hypervolume,
        "seconds": _seconds(study),
        "problems": _problems(study),
    }


def _print_status(study: Study) -> None:
    found = study.front()
    print(", ".join(f"{count} {name}" for name, count in _counts(study).items()))
    hypervolume = found.hypervolume
    known = "not known yet" if hypervolume is None else f"{hypervolume:.4f}"
    print(f"front {len(found.members)}, hypervolume {known}")
    seconds = _seconds(study)
    whole = sum(seconds.values()) or 1.0
    if seconds:
        rows = [(stage, duration(one), f"{one / whole:.0%}") for stage, one in seconds.items()]
        print_table(("where the time went", "in all trials", "share"), rows)
    problems = _problems(study)
    if problems:
        rows = [(str(one["trial"]), str(one["status"]), str(one["reason"])) for one in problems]
        print_table(("trial", "status", "reason"), rows)


def print_front(found: Front) -> None:
    """The front, with the dense model and the control above it."""
    from autocomp.report.table import front_table

    table = front_table(found)
    rows = [[row[key] for key in table.columns] for row in table.rows]
    print_table(list(table.columns.values()), rows)


def draw(study: Study, x: str | None = None, y: str | None = None) -> Path | None:
    """Draw front.png, or front-X-Y.png, into the study's folder; None if nothing is complete."""
    from autocomp.errors import StudyError
    from autocomp.report.plot import plot_front

    if all(one.status != "complete" for one in study.results.values()):
        logger.warning("no trial is complete yet: there is nothing to draw")
        return None
    own = "-".join(["front", *(one for one in (x, y) if one)])
    path = study.directory / f"{own}.png"
    try:
        name = study.directory.resolve().name
        plot_front(path, study.front(), study.results.values(), name, x, y)
    except OSError as failure:
        raise StudyError(
            f"{path}: must be a file that can be written, but {failure}; --no-plot does without"
        ) from None
    return path

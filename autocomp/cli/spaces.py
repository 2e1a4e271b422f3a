"""Commands about space files: write one to start from, check one, describe what may be in one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autocomp.cli.logs import logger
from autocomp.cli.output import duration, print_json, print_table

if TYPE_CHECKING:
    from autocomp.estimate import Estimate
    from autocomp.space.binding import BoundSpace
    from autocomp.space.space import SearchSpace

TEMPLATE = Path(__file__).parent / "templates" / "captioner.yaml"
PLACE = Path("spaces") / TEMPLATE.name


def add_to(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(check)
    app.command()(schema)


def init(
    directory: Annotated[Path, typer.Argument(help="Where to make spaces/.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write spaces/captioner.yaml to start from; it needs no data."""
    from autocomp.errors import SpaceError
    from autocomp.files import write_text

    path = directory / PLACE
    if path.exists() and not force:
        raise SpaceError(f"{path}: must not exist yet, but does; --force replaces it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, TEMPLATE.read_text(encoding="utf-8"))
    except OSError as failure:
        raise SpaceError(f"{path}: must be a file that can be written, but {failure}") from None
    print(f"wrote {path}; next: autocomp search {path} --trials 200")


def check(
    space: Annotated[Path, typer.Argument(help="A space file.")],
    trials: Annotated[int | None, typer.Option(min=1, help="Default: the space's.")] = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Default: as search has it.")] = None,
    timed: Annotated[
        bool, typer.Option("--estimate/--no-estimate", help="Time some steps to say how long.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Validate a space; say how large it is, and how long it takes."""
    from autocomp.bench import check_given
    from autocomp.decisions import validate
    from autocomp.errors import SpaceError
    from autocomp.space.space import SearchSpace
    from autocomp.study.driver import bind_space, default_workers
    from autocomp.targets import TargetSettings

    loaded = SearchSpace.load(space)
    target = validate(TargetSettings, dict(loaded.target), "target", SpaceError)
    bound = bind_space(loaded)
    check_given(loaded)
    estimated = None
    if timed:
        from autocomp.estimate import estimate
        from autocomp.results import CONTROL_TRIAL

        logger.info("timing a few training steps and a batch of an evaluation")
        wanted = loaded.search.workers if workers is None else workers
        count = default_workers(target.threads) if wanted is None else max(1, wanted)
        asked = trials or loaded.search.trials
        most = bound.size() + CONTROL_TRIAL + 1  # dense and the control beside the policies
        estimated = estimate(loaded, bound, int(min(asked, most)), count)
    report = _json if as_json else _print
    report(loaded, bound, estimated)


def schema() -> None:
    """Print the JSON Schema of space files, for editors."""
    from pydantic import TypeAdapter

    from autocomp.space.schema import json_schema
    from autocomp.targets import TargetSettings
    from autocomp.tasks.registry import TASKS

    tasks: Any = None
    for kind in TASKS.values():
        tasks = kind.settings if tasks is None else tasks | kind.settings
    print_json(json_schema(TypeAdapter(tasks).json_schema(), TargetSettings.model_json_schema()))


def _json(space: SearchSpace, bound: BoundSpace, estimated: Estimate | None) -> None:
    size = bound.size()
    parameters = {
        name: domain.to_dict() | _condition(bound, name)
        for name, domain in bound.parameters.items()
    }
    print_json(
        {
            "space_id": space.id,
            "parameters": parameters,
            "size": None if math.isinf(size) else size,
            "objectives": {one.metric: one.to_plain() for one in space.objectives},
            "estimate": estimated
            and {
                "trials": estimated.trials,
                "workers": estimated.workers,
                "dense_s": round(estimated.dense_s, 3),
                "trial_s": round(estimated.trial_s, 3),
                "hours": round(estimated.total_s / 3600, 4),
            },
        }
    )


def _condition(bound: BoundSpace, name: str) -> dict[str, Any]:
    if name not in bound.conditions:
        return {}
    branch, label = bound.conditions[name]
    return {"only_if": {branch: label}}


def _as_written(value: Any) -> str:
    """A domain or an objective in the notation of a space file."""
    import yaml

    if isinstance(value, str):
        return value
    return str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000)).strip()


def _print(space: SearchSpace, bound: BoundSpace, estimated: Estimate | None) -> None:
    rows = [
        (name, _as_written(domain.to_dict() | _condition(bound, name)))
        for name, domain in bound.parameters.items()
    ]
    print_table(("parameter", "domain"), rows)
    size = bound.size()
    policies = "infinitely many" if math.isinf(size) else f"{size:,.0f}"
    names = "parameter" if len(rows) == 1 else "parameters"
    print(f"{len(rows)} {names}, {policies} {'policy' if size == 1 else 'policies'}")
    written = (f"{one.metric}: {_as_written(one.to_plain())}" for one in space.objectives)
    print("objectives: " + ", ".join(written))
    if estimated is not None:
        dense = f"{duration(estimated.dense_s)} to train the dense model"
        print(
            f"estimate for {estimated.trials} trials with {estimated.workers} "
            f"{'worker' if estimated.workers == 1 else 'workers'}: about "
            f"{duration(estimated.total_s)} "
            f"({dense if estimated.dense_s else 'no dense model to train'}, "
            f"{duration(estimated.trial_s)} a trial), from timing a few steps of the dense "
            "architecture on this machine"
        )

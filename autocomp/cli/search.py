"""Commands that train and measure: a whole search, or one policy."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocomp.cli.logs import logger
from autocomp.cli.output import print_json, print_table
from autocomp.cli.progress import watch
from autocomp.cli.reports import try_report
from autocomp.cli.studies import draw, print_front

if TYPE_CHECKING:
    from autocomp.checkpoint.folder import Checkpoint
    from autocomp.policy import Policy
    from autocomp.results import TrialResult
    from autocomp.space.space import SearchSpace
    from autocomp.study.study import Study

RESULTS = Path("results")
SPACE = typer.Argument(help="A space file.")
JSON = typer.Option("--json", help="Print one JSON object.")


def add_to(app: typer.Typer) -> None:
    app.command()(search)
    app.command()(run)


def search(
    space: Annotated[Path, SPACE],
    trials: Annotated[int | None, typer.Option(help="How many results to have in the end.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The study's folder; default results/NAME of the file.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Trials side by side; 0 runs them in this process.")
    ] = None,
    ray_address: Annotated[
        str | None, typer.Option(help="A running Ray cluster that shares this file system.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Default: the space's.")] = None,
    start: Annotated[
        list[Path] | None, typer.Option(help="A policy file of the space to try next; may repeat.")
    ] = None,
    plot: Annotated[bool, typer.Option(help="Draw front.png in the end.")] = True,
    report: Annotated[bool, typer.Option(help="Write report.html in the end.")] = True,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Explore a space; the same command again resumes."""
    from autocomp.space.space import SearchSpace
    from autocomp.study.driver import Listener
    from autocomp.study.driver import search as explore

    loaded = SearchSpace.load(space)
    if seed is not None:
        loaded = replace(loaded, search=loaded.search.model_copy(update={"seed": seed}))
    with watch([one.metric for one in loaded.objectives]) as (on_training, on_event):
        study = explore(
            loaded,
            trials=trials,
            directory=out or RESULTS / space.stem,
            workers=workers,
            ray_address=ray_address,
            start=start or (),
            listener=Listener(on_training, on_event),
            command=" ".join(["autocomp", *sys.argv[1:]]),
        )
    image = draw(study) if plot else None
    page = try_report(study) if report else None
    if as_json:
        print_json(study.front().to_json())
        return
    print_front(study.front())
    _print_unfinished(study)
    written = (study.directory / "front.json", study.directory / "front.csv", image, page)
    print("files: " + ", ".join(str(one) for one in written if one))


def _print_unfinished(study: Study) -> None:
    """What the front does not show: trials that came to nothing."""
    counts = Counter(result.status for result in study.results.values())
    told = [f"{counts[one]} {one}" for one in ("stopped", "failed") if counts[one]]
    if told:
        print(f"{', '.join(told)}; why: autocomp status {study.directory}")


def run(
    space: Annotated[Path, SPACE],
    policy: Annotated[Path, typer.Argument(help="A policy file: steps without domains.")],
    out: Annotated[Path, typer.Option(help="Where to write the checkpoint.")],
    directory: Annotated[
        Path | None,
        typer.Option("--dir", help="Holds dense/; default results/NAME of the space file."),
    ] = None,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Carry out one policy and measure it beside the dense model."""
    from autocomp.bench import find_dense, open_bench, prepare_dense
    from autocomp.policy import Policy
    from autocomp.space.space import SearchSpace
    from autocomp.study.store import StudyStore
    from autocomp.trial import run_trial

    loaded = SearchSpace.load(space)
    chosen = Policy.load(policy)
    _check_fits(loaded, chosen)
    _check_out(out)
    directory = directory or RESULTS / space.stem
    with watch([]) as (on_training, _), closing(StudyStore(directory)) as store:
        if find_dense(loaded, directory) is None:
            store.lock()
            prepare_dense(loaded, directory, on_training)
    bench = open_bench(loaded, directory)
    logger.info("carrying out %s", policy)
    result = run_trial(bench, 0, chosen, out)
    _report(result, bench.dense, out, as_json)


def _check_fits(space: SearchSpace, policy: Policy) -> None:
    """Bind the policy as if it were a space: that names patterns which match nothing."""
    from autocomp.space.space import SearchSpace
    from autocomp.study.driver import bind_space

    document = space.to_dict() | {"policy": policy.model_dump(mode="json")}
    if policy.steps:
        bind_space(SearchSpace.from_dict(document))


def _check_out(out: Path) -> None:
    """Before anything is trained, for a checkpoint that has nowhere to go is a pity."""
    import tempfile

    from autocomp.errors import CheckpointError

    if out.exists():
        raise CheckpointError(f"{out}: must not exist yet, but does")
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(dir=out.absolute().parent).cleanup()
    except OSError as failure:
        raise CheckpointError(
            f"{out}: must be a folder that can be written, but {failure}"
        ) from None


def _report(result: TrialResult, dense: Checkpoint, out: Path, as_json: bool) -> None:
    from autocomp.errors import PolicyError

    if as_json:
        print_json(result.model_dump(mode="json") | {"dense": dense.metrics})
    if result.status != "complete":
        ended = "was stopped" if result.status == "stopped" else "failed"
        raise PolicyError(f"policy: must complete, but {ended}: {result.reason}")
    if not as_json:
        reference = dense.metrics
        rows = [(name, reference.get(name), value) for name, value in result.metrics.items()]
        print_table(("metric", "dense", "this policy"), rows)
        for line in result.skipped:
            print(f"not done: {line}")
        print(f"checkpoint: {out}")

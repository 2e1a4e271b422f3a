"""Commands about checkpoints: take one out of a study, measure it again, use it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocomp.cli.output import print_json, print_table

if TYPE_CHECKING:
    from autocomp.ship.load import Captioner, Classifier
    from autocomp.ship.verify import Verification

CHECKPOINT = typer.Argument(metavar="CKPT", help="A checkpoint's folder.")
PHOTOS = typer.Argument(metavar="PHOTO...", help="Image files.")
JSON = typer.Option("--json", help="Print one JSON document.")


def add_to(app: typer.Typer) -> None:
    app.command()(export)
    app.command()(verify)
    app.command()(caption)
    app.command()(classify)
    app.command()(rebuild)


def export(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="A study's folder.")],
    out: Annotated[Path, typer.Option(help="Where to write the checkpoint.")],
    trial: Annotated[int | None, typer.Option(min=0, help="The trial's number.")] = None,
    best: Annotated[
        str | None, typer.Option(help="Or in words: 'cider>=0.95*dense, min latency_ms'.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a checkpoint.")] = False,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Write the checkpoint of one trial of a study to a folder."""
    from autocomp.checkpoint.folder import open_checkpoint
    from autocomp.ship.export import export as write
    from autocomp.titles import in_short

    checkpoint = open_checkpoint(write(directory, out, trial=trial, best=best, force=force))
    if as_json:
        print_json({"checkpoint": str(out), "metrics": checkpoint.metrics})
        return
    print_table(("metric", "value"), checkpoint.metrics.items())
    print(f"policy: {in_short(checkpoint.policy)}")
    trust = " --trust" if checkpoint.config.task["kind"] == "python" else ""
    print(f"checkpoint: {out}; next: autocomp verify {out}{trust}")


def verify(
    directory: Annotated[Path, CHECKPOINT],
    split: Annotated[str, typer.Option(help="dev, as recorded, or another.")] = "dev",
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Measure a checkpoint again; exit code 1 if its record is wrong."""
    from autocomp.data.split import SPLITS
    from autocomp.errors import UserError, unknown
    from autocomp.ship.verify import verify as measure

    known = {one: one for one in SPLITS}
    if split not in known:
        raise UserError(unknown("split", split, SPLITS))
    found = measure(directory, known[split])
    if as_json:
        rows = [{**asdict(row), "agrees": row.agrees} for row in found.rows]
        print_json(
            {
                "agrees": found.agrees,
                "split": found.split,
                "rebuilt": found.rebuilt,
                "metrics": rows,
            }
        )
    else:
        _print_verification(found)
    if not found.agrees:
        raise typer.Exit(1)


def _print_verification(found: Verification) -> None:
    from autocomp.ship.verify import RECORDED_SPLIT, depends_on_load

    words = {True: "agrees", False: "DISAGREES", None: "not compared"}
    rows = [(row.metric, row.recorded, row.measured, words[row.agrees]) for row in found.rows]
    print_table(("metric", "recorded", "measured", ""), rows)
    print(f"the packed weights rebuild: {found.rebuilt}")
    print("the checkpoint is what it says" if found.agrees else "the checkpoint DISAGREES")
    if found.reproduces and found.differing and all(map(depends_on_load, found.differing)):
        print(
            "in nothing but speed and memory: this may be another machine, or busy with "
            "something else; verify it again where nothing else runs"
        )
    if found.split != RECORDED_SPLIT:
        print(
            f"quality is recorded for {RECORDED_SPLIT}, so that of {found.split} is only measured"
        )


def caption(
    directory: Annotated[Path, CHECKPOINT],
    photos: Annotated[list[Path], PHOTOS],
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Caption photos, one line each."""
    from autocomp.ship.load import Captioner

    _answer(directory, photos, as_json, Captioner)


def classify(
    directory: Annotated[Path, CHECKPOINT],
    photos: Annotated[list[Path], PHOTOS],
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Name the likeliest class of photos, one line each."""
    from autocomp.ship.load import Classifier

    _answer(directory, photos, as_json, Classifier)


def _answer(
    directory: Path, photos: list[Path], as_json: bool, wanted: type[Captioner] | type[Classifier]
) -> None:
    """Print what a model says of each photo; those that cannot be read come last, as an error."""
    from autocomp.errors import CheckpointError, DataError
    from autocomp.ship.load import Captioner, Classifier, load

    model = load(directory)
    if not isinstance(model, wanted):
        kind, rule = model.checkpoint.config.task.get("kind"), f"must hold a {wanted.__name__}"
        command = {Captioner: "caption", Classifier: "classify"}.get(type(model))
        hint = f"; try autocomp {command}" if command else ""
        raise CheckpointError(f"{directory}: {rule.lower()}, but its task is {kind!r}{hint}")
    answers: list[dict[str, object]] = []
    unread: list[str] = []
    for photo in photos:
        try:
            line, told = model.answer(photo)
        except DataError as failure:
            unread.append(str(failure))
            continue
        answers.append({"photo": str(photo), **told})
        if not as_json:
            print(f"{photo}: {line}", flush=True)
    if as_json:
        print_json(answers)
    if unread:
        raise DataError(*unread)


def rebuild(directory: Annotated[Path, CHECKPOINT], as_json: Annotated[bool, JSON] = False) -> None:
    """Make the files that run a model out of its packed weights, byte for byte."""
    from autocomp.ship.rebuild import rebuild as write

    made = write(directory)
    if as_json:
        print_json({"checkpoint": str(directory), "rebuilt": made})
    elif made:
        print(f"rebuilt {', '.join(made)}: the very bytes that config.json names")
    else:
        print("nothing is missing")

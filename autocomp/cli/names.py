"""The command that lists what a space file may name."""

from __future__ import annotations

from typing import Annotated

import typer

from autocomp.cli.output import print_json, print_table


def add_to(app: typer.Typer) -> None:
    app.command("list")(list_names)


def list_names(
    kind: Annotated[str | None, typer.Argument(help="One kind only, such as criteria.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print names only, by kind.")] = False,
) -> None:
    """List every name a space file may hold, with a line about each."""
    from autocomp.cli.catalogue import CATALOGUE
    from autocomp.errors import UserError, unknown

    if kind is not None and kind not in CATALOGUE:
        raise UserError(unknown("kind", kind, list(CATALOGUE)))
    kinds = [kind] if kind else list(CATALOGUE)
    if as_json:
        print_json({one: list(CATALOGUE[one]()) for one in kinds})
        return
    rows = [(one, name, line) for one in kinds for name, line in CATALOGUE[one]().items()]
    print_table(("kind", "name", "what it is"), rows)

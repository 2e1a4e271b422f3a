"""The `autocomp` command: what holds for every command, and what becomes of an error.

Results go to standard output, everything else to standard error. Exit codes: 0 done, 1 a checkpoint
that does not verify, 2 a mistake the user can mend, 130 interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from autocomp import __version__
from autocomp.cli import (
    bench,
    checkpoints,
    names,
    reports,
    search,
    sensitivity,
    spaces,
    studies,
)
from autocomp.cli.logs import set_up_logging
from autocomp.trust import trusting

ANYWHERE = ("-q", "--quiet", "-v", "--verbose", "--trust")
"""Options of the program that may also stand after the name of a command."""
INTERRUPTED = 130


class Commands(TyperGroup):
    """The commands; a `UserError` ends in its message and exit code 2, never in a traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        moved = [one for one in args[:end] if one in ANYWHERE]
        return super().parse_args(
            ctx, moved + [one for one in args[:end] if one not in ANYWHERE] + args[end:]
        )

    def invoke(self, ctx: Any) -> Any:
        from autocomp.errors import UserError

        try:
            return super().invoke(ctx)
        except UserError as mistake:
            print(mistake, file=sys.stderr)
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            resumes = ctx.invoked_subcommand == "search"
            told = "interrupted; the same command resumes" if resumes else "interrupted"
            print(told, file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=Commands,
    help="Declare what may be compressed; get the Pareto front of models you can ship.",
    epilog="-q, -v and --trust may also stand after a command. Results are on standard output.",
    no_args_is_help=True,
    # plain help is there at once, and a traceback is for whoever mends the bug
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (spaces, sensitivity, search, studies, reports, checkpoints, bench, names):
    module.add_to(app)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"autocomp {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Log errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log every detail.")] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the code of a task of your own (kind: python).")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Declare what may be compressed; get the Pareto front of models you can ship."""
    set_up_logging(quiet, verbose)
    context.with_resource(trusting(trust))


def main() -> None:
    """Run the command line; ends by raising `SystemExit`."""
    # OpenMP threads that spin at barriers cost 10x where cores are shared; read when torch loads
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    # a scheduler's SIGTERM ends a search as cleanly as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        app()
    finally:
        _flush()


def _flush() -> None:
    """Let a reader such as `head` go away without an error from Python's shutdown."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

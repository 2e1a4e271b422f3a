"""Commands that show a study in a browser: the report, and Optuna's dashboard."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocomp.cli.logs import logger
from autocomp.cli.studies import STUDY

if TYPE_CHECKING:
    from autocomp.study.study import Study


def add_to(app: typer.Typer) -> None:
    app.command()(report)
    app.command()(dashboard)


def report(
    directory: Annotated[Path, STUDY],
    out: Annotated[
        Path | None, typer.Option(help="The file to write; default DIR/report.html.")
    ] = None,
    opens: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Write a study's report: one HTML file that opens offline."""
    import webbrowser

    from autocomp.report.page import write_report
    from autocomp.study.study import Study

    path = write_report(Study.load(directory), out)
    print(path)
    if opens and not webbrowser.open(path.resolve().as_uri()):
        logger.warning("no browser could be started; open %s yourself", path)


def dashboard(
    directory: Annotated[Path, STUDY],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8080,
) -> None:
    """Serve Optuna's dashboard of a study on this machine, read-only, until Ctrl-C."""
    from autocomp.study.dashboard import HOST, make_dashboard
    from autocomp.study.store import StudyStore

    store = StudyStore(directory)
    store.read_space()  # whose error says that this is no study
    with make_dashboard(store.journal, port) as server:
        print(f"http://{HOST}:{server.server_port}/", flush=True)
        server.serve_forever()


def try_report(study: Study) -> Path | None:
    """The report at the end of a search, whose results are safe whatever becomes of it."""
    from autocomp.errors import UserError
    from autocomp.report.page import write_report

    try:
        return write_report(study)
    except UserError as failure:
        logger.warning("no report: %s", failure)
        return None

"""Optuna's own dashboard on a study's journal. The only module that imports optuna-dashboard."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from autocomp.errors import StudyError, UserError
from autocomp.study.journal import open_storage

HOST = "127.0.0.1"
READING = ("GET", "HEAD")
App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Server(ThreadingMixIn, WSGIServer):
    """Answers in threads of their own: wsgiref takes an interrupt for an error of the request."""

    daemon_threads = True


class QuietHandler(WSGIRequestHandler):
    """Tells of failed requests alone."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if str(code) >= "500":
            super().log_request(code, size)


def make_dashboard(journal: Path, port: int) -> WSGIServer:
    """A server of the dashboard on this machine alone, at `port` (0: any); not yet serving.

    It follows the journal of a running search and never writes it: what would change a study is
    refused. `StudyError` without a journal or if the port is taken, `UserError` if optuna-dashboard
    is not installed.
    """
    try:
        import optuna_dashboard
    except ImportError:
        raise UserError(
            "dashboard: needs optuna-dashboard, which is not installed; "
            "pip install 'autocomp[dashboard]'"
        ) from None
    app = read_only(optuna_dashboard.wsgi(open_storage(journal)))
    try:
        return make_server(HOST, port, app, server_class=Server, handler_class=QuietHandler)
    except (OSError, OverflowError) as failure:
        raise StudyError(f"--port: must be free, but {port} is not: {failure}") from None


def read_only(app: App) -> App:
    """`app` without the requests that would change something."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] in READING:
            return app(environ, start)
        start("403 Forbidden", [("Content-Type", "application/json")])
        return [b'{"reason": "autocomp shows a study read-only: only its search may change it"}']

    return answer

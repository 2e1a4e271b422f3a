from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from wsgiref.simple_server import WSGIServer

import pytest
from search_toys import open_toy, toy_run

from autocomp.errors import StudyError
from autocomp.study.dashboard import make_dashboard

pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = open_toy(tmp_path_factory.mktemp("dashboard") / "study", sampler="random")
    for _ in range(4):
        following = study.next_trial()
        assert following is not None
        study.record(toy_run(*following))
    study.close()
    return study.directory / "journal.log"


@pytest.fixture(scope="module")
def server(journal: Path) -> Iterator[WSGIServer]:
    with make_dashboard(journal, 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server: WSGIServer, path: str, method: str = "GET") -> bytes:
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.server_port}{path}", method=method, data=None
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return bytes(answer.read())


def test_shows_the_study_on_this_machine_alone(server: WSGIServer):
    assert server.server_address[0] == "127.0.0.1"
    (found,) = json.loads(ask(server, "/api/studies"))["study_summaries"]
    assert found["study_name"] == "autocomp"
    assert len(json.loads(ask(server, "/api/studies/0?after=0"))["trials"]) == 4
    assert b"<html" in ask(server, "/dashboard")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/api/studies/0"),
        ("POST", "/api/studies/0/rename"),
        ("PUT", "/api/studies/0/note"),
    ],
    ids=["delete", "rename", "note"],
)
def test_changes_nothing(server: WSGIServer, journal: Path, method: str, path: str):
    before = journal.read_bytes()
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(server, path, method)
    with refused.value as answer:
        assert answer.code == 403
        assert b"read-only" in answer.read()
    assert journal.read_bytes() == before


def test_a_port_that_is_taken_is_named(server: WSGIServer, journal: Path):
    with pytest.raises(StudyError, match=f"--port: must be free, but {server.server_port} is not"):
        make_dashboard(journal, server.server_port)

"""METEOR with a `java` that fails; with a real one it is in test_pycocoevalcap."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from autocomp.errors import UserError
from autocomp.evaluate.captions import CaptionScorer
from autocomp.evaluate.meteor import java_available, meteor, stop

CANDIDATES = [["a", "dog"], ["a", "man"]]
REFERENCES = [[["a", "dog", "runs"]], [["a", "man"]]]


@pytest.fixture(autouse=True)
def no_jvm_is_left() -> Iterator[None]:
    stop()
    yield
    stop()


@pytest.fixture
def java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `java`, the only one on the PATH, that answers -version and then does what is written."""
    path = tmp_path / "java"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return path


def write_java(path: Path, *lines: str) -> None:
    path.write_text("\n".join(["#!/bin/sh", '[ "$1" = -version ] && exit 0', *lines, ""]))
    path.chmod(0o755)


def test_java_that_dies_gives_its_last_words(java: Path) -> None:
    write_java(java, "echo starting >&2", "echo OutOfMemoryError: heap >&2", "exit 1")
    assert java_available()
    with pytest.raises(UserError, match=r"METEOR: .* it died: OutOfMemoryError: heap"):
        meteor(CANDIDATES, REFERENCES)


def test_java_that_dies_silently(java: Path) -> None:
    write_java(java, "exit 3")
    with pytest.raises(UserError, match=r"it died: exit status"):
        meteor(CANDIDATES, REFERENCES)


def test_java_that_hangs_is_stopped(java: Path) -> None:
    write_java(java, "exec sleep 60")
    with pytest.raises(UserError, match=r"did not answer within 0\.3 s"):
        meteor(CANDIDATES, REFERENCES, timeout_s=0.3)


def test_java_that_answers_nonsense(java: Path) -> None:
    write_java(java, "while read line; do echo nonsense; done")
    with pytest.raises(UserError, match=r"needs a working Java"):
        meteor(CANDIDATES, REFERENCES)


def test_without_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not java_available()
    assert "meteor" not in CaptionScorer([["a dog"]]).score(["a dog"])
    with pytest.raises(UserError, match=r"meteor: needs Java"):
        CaptionScorer([["a dog"]], with_meteor=True)
    with pytest.raises(UserError, match=r"METEOR: needs Java"):
        meteor(CANDIDATES, REFERENCES)


def test_java_that_only_says_where_to_get_it(java: Path) -> None:
    java.write_text("#!/bin/sh\nexit 1\n")
    java.chmod(0o755)
    assert not java_available()

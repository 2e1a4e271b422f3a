from __future__ import annotations

import os
import subprocess
import sys

import pytest
from search_toys import toy_predictions, toy_run, toy_space

from autocomp.errors import StudyError
from autocomp.policy import Policy, Quantize
from autocomp.study.store import StudyStore, repair_journal

SPACE = toy_space()


@pytest.fixture
def store(tmp_path):
    opened = StudyStore(tmp_path / "study")
    opened.open(SPACE.to_yaml())
    yield opened
    opened.close()


def test_what_is_written_is_read_back(store):
    policy = Policy(steps=(Quantize(layers="decoder.head", bits=8),))
    store.write_policy(17, policy)
    store.write_policy(2, Policy())
    store.write_result(toy_run(17, policy))
    store.write_predictions(17, toy_predictions(policy))
    assert store.read_policies() == {2: Policy(), 17: policy}
    assert store.read_results() == {17: toy_run(17, policy)}
    assert store.read_predictions(17) == toy_predictions(policy)
    assert store.read_predictions(2) is None
    assert (store.directory / "trials" / "00017" / "result.json").exists()
    assert store.read_space() == SPACE.to_yaml()
    assert store.read_header() == {}


@pytest.mark.parametrize(
    ("header", "line"),
    [
        ([], ": must be a valid dictionary"),
        ({"sessions": {}}, ".sessions: must be a valid list"),
        ({"sessions": ["one"]}, ".sessions.0: must be a valid dictionary"),
        (
            {"sessions": [{"started": "yesterday"}]},
            ".sessions.0.started: must be a time such as 2026-",
        ),
        ({"sessions": [{"started": "2026-01-31T12:00"}]}, ".sessions.0.started: must be a time"),
        ({"sessions": [{"command": 7}]}, ".sessions.0.command: must be a valid string"),
        ({"sessions": [{"machine": "fast"}]}, ".sessions.0.machine: must be a valid dictionary"),
    ],
    ids=["a list", "no list", "no session", "no time", "no zone", "no command", "no machine"],
)
def test_a_header_that_cannot_be_read_is_named_with_its_field(store, header, line):
    store.write_header(header)
    with pytest.raises(StudyError) as caught:
        store.read_header()
    assert len(caught.value.problems) == 1
    assert f"{store.directory / 'study.json'}{line}" in str(caught.value)


def test_what_else_a_header_holds_is_kept(store):
    header = {"sessions": [{"started": "2026-01-31T12:00:00+01:00", "seed": 7}], "later": 1}
    store.write_header(header)
    assert store.read_header() == header


def test_a_second_search_is_refused(store):
    with pytest.raises(StudyError, match="one search or run at a time"):
        StudyStore(store.directory).open(SPACE.to_yaml())


def test_a_folder_can_be_locked_before_it_is_a_study(tmp_path):
    store = StudyStore(tmp_path / "deep" / "study")
    store.lock()
    with pytest.raises(StudyError, match="one search or run at a time"):
        StudyStore(store.directory).open(SPACE.to_yaml())
    assert [path.name for path in store.directory.iterdir()] == ["study.lock"]
    store.close()
    store.open(SPACE.to_yaml())
    store.close()


def test_another_process_is_refused(store):
    code = (
        "import sys, pathlib; from autocomp.study.store import StudyStore\n"
        "StudyStore(pathlib.Path(sys.argv[1])).open('{}')"
    )
    command = [sys.executable, "-c", code, str(store.directory)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "one search or run at a time" in done.stderr


def test_a_closed_folder_can_be_opened_again(store):
    store.close()
    again = StudyStore(store.directory)
    again.open(SPACE.to_yaml())
    again.close()
    again.close()


@pytest.mark.parametrize("moment", ["opened", "closed"])
def test_what_killed_writers_left_is_cleared(store, moment):
    store.write_policy(3, Policy())
    if moment == "opened":
        store.close()
    (store.directory / ".dense.0123abcd.tmp").mkdir()
    aside = store.directory / ".dense.abcd0123.old"
    (aside / "dense").mkdir(parents=True)
    (store.directory / "trials" / "00003" / ".checkpoint.a_b_c_d_.tmp" / "graphs").mkdir(
        parents=True
    )
    if moment == "opened":
        store.open(SPACE.to_yaml())
    else:
        store.close()
    assert not list(store.directory.rglob(".*"))
    assert (store.directory / "dense").is_dir()
    assert store.read_policies() == {3: Policy()}


def test_who_only_reads_clears_nothing(store):
    left = store.directory / ".front.json.0123abcd.tmp"
    left.write_text("")
    reader = StudyStore(store.directory)
    reader.read_results()
    reader.close()
    assert left.exists()


def test_more_trials_and_workers_are_the_same_study(store):
    store.close()
    larger = toy_space(trials=300, workers=2, timeout_s=60)
    store.open(larger.to_yaml())
    assert store.read_space() == larger.to_yaml()


def test_a_study_without_trials_takes_a_mended_space(store):
    (store.directory / "dense").mkdir()
    (store.directory / "dense" / "config.json").touch()
    store.close()
    other = toy_space(objectives={"cider": "maximize"})
    store.open(other.to_yaml())
    assert store.read_space() == other.to_yaml()
    assert not (store.directory / "dense").exists()


def test_files_of_the_users_own_stay(tmp_path):
    (tmp_path / "space.yaml").write_text("# mine\n")
    (tmp_path / "dense").mkdir()
    with pytest.raises(StudyError, match="must not be there in a folder that is no study yet"):
        StudyStore(tmp_path).open(SPACE.to_yaml())
    assert (tmp_path / "space.yaml").read_text() == "# mine\n"
    assert (tmp_path / "dense").is_dir()


def test_another_space_is_refused_with_the_first_differences(store):
    store.write_policy(0, Policy())
    store.close()
    steps = [{"kind": "quantize", "layers": "encoder.*", "bits": {"choice": [8]}}]
    other = toy_space(seed=7, steps=steps, objectives={"cider": "maximize"})
    with pytest.raises(StudyError) as caught:
        store.open(other.to_yaml())
    assert len(caught.value.problems) == 5
    assert "objectives.size_mb must be the same as in this study, 'minimize'" in str(caught.value)
    assert "choose another folder with --out" in caught.value.problems[0]
    assert "more differences" in caught.value.problems[-1]
    store.open(SPACE.to_yaml())


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="must be a folder that can be written"):
        StudyStore(tmp_path / name).open(SPACE.to_yaml())


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StudyError, match="must be a folder that can be written"):
        StudyStore(tmp_path).open(SPACE.to_yaml())


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(StudyError, match="must be a study folder"):
        StudyStore(tmp_path).read_space()


def test_trials_without_their_space_are_refused(tmp_path):
    (tmp_path / "trials" / "00000").mkdir(parents=True)
    with pytest.raises(StudyError, match=r"space\.yaml: must be there"):
        StudyStore(tmp_path).open(SPACE.to_yaml())


@pytest.mark.parametrize("content", ["{", '{"number": 1}'], ids=["cut", "keys-missing"])
def test_an_edited_result_is_refused_with_its_path(store, content):
    store.write_policy(1, Policy())
    (store.directory / "trials" / "00001" / "result.json").write_text(content)
    with pytest.raises(StudyError, match=r"00001/result\.json"):
        store.read_results()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"", b""),
        (b'{"a":1}\n', b'{"a":1}\n'),
        (b'{"a":1}\n{"b', b'{"a":1}\n'),
        (b'{"a":1}\n{"b":2}', b'{"a":1}\n'),
        (b'{"a', b""),
        (b'{"a":1}\n\0\0\0', b'{"a":1}\n'),
    ],
    ids=["empty", "whole", "torn", "no-newline", "torn-first", "zeros"],
)
def test_a_torn_journal_is_cut_to_its_whole_lines(tmp_path, before, after):
    journal = tmp_path / "journal.log"
    journal.write_bytes(before)
    (tmp_path / "journal.log.lock").symlink_to(journal)
    repair_journal(journal)
    assert journal.read_bytes() == after
    assert not (tmp_path / "journal.log.lock").is_symlink()

from __future__ import annotations

from pathlib import Path

import pytest
from search_toys import open_toy, toy_run

from autocomp.errors import StudyError
from autocomp.study.journal import ReadOnlyJournal, open_storage, read_journal


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    study = open_toy(tmp_path_factory.mktemp("journal") / "study", sampler="random")
    for _ in range(6):
        following = study.next_trial()
        assert following is not None
        study.record(toy_run(*following))
    study.next_trial()  # one is in flight
    study.close()
    return study.directory / "journal.log"


def test_tells_when_trials_ended_and_what_they_had(journal: Path):
    found = read_journal(journal)
    assert list(found.ended) == list(range(6))
    times = list(found.ended.values())
    assert times == sorted(times)
    assert all(one.tzinfo is not None for one in times)
    assert [one.number for one in found.told] == list(range(6))
    assert not found.told[0].values
    assert set(found.told[5].values) == set(found.told[5].distributions) != set()


def test_is_never_written(journal: Path):
    before = journal.read_bytes()
    storage = open_storage(journal)
    with pytest.raises(StudyError, match="must not be written"):
        storage.set_study_user_attr(0, "note", "mine")
    with pytest.raises(StudyError, match="must not be written"):
        storage.delete_study(0)
    assert journal.read_bytes() == before
    assert not list(journal.parent.glob("journal.log.*"))


def test_a_line_that_is_being_written_does_not_count(journal: Path, tmp_path: Path):
    cut = tmp_path / "journal.log"
    cut.write_bytes(journal.read_bytes() + b'{"op_code": 6, "wor')
    assert read_journal(cut) == read_journal(journal)


def test_what_is_no_journal_is_refused(tmp_path: Path):
    with pytest.raises(StudyError, match="there is none"):
        ReadOnlyJournal(tmp_path / "journal.log")
    damaged = tmp_path / "damaged.log"
    damaged.write_text("no json\nat all\n")
    with pytest.raises(StudyError, match=r"damaged\.log: must be an Optuna journal"):
        read_journal(damaged)

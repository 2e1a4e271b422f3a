"""The Optuna journal of a study, to read only: a search may be writing it at the same time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend, JournalFileBackend

from autocomp.errors import StudyError
from autocomp.study.proposals import NUMBER, STUDY_NAME


class ReadOnlyJournal(BaseJournalBackend):
    """A journal file that grows as its search goes on, and that this process never writes."""

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise StudyError(f"{path}: must be the journal of a study, but there is none")
        self._path = path
        self._file = JournalFileBackend(str(path))

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        try:
            yield from self._file.read_logs(log_number_from)
        except ValueError as failure:
            raise StudyError(f"{self._path}: must be an Optuna journal, but {failure}") from None

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        raise StudyError(f"{self._path}: must not be written by anything but its search")


@dataclass(frozen=True)
class Told:
    """What the sampler was told of a complete trial: `values` are those of its parameters."""

    number: int
    values: Mapping[str, Any]
    distributions: Mapping[str, BaseDistribution]


@dataclass(frozen=True)
class Journal:
    """When each trial ended (with a time zone), and what the sampler knows of the complete ones."""

    ended: dict[int, datetime]
    told: tuple[Told, ...]


def open_storage(path: Path) -> JournalStorage:
    """The Optuna storage of a journal, read only; `StudyError` if there is none."""
    return JournalStorage(ReadOnlyJournal(path))


def read_journal(path: Path) -> Journal:
    """What a study's journal tells; `StudyError` if it is missing or damaged."""
    try:
        study = optuna.load_study(study_name=STUDY_NAME, storage=open_storage(path))
    except KeyError:  # it was killed before it wrote down that there is a study
        return Journal({}, ())
    trials = [one for one in study.get_trials(deepcopy=False) if NUMBER in one.user_attrs]
    ended = {
        one.user_attrs[NUMBER]: one.datetime_complete.astimezone()
        for one in trials
        if one.datetime_complete is not None
    }
    told = tuple(
        Told(one.user_attrs[NUMBER], one.params, one.distributions)
        for one in trials
        if one.state is optuna.trial.TrialState.COMPLETE
    )
    return Journal(ended, told)

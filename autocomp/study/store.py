"""A study's folder on disk: what lies where, who may write it, and how it is read back.

space.yaml  study.json  study.lock  journal.log  front.json  front.csv
trials/00017/   policy.yaml  result.json  predictions.json  tensors.json  log.txt  checkpoint/
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from autocomp.decisions import load_yaml, validate
from autocomp.errors import StudyError
from autocomp.files import clear_leftovers, write_json, write_text
from autocomp.policy import Policy
from autocomp.predictions import PREDICTIONS, Predictions
from autocomp.results import TrialResult
from autocomp.study.front import Front
from autocomp.study.sessions import Header

MAY_CHANGE = ("search.trials", "search.workers", "search.timeout_s")
SHOWN_DIFFERENCES = 3


def trial_folder(directory: Path, number: int) -> Path:
    """Where trial `number` of the study in `directory` keeps its files."""
    return directory / "trials" / f"{number:05d}"


class StudyStore:
    """Reads and writes one study folder; `open` or `lock` takes its lock, `close` gives it back.

    Reading needs no lock. Every file is replaced whole, so a reader never sees half of one.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = Path(directory)
        self.journal = self.directory / "journal.log"
        self._lock = FileLock(self.directory / "study.lock")

    def lock(self) -> None:
        """Make the folder and lock it for this process; `StudyError` if that cannot be done."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise StudyError(
                f"{self.directory}: must be used by one search or run at a time, but another is "
                "at work in it; wait for it to end, or choose another folder"
            ) from None
        except (OSError, NotImplementedError) as failure:
            raise StudyError(
                f"{self.directory}: must be a folder that can be written, but {failure}"
            ) from None

    def open(self, space_yaml: str) -> None:
        """Make or take over the folder for the space; `StudyError` if that cannot be done."""
        self.lock()
        try:
            self._take_over(space_yaml)
        except OSError as failure:
            self.close()
            raise StudyError(
                f"{self.directory}: must be a folder that can be written, but {failure}"
            ) from None
        except BaseException:
            self.close()
            raise

    def _take_over(self, space_yaml: str) -> None:
        self._clear_leftovers()
        path = self.directory / "space.yaml"
        # before its first trial a study has nothing that another space could spoil
        trials = self.directory / "trials"
        trials.mkdir(exist_ok=True)
        has_trials = next(trials.iterdir(), None) is not None
        if has_trials and path.exists():
            self._check_same_space(path.read_text(encoding="utf-8"), space_yaml)
        elif has_trials:
            raise StudyError(f"{path}: must be there beside trials/, but is missing")
        elif path.exists() and path.read_text(encoding="utf-8") != space_yaml:
            self._give_up_dense(path)
        if not (self.directory / "study.json").exists():
            self.write_header({})  # from now on the folder is ours
        write_text(path, space_yaml)
        repair_journal(self.journal)

    def _give_up_dense(self, space: Path) -> None:
        """Another space's dense model is of no use; a space.yaml of the user's own stays."""
        if not (self.directory / "study.json").exists():
            raise StudyError(
                f"{space}: must not be there in a folder that is no study yet, for it would be "
                "replaced; choose another folder with --out"
            )
        if (self.directory / "dense" / "config.json").exists():
            shutil.rmtree(self.directory / "dense", ignore_errors=True)

    def _check_same_space(self, there: str, here: str) -> None:
        where = f"{self.directory / 'space.yaml'}"
        old = dict(_leaves(load_yaml(there, where, StudyError)))
        new = dict(_leaves(yaml.safe_load(here)))
        differing = [
            f"{where}: {key} must be the same as in this study, {_shown(old, key)}, "
            f"but got {_shown(new, key)}"
            for key in dict.fromkeys([*old, *new])
            if old.get(key, _MISSING) != new.get(key, _MISSING) and key not in MAY_CHANGE
        ]
        if differing:
            left = len(differing) - SHOWN_DIFFERENCES
            more = [f"{where}: and {left} more differences"] if left > 0 else []
            way_out = (
                f"{self.directory}: holds trials of another space; choose another folder with --out"
            )
            raise StudyError(way_out, *differing[:SHOWN_DIFFERENCES], *more)

    def close(self) -> None:
        """Release the lock; harmless when it is not held."""
        try:
            if self.is_open:  # workers that were killed have left theirs
                self._clear_leftovers()
        finally:
            self._lock.release()

    def _clear_leftovers(self) -> None:
        for folder in (self.directory, *(self.directory / "trials").glob("[0-9]*")):
            clear_leftovers(folder)

    @property
    def is_open(self) -> bool:
        """True while this process holds the lock."""
        return bool(self._lock.is_locked)

    def read_space(self) -> str:
        """The text of the folder's space.yaml; `StudyError` if this is no study."""
        path = self.directory / "space.yaml"
        try:
            return path.read_text(encoding="utf-8")
        except OSError:
            raise StudyError(
                f"{self.directory}: must be a study folder, but has no readable space.yaml"
            ) from None

    def read_header(self) -> dict[str, Any]:
        """What study.json holds; empty if it is not there yet."""
        path = self.directory / "study.json"
        header = _read_json(path) if path.exists() else {}
        validate(Header, header, str(path), StudyError)
        return dict(header)

    def write_header(self, header: dict[str, Any]) -> None:
        write_json(self.directory / "study.json", header)

    def write_policy(self, number: int, policy: Policy) -> None:
        folder = trial_folder(self.directory, number)
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "policy.yaml", policy.to_yaml())

    def write_result(self, result: TrialResult) -> None:
        folder = trial_folder(self.directory, result.number)
        write_json(folder / "result.json", result.model_dump(mode="json"))

    def drop_result(self, number: int) -> None:
        """Forget how a trial ended, so that it is run again."""
        (trial_folder(self.directory, number) / "result.json").unlink(missing_ok=True)

    def read_predictions(self, number: int) -> Predictions | None:
        """What a trial predicted; None for one that did not complete, or left no such file."""
        path = trial_folder(self.directory, number) / PREDICTIONS
        return Predictions.read(path) if path.exists() else None

    def write_predictions(self, number: int, predictions: Predictions) -> None:
        predictions.write(trial_folder(self.directory, number) / PREDICTIONS)

    def drop_predictions(self, number: int) -> None:
        (trial_folder(self.directory, number) / PREDICTIONS).unlink(missing_ok=True)

    def drop_checkpoint(self, number: int) -> None:
        shutil.rmtree(trial_folder(self.directory, number) / "checkpoint", ignore_errors=True)

    def write_front(self, front: Front) -> None:
        write_json(self.directory / "front.json", front.to_json())
        write_text(self.directory / "front.csv", front.to_csv())

    def read_policies(self) -> dict[int, Policy]:
        """Every trial's policy by number, ascending."""
        return {
            number: Policy.from_yaml(path.read_text(encoding="utf-8"), str(path))
            for number, path in self._trial_files("policy.yaml")
        }

    def read_results(self) -> dict[int, TrialResult]:
        """Every finished trial's result by number, ascending."""
        return {
            number: validate(TrialResult, _read_json(path), str(path), StudyError)
            for number, path in self._trial_files("result.json")
        }

    def _trial_files(self, name: str) -> Iterator[tuple[int, Path]]:
        for folder in sorted((self.directory / "trials").glob("[0-9]*")):
            if folder.name.isdigit() and (folder / name).exists():
                yield int(folder.name), folder / name


def repair_journal(path: Path) -> None:
    """Undo what a killed writer left: Optuna's lock file and the half-written last line.

    Only for whoever holds the study's lock: nobody else writes the journal then.
    """
    path.with_name(path.name + ".lock").unlink(missing_ok=True)
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)


_MISSING = object()


def _shown(leaves: dict[str, Any], key: str) -> str:
    return repr(leaves[key]) if key in leaves else "absent"


def _leaves(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted path and value of everything in nested mappings and lists that is neither."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, below in items:
            yield from _leaves(below, f"{place}.{key}" if place else str(key))
    else:
        yield place, value


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as failure:
        raise StudyError(f"{path}: must be valid JSON, but {failure}") from None

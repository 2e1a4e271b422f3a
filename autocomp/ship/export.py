"""Copies a trial's checkpoint out of its study; a trial that kept none is carried out again."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from autocomp.bench import DENSE, open_bench
from autocomp.checkpoint.folder import METRICS, is_checkpoint, open_checkpoint
from autocomp.errors import StudyError
from autocomp.files import write_folder
from autocomp.results import TrialResult
from autocomp.ship.best import best as choose
from autocomp.study.store import trial_folder
from autocomp.study.study import Study
from autocomp.trial import run_trial
from autocomp.trust import trusting

log = logging.getLogger(__name__)


def export(
    directory: Path | str,
    out: Path | str,
    trial: int | None = None,
    best: str | None = None,
    force: bool = False,
    *,
    trust: bool = False,
) -> Path:
    """Write the checkpoint of one trial of the study in `directory` to the folder `out`.

    The trial is given by its number, or as the best of the front (see `autocomp.ship.best`). Trials
    off the front keep no checkpoint: such a one is carried out again, which takes as long as it did
    in the search, and a log message says so. `force` replaces a checkpoint that is there already.
    `trust` lets a task of the user's own (`kind: python`) run its code then. `StudyError` for a
    trial without a result, or an `out` that cannot be written.
    """
    study, out = Study.load(directory), Path(out).expanduser().absolute()
    number = _number(study, trial, best)
    _check_out(out, force)
    source = trial_folder(study.directory, number) / "checkpoint"
    try:
        if (source / METRICS).exists():
            write_folder(out, lambda folder: _copy(source, folder))
        else:
            with trusting(trust):
                _carry_out_again(study, number, out)
    except OSError as failure:
        raise StudyError(f"{out}: must be a folder that can be written, but {failure}") from None
    return out


def _number(study: Study, trial: int | None, best: str | None) -> int:
    if (trial is None) == (best is None):
        given = "neither" if trial is None else "both"
        raise StudyError(f"export: must be given a trial or what is best, but got {given}")
    if best is not None:
        number = choose(study.front(), best)
        log.info("trial %d is the best of the front", number)
        return number
    assert trial is not None
    result = study.results.get(trial)
    if result is None or result.status != "complete":
        members = ", ".join(str(one.trial) for one in study.front().members) or "none so far"
        raise StudyError(
            f"trial: must be one that is complete, such as those of the front ({members}), "
            f"but {_why_not(trial, result)}"
        )
    return trial


def _why_not(number: int, result: TrialResult | None) -> str:
    if result is None:
        return f"trial {number} has no result"
    return f"trial {number} {'was stopped' if result.status == 'stopped' else 'failed'}: " + (
        result.reason or "no reason is known"
    )


def _check_out(out: Path, force: bool) -> None:
    """Nothing but a checkpoint is ever replaced, however much it is wanted."""
    if not out.exists():
        return
    if not force:
        raise StudyError(f"{out}: must not exist yet, but does; --force replaces a checkpoint")
    if not out.is_dir() or (any(out.iterdir()) and not is_checkpoint(out)):
        raise StudyError(f"{out}: must be a checkpoint to be replaced, but is something else")


def _copy(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    open_checkpoint(folder)  # a search may have dropped it meanwhile: half of it is not to ship


def _carry_out_again(study: Study, number: int, out: Path) -> None:
    before = study.results[number]
    if not (study.directory / DENSE).exists():
        raise StudyError(
            f"{study.directory / DENSE}: must be there to carry out trial {number} again, but this "
            "study was kept without its weights; the same search makes them anew"
        )
    log.warning(
        "trial %d kept no checkpoint: it is carried out again, which took %.0f s in the search",
        number,
        sum(before.seconds.values()),
    )
    bench = open_bench(study.space, study.directory)
    after = run_trial(bench, number, study.policies[number], out)
    if after.status != "complete":
        raise StudyError(f"trial: must complete again, but {_why_not(number, after)}")
    for objective in study.space.objectives:
        name = objective.metric
        log.warning(
            "%s: %.6g (%.6g in the search)", name, after.metrics[name], before.metrics[name]
        )

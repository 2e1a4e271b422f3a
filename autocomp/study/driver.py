"""A whole search: bind the space, prepare the dense model, run trials, keep the front."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from autocomp.bench import (
    DENSE,
    check_given,
    compressible_layers,
    container_depths,
    open_bench,
    prepare_dense,
)
from autocomp.checkpoint.folder import tensor_records
from autocomp.decisions import validate
from autocomp.errors import PolicyError, SpaceError, StudyError, UserError, unknown
from autocomp.evaluate.meteor import java_available
from autocomp.measure import COSTS
from autocomp.policy import Policy
from autocomp.predictions import PREDICTIONS
from autocomp.results import CONTROL_TRIAL, TrialResult
from autocomp.space.binding import BoundSpace, bind
from autocomp.space.space import SearchSpace
from autocomp.study.loop import SearchEvent, search_loop
from autocomp.study.runners import InProcessRunner, Run, Runner
from autocomp.study.store import trial_folder
from autocomp.study.study import Study
from autocomp.targets import TargetSettings
from autocomp.tasks.registry import build_task
from autocomp.tensors import TENSORS
from autocomp.timing import part_metrics
from autocomp.trust import is_trusted, trusting

log = logging.getLogger(__name__)
WORKER_BYTES = 2_500_000_000
"""What a worker may need: a training step with its activations, and the features of a data set."""
Start = Policy | Path | str
"""A policy to start with, or its file."""
JVM_BYTES = 1_300_000_000
"""What METEOR's Java adds to a worker."""


@dataclass(frozen=True)
class Listener:
    """Told how a search comes along; `on_training(done, total, loss)` is for the dense model."""

    on_training: Callable[[int, int, float], None] = lambda done, total, loss: None
    on_event: Callable[[SearchEvent], None] = lambda event: None


def search(
    space: SearchSpace | Path | str,
    *,
    trials: int | None = None,
    directory: Path | str | None = None,
    workers: int | None = None,
    ray_address: str | None = None,
    start: Start | Sequence[Start] = (),
    listener: Listener | None = None,
    command: str | None = None,
    trust: bool = False,
) -> Study:
    """Explore `space` until `trials` trials have results; the study, which a second call resumes.

    `space` is a space or its file; `directory` defaults to results/<the file's name>. `workers`
    processes run trials side by side (default: the space's, else as many as the machine or the
    cluster has room for); 0 runs them in this process. `ray_address` names a running Ray cluster
    that shares this file system. The policies of `start`, or their files, are tried before any
    that the search comes up with. `trust` lets a task of the user's own (`kind: python`) run its
    code. Raises `UserError` for what the user can mend.
    """
    with trusting(trust):
        return _search(space, trials, directory, workers, ray_address, start, listener, command)


def _search(
    space: SearchSpace | Path | str,
    trials: int | None,
    directory: Path | str | None,
    workers: int | None,
    ray_address: str | None,
    start: Start | Sequence[Start],
    listener: Listener | None,
    command: str | None,
) -> Study:
    listener = listener or Listener()
    space, directory = _placed(space, directory)
    trials = _checked(space.search.trials if trials is None else trials)
    # before there is a study, so that a mistake leaves no folder that the mended space won't fit
    target = validate(TargetSettings, dict(space.target), "target", SpaceError)
    bound = bind_space(space)
    if not (directory / DENSE).exists():
        check_given(space)
    given = [start] if isinstance(start, Policy | Path | str) else start
    first = [_place(bound, one, f"start.{index}") for index, one in enumerate(given)]
    study = Study.open(directory, space, bound, trials=trials, first=first, command=command)
    try:
        _warn_of_untried(study, [bound.policy(one) for one in first], trials)
        dense = prepare_dense(space, directory, listener.on_training)
        _warn_of_worthless(space, dense.metrics)
        run = partial(make_run, space.to_yaml(), directory.resolve())
        runner = make_runner(run, space, target.threads, directory, workers, ray_address)
    except BaseException:
        study.close()
        raise
    search_loop(study, runner, trials, listener.on_event)
    return study


def _placed(
    space: SearchSpace | Path | str, directory: Path | str | None
) -> tuple[SearchSpace, Path]:
    """The space, read if it is a file, and where its study lies."""
    if isinstance(space, SearchSpace):
        if directory is None:
            raise StudyError("directory: must be given for a space that is not a file")
        return space, Path(directory)
    loaded = SearchSpace.load(space)
    return loaded, Path("results") / Path(space).stem if directory is None else Path(directory)


def _checked(trials: int) -> int:
    if trials < 1:
        raise StudyError(f"trials: must be at least 1, but got {trials}")
    if trials <= CONTROL_TRIAL + 1:
        log.warning("trials: the first two are the dense model and the control; 3 try a policy")
    return trials


def bind_space(space: SearchSpace) -> BoundSpace:
    """`space` bound to the dense model of its own task.

    `SpaceError` for patterns that mean nothing in it, for a `keep` beyond its depth and for
    objectives the task cannot measure.
    """
    task = build_task(space.task)
    own, costs = task.metric_names(), [*COSTS, *part_metrics(task)]
    if taken := [name for name in own if name in costs]:
        raise UserError(
            f"task: metrics must have names of their own, but {taken[0]!r} is measured of any task"
        )
    known = [*own, *costs]
    unmeasured = [one.metric for one in space.objectives if one.metric not in known]
    if unmeasured:
        raise SpaceError(*(unknown("objectives", name, known) for name in unmeasured))
    return bind(space, compressible_layers(task), container_depths(task), task.image_size)


def _place(bound: BoundSpace, given: Start, where: str) -> dict[str, Any]:
    """The values of the space's parameters that make a policy, or the one in a file."""
    if not isinstance(given, Policy):
        given, where = Policy.load(given), str(given)
    try:
        return bound.values(given)
    except PolicyError as mistake:
        raise PolicyError(*(f"{where}: {line}" for line in mistake.problems)) from None


def _warn_of_untried(study: Study, start: Sequence[Policy], trials: int) -> None:
    """Say which of the policies to start with will not run, and why."""
    numbers = {policy: study.trial_of(policy) for policy in start}
    for number in numbers.values():
        if number is not None:
            log.warning("start: trial %d is this policy already", number)
    new = list(numbers.values()).count(None)
    room = max(trials - max(len(study.policies), CONTROL_TRIAL + 1), 0)
    if new > room:
        told = "start: there is room for %d new policies in %d trials, but %d are given"
        log.warning(told, room, trials, new)


def _warn_of_worthless(space: SearchSpace, dense: Mapping[str, float]) -> None:
    """No share of a quality of 0 says anything, and no hypervolume can be divided by it."""
    for one in space.objectives:
        if one.direction == "maximize" and dense[one.metric] <= 0:
            log.warning(
                "the dense model's %s is %g, so nothing can be compared with it: train it longer "
                "(task.dense)",
                one.metric,
                dense[one.metric],
            )


def default_workers(threads: int) -> int:
    """As many workers of `threads` threads as this machine has cores and memory for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    worker_bytes = WORKER_BYTES + (JVM_BYTES if java_available() else 0)
    by_memory = psutil.virtual_memory().available // worker_bytes
    return int(max(1, min((cores or 1) // threads, by_memory)))


def make_run(space_yaml: str, directory: Path) -> Run:
    """What a worker does with a trial; called once in each worker's process."""
    from autocomp.trial import run_trial

    bench = open_bench(SearchSpace.from_yaml(space_yaml), directory)

    def run(number: int, policy: Policy) -> TrialResult:
        folder = trial_folder(directory, number)
        result = run_trial(
            bench,
            number,
            policy,
            folder / "checkpoint",
            log_file=folder / "log.txt",
            predictions_file=folder / PREDICTIONS,
        )
        if result.status == "complete":  # only members of the front keep their checkpoint
            tensor_records(folder / "checkpoint").write(folder / TENSORS)
        return result

    return run


def make_runner(
    factory: Callable[[], Run],
    space: SearchSpace,
    threads: int,
    directory: Path,
    workers: int | None,
    ray_address: str | None = None,
) -> Runner:
    """Who carries out policies with what `factory` makes, as `search` says of its `workers`."""
    wanted = space.search.workers if workers is None else workers
    factory = partial(_trusting_as_here, is_trusted(), factory)
    if wanted == 0:
        if space.search.timeout_s is not None:
            log.warning("search.timeout_s: needs workers of its own, so it does nothing here")
        return InProcessRunner(factory(), directory)
    if wanted is None and ray_address is None:
        wanted = default_workers(threads)
    from autocomp.study.ray_runner import RayRunner

    return RayRunner(
        factory,
        workers=wanted,
        threads=threads,
        timeout_s=space.search.timeout_s,
        directory=directory,
        address=ray_address,
    )


def _trusting_as_here(trust: bool, factory: Callable[[], Run]) -> Run:
    """What `factory` makes, in a process that knows nothing of whom this one trusts."""
    with trusting(trust):
        run = factory()

    def trusted(number: int, policy: Policy) -> TrialResult:
        with trusting(trust):
            return run(number, policy)

    return trusted

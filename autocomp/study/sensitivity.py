"""What each layer can bear: every layer alone, at every width or ratio, retrained or not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from autocomp.bench import open_bench, prepare_dense
from autocomp.decisions import Decision, read_json, validate
from autocomp.errors import SpaceError, StudyError
from autocomp.files import write_json
from autocomp.measure import COSTS
from autocomp.policy import Policy
from autocomp.provenance import commit, machine, versions
from autocomp.results import Status, TrialResult
from autocomp.space.metrics import Direction
from autocomp.space.objectives import Objective
from autocomp.space.probes import Probe, by_layer, probes
from autocomp.space.space import SearchSpace
from autocomp.study.driver import bind_space, make_runner
from autocomp.study.front import directed
from autocomp.study.runners import Run, Runner
from autocomp.study.store import StudyStore
from autocomp.targets import TargetSettings
from autocomp.tasks.registry import build_task
from autocomp.timing import is_time

SENSITIVITY = "sensitivity.json"
"""The file's name in its folder."""
EXAMPLES = 200
OnReading = Callable[["Reading", int, int], None]
"""`on_reading(reading, done, total)`."""


class Reading(Decision):
    """`layer` alone with `field` at `value` (bits, or a ratio): what the model's artefact came to.

    `policy` is what was carried out; steps of one kind may differ in more than the value.
    `metrics` is empty, and `reason` says why, unless it is complete.
    """

    layer: str
    kind: str
    field: str
    value: float
    policy: Policy
    status: Status
    reason: str | None
    skipped: tuple[str, ...]
    metrics: dict[str, float]


class Sensitivity(Decision):
    """All readings so far, beside the dense model's metrics on the same `examples` of dev.

    Readings are in the order of the space: by step, by layer, the mildest value first. What could
    be trained after its layer was compressed was retrained for `retrain_steps`.
    """

    space_id: str
    examples: int
    retrain_steps: int = 0
    dense: dict[str, float]
    readings: tuple[Reading, ...]
    provenance: dict[str, Any]


def measure_sensitivity(
    space: SearchSpace,
    directory: Path,
    *,
    examples: int = EXAMPLES,
    retrain_steps: int = 0,
    workers: int | None = None,
    command: str | None = None,
    on_training: Callable[[int, int, float], None] | None = None,
    on_reading: OnReading = lambda reading, done, total: None,
) -> Sensitivity:
    """Every layer that `space` searches, alone at every value; kept in `directory` as it is read.

    Quality is that of the first `examples` of the dev split (of all, where there are fewer), of the
    artefact as it would ship; what can be trained after its layer was compressed is retrained for
    `retrain_steps` before. A folder that holds some of the readings gets the others, and those that
    failed anew. `SpaceError` if no objective is a quality. `StudyError` if the folder holds those
    of another space or of other numbers of examples or steps, or if the dense model has no quality.
    """
    metric, better = quality_of(space.objectives)
    target = validate(TargetSettings, dict(space.target), "target", SpaceError)
    wanted = probes(bind_space(by_layer(space)), retrain_steps)
    if not wanted:
        raise SpaceError(
            "policy.steps: must search bits or a ratio of some layers, but searches none"
        )
    with closing(StudyStore(directory)) as store:
        store.lock()
        examples = min(examples, build_task(space.task).size("dev"))
        before = _readings(directory / SENSITIVITY, space, examples, retrain_steps)
        prepare_dense(space, directory, on_training)
        factory = partial(make_prober, space.to_yaml(), directory.resolve(), examples)
        with closing(make_runner(factory, space, target.threads, directory, workers)) as runner:
            table = before or _begun(runner, space, examples, retrain_steps, command)
            if better == "maximize" and table.dense[metric] == 0:
                raise StudyError(
                    f"the dense model's {metric} on {examples} examples must not be 0, for then "
                    "there is nothing to lose, but is; train it longer (task.dense)"
                )
            return _read_all(runner, wanted, table, directory / SENSITIVITY, on_reading)


def quality_of(objectives: Sequence[Objective]) -> tuple[str, Direction]:
    """The metric that readings are compared by, and which way it is better.

    It is the first quality to maximise, or the first to minimise (an error, say) if there is none.
    `SpaceError` if every objective is a cost.
    """
    found = [one for one in directed(objectives) if one[0] not in COSTS and not is_time(one[0])]
    if not found:
        raise SpaceError(
            "objectives: must hold a quality with a direction, but hold "
            f"{', '.join(one.metric for one in objectives)}"
        )
    return next((one for one in found if one[1] == "maximize"), found[0])


def make_prober(space_yaml: str, directory: Path, examples: int) -> Run:
    """What a worker does with a policy; called once in each worker's process."""
    from autocomp.trial import probe

    bench = open_bench(SearchSpace.from_yaml(space_yaml), directory)
    return lambda number, policy: probe(bench, number, policy, examples)


def _readings(
    path: Path, space: SearchSpace, examples: int, retrain_steps: int
) -> Sensitivity | None:
    """What was read before, if anything was."""
    if not path.exists():
        return None
    found = read_json(Sensitivity, path, StudyError)
    differing = {
        "the same space": found.space_id == space.id,
        f"{examples} examples": found.examples == examples,
        f"{retrain_steps} steps of retraining": found.retrain_steps == retrain_steps,
    }
    for what, is_same in differing.items():
        if not is_same:
            raise StudyError(
                f"{path}: must hold readings of {what}, but does not; choose another folder with "
                "--out"
            )
    return found


def _begun(
    runner: Runner, space: SearchSpace, examples: int, retrain_steps: int, command: str | None
) -> Sensitivity:
    """No readings, but the dense model's metrics on the same examples."""
    runner.submit(0, Policy())
    result = runner.next_result()
    if result.status != "complete":
        raise StudyError(f"the dense model must be measured, but {result.reason}")
    provenance = {"command": command, "commit": commit(), "seed": space.search.seed}
    return Sensitivity(
        space_id=space.id,
        examples=examples,
        retrain_steps=retrain_steps,
        dense=result.metrics,
        readings=(),
        provenance=provenance | {"machine": machine(), "versions": versions()},
    )


def _read_all(
    runner: Runner, wanted: Sequence[Probe], table: Sensitivity, path: Path, on_reading: OnReading
) -> Sensitivity:
    """Carry out what is not yet in `table`, writing it anew after each."""
    known = {one.policy.id: one for one in table.readings if one.status != "failed"}
    left = [one for one in wanted if one.policy.id not in known]
    for probed, result in _results(runner, left):
        reading = Reading(
            layer=probed.layer,
            kind=probed.kind,
            field=probed.field,
            value=probed.value,
            policy=probed.policy,
            status=result.status,
            reason=result.reason,
            skipped=result.skipped,
            metrics=result.metrics,
        )
        known[probed.policy.id] = reading
        ordered = tuple(known[one.policy.id] for one in wanted if one.policy.id in known)
        table = table.model_copy(update={"readings": ordered})
        write_json(path, table.model_dump(mode="json"))
        on_reading(reading, len(known), len(wanted))
    return table


def _results(runner: Runner, left: Sequence[Probe]) -> Iterator[tuple[Probe, TrialResult]]:
    """Each probe with its result, as they come, with the runner kept busy."""
    waiting = iter(enumerate(left, start=1))
    in_flight: dict[int, Probe] = {}
    while True:
        while len(in_flight) < runner.capacity and (following := next(waiting, None)):
            number, probed = following
            runner.submit(number, probed.policy)
            in_flight[number] = probed
        if not in_flight:
            return
        result = runner.next_result()
        yield in_flight.pop(result.number), result

"""Times checkpoints beside one another, at several numbers of threads and batch sizes."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from autocomp.checkpoint.folder import Checkpoint, open_checkpoint
from autocomp.errors import DataError
from autocomp.targets import TargetSettings, load_target
from autocomp.targets.memory import peak_rss_mb
from autocomp.timing import TIMED_EXAMPLES, Inference, sequential_graphs, time_beside

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CheckpointTiming:
    """One checkpoint at one setting, all milliseconds those of one example.

    `ratio` is to the reference, with its 95 % `interval`. `example_ms` (median) and
    `example_p90_ms` are ratios times what the reference took at this setting, so that checkpoints
    can be compared though the machine was busier when one of them was timed. `parts_ms` add up to
    `example_ms`, each step of a sequential graph counted.
    """

    checkpoint: str
    threads: int
    batch_size: int
    example_ms: float
    example_p90_ms: float
    examples_per_s: float
    ratio: float
    interval: tuple[float, float]
    pairs: int
    parts_ms: dict[str, float]
    peak_rss_mb: float


def time_checkpoints(
    directories: Sequence[Path],
    *,
    against: Path | None = None,
    threads: Sequence[int] = (1,),
    batch_sizes: Sequence[int] = (1,),
    images: Sequence[Path] = (),
) -> Iterator[CheckpointTiming]:
    """Time every checkpoint in turn with the one `against`, by default the first, at each setting.

    The reference comes first, timed beside itself: how far its ratio is from 1 shows the noise. All
    take the fewest steps that any of them was measured over. They read `images`, else the first
    photos of the reference's dev split. `CheckpointError` for a folder that is no whole checkpoint,
    `DataError` if there are no photos or one cannot be read.
    """
    first = against or directories[0]
    opened = {str(one): open_checkpoint(one) for one in (first, *directories)}
    reference = opened[str(first)]
    raw = _examples(list(opened.values()), images)
    for count in threads:
        for batch_size in batch_sizes:
            yield from _at_setting(opened, reference, count, batch_size, raw)


def _at_setting(
    opened: dict[str, Checkpoint],
    reference: Checkpoint,
    threads: int,
    batch_size: int,
    raw: list[bytes],
) -> Iterator[CheckpointTiming]:
    log.info("timing %d checkpoints: threads %d, batch %d", len(opened), threads, batch_size)
    # a captioner has positions for its longest caption, and no more
    steps = min(one.config.steps for one in opened.values())

    def inference(one: Checkpoint) -> Inference:
        target = TargetSettings(kind=one.config.target.kind, threads=threads, batch_size=batch_size)
        run = load_target(target.kind).open(one.artifact, threads=threads)
        return Inference(one.task, run, raw, target, steps)

    timings = {
        name: time_beside(inference(one), inference(reference)) for name, one in opened.items()
    }
    reference_ms = median(one.latency.reference_ms for one in timings.values()) / batch_size
    for name, timed in timings.items():
        checkpoint, latency = opened[name], timed.latency
        example_ms = latency.ratio * reference_ms
        yield CheckpointTiming(
            checkpoint=name,
            threads=threads,
            batch_size=batch_size,
            example_ms=example_ms,
            example_p90_ms=latency.ratio_p90 * reference_ms,
            examples_per_s=1e3 / example_ms,
            ratio=latency.ratio,
            interval=latency.interval,
            pairs=latency.pairs,
            parts_ms=timed.parts_ms(example_ms, sequential_graphs(checkpoint.task), steps),
            peak_rss_mb=peak_rss_mb(checkpoint.artifact, batch_size=batch_size, threads=threads),
        )


def _examples(checkpoints: Sequence[Checkpoint], images: Sequence[Path]) -> list[bytes]:
    if not images:
        return _dev_examples(checkpoints[0])
    raw = [_bytes(path) for path in images]
    for checkpoint in checkpoints:
        for path, one in zip(images, raw, strict=True):
            try:
                checkpoint.task.read(one)
            except DataError as failure:
                raise DataError(f"images: {path}: {failure}") from None
    return raw


def _dev_examples(checkpoint: Checkpoint) -> list[bytes]:
    try:
        return checkpoint.task.raw_inputs("dev", TIMED_EXAMPLES)
    except DataError as failure:
        raise DataError(
            "images: must be given, for the photos of the dev split are not here: "
            f"{failure.problems[0]}"
        ) from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failure:
        raise DataError(
            f"images: {path}: must be readable, but {failure.strerror or failure}"
        ) from None

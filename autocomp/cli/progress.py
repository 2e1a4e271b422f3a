"""Shows how a search comes along: moving bars on a terminal, plain lines in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from autocomp.cli.logs import logger, shows_progress
from autocomp.cli.output import duration

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from autocomp.results import TrialResult
    from autocomp.study.loop import SearchEvent

LINES_OF_TRAINING = 10
"""How many lines a log has about the training of the dense model."""

OnTraining = Callable[[int, int, float], None]
OnEvent = Callable[["SearchEvent"], None]


@contextmanager
def watch(metrics: list[str]) -> Iterator[tuple[OnTraining, OnEvent]]:
    """Who is told about the dense model's training and about results; `metrics` are shown."""
    if not shows_progress():
        yield plain_training, lambda event: plain_event(event, metrics)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[told]}", markup=False),
    )
    # a redraw costs what training on the same cores would have had
    console, hz = Console(stderr=True), 2
    with Progress(*columns, console=console, transient=True, refresh_per_second=hz) as progress:
        live = LiveSearch(progress, metrics)
        yield live.on_training, live.on_event


def plain_training(done: int, total: int, loss: float) -> None:
    """A line for the first step, and one each tenth of the way."""
    every = max(1, total // LINES_OF_TRAINING)
    if done == 1 or done % every == 0 or done == total:
        logger.info("dense model: step %d of %d, loss %.3f", done, total, loss)


def plain_event(event: SearchEvent, metrics: list[str]) -> None:
    """A line a result, and one when a search is resumed."""
    if event.result is not None:
        logger.info("%s (%s)", outcome(event.result, metrics), standing(event))
    elif event.done:
        logger.info("resumed with %s", standing(event))
    if event.exhausted:
        logger.info("the space holds no further policy")


@dataclass
class LiveSearch:
    """The bars on a terminal; each appears when there is something to show."""

    progress: Progress
    metrics: list[str]
    _bars: dict[str, TaskID] = field(default_factory=dict)

    def on_training(self, done: int, total: int, loss: float) -> None:
        self._show("dense model", done, total, f"loss {loss:.3f}")

    def on_event(self, event: SearchEvent) -> None:
        if "dense model" in self._bars:
            self.progress.update(self._bars["dense model"], visible=False)
        if event.result is not None:
            self.progress.console.print(
                outcome(event.result, self.metrics), markup=False, highlight=False
            )
        told = standing(event).partition(", ")[2]
        self._show("trials", event.done, event.total, told)

    def _show(self, name: str, done: int, total: int, told: str) -> None:
        if name not in self._bars:
            self._bars[name] = self.progress.add_task(name, total=total, told=told)
        self.progress.update(self._bars[name], completed=done, total=total, told=told)


def outcome(result: TrialResult, metrics: list[str]) -> str:
    """One line: what a trial came to, or why it came to nothing."""
    if result.status != "complete":
        return f"trial {result.number} {result.status}: {result.reason}"
    values = [f"{name} {result.metrics[name]:.4g}" for name in metrics if name in result.metrics]
    return f"trial {result.number}: {', '.join(values)}"


def standing(event: SearchEvent) -> str:
    """Trials done, size of the front, hypervolume and time left, as far as they are known."""
    parts = [f"{event.done} of {max(event.done, event.total)} trials", f"front {event.front_size}"]
    if event.hypervolume is not None:
        parts.append(f"hypervolume {event.hypervolume:.3f}")
    if event.seconds_left:
        parts.append(f"{duration(event.seconds_left)} left")
    return ", ".join(parts)

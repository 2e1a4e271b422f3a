"""A search space: what may be tried, for which task and target, in pursuit of what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from autocomp.decisions import Decision, load_yaml
from autocomp.errors import SpaceError
from autocomp.space.checking import complaints
from autocomp.space.metrics import METRICS, Direction
from autocomp.space.objectives import Objective, parse_objectives
from autocomp.space.parsing import parse_steps
from autocomp.space.steps import Item

OWN = "python"
"""The kind of a user's own task."""
Sampler = Literal["tpe", "nsga2", "random", "gp"]


class SearchSettings(Decision):
    """How the space is searched.

    `timeout_s` is the most a single trial may take; `workers` processes run trials side by side
    (None: as many as there is room for; 0: none, trials run in the search's own process); `ladder`
    tries uniform policies before sampling.
    """

    trials: int = Field(default=200, ge=1)
    sampler: Sampler = "tpe"
    seed: int = Field(default=0, ge=0)
    workers: int | None = Field(default=None, ge=0)
    timeout_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    ladder: bool = True


class _Document(Decision):
    task: dict[str, Any]
    target: dict[str, Any]
    objectives: dict[str, Any]
    policy: dict[str, Any]
    search: dict[str, Any] = {}


class _PolicySection(Decision):
    steps: Any


@dataclass(frozen=True)
class SearchSpace:
    """A policy with domains at its leaves, and what it is searched for.

    `task` and `target` are mappings with a `kind`, validated by whoever builds them.
    """

    task: Mapping[str, Any]
    target: Mapping[str, Any]
    objectives: tuple[Objective, ...]
    steps: tuple[Item, ...]
    search: SearchSettings = field(default_factory=SearchSettings)

    @property
    def id(self) -> str:
        """Twelve hex digits that depend on everything the space says and on nothing else."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def to_dict(self) -> dict[str, Any]:
        """What the space file says, its search settings with their defaults."""
        return {
            "task": dict(self.task),
            "target": dict(self.target),
            "objectives": {one.metric: one.to_plain() for one in self.objectives},
            "policy": {"steps": [item.to_dict() for item in self.steps]},
            "search": self.search.model_dump(mode="json"),
        }

    def to_yaml(self) -> str:
        return str(yaml.safe_dump(self.to_dict(), sort_keys=False, width=100))

    @classmethod
    def from_yaml(
        cls,
        text: str,
        where: str = "space",
        metrics: Mapping[str, Direction | None] = METRICS,
    ) -> SearchSpace:
        """The space a YAML text holds; `SpaceError` lists every mistake in it.

        `metrics` maps the names that objectives may have to the better direction.
        """
        return cls.from_dict(load_yaml(text, where, SpaceError), metrics)

    @classmethod
    def from_dict(
        cls, document: Mapping[str, Any], metrics: Mapping[str, Direction | None] = METRICS
    ) -> SearchSpace:
        """The space a plain mapping holds; `SpaceError` lists every mistake in it."""
        lines = complaints(_Document, document, "")
        sections = {key: one for key, one in document.items() if isinstance(one, dict)}
        for key in ("task", "target"):
            if key in sections and not isinstance(sections[key].get("kind"), str):
                lines.append(f"{key}.kind: must be a name, but got {sections[key].get('kind')!r}")
        objectives: tuple[Objective, ...] = ()
        if "objectives" in sections:
            found: list[str] = []
            if sections.get("task", {}).get("kind") == OWN:  # whose names its task alone knows
                metrics = dict.fromkeys(map(str, sections["objectives"])) | dict(metrics)
            objectives = parse_objectives(sections["objectives"], metrics, found)
            lines += found
        steps: tuple[Item, ...] = ()
        if "policy" in sections:
            policy_lines = complaints(_PolicySection, sections["policy"], "policy")
            if "steps" in sections["policy"]:
                steps = parse_steps(sections["policy"]["steps"], policy_lines)
            lines += policy_lines
        settings = sections.get("search", {})
        lines += complaints(SearchSettings, settings, "search")
        if lines:
            raise SpaceError(*lines)
        return cls(
            sections["task"],
            sections["target"],
            objectives,
            steps,
            SearchSettings.model_validate(settings),
        )

    @classmethod
    def load(
        cls, path: Path | str, metrics: Mapping[str, Direction | None] = METRICS
    ) -> SearchSpace:
        """The space a file holds; `SpaceError` if it cannot be read or holds mistakes."""
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as failure:
            reason = failure.strerror or "it cannot be read"
            raise SpaceError(f"{path}: must be a readable space file, but {reason}") from None
        except UnicodeDecodeError:
            raise SpaceError(f"{path}: must be UTF-8 text, but is not") from None
        return cls.from_yaml(text, str(path), metrics)

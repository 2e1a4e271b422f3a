"""What every frozen decision shares: strict keys, readable problems, canonical YAML and JSON."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from autocomp.errors import UserError, nearest, unknown

Model = TypeVar("Model", bound=BaseModel)


class Decision(BaseModel):
    """A frozen Pydantic model that rejects unknown keys and names the nearest known one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _reject_unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, dict):
            reject_unknown_keys(value, set(cls.model_fields))
        return value


def reject_unknown_keys(value: Mapping[str, Any], known: Set[str]) -> None:
    """`ValueError` with a line for each key that is not known, and the nearest that is."""
    lines = []
    for key in value:
        if key not in known:
            close = nearest(str(key), known, count=1)
            hint = f"did you mean {close[0]!r}? " if close else ""
            lines.append(f"unknown key {key!r}; {hint}known keys: {', '.join(sorted(known))}")
    if lines:
        raise ValueError("\n".join(lines))


def later(default: Any) -> Any:
    """A field that came later: not written where it has its default, as no older decision has it.

    So what was written before keeps its id and its bytes.
    """
    return Field(default=default, exclude_if=lambda value: value == default)


def content_id(decision: BaseModel) -> str:
    """Twelve hex digits that depend on everything the decision says and on nothing else."""
    return json_id(decision.model_dump(mode="json"))


def json_id(value: Any) -> str:
    """The same of what JSON can write."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def validate(model: type[Model], value: Any, where: str, error: type[UserError]) -> Model:
    """`value` as a `model`; every mistake becomes one line `place: must ..., but got value`."""
    try:
        return model.model_validate(value)
    except ValidationError as failure:
        raise error(*problems(failure, where)) from None


def read_json(model: type[Model], path: Path, error: type[UserError]) -> Model:
    """The `model` in a JSON file; `error` if it cannot be read or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as failure:
        raise error(f"{path}: must be a readable JSON file, but {failure}") from None
    return validate(model, content, str(path), error)


def of_kind(
    value: Any, settings: Mapping[str, type[Decision]], default: str | None = None
) -> Decision:
    """The decision of the kind that `value` names, or of the `default` kind.

    For the validator before a union: a mistake's place then has no union tag in it.
    """
    if isinstance(value, Decision):
        return value
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a mapping with a kind, but got {value!r}")
    kind = value.get("kind", default)
    if kind is None:
        raise ValueError(f"kind: must be given, one of {', '.join(settings)}, but is missing")
    if kind not in list(settings):
        raise ValueError(unknown("kind", str(kind), list(settings)))
    try:
        return settings[kind].model_validate(value)
    except ValidationError as failure:
        raise ValueError("\n".join(problems(failure, ""))) from None


def problems(failure: ValidationError, where: str) -> list[str]:
    """One line a mistake: where it stands, the rule, and the value that broke it."""
    lines: list[str] = []
    for item in failure.errors(include_url=False):
        place = ".".join([where, *_path(item["loc"], item["input"])]).strip(".")
        rules = _rules(item["type"], item["msg"], item["input"])
        lines.extend(_placed(place, rule) for rule in rules)
    return lines


def _placed(place: str, rule: str) -> str:
    """A validator's rule may begin with a place of its own, inside the one it is called for."""
    if not place:
        return rule
    return f"{place}.{rule}" if re.match(r"[\w.-]+: ", rule) else f"{place}: {rule}"


def _path(location: tuple[int | str, ...], value: Any) -> Iterator[str]:
    """The YAML path; Pydantic puts a union tag after a list index, and YAML has no such key."""
    for position, part in enumerate(location):
        after_index = position > 0 and isinstance(location[position - 1], int)
        is_last = position == len(location) - 1
        if after_index and isinstance(part, str) and not is_last:
            continue
        if after_index and is_last and isinstance(value, dict) and value.get("kind") == part:
            continue
        yield str(part)


def _rules(kind: str, message: str, value: Any) -> list[str]:
    if kind == "value_error":
        return message.removeprefix("Value error, ").split("\n")
    if kind == "missing":
        return ["must be given, but is missing"]
    rule = message.replace("Input should", "must").replace("Input tag", "kind")
    rule = rule.partition(", unable to parse")[0]
    hint = ""
    if kind == "literal_error" and isinstance(value, str):
        close = nearest(value, re.findall("'([^']*)'", message), count=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
    return [f"{rule}, but got {value!r}{hint}"]


MERGE = "tag:yaml.org,2002:merge"
"""Of the key `<<`, which takes in what other mappings have."""


class _SafeLoader(yaml.SafeLoader):
    """PyYAML's safe loader, but for keys that are given twice: it takes the last and is silent."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == MERGE:
                continue
            value = self.construct_object(key)  # 1 and 0x1 are one key
            if value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"{key.value!r} is given twice in one mapping",
                    problem_mark=key.start_mark,
                )
            seen.add(value)
        return node


def load_yaml(text: str, where: str, error: type[UserError]) -> dict[str, Any]:
    """The mapping a YAML text holds, which can run no code; `error` for anything else."""
    try:
        value = yaml.load(text, Loader=_SafeLoader)
    except Exception as failure:  # ill-typed scalars escape PyYAML as ValueError, KeyError, ...
        raise error(f"{where}: must be valid YAML, but {_yaml_problem(failure)}") from None
    if value is None:
        raise error(f"{where}: must hold a mapping, but the file is empty")
    if not isinstance(value, dict):
        raise error(f"{where}: must hold a mapping, but got {type(value).__name__}")
    return value


def _yaml_problem(failure: Exception) -> str:
    """PyYAML's own words without its picture of the place, on one line."""
    if isinstance(failure, yaml.MarkedYAMLError) and failure.problem_mark is not None:
        mark = failure.problem_mark
        return f"line {mark.line + 1}, column {mark.column + 1}: {failure.problem}"
    return " ".join(str(failure).split())


def dump_yaml(decision: BaseModel) -> str:
    """YAML that loads back to an equal decision."""
    return str(yaml.safe_dump(decision.model_dump(mode="json"), sort_keys=False, width=100))

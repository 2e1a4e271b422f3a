from __future__ import annotations

from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from autocomp.decisions import Decision, content_id, dump_yaml, load_yaml, validate
from autocomp.errors import SpaceError, UserError, nearest, unknown


class Part(Decision):
    kind: Literal["part"] = "part"
    width: int = Field(ge=1)


class Whole(Decision):
    name: str = "whole"
    scale: float = 1.0
    parts: tuple[Part, ...] = ()


def lines(value: object, where: str = "file") -> list[str]:
    with pytest.raises(SpaceError) as caught:
        validate(Whole, value, where, SpaceError)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(
            {"scale": "wide"},
            ["file.scale: must be a valid number, but got 'wide'"],
            id="type",
        ),
        pytest.param(
            {"parts": [{"kind": "prat", "width": 1}]},
            ["file.parts.0.kind: must be 'part', but got 'prat'; did you mean 'part'?"],
            id="word",
        ),
        pytest.param(
            {"parts": [{"width": 0}, {}]},
            [
                "file.parts.0.width: must be greater than or equal to 1, but got 0",
                "file.parts.1.width: must be given, but is missing",
            ],
            id="several",
        ),
        pytest.param(
            {"nmae": "x"},
            ["file: unknown key 'nmae'; did you mean 'name'? known keys: name, parts, scale"],
            id="unknown-key",
        ),
        pytest.param(
            {"qqq": 1, "zzz": 2},
            [
                "file: unknown key 'qqq'; known keys: name, parts, scale",
                "file: unknown key 'zzz'; known keys: name, parts, scale",
            ],
            id="unknown-keys-like-none",
        ),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line(value: object, expected: list[str]) -> None:
    assert lines(value) == expected


def test_the_message_is_all_lines() -> None:
    error = SpaceError("one", "two")
    assert isinstance(error, UserError)
    assert isinstance(error, ValueError)
    assert str(error) == "one\ntwo"
    assert error.problems == ("one", "two")


def test_a_decision_is_frozen() -> None:
    with pytest.raises(ValidationError):
        Part(width=1).width = 2  # type: ignore[misc]


def test_the_id_depends_on_content_alone() -> None:
    one, same, other = Part(width=1), Part(kind="part", width=1), Part(width=2)
    assert content_id(one) == content_id(same) != content_id(other)
    assert len(content_id(one)) == 12
    assert int(content_id(one), 16) >= 0


@given(st.builds(Whole, name=st.text(), parts=st.lists(st.builds(Part, width=st.integers(1)))))
def test_yaml_loads_back_to_an_equal_decision(whole: Whole) -> None:
    text = dump_yaml(whole)
    assert validate(Whole, load_yaml(text, "file", SpaceError), "", SpaceError) == whole


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", "file: must hold a mapping, but the file is empty", id="empty"),
        pytest.param("# only\n", "file: must hold a mapping, but the file is empty", id="comment"),
        pytest.param("- 1", "file: must hold a mapping, but got list", id="list"),
        pytest.param(
            "a: [",
            "file: must be valid YAML, but line 1, column 5: expected the node content",
            id="unclosed",
        ),
        pytest.param("a: 2020-13-45", "file: must be valid YAML, but month must be", id="date"),
        pytest.param("a: !!int x", "file: must be valid YAML, but invalid literal", id="bad-int"),
        pytest.param("a: !!bool x", "file: must be valid YAML, but 'x'", id="bad-bool"),
        pytest.param(
            "a: !!python/object/apply:os.getcwd []",
            "file: must be valid YAML, but line 1, column 4: could not determine a constructor",
            id="code",
        ),
        pytest.param(
            "a: 1\nb: {c: 1, d: 2, c: 3}",
            "file: must be valid YAML, but line 2, column 17: 'c' is given twice in one mapping",
            id="twice",
        ),
        pytest.param(
            "bits: {1: a, 0x1: b}",
            "file: must be valid YAML, but line 1, column 14: '0x1' is given twice in one mapping",
            id="twice-written-otherwise",
        ),
        pytest.param("a: \x00", "file: must be valid YAML, but unacceptable", id="binary"),
    ],
)
def test_what_is_not_a_mapping_in_yaml_is_an_error(text: str, expected: str) -> None:
    with pytest.raises(SpaceError) as caught:
        load_yaml(text, "file", SpaceError)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_a_mapping_may_take_in_another_and_change_it() -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {<<: *a, x: 2}\nc: {<<: *b, <<: *a, y: 3}"
    assert load_yaml(text, "file", SpaceError) == yaml.safe_load(text)
    assert yaml.safe_load(text)["b"] == {"x": 2, "y": 1}


@given(st.text(alphabet="ab:-[]{}!&*'\"#|>% \n0123456789", max_size=40))
def test_any_text_is_a_mapping_or_an_error(text: str) -> None:
    try:
        value = load_yaml(text, "file", SpaceError)
    except SpaceError:
        return
    assert value == yaml.safe_load(text)


def test_nearest_names_come_best_first() -> None:
    assert nearest("cidr", ["bleu_1", "cider", "meteor"]) == ["cider"]
    assert nearest("zzz", ["bleu_1"]) == []


def test_an_unknown_name_is_reported_with_the_known_and_the_nearest() -> None:
    assert unknown("objectives", "cidr", ["meteor", "cider"]) == (
        "objectives: must be one of cider, meteor, but got 'cidr'; did you mean 'cider'?"
    )
    assert unknown("kind", "zzz", ["a"]) == "kind: must be one of a, but got 'zzz'"

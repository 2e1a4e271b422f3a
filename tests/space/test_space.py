from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from space_strategies import DESIGN, document, documents

from autocomp.errors import SpaceError
from autocomp.policy import Policy
from autocomp.space import Objective, SearchSettings, SearchSpace, Uniform
from autocomp.space.steps import Branch, SearchStep

SPACES_FOLDER = Path(__file__).parents[2] / "search_spaces"
SPACES = sorted(SPACES_FOLDER.rglob("*.yaml"))
HEADS = {"kind": "prune_heads", "layers": "**"}
QUANTIZE = {"kind": "quantize", "layers": "**", "bits": 8}
RETRAIN = {"kind": "retrain", "steps": 100}


def lines(value: dict[str, Any]) -> list[str]:
    with pytest.raises(SpaceError) as caught:
        SearchSpace.from_yaml(yaml.safe_dump(value))
    return list(caught.value.problems)


def test_a_space_file_is_read_as_written() -> None:
    space = SearchSpace.from_yaml(DESIGN)
    assert space.task["data"]["image_size"] == 160
    directions = {one.metric: one.direction for one in space.objectives}
    assert directions == {
        "cider": "maximize",
        "size_mb": "minimize",
        "latency_ms": "minimize",
        "peak_rss_mb": None,
    }
    bounded = [one.metric for one in space.objectives if one.at_most or one.at_least]
    assert bounded == ["latency_ms", "peak_rss_mb"]
    assert space.objectives[0] == Objective("cider", "maximize")
    assert space.search == SearchSettings(trials=40, sampler="nsga2")
    prune, retrain, quantize = space.steps
    assert isinstance(prune, SearchStep)
    assert (prune.kind, prune.per) == ("prune_channels", "stage")
    assert prune.fields["ratio"] == Uniform(0.0, 0.7)
    assert isinstance(retrain, SearchStep)
    assert isinstance(quantize, Branch)
    assert list(quantize.options) == ["quantize", "none"]


@given(documents)
def test_a_space_round_trips_through_yaml(value: dict[str, Any]) -> None:
    space = SearchSpace.from_dict(value)
    again = SearchSpace.from_yaml(space.to_yaml())
    assert again == space
    assert again.id == space.id
    assert again.to_yaml() == space.to_yaml()


def test_the_id_depends_on_content_alone() -> None:
    space = SearchSpace.from_yaml(DESIGN)
    written_out = DESIGN.replace("nsga2}", "nsga2, seed: 0}")
    assert SearchSpace.from_yaml(written_out).id == space.id
    assert SearchSpace.from_yaml(DESIGN.replace("0.7]", "0.6]")).id != space.id


def step_case(case: str, expected: list[str] | str, *steps: Any) -> Any:
    wanted = [expected] if isinstance(expected, str) else expected
    return pytest.param(list(steps), wanted, id=case)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        step_case(
            "fixed",
            "policy.steps.0.ratio: must be in [0, 1), but got 1.5",
            HEADS | {"ratio": 1.5},
        ),
        step_case(
            "upper-end",
            "policy.steps.0.ratio: must be in [0, 1), but got 1.0",
            HEADS | {"ratio": {"uniform": [0.5, 1]}},
        ),
        step_case(
            "lower-end",
            "policy.steps.0.ratio: must be in [0, 1), but got -0.5",
            HEADS | {"ratio": {"uniform": [-0.5, 2]}},
        ),
        step_case(
            "by-module",
            "policy.steps.0.ratio.decoder.layers.0: must be in [0, 1), but got 3.0",
            HEADS | {"ratio": {"encoder": 0.1, "decoder.layers.0": {"uniform": [0, 3]}}},
        ),
        step_case(
            "every-choice",
            [
                "policy.steps.0.bits: must be one of 2, 3, 4, 5, 6, 8, 16, 32, but got 7",
                "policy.steps.0.bits: must be one of 2, 3, 4, 5, 6, 8, 16, 32, but got 'x'",
            ],
            QUANTIZE | {"bits": {"choice": [8, 7, "x"]}},
        ),
        step_case(
            "inside-a-range",
            "policy.steps.0.bits: must be one of 2, 3, 4, 5, 6, 8, 16, 32, but got 7",
            QUANTIZE | {"bits": {"int_range": [4, 8]}},
        ),
        step_case(
            "not-whole",
            "policy.steps.0.steps: must be a valid integer, got a number with a fractional part, "
            "but got 138.1966",
            RETRAIN | {"steps": {"uniform": [100, 200]}},
        ),
        step_case(
            "order-of-bounds",
            "policy.steps.0.ratio.uniform: low <= high must hold, but got [0.7, 0.1]",
            HEADS | {"ratio": {"uniform": [0.7, 0.1]}},
        ),
        step_case(
            "order-of-bounds-by-module",
            "policy.steps.0.ratio.a.uniform: low <= high must hold, but got [0.7, 0.1]",
            HEADS | {"ratio": {"a": {"uniform": [0.7, 0.1]}, "b": 2}},
        ),
        step_case(
            "misspelt-domain",
            "policy.steps.0.ratio: must be a value or one domain of choice, uniform, log_uniform, "
            "int_range, but got {'unifrom': [0, 0.5]}; did you mean 'uniform'?",
            HEADS | {"ratio": {"unifrom": [0, 0.5]}},
        ),
        step_case(
            "mapping-where-none-is-taken",
            "policy.steps.0.lr: must be a valid number, but got {'decoder': 0.1}",
            RETRAIN | {"lr": {"decoder": 0.1}},
        ),
        step_case(
            "layers-are-fixed",
            "policy.steps.0.layers: must be fixed, but got {'choice': ['a', 'b']}; a choice of "
            "whole steps tries several",
            HEADS | {"ratio": 0.5, "layers": {"choice": ["a", "b"]}},
        ),
        step_case(
            "everything-at-once",
            [
                "policy.steps.0: unknown key 'ratoi'; did you mean 'ratio'? known keys: "
                "calibration_batches, criterion, exclude, kind, layers, ratio",
                "policy.steps.0.criterion: must be 'l1', 'l2', 'taylor' or 'random', "
                "but got 'fpgm'",
                "policy.steps.1.lr.log_uniform: 0 < low must hold, but got [0.0, 1.0]",
                "policy.steps.1.distill: must be less than or equal to 1, but got 2.0",
            ],
            HEADS | {"ratoi": 0.5, "criterion": {"choice": ["l2", "fpgm"]}},
            RETRAIN | {"lr": {"log_uniform": [0, 1]}, "distill": {"uniform": [0, 2]}},
        ),
        step_case(
            "unknown-kind",
            "policy.steps.0.kind: must be one of drop_layers, fixed_point, gamma_l1, "
            "prune_channels, prune_heads, prune_width, quantize, resize, retrain, "
            "but got 'quantise'; did you mean 'quantize'?",
            {"kind": "quantise"},
        ),
        step_case(
            "no-kind",
            "policy.steps.0: must have a kind, or be {choice: [steps]}, but got the keys choise",
            {"choise": [QUANTIZE]},
        ),
        step_case(
            "not-a-step",
            "policy.steps.0: must have a kind, or be {choice: [steps]}, but got 'quantize'",
            "quantize",
        ),
        step_case("no-steps", "policy.steps: must be a list of at least one step, but got []"),
        step_case(
            "per-without-domain",
            "policy.steps.0.per: must stand beside a domain in ratio, but none is there",
            HEADS | {"ratio": 0.5, "per": "block"},
        ),
        step_case(
            "per-beside-mapping",
            "policy.steps.0.per: must be left out beside a mapping by module, but got 'block'",
            HEADS | {"ratio": {"a": {"uniform": [0, 0.5]}}, "per": "block"},
        ),
        step_case(
            "per-of-no-field",
            "policy.steps.0.per: must be left out, for no field of retrain takes a value by module",
            RETRAIN | {"per": "block"},
        ),
        step_case(
            "per-unknown",
            "policy.steps.0.per: must be one of block, layer, pattern, stage, but got 'blocks'; "
            "did you mean 'block'?",
            HEADS | {"ratio": {"uniform": [0, 0.5]}, "per": "blocks"},
        ),
        step_case(
            "in-a-branch",
            "policy.steps.0.choice.1.bits: must be one of 2, 3, 4, 5, 6, 8, 16, 32, but got 7",
            {"choice": [None, QUANTIZE | {"bits": {"choice": [7, 8]}}]},
        ),
        step_case(
            "empty-branch",
            "policy.steps.0.choice: must be a list of at least one step, but got []",
            {"choice": []},
        ),
        step_case(
            "two-nulls",
            "policy.steps.0.choice: must hold null at most once, but holds it 2 times",
            {"choice": [None, QUANTIZE, "none"]},
        ),
        step_case(
            "branch-with-more",
            "policy.steps.0: unknown key 'per'; known keys: choice",
            {"choice": [QUANTIZE], "per": "block"},
        ),
        step_case(
            "order",
            "policy.steps.1: a retrain must come before every quantize step, "
            "but it follows steps.0.quantize"
            "; with qat: true that one trains on through its rounding",
            QUANTIZE,
            RETRAIN,
        ),
        step_case(
            "order-in-some-branch",
            "policy.steps.2: a retrain must come before every quantize step, "
            "but it follows steps.1.quantize"
            "; with qat: true that one trains on through its rounding",
            {"choice": [None, HEADS | {"ratio": 0.5}]},
            {"choice": [None, QUANTIZE]},
            {"choice": [RETRAIN, None]},
        ),
        step_case(
            "qat-in-some-branch",
            "policy.steps.1: quantize with qat: true must be followed by a retrain, "
            "but none follows",
            RETRAIN,
            {"choice": [QUANTIZE | {"qat": True}, None]},
        ),
        step_case(
            "searched-qat",
            "policy.steps.0.qat: must be fixed, but got {'choice': [True, False]}; a choice of "
            "whole steps tries several",
            QUANTIZE | {"qat": {"choice": [True, False]}},
            RETRAIN,
        ),
        step_case(
            "gamma-in-some-branch",
            "policy.steps.1: gamma_l1 must be followed by a retrain, but none follows",
            RETRAIN,
            {"kind": "gamma_l1", "layers": "**"},
            {"choice": [RETRAIN, None]},
        ),
    ],
)
def test_a_bad_step_names_place_rule_and_value(steps: list[Any], expected: list[str]) -> None:
    assert lines(document(*steps)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(
            {"task": {}},
            [
                "target: must be given, but is missing",
                "objectives: must be given, but is missing",
                "policy: must be given, but is missing",
                "task.kind: must be a name, but got None",
            ],
            id="missing",
        ),
        pytest.param(
            document(QUANTIZE) | {"polcy": {}, "objectives": []},
            [
                "unknown key 'polcy'; did you mean 'policy'? known keys: "
                "objectives, policy, search, target, task",
                "objectives: must be a valid dictionary, but got []",
            ],
            id="unknown-section",
        ),
        pytest.param(
            document(
                RETRAIN | {"steps": -1},
                objectives={"cider": "minimize"},
                search={"trials": 0, "sampler": "tpee", "seed": 1.5},
            ),
            [
                "objectives.cider: must be 'maximize', but got 'minimize'",
                "policy.steps.0.steps: must be greater than or equal to 0, but got -1",
                "search.trials: must be greater than or equal to 1, but got 0",
                "search.sampler: must be 'tpe', 'nsga2', 'random' or 'gp', but got 'tpee'; "
                "did you mean 'tpe'?",
                "search.seed: must be a valid integer, got a number with a fractional part, "
                "but got 1.5",
            ],
            id="every-section",
        ),
        pytest.param(
            document(policy={"stpes": []}),
            [
                "policy: unknown key 'stpes'; did you mean 'steps'? known keys: steps",
            ],
            id="policy-key",
        ),
        pytest.param(
            document(QUANTIZE, task={"kind": 3}),
            ["task.kind: must be a name, but got 3"],
            id="task-kind",
        ),
    ],
)
def test_all_mistakes_of_a_file_are_reported(value: dict[str, Any], expected: list[str]) -> None:
    assert lines(value) == expected


ORDERED = {
    "gamma_l1": {"kind": "gamma_l1", "layers": "**"},
    "prune_heads": HEADS | {"ratio": 0.5},
    "drop_layers": {"kind": "drop_layers", "layers": "decoder.layers", "keep": 1},
    "retrain": RETRAIN,
    "quantize": QUANTIZE,
    "qat": QUANTIZE | {"qat": True},
    "none": None,
}


@given(
    st.lists(
        st.lists(st.sampled_from(list(ORDERED)), min_size=1, max_size=3, unique=True), max_size=4
    )
)
def test_an_order_is_refused_if_one_way_through_the_branches_is(kinds: list[list[str]]) -> None:
    kinds = [*kinds, ["quantize", "none"]]
    wrong = False
    for chosen in itertools.product(*kinds):
        try:
            Policy.model_validate({"steps": [ORDERED[kind] for kind in chosen if ORDERED[kind]]})
        except ValueError:
            wrong = True
    steps = [{"choice": [ORDERED[kind] for kind in some]} for some in kinds]
    with pytest.raises(SpaceError) if wrong else nullcontext():
        SearchSpace.from_dict(document(*steps))


def test_many_branches_are_checked_at_once() -> None:
    start = time.monotonic()
    SearchSpace.from_dict(document(*[{"choice": [QUANTIZE, None]}] * 40))
    assert time.monotonic() - start < 5


def test_a_search_may_have_no_workers() -> None:
    value = document(QUANTIZE, search={"workers": 0})
    assert SearchSpace.from_dict(value).search.workers == 0
    assert lines(document(QUANTIZE, search={"workers": -1})) == [
        "search.workers: must be greater than or equal to 0, but got -1"
    ]


def test_a_task_can_bring_its_own_metrics() -> None:
    value = document(QUANTIZE, objectives={"iou": "maximize"})
    with pytest.raises(SpaceError, match="but got 'iou'"):
        SearchSpace.from_dict(value)
    assert SearchSpace.from_dict(value, metrics={"iou": "maximize"}).objectives[0].metric == "iou"


def test_a_space_is_loaded_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(DESIGN, encoding="utf-8")
    assert SearchSpace.load(path) == SearchSpace.from_yaml(DESIGN)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("task: café".encode("latin-1"))
    (tmp_path / "empty.yaml").touch()
    (tmp_path / "broken.yaml").write_text("task: [")
    for name, reason in {
        "none.yaml": "must be a readable space file, but No such file or directory",
        ".": "must be a readable space file, but Is a directory",
        "latin.yaml": "must be UTF-8 text, but is not",
        "empty.yaml": "must hold a mapping, but the file is empty",
        "broken.yaml": "must be valid YAML, but line ",
    }.items():
        with pytest.raises(SpaceError) as caught:
            SearchSpace.load(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: {reason}")


@given(documents, st.sampled_from([None, [], {}, "x", -1, {"choice": [None]}, {"uniform": [0, 9]}]))
def test_any_damage_to_a_step_is_an_error_or_a_space(value: dict[str, Any], damage: Any) -> None:
    for step in value["policy"]["steps"]:
        for key in step:
            try:
                SearchSpace.from_dict(document(step | {key: damage}))
            except SpaceError as failure:
                problems = failure.problems
            else:
                problems = ()
            assert all(line.startswith("policy.steps") for line in problems)


def test_a_space_needs_neither_torch_nor_a_sampler() -> None:
    heavy = ("torch", "optuna", "ray", "numpy")
    code = f"import autocomp.space, sys; print([one for one in {heavy} if one in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


@pytest.mark.parametrize("path", SPACES, ids=lambda path: str(path.relative_to(SPACES_FOLDER)))
def test_the_command_that_opens_a_space_tries_as_many_as_the_space_says(path: Path) -> None:
    told = re.search(r"^# autocomp search \S+ --trials (\d+)", path.read_text(), re.MULTILINE)
    assert told is not None
    assert int(told[1]) == SearchSpace.load(path).search.trials

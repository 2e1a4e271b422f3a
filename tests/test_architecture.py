"""Imports point one way, each outside library has its module, and files stay readable."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import autocomp
from autocomp.apply import APPLY
from autocomp.bench import LAYERS
from autocomp.checkpoint.programs import PROGRAMS
from autocomp.deploy.program import program
from autocomp.policy import STEPS
from autocomp.words import PHRASES

ROOT = Path(autocomp.__file__).parent
FILES = sorted(path.relative_to(ROOT.parent) for path in ROOT.rglob("*.py"))
MODULES = {".".join(path.with_suffix("").parts).removesuffix(".__init__"): path for path in FILES}

# a part imports from itself and from those in the lines above it
LAYERING = (
    ("errors", "deploy", "trust"),
    ("decisions",),
    ("fields", "files", "patterns", "clock", "provenance"),
    ("rounding",),
    ("policy", "results", "predictions", "tensors"),
    ("space", "words"),
    ("titles",),
    ("models",),
    ("data",),
    ("compress", "retrain", "targets", "evaluate"),
    ("tasks",),
    ("checkpoint",),
    ("measure", "timing", "dense"),
    ("bench",),
    ("work",),
    ("apply",),
    ("trial", "estimate"),
    ("study",),
    ("ship", "testing"),
    ("report",),
    ("cli",),
    ("__main__",),
)
LEVEL = {part: level for level, parts in enumerate(LAYERING) for part in parts}
ALLOWED = {("targets", f"autocomp.compress.{name}") for name in ("formats", "grids", "ranges")}
"""What a part may import besides: those modules of a sibling."""

OUTSIDE = {
    "optuna": {
        "autocomp.study.samplers",
        "autocomp.study.proposals",
        "autocomp.study.journal",
        "autocomp.study.importance",
    },
    "optuna_dashboard": {"autocomp.study.dashboard"},
    "ray": {"autocomp.study.ray_runner"},
    "torch_pruning": {"autocomp.compress.channels"},
    "onnx": {"autocomp.targets.onnxruntime"},
    "onnxruntime": {"autocomp.targets.onnxruntime", "autocomp.deploy"},
    "timm": {"autocomp.models.libraries"},
    "torchvision": {"autocomp.models.libraries", "autocomp.models.torchvision_compat"},
    "matplotlib": {"autocomp.report"},
    "pycocoevalcap": {"autocomp.evaluate"},
    "typer": {"autocomp.cli"},
    "rich": {"autocomp.cli"},
}


def imports(name: str, only_at_load: bool = False) -> Iterator[str]:
    """The modules that `name` imports; those for type checking alone count as neither."""
    tree = ast.parse((ROOT.parent / MODULES[name]).read_text())
    hidden = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    if only_at_load:
        hidden |= {
            inner
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
            for inner in ast.walk(node)
        }
    for node in ast.walk(tree):
        if node in hidden:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            own = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (one if one in MODULES else node.module for one in own)


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("name", [name for name in MODULES if part(name)])
def test_imports_point_one_way(name: str) -> None:
    own = part(name)
    for imported in imports(name):
        if not imported.startswith("autocomp.") or part(imported) == own:
            continue
        if (own, imported) in ALLOWED:
            continue
        assert LEVEL[part(imported)] < LEVEL[own], f"{name} imports {imported}"


@pytest.mark.parametrize("library", list(OUTSIDE))
def test_each_outside_library_is_known_to_its_adapter_alone(library: str) -> None:
    for name in MODULES:
        if any(one.split(".")[0] == library for one in imports(name)):
            assert name.startswith(tuple(OUTSIDE[library])), f"{name} imports {library}"


@pytest.mark.parametrize("path", PROGRAMS.values(), ids=PROGRAMS)
def test_what_is_deployed_is_one_file_that_needs_three_packages(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(program(path))))
    named = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    named += [str(node.module) for node in nodes if isinstance(node, ast.ImportFrom)]
    found = {one.split(".")[0] for one in named} - sys.stdlib_module_names
    assert found == {"numpy", "onnxruntime", "PIL"}


def test_every_part_has_a_place() -> None:
    assert {part(name) for name in MODULES if part(name)} == set(LEVEL)


@pytest.mark.parametrize("table", [APPLY, PHRASES, LAYERS], ids=["apply", "words", "bench"])
def test_every_step_is_known_everywhere(table: dict[str, object]) -> None:
    # channels that can be removed are found by tracing, not by a name; images have no layers
    missing = {"prune_channels", "resize"} if table is LAYERS else set()
    assert set(table) | missing == set(STEPS)


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_file_is_long(path: Path) -> None:
    assert len((ROOT.parent / path).read_text().splitlines()) <= 320


@pytest.mark.parametrize("path", FILES, ids=str)
def test_no_function_is_long(path: Path) -> None:
    for node in ast.walk(ast.parse((ROOT.parent / path).read_text())):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 65, node.name


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("autocomp", {"torch", "ray", "optuna", "onnxruntime", "numpy"}),
        ("autocomp.policy", {"torch", "ray", "numpy"}),
        ("autocomp.space", {"torch", "ray", "optuna"}),
        ("autocomp.study.front", {"torch", "ray"}),
        ("autocomp.targets.memory", {"torch", "ray"}),
    ],
)
def test_light_modules_load_nothing_heavy(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; print(*({heavy!r} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []

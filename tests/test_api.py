"""What `import autocomp` offers, and what it costs."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import autocomp

HEAVY = ("torch", "ray", "optuna", "onnxruntime", "matplotlib", "numpy", "pydantic", "yaml")


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_autocomp_loads_no_other_library():
    loaded = python("import sys, autocomp; print(*sys.modules)").split()
    assert not set(HEAVY) & set(loaded)


def test_the_public_names_are_known():
    assert set(autocomp.__all__) == {
        "ArrayTask",
        "Policy",
        "SearchSpace",
        "Study",
        "__version__",
        "export",
        "load",
        "rebuild",
        "search",
        "verify",
    }
    assert set(autocomp.__all__) <= set(dir(autocomp))


@pytest.mark.parametrize("name", [one for one in autocomp.__all__ if one != "__version__"])
def test_a_public_name_is_what_it_says(name):
    assert callable(getattr(autocomp, name))
    assert getattr(autocomp, name).__name__ == name


@pytest.mark.parametrize("first", ["function", "module"])
def test_search_and_what_it_is_made_of_can_be_imported_in_any_order(first):
    lines = [
        "found = autocomp.search; assert callable(found) and found.__name__ == 'search'",
        f"import {autocomp._HOMES['search']} as driver; assert driver.search",
    ]
    if first == "module":
        lines.reverse()
    assert python("\n".join(["import autocomp", *lines, lines[0], "print('fine')"])) == "fine"


def test_no_public_name_is_also_that_of_a_module():
    modules = {one.name for one in pkgutil.iter_modules(autocomp.__path__)}
    assert not modules & set(autocomp.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'serach'"):
        _ = autocomp.serach  # type: ignore[attr-defined]

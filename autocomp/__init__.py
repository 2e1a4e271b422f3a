"""autocomp: declare what may be compressed; get the Pareto front of models you can ship.

The names below are loaded when they are first used: importing autocomp loads no other library.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autocomp.policy import Policy as Policy
    from autocomp.ship.export import export as export
    from autocomp.ship.load import load as load
    from autocomp.ship.rebuild import rebuild as rebuild
    from autocomp.ship.verify import verify as verify
    from autocomp.space.space import SearchSpace as SearchSpace
    from autocomp.study.driver import search as search
    from autocomp.study.study import Study as Study
    from autocomp.tasks.arrays import ArrayTask as ArrayTask

__version__ = "0.1.0"

# from 1.29 on ONNX Runtime tells its makers what it runs, unless this is set before it is loaded
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_HOMES = {
    "ArrayTask": "autocomp.tasks.arrays",
    "Policy": "autocomp.policy",
    "SearchSpace": "autocomp.space.space",
    "Study": "autocomp.study.study",
    "export": "autocomp.ship.export",
    "load": "autocomp.ship.load",
    "rebuild": "autocomp.ship.rebuild",
    "search": "autocomp.study.driver",
    "verify": "autocomp.ship.verify",
}

__all__ = [
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
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

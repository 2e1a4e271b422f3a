from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from bars import Bars

from autocomp.errors import UserError
from autocomp.space.space import SearchSpace
from autocomp.study import driver
from autocomp.trust import trusting


@pytest.mark.parametrize(
    ("gigabytes", "java", "workers"),
    [(64, False, 4), (7.6, False, 3), (7.6, True, 2), (1, True, 1)],
    ids=["cores", "memory", "memory-with-java", "at-least-one"],
)
def test_workers_have_cores_and_memory(monkeypatch, gigabytes, java, workers):
    memory = SimpleNamespace(available=int(gigabytes * 1e9))
    monkeypatch.setattr(driver.psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(driver.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(driver, "java_available", lambda: java)
    assert driver.default_workers(threads=2) == workers


def test_a_task_s_metrics_have_names_of_their_own(monkeypatch):
    space = SearchSpace.from_dict(
        {
            "task": {"kind": "python", "factory": "bars:Bars", "dense": {"steps": 1}},
            "target": {"kind": "onnxruntime"},
            "objectives": {"size_mb": "minimize"},
            "policy": {"steps": [{"kind": "quantize", "layers": "**", "bits": 8}]},
        }
    )
    monkeypatch.setattr(
        Bars, "scores", lambda task, said, truth: {"size_mb": np.equal(said, truth)}
    )
    with trusting(), pytest.raises(UserError, match="'size_mb' is measured of any task"):
        driver.bind_space(space)

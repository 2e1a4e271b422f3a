from __future__ import annotations

from types import SimpleNamespace

import pytest

from autocomp.study import driver


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

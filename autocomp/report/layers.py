"""What each trial's layers are like beside the dense model's: widths, bits and bytes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from autocomp.patterns import unit_of
from autocomp.results import DENSE_TRIAL
from autocomp.study.store import trial_folder
from autocomp.study.study import Study
from autocomp.tensors import TENSORS, TensorRecord, TensorRecords

Layer = tuple[list[int], int, int, int]
"""Of a layer's largest tensor the shape, the bits and those it computes in; the bytes of all."""


def layers(study: Study) -> dict[str, Any]:
    """The layers of the dense model, by block, and of each trial that has a record of its tensors.

    {"layers": [{"name", "block"}], "trials": {number: [Layer or None if it was removed, ...]}},
    or {"missing": why} if the dense model has no record.
    """
    found = {
        number: _layers(TensorRecords.read(path).tensors)
        for number, result in study.results.items()
        if result.status == "complete"
        and (path := trial_folder(study.directory, number) / TENSORS).exists()
    }
    if DENSE_TRIAL not in found:
        rule = "needs a record of the dense model's tensors (trials/00000/tensors.json)"
        return {"missing": f"{rule}, which this study did not keep"}
    names = list(dict.fromkeys(name for own in found.values() for name in own))
    return {
        "layers": [{"name": name, "block": unit_of(name, "block")} for name in names],
        "trials": {number: [own.get(name) for name in names] for number, own in found.items()},
    }


def _layers(tensors: Iterable[TensorRecord]) -> dict[str, Layer]:
    """A layer is the module that holds the tensors: a weight and its bias are one."""
    grouped: dict[str, list[TensorRecord]] = {}
    for tensor in tensors:
        grouped.setdefault(tensor.name.rpartition(".")[0] or tensor.name, []).append(tensor)
    return {name: _layer(own) for name, own in grouped.items()}


def _layer(tensors: list[TensorRecord]) -> Layer:
    largest = max(tensors, key=lambda one: one.bytes * 32 // one.bits)
    computed = largest.computed_bits or largest.bits
    return list(largest.shape), largest.bits, computed, sum(one.bytes for one in tensors)

"""Measures the ranges of a graph's activations by running it on calibration data."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper

from autocomp.compress.ranges import BINS, Histogram
from autocomp.targets.base import Drive, Run

Ranges = NDArray[np.float32]
"""(N, 2): the low and high end of each of N tensors."""
Method = Callable[[Histogram], tuple[float, float]]


@dataclass
class Observer:
    """What has been seen of one tensor: first its ends, then how its values are spread."""

    low: float = 0.0
    high: float = 0.0
    counts: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BINS))

    def see_ends(self, values: np.ndarray) -> None:
        self.low, self.high = min(self.low, values.min()), max(self.high, values.max())

    def see_spread(self, values: np.ndarray) -> None:
        if self.low < self.high:
            # a tenth of the time of np.histogram, which allows for bins of any width
            places = (values.ravel() - self.low) * (BINS / (self.high - self.low))
            inside = np.minimum(places.astype(np.int32), BINS - 1)
            self.counts += np.bincount(inside, minlength=BINS)


def calibrate(
    models: Mapping[str, onnx.ModelProto], wanted: Mapping[str, Mapping[str, Method]], drive: Drive
) -> dict[str, Ranges]:
    """The ranges of the `wanted` tensors of each graph, in their order, each by its own method.

    `drive` runs inference on the calibration data with the `Run` it is given: twice, for the ends
    are needed before values can be counted between them. A range always holds zero.
    """
    observers = {graph: {name: Observer() for name in names} for graph, names in wanted.items()}
    sessions = {name: _observed(model, wanted.get(name, {})) for name, model in models.items()}
    outputs = {name: [one.name for one in model.graph.output] for name, model in models.items()}
    for see in (Observer.see_ends, Observer.see_spread):
        drive(_watching(sessions, outputs, observers, see))
    return {
        graph: np.array(
            [_range(observers[graph][name], method) for name, method in names.items()],
            dtype=np.float32,
        ).reshape(-1, 2)
        for graph, names in wanted.items()
    }


def _range(seen: Observer, method: Method) -> tuple[float, float]:
    if seen.low == seen.high:  # nothing but zeros
        return 0.0, 0.0
    low, high = method(Histogram(seen.low, seen.high, seen.counts))
    return min(low, 0.0), max(high, 0.0)


def _observed(model: onnx.ModelProto, names: Collection[str]) -> ort.InferenceSession:
    """A session that also gives the tensors `names`."""
    observed = onnx.ModelProto()
    observed.CopyFrom(model)
    known = {output.name for output in observed.graph.output}
    observed.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in names
        if name not in known
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1  # one order of addition: the same ranges every time
    return ort.InferenceSession(
        observed.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _watching(
    sessions: Mapping[str, ort.InferenceSession],
    outputs: Mapping[str, list[str]],
    observers: Mapping[str, Mapping[str, Observer]],
    see: Callable[[Observer, np.ndarray], None],
) -> Run:
    """Runs the graphs, and shows every observed tensor to its observer."""

    def run(name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        session = sessions[name]
        given = [output.name for output in session.get_outputs()]
        values = dict(zip(given, session.run(given, inputs), strict=True))
        for tensor, observer in observers.get(name, {}).items():
            see(observer, values[tensor])
        return {output: values[output] for output in outputs[name]}

    return run

"""The contract between a compressed model and the runtime it ships on.

A target turns graphs into files, opens those files again, and says which widths it computes in.
Nothing here loads torch or a runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import Field

from autocomp.decisions import Decision

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from autocomp.compress.formats import Compressed


Capabilities = Mapping[str, Mapping[int, int]]
"""Kind of layer -> bits its weights may be stored in -> bits its fastest kernel computes in."""


class TargetSettings(Decision):
    """Where and how a model is measured: results under different settings never share a front."""

    kind: Literal["onnxruntime"] = "onnxruntime"
    threads: int = Field(default=1, ge=1)
    batch_size: int = Field(default=1, ge=1)


@dataclass(frozen=True)
class Artifact:
    """The files that inference opens, all of them in `directory`.

    `graphs` maps a graph's name to its file; `assets` are the other files inference reads
    (tokenizer, preprocessing); `skipped` says which weights the target holds wider than asked, and
    `computed_bits` in how many bits each one that is not stored in fp32 computes.
    """

    directory: Path
    graphs: dict[str, str]
    assets: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    computed_bits: Mapping[str, int] = field(default_factory=dict)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file inference opens."""
        return tuple(self.directory / name for name in (*self.graphs.values(), *self.assets))

    @property
    def size_bytes(self) -> int:
        """What the files take on disk."""
        return sum(path.stat().st_size for path in self.files)

    @property
    def size_mb(self) -> float:
        """`size_bytes` in units of 10^6 bytes."""
        return self.size_bytes / 1e6


class Run(Protocol):
    """Runs one graph of an opened artifact by name."""

    def __call__(self, name: str, **inputs: np.ndarray) -> dict[str, np.ndarray]: ...


Drive = Callable[[Run], object]
"""Runs inference on calibration data with the `Run` it is given."""


class ExportableGraph(Protocol):
    """What a target needs of one part of a model.

    `module` takes `inputs` by position, in order, and returns a tuple in the order of `outputs`;
    its parameters are the model's own tensors. `dynamic` names, for an input or an output, the
    axes whose length may change; a `sequential` graph runs once a step of an inference.
    """

    @property
    def module(self) -> nn.Module: ...
    @property
    def inputs(self) -> dict[str, Tensor]: ...
    @property
    def outputs(self) -> tuple[str, ...]: ...
    @property
    def dynamic(self) -> dict[str, dict[int, str]]: ...
    @property
    def sequential(self) -> bool: ...


class Target(Protocol):
    """A runtime. A module with these functions is one."""

    def lower(
        self,
        graphs: Mapping[str, ExportableGraph],
        compressed: Compressed,
        directory: Path,
        *,
        drive: Drive | None = None,
    ) -> Artifact:
        """Write one file a graph into `directory`, its weights at the widths of `compressed`.

        `graphs` must be made of `compressed.module`. A weight the runtime has no kernel for is
        kept wider, with the same values, and named in `skipped`. A weight that several layers read
        has in `computed_bits` the widest of theirs. Where activations are rounded and
        `compressed` has no ranges for them yet, they are measured with `drive` and put there.
        """

    def open(self, artifact: Artifact, threads: int = 1) -> Run:
        """Load every graph; `CheckpointError` if a file is missing, truncated or not a model."""

    def capabilities(self) -> Capabilities:
        """What may be stored in how few bits, and what it then computes in, in whole groups."""

    def versions(self) -> dict[str, str]:
        """The versions of the runtime's packages, by name."""

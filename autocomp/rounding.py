"""The steps that store weights in fewer bits, and compute with them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from autocomp.decisions import later
from autocomp.fields import BitsByUnit, GroupSize, Patterns, PolicyStep, WeightBits

RangeMethod = Literal["minmax", "percentile", "entropy", "mse"]
Granularity = Literal["auto", "tensor", "channel", "group"]
Scheme = Literal["symmetric", "affine"]
Rounding = Literal["nearest", "compensated"]
ActivationBits = Literal[8, 32]
FixedMethod = Literal["linear", "minmax", "log", "tanh"]


class Quantize(PolicyStep):
    """Store the matched linear, embedding and convolution weights at `bits`; 32 leaves a layer.

    16 are fp16, computed in fp32; where there is nothing less, all that is said of integers is as
    it is by default. Fewer are integers with a scale an output channel, a tensor, or for every
    `group_size` inputs; `granularity: auto` is a channel for convolutions and a group for others.
    `rounding: compensated` chooses them by what the layer computes of images of the train split
    (2210.17323). With `activation_bits` 8 layers compute in integers: a linear layer rounds what
    comes in as it runs, a convolution over a range that `ranges` finds on such images, and keeps
    the means of its channels (bias correction, 1906.04721). With 32 weights are widened when the
    file is loaded. With `qat` the next retrain trains through all this rounding.
    """

    kind: Literal["quantize"] = "quantize"
    layers: Patterns
    exclude: Patterns = ()
    bits: BitsByUnit
    granularity: Granularity = later("auto")
    group_size: GroupSize = 32
    activation_bits: ActivationBits = later(8)
    ranges: RangeMethod = "minmax"
    scheme: Scheme = later("symmetric")
    rounding: Rounding = later("nearest")
    qat: bool = later(False)

    @field_validator("group_size", "ranges", "granularity", "scheme", "rounding", "activation_bits")
    @classmethod
    def _is_of_use(cls, value: Any, info: ValidationInfo) -> Any:
        # a search draws each by itself, and policies that do the same must be the same
        bits, field = info.data.get("bits", 0), info.field_name
        widths = bits.values() if isinstance(bits, dict) else [bits]
        has_codes = min(widths, default=32) < 16
        has_groups = info.data.get("granularity") not in ("channel", "tensor")
        has_ranges = info.data.get("activation_bits") != 32
        needs = {"group_size": has_groups, "ranges": has_ranges}
        if has_codes and needs.get(str(field), True):
            return value
        return cls.model_fields[str(field)].default

    @model_validator(mode="after")
    def _check_rounding(self) -> Quantize:
        if self.qat and self.rounding == "compensated":
            raise ValueError(
                "rounding must be nearest with qat: true, where training makes good what rounding "
                "does, but got compensated"
            )
        return self


class FixedPoint(PolicyStep):
    """Hold the matched layers' parameters and results in fixed point; 32 bits leave them in fp32.

    Weights and biases have `bits`, what convolutions and linear layers give `activation_bits`, and
    BatchNorm statistics `batch_norm_bits`, each tensor a scale of its own. `linear`: the scale is a
    power of two, and the fraction `overflow` of the values may lie beyond it; other methods cover
    all values, so that with them `overflow` is 0 whatever is given. `minmax`: even levels from the
    least to the greatest. `log`: even levels of log abs(x), and a sign. `tanh`: even levels of
    tanh(x). Everything computes in fp32: this is what numbers cost, not a faster model.
    """

    kind: Literal["fixed_point"] = "fixed_point"
    layers: Patterns
    exclude: Patterns = ()
    bits: BitsByUnit
    method: FixedMethod = "linear"
    activation_bits: WeightBits = 32
    batch_norm_bits: WeightBits = 32
    overflow: float = Field(default=0.0, ge=0, lt=1)

    @field_validator("overflow")
    @classmethod
    def _of_linear_alone(cls, value: float, info: ValidationInfo) -> float:
        # a search draws both independently, and policies that do the same must be the same
        return value if info.data.get("method") == "linear" else 0.0

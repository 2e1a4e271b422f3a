"""bf16 is used where it is asked for, or where the processor is made for it."""

from __future__ import annotations

import pytest
import torch

from autocomp.policy import Precision
from autocomp.retrain.precision import native_bf16, precision

CPU = torch.device("cpu")
AUTO = torch.bfloat16 if native_bf16(CPU) else torch.float32


@pytest.mark.parametrize(
    ("wanted", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("auto", AUTO)]
)
def test_products_have_the_wanted_width(wanted: Precision, dtype: torch.dtype) -> None:
    x = torch.ones(2, 2)
    with precision(wanted, CPU):
        assert (x @ x).dtype == dtype
    assert (x @ x).dtype == torch.float32

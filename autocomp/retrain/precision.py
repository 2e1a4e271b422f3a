"""bf16 where the processor multiplies it in hardware, fp32 elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from autocomp.policy import Precision
from autocomp.retrain.depthwise import FastDepthwise


@contextmanager
def precision(wanted: Precision, device: torch.device) -> Iterator[None]:
    """Autocast to bf16 if `wanted` says so, or if it says `auto` and the device is made for it."""
    if wanted == "fp32" or (wanted == "auto" and not native_bf16(device)):
        yield
        return
    with torch.autocast(device.type, dtype=torch.bfloat16):
        if device.type != "cpu":
            yield
            return
        # the flash kernel's bf16 backward is many times slower than plain matrices on a CPU
        with sdpa_kernel(SDPBackend.MATH), FastDepthwise():
            yield


def native_bf16(device: torch.device) -> bool:
    """Whether `device` multiplies bf16 in hardware."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    if not hasattr(torch.cpu, "get_capabilities"):
        return False
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))

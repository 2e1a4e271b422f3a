"""How much a training step of a depthwise backbone gains from gradients of our own.

python benchmarks/depthwise_training.py [--backbone tf_efficientnet_lite0] [--image-size 160]

A forward and a backward pass in bf16 on one thread, with oneDNN's gradients of depthwise
convolutions and with those of `autocomp.retrain.depthwise`, in turn; medians and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
import torch
from torch import nn

from autocomp.models.backbones import build_backbone
from autocomp.provenance import machine, versions
from autocomp.retrain.depthwise import FastDepthwise


def step_s(net: nn.Module, images: torch.Tensor, fast: bool) -> float:
    """CPU seconds of one forward and backward pass."""
    start = time.process_time()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if fast:
            with FastDepthwise():
                loss = net(images).float().square().mean()
        else:
            loss = net(images).float().square().mean()
    loss.backward()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    net, _ = build_backbone(given.backbone, "none")
    images = torch.randn(given.batch_size, 3, given.image_size, given.image_size)
    pairs = [(step_s(net, images, False), step_s(net, images, True)) for _ in range(given.rounds)]
    theirs, ours = (statistics.median(one) for one in zip(*pairs, strict=True))
    found = {
        **vars(given),
        "onednn_s": round(theirs, 3),
        "autocomp_s": round(ours, 3),
        "ratio": round(statistics.median(b / a for a, b in pairs), 3),
    }
    print(json.dumps({**found, "machine": machine(), "versions": versions()}, indent=2))


if __name__ == "__main__":
    main()

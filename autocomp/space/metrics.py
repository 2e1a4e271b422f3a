"""The metrics a space file can name, and which way each one is better."""

from __future__ import annotations

from typing import Literal

Direction = Literal["maximize", "minimize"]

METRICS: dict[str, Direction | None] = {
    "bleu_1": "maximize",
    "bleu_2": "maximize",
    "bleu_3": "maximize",
    "bleu_4": "maximize",
    "rouge_l": "maximize",
    "cider": "maximize",
    "meteor": "maximize",
    "top_1": "maximize",
    "top_5": "maximize",
    "size_mb": "minimize",
    "download_mb": "minimize",
    "latency_ms": "minimize",
    "latency_ratio": "minimize",
    "latency_p90_ms": "minimize",
    "latency_own_ms": "minimize",
    "read_ms": "minimize",
    "encoder_ms": "minimize",
    "decoder_step_ms": "minimize",
    "model_ms": "minimize",
    "rest_ms": "minimize",
    "mean_tokens": None,
    "params": "minimize",
    "nonzeros": "minimize",
    "macs": "minimize",
    "peak_rss_mb": "minimize",
    "top_caption_share": "minimize",
    "top_class_share": "minimize",
}
"""Metric -> the better direction; None where neither is, so that a space may ask for either."""

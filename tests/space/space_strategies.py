"""Hypothesis strategies for domains and whole space files, and a model to bind them to."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from autocomp.policy import STEPS
from autocomp.space.domains import Choice, Domain, IntRange, LogUniform, Uniform

DESIGN = """
task:
  kind: captioning
  data: {kind: flickr8k, root: data/flickr8k, image_size: 160}
target: {kind: onnxruntime, threads: 1, batch_size: 1}
objectives:
  cider: maximize
  size_mb: minimize
  latency_ms: {direction: minimize, at_most: 0.5*dense}
  peak_rss_mb: {at_most: 200}
policy:
  steps:
    - kind: prune_channels
      layers: encoder.backbone.*
      per: stage
      ratio: {uniform: [0.0, 0.7]}
      criterion: {choice: [bn_variance, group_norm, taylor]}
    - kind: retrain
      steps: {choice: [300, 1000]}
      lr: {log_uniform: [1e-5, 1.0e-3]}
    - choice:
        - {kind: quantize, layers: "**", per: block, bits: {choice: [32, 8, 4]}}
        - null
search: {trials: 40, sampler: nsga2}
"""

LAYERS: dict[str, list[str]] = {
    "prune_channels": [
        "encoder.backbone.conv_stem",
        "encoder.backbone.blocks.0.0.conv_pw",
        "encoder.backbone.blocks.0.1.conv_pw",
        "encoder.backbone.blocks.1.0.conv_pw",
    ],
    "prune_heads": ["encoder.layers.0.self_attention", "decoder.layers.0.self_attention"],
    "prune_width": ["encoder.layers.0.ffn", "decoder.layers.0.ffn", "decoder.layers.1.ffn"],
    "drop_layers": ["encoder.layers", "decoder.layers"],
    "gamma_l1": ["encoder.backbone.bn1", "encoder.backbone.blocks.0.0.bn1"],
    "retrain": ["encoder", "encoder.backbone", "decoder", "decoder.layers.0", "decoder.head"],
    "fixed_point": ["encoder.backbone.conv_stem", "encoder.backbone.bn1", "decoder.head"],
    "quantize": ["decoder.embedding", "decoder.layers.0.ffn.up", "decoder.layers.1.ffn.up"],
}

_finite = {"allow_nan": False, "allow_infinity": False}


def _ordered(values: Any) -> Any:
    return values.map(sorted)


_pairs = st.lists(st.floats(**_finite), min_size=2, max_size=2)
_positive = st.lists(st.floats(min_value=1e-300, **_finite), min_size=2, max_size=2)
_ints = st.integers(-(10**6), 10**6)
_scalars = st.text(max_size=5) | st.integers() | st.none() | st.floats(**_finite)
domains: st.SearchStrategy[Domain] = st.one_of(
    st.lists(_scalars, min_size=1, max_size=6, unique=True).map(lambda one: Choice(tuple(one))),
    _ordered(_pairs).map(lambda pair: Uniform(*pair)),
    _ordered(_positive).map(lambda pair: LogUniform(*pair)),
    st.builds(
        lambda low, step, count: IntRange(low, low + step * count, step),
        _ints,
        st.integers(1, 1000),
        st.integers(0, 100),
    ),
)


def _choices(values: list[Any]) -> st.SearchStrategy[Any]:
    domain = st.lists(st.sampled_from(values), min_size=1, unique=True)
    return st.sampled_from(values) | domain.map(lambda one: {"choice": one})


def _uniform(low: float, high: float) -> st.SearchStrategy[Any]:
    value = st.floats(low, high).map(abs)
    pair = st.lists(value, min_size=2, max_size=2).map(sorted)
    return value | pair.map(lambda one: {"uniform": one})


def _whole(low: int, high: int) -> st.SearchStrategy[Any]:
    value = st.integers(low, high)
    pair = st.lists(value, min_size=2, max_size=2).map(sorted)
    return value | pair.map(lambda one: {"int_range": one})


_lr = st.sampled_from([1e-4, {"log_uniform": [1e-5, 1e-3]}, {"choice": [1e-4, 1e-3]}])
_ratio = _uniform(0, 0.95)
_bits = _choices([4, 8, 16, 32])
_per = st.sampled_from(["layer", "block", "stage", "pattern"])


@st.composite
def _by_unit(draw: st.DrawFn, kind: str, field: str, leaf: st.SearchStrategy[Any]) -> Any:
    """A step with one value, a domain (perhaps with `per`), or a mapping by module."""
    layers = draw(st.sampled_from(["**", [LAYERS[kind][0], LAYERS[kind][1]]]))
    if draw(st.booleans()):
        return {"kind": kind, "layers": layers, field: {LAYERS[kind][0]: draw(leaf)}}
    value = draw(leaf)
    per = {"per": draw(_per)} if isinstance(value, dict) and draw(st.booleans()) else {}
    return {"kind": kind, "layers": layers, field: value} | per


prune_steps = st.one_of(
    _by_unit("prune_channels", "ratio", _ratio),
    _by_unit("prune_heads", "ratio", _ratio),
    _by_unit("prune_width", "ratio", _ratio),
    st.fixed_dictionaries(
        {"kind": st.just("drop_layers"), "layers": st.sampled_from(LAYERS["drop_layers"])}
        | {"keep": _whole(0, 6)},
        optional={"select": _choices(["uniform", "first", "last"])},
    ),
    st.fixed_dictionaries({"kind": st.just("resize"), "image_size": _whole(16, 320)}),
)
retrain_steps = st.fixed_dictionaries(
    {"kind": st.just("retrain"), "steps": _whole(0, 3000)},
    optional={"lr": _lr, "distill": _uniform(0, 1), "train": _choices(["**", "decoder"])},
)
quantize_steps = _by_unit("quantize", "bits", _bits)


def _branch(step: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    options = st.lists(step, min_size=1, max_size=3)
    null = st.sampled_from([[], [None], ["none"]])
    return st.builds(lambda some, none: {"choice": some + none}, options, null)


step_lists = st.builds(
    lambda *parts: [step for part in parts for step in part],
    st.lists(prune_steps | _branch(prune_steps), max_size=3),
    st.lists(retrain_steps | _branch(prune_steps | retrain_steps), max_size=2),
    st.lists(quantize_steps | _branch(quantize_steps), min_size=1, max_size=2),
)


def document(*steps: Any, **sections: Any) -> dict[str, Any]:
    """A space file with these steps; `sections` replaces the others."""
    return {
        "task": {"kind": "captioning"},
        "target": {"kind": "onnxruntime"},
        "objectives": {"cider": "maximize", "size_mb": "minimize"},
        "policy": {"steps": list(steps)},
    } | sections


documents = st.builds(lambda steps: document(*steps), step_lists)

assert {*LAYERS, "resize"} == set(STEPS)

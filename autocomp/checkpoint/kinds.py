"""What a model card says of each kind of task: what its model is, how it is run, what is timed."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

Section = Mapping[str, Any]
"""The `task` section of a space file."""


class Kind(NamedTuple):
    """`about(section, image_size)` is what the model is, in a name and in a sentence.

    `image_size` is set if the model takes others than the data have. `run` says how it is run,
    `latency` what its latency is of, `example` what it is given, `truth` who or what says what one
    should give.
    """

    about: Callable[[Section, int | None], tuple[str, str]]
    run: str
    latency: str
    example: str
    truth: str


def escaped(text: str) -> str:
    """`text` on one line, with nothing in it that Markdown or HTML would read as markup."""
    # an underscore inside a word is none
    marks = r"[\\`*\[\]<>|~&#$]|(?<![^\W_])_|_(?![^\W_])"
    return re.sub(marks, lambda mark: f"\\{mark[0]}", " ".join(text.split()))


def kind_of(section: Section) -> Kind:
    return KINDS[section["kind"]]


def _side(section: Section, image_size: int | None) -> str:
    side = image_size or section["data"]["image_size"]
    return f"{side} x {side} pixels"


def _captioner(section: Section, image_size: int | None) -> tuple[str, str]:
    model = section["model"]
    return (
        "Image captioner",
        f"A photo in, a sentence out. A {escaped(model['backbone'])} at "
        f"{_side(section, image_size)} and {DECODERS[model['kind']](model)} before compression), "
        f"trained on {escaped(section['data']['kind'])}.",
    )


def _transformer(model: Mapping[str, Any]) -> str:
    layers, width = model["decoder_layers"], model["d_model"]
    return f"a Transformer decoder ({layers} layers of width {width}"


def _recurrent(model: Mapping[str, Any]) -> str:
    cell = {"lstm": "an LSTM", "gru": "a GRU"}[model["cell"]]
    reads = {"attention": "that attends to its features", "merge": "that joins them with words"}
    return f"{cell} {reads[model['decoder']]} ({model['units']} units"


DECODERS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "cnn_transformer": _transformer,
    "cnn_lstm": _recurrent,
}
"""For each kind of captioner what its decoder is, up to an open bracket."""


def _classifier(section: Section, image_size: int | None) -> tuple[str, str]:
    return (
        "Image classifier",
        f"A photo in, its class out. A {escaped(section['model']['name'])} at "
        f"{_side(section, image_size)}, trained on {escaped(section['data']['kind'])}.",
    )


def _run(program: str, command: str) -> str:
    return f"""With onnxruntime, numpy and Pillow alone:

```
pip install "onnxruntime>=1.23" numpy pillow
python {program} photo.jpg
```

With autocomp, which also measures it again:

```
autocomp {command} . photo.jpg
autocomp verify .
```"""


def _own(section: Section, image_size: int | None) -> tuple[str, str]:
    return "Model", f"A model of the task that {escaped(section['factory'])} gives."


KINDS: dict[str, Kind] = {
    "captioning": Kind(
        _captioner,
        _run("caption.py", "caption"),
        "Latency is from image file to caption, over the same number of tokens as dense; own "
        "latency is that of captions as long as the model makes them.",
        "image",
        "a person",
    ),
    "classification": Kind(
        _classifier,
        _run("classify.py", "classify"),
        "Latency is from image file to class.",
        "image",
        "its class",
    ),
    "python": Kind(
        _own,
        """With autocomp, where the module of its task can be imported and is trusted:

```
autocomp verify . --trust
python -c 'import autocomp; print(autocomp.load(".", trust=True).predict("example.npy"))'
```""",
        "Latency is from file to prediction.",
        "example",
        "the data",
    ),
}
"""What there is to say of each kind of task."""

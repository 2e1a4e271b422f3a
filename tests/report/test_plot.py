from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from fronts import BOUNDED, DENSE, THREE, drawn_study, made_front
from PIL import Image

from autocomp.errors import StudyError
from autocomp.report import plot
from autocomp.report.plot import plot_front

MOST_BYTES = 2_000_000
BLUE = np.array([0x00, 0x72, 0xB2])
ORANGE = np.array([0xD5, 0x5E, 0x00])


def drawn(path, *study, **named):
    """The picture's pixels."""
    plot_front(path, *study, "a study", **named)
    assert path.stat().st_size < MOST_BYTES
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(int)


def share(pixels, colour):
    return float((abs(pixels - colour).max(axis=2) < 8).mean())


@pytest.mark.parametrize(
    ("objectives", "panels"),
    [(THREE, 2), (BOUNDED, 1), ({"cider": "maximize"}, 1)],
    ids=["three", "bounded", "one"],
)
def test_one_panel_a_cost_is_drawn(tmp_path, objectives, panels):
    pixels = drawn(tmp_path / "front.png", *drawn_study(objectives=objectives))
    width, height = plot.PANEL_INCHES
    dots = plot.DOTS_PER_INCH
    assert pixels.shape[:2] == (round(height * dots), round(width * dots) * panels)
    assert share(pixels, BLUE) > 0.0002
    assert share(pixels, ORANGE) > 0.0002
    margin = pixels[:, :2]
    assert (margin == 255).all(), "nothing is cut off on the left"


SHADE = np.array([242, 242, 242])


@pytest.mark.parametrize(
    ("bounds", "shaded"),
    [
        ({"at_most": 1e9}, (0.0, 0.01)),
        ({"at_most": 7}, (0.1, 0.4)),
        ({"at_most": 1e-3}, (0.35, 1.0)),
        ({"at_least": 1e9}, (0.35, 1.0)),
        ({"at_least": 1e-3}, (0.0, 0.01)),
    ],
    ids=["all within", "some", "none", "none of at least", "all of at least"],
)
def test_what_lies_beyond_a_bound_is_shaded(tmp_path, bounds, shaded):
    objectives = {"cider": "maximize", "size_mb": {"direction": "minimize", **bounds}}
    pixels = drawn(tmp_path / "front.png", *drawn_study(objectives=objectives))
    least, most = shaded
    assert least <= float((pixels == SHADE).all(axis=2).mean()) <= most


def test_the_same_study_gives_the_same_bytes(tmp_path):
    study = drawn_study()
    for name in "ab":
        plot_front(tmp_path / name, *study, "a study")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "named",
    [{"x": "latency_ms", "y": "size_mb"}, {"x": "params"}, {"y": "params"}, {"x": "cider"}],
    ids=["both", "x", "y", "quality across"],
)
def test_the_metrics_named_are_drawn(tmp_path, named):
    assert share(drawn(tmp_path / "front.png", *drawn_study(), **named), BLUE) > 0.0005


@pytest.mark.parametrize(
    ("front", "trials"),
    [
        (made_front({0: DENSE}), 1),
        (made_front({}), 2),
        (made_front({0: DENSE}, control=None), 2),
        (made_front({}, dense=None, control=None), 2),
        (made_front({0: DENSE | {"cider": 0.0}}, dense=DENSE | {"cider": 0.0}), 1),
    ],
    ids=["dense alone", "no members", "no control", "no dense", "no quality"],
)
def test_a_study_that_has_only_begun_is_drawn(tmp_path, front, trials):
    drawn(tmp_path / "front.png", front, drawn_study(trials)[1])


def test_a_long_name_stays_within_the_picture(tmp_path):
    front, results = drawn_study(objectives=BOUNDED)
    plot_front(tmp_path / "front.png", front, results, "flickr8k_160_efficientnet_lite0_second")
    with Image.open(tmp_path / "front.png") as image:
        pixels = np.asarray(image.convert("L"))
    assert (pixels[:, -2:].min(axis=1)[:100] == 255).all()


def test_a_refused_plot_leaves_the_old_picture(tmp_path):
    path = tmp_path / "front.png"
    drawn(path, *drawn_study(5))
    before = path.read_bytes()
    with pytest.raises(StudyError, match="did you mean 'cider'"):
        plot_front(path, *drawn_study(), "a study", y="cidr")
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["front.png"]


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        (
            "autocomp.report.plot, autocomp.report.table",
            {"torch", "ray", "optuna", "onnxruntime", "matplotlib.pyplot"},
        ),
        # photos are read by the module that deploys models, and with it comes ONNX Runtime
        ("autocomp.report.page", {"torch", "ray", "matplotlib"}),
    ],
    ids=["front", "page"],
)
def test_reports_need_no_torch(modules, heavy):
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert not loaded & heavy

"""The report in headless Chromium: it renders, answers the pointer and the keys, loads nothing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from made_study import (
    FAILED,
    STOPPED,
    TRIALS,
    add_predictions,
    add_tensors,
    make_study,
)

from autocomp.report.digest import digest
from autocomp.report.page import render, write_report
from autocomp.ship.best import parse
from autocomp.study.study import Study
from autocomp.titles import compared

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

EVIL = "</script><script>window.hurt=1</script><img src=x onerror=window.hurt=1>\u2028'\"&é"
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        # as root, as in a container, Chromium's own sandbox cannot start
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Any) -> Iterator[Open]:
    """Opens a file; afterwards nothing may have been complained of or asked of any network."""
    complaints: list[str] = []
    pages = []

    def open_(path: Path, width: int = 1280, fragment: str = "", **context: Any) -> Any:
        page = browser.new_page(viewport={"width": width, "height": 900}, **context)
        pages.append(page)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda failure: complaints.append(str(failure)))
        page.on("request", lambda request: asked(request.url, path))
        page.goto(path.as_uri() + fragment)
        return page

    def asked(url: str, path: Path) -> None:
        if not url.startswith(("data:", path.as_uri())):
            complaints.append(f"asked for {url}")

    yield open_
    for page in pages:
        page.close()
    assert complaints == []


@pytest.fixture(scope="module")
def report(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(Study.load(whole), tmp_path_factory.mktemp("page") / "report.html")


def front(whole: Path) -> list[int]:
    """The compressed trials of the front."""
    return [one.trial for one in Study.load(whole).front().members if one.trial > 1]


def chosen(page: Any) -> str:
    return str(page.locator("#chosen h2").inner_text()).split("\n")[0]


def numbers(page: Any) -> list[int]:
    rows = page.locator("#rows tbody tr")
    return [int(one) for one in rows.evaluate_all("all => all.map((one) => one.dataset.trial)")]


def drag(page: Any, start: tuple[int, int], end: tuple[int, int]) -> None:
    """Drag over the plot, from and to pixels of it."""
    page.locator("#plot").scroll_into_view_if_needed()
    frame = page.locator("#plot").bounding_box()
    page.mouse.move(frame["x"] + start[0], frame["y"] + start[1])
    page.mouse.down()
    page.mouse.move(frame["x"] + end[0], frame["y"] + end[1], steps=3)
    page.mouse.up()


def test_every_part_is_there(open_page: Open, report: Path, whole: Path):
    page = open_page(report)
    assert page.title() == "whole: autocomp report"
    assert page.locator(".note", has_text="Left out").count() == 0
    assert page.locator("#headline tbody tr").count() == 4
    assert page.locator("#plot .mark[data-trial]").count() == TRIALS - 1  # all but the failed one
    assert page.locator("#rows tbody tr").count() == TRIALS
    assert page.locator("#gallery img").count() == 12
    assert page.locator("#gallery img").first.evaluate("one => one.naturalWidth") == 32
    assert page.locator("#blocks details").count() == 3
    assert page.locator("#importance h3").all_inner_texts() == ["CIDEr", "Size", "Latency"]
    assert page.locator("#progress .stairs").count() == 1
    assert "autocomp search made.yaml" in page.locator("#cost").inner_text()


def test_hovering_shows_the_policy_in_words(open_page: Open, report: Path, whole: Path):
    page = open_page(report)
    number = front(whole)[-1]
    assert not page.locator("#tip").is_visible()
    page.locator(f"#plot .mark[data-trial='{number}']").hover(force=True)
    told = page.locator("#tip").inner_text()
    assert f"Trial {number}" in told
    assert "hidden units" in told
    assert "CIDEr" in told
    page.mouse.move(2, 2)
    assert not page.locator("#tip").is_visible()


def test_choosing_in_the_plot_shows_layers_photos_and_its_row(
    open_page: Open, report: Path, whole: Path
):
    page = open_page(report)
    number = front(whole)[-1]
    page.locator(f"#plot .mark[data-trial='{number}']").click(force=True)
    assert chosen(page) == f"Trial {number}"
    assert page.url.endswith(f"#trial={number}")
    assert f"--trial {number} " in page.locator("#chosen .command").inner_text()
    assert f"a red star of {number} in" in page.locator("#gallery").inner_text()
    assert page.locator("#layers-title").inner_text() == f"Layers of trial {number} beside dense"
    page.locator("#blocks summary").first.click()
    assert f"64×16 → {64 - number}×16" in page.locator("#blocks").inner_text()
    assert page.locator("tr[aria-selected='true']").get_attribute("data-trial") == f"{number}"
    assert page.locator("#plot .ring").count() == 1


def test_choosing_in_the_table_moves_the_ring(open_page: Open, report: Path):
    page = open_page(report)
    before = page.locator("#plot .ring").get_attribute("cx")
    page.locator("#rows tr[data-trial='0']").click()
    assert chosen(page) == "Trial 0"
    assert page.locator("#plot .ring").get_attribute("cx") != before
    page.locator(f"#rows tr[data-trial='{FAILED}']").click()
    assert "ran aground" in page.locator("#chosen").inner_text().lower()
    assert page.locator("#plot .ring").count() == 0
    assert page.locator("#chosen .command").count() == 0


def test_the_address_keeps_the_choice(open_page: Open, report: Path):
    assert chosen(open_page(report, fragment="#trial=5")) == "Trial 5"
    assert chosen(open_page(report, fragment="#trial=999")) != "Trial 999"


def test_the_table_sorts(open_page: Open, report: Path, whole: Path):
    page = open_page(report)
    results = Study.load(whole).results
    for key, first in (("number", False), ("cider", False), ("cider", True), ("size_mb", True)):
        page.locator(f"#rows button[data-key='{key}']").click()
        values = [
            number if key == "number" else results[number].metrics.get(key)
            for number in numbers(page)
        ]
        known = [one for one in values if one is not None]
        ascending = first or key == "number"
        assert known == sorted(known, reverse=not ascending)
        assert values[len(known) :] == [None] * (len(values) - len(known))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("stopped", {STOPPED}),
        ("Dense", {0}),
        ("control", {1}),
        ("AGROUND", {FAILED}),
        ("trial 2", {2}),
        ("2", {2}),
        ("no such thing", set()),
        ("dense, size_mb>3", {0}),
        ("dense, size_mb<3", set()),
        ("logits, failed", {FAILED}),
    ],
    ids=[
        "beginning of a kind",
        "dense though others distil it",
        "control",
        "reason",
        "number",
        "number alone",
        "nothing",
        "kind and a metric",
        "kind and another metric",
        "words and a kind",
    ],
)
def test_the_table_filters(open_page: Open, report: Path, text: str, kept: set[int]):
    page = open_page(report)
    page.fill("#filter", text)
    assert set(numbers(page)) == kept
    assert page.locator("#matches").inner_text() == f"{len(kept)} of {TRIALS}"


@pytest.mark.parametrize("reference", ["dense", "control"])
def test_the_table_filters_by_shares(open_page: Open, report: Path, whole: Path, reference: str):
    study = Study.load(whole)
    query = f"cider>=0.9*{reference}, size_mb < 50% * {reference}"
    limits = parse(study.front(), f"{query}, min size_mb").constraints
    page = open_page(report)
    page.fill("#filter", query)
    kept = {
        number
        for number, one in study.results.items()
        if one.status == "complete" and all(limit.holds(one.metrics) for limit in limits)
    }
    assert set(numbers(page)) == kept
    assert 0 < len(kept) < TRIALS


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("size_mb<50%", "50% must say of what, such as 50%*dense"),
        ("cider<.4.5", "cider<.4.5 must be like size_mb<="),
        ("front, size_mb==5.4", "size_mb==5.4 must be like size_mb<="),
        ("cider>=0.9*dens", "dens must be one of dense, control"),
        ("cider>=0.9*constructor", "constructor must be one of dense, control"),
        ("sise_mb<2", "no metric sise_mb, but cider, size_mb, latency_ms"),
        ("constructor<2", "no metric constructor"),
        ("cider<1e999", "cider must be compared with a finite number, but got 1e999"),
    ],
)
def test_a_filter_that_is_none_says_so(open_page: Open, report: Path, text: str, told: str):
    page = open_page(report)
    page.fill("#filter", text)
    assert told in page.locator("#matches").inner_text()
    assert numbers(page) == []


@pytest.mark.parametrize("cost", ["size_mb", "params"])
def test_the_filter_that_is_suggested_filters(
    open_page: Open, whole: Path, tmp_path: Path, cost: str
):
    content = digest(Study.load(whole))
    quality, other, *_ = content["objectives"]
    content["objectives"] = [quality, other | {"metric": cost}]
    path = tmp_path / "page.html"
    path.write_text(render(content), encoding="utf-8")
    page = open_page(path)
    suggested = page.locator("#filter").get_attribute("placeholder")
    assert f"front, {cost}<=" in suggested
    page.fill("#filter", suggested)
    assert 0 < len(numbers(page)) < TRIALS


def test_numbers_and_comparisons_read_as_in_a_model_card(
    open_page: Open, report: Path, whole: Path
):
    number = front(whole)[0]
    metrics = Study.load(whole).results[number].metrics
    page = open_page(report, fragment=f"#trial={number}")
    page.locator("#chosen summary", has_text="more metrics").click()
    row = page.locator("#chosen tr", has_text="Peak memory (MB)")
    title = row.locator("th").get_attribute("title")
    assert title == "10^6 bytes of memory of a fresh process that runs it."
    _, dense, told = row.locator("td").all_inner_texts()
    assert dense == "1,000"
    assert told.replace("×", "x") == compared("peak_rss_mb", metrics["peak_rss_mb"], 999.6)


def test_keys_move_through_the_table_and_the_front(open_page: Open, report: Path):
    page = open_page(report)
    order = numbers(page)
    page.locator("#rows tbody tr").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert chosen(page) == f"Trial {order[1]}"
    page.keyboard.press("ArrowDown")
    page.keyboard.press(" ")
    assert chosen(page) == f"Trial {order[2]}"
    page.locator("#plot").focus()
    for _ in range(TRIALS):
        page.keyboard.press("ArrowLeft")
    lowest = float(page.locator("#plot .ring").get_attribute("cx"))
    page.keyboard.press("ArrowRight")
    assert float(page.locator("#plot .ring").get_attribute("cx")) >= lowest


def test_three_objectives_turn(open_page: Open, report: Path, whole: Path):
    page = open_page(report)
    page.select_option("#axis-z", "latency_ms")
    assert page.locator("#plot .stem").count() == TRIALS - 1  # all but the failed one
    assert page.locator("#hint").inner_text() == "1 failed, not drawn · Drag to turn"
    foot = page.locator(f"#plot .mark[data-trial='{STOPPED}'] ").get_attribute("transform")
    stem = page.locator("#plot .stem").evaluate_all("""all => all.map((one) => ["x2", "y2"]
        .map((name) => Number(one.getAttribute(name)).toFixed(1)).join(" "))""")
    assert foot[len("translate(") : -1] in stem  # nobody knows its quality: it is on the floor
    assert page.locator("#plot .beyond-bound").count() == 1
    titles = page.locator("#plot .title").all_text_contents()
    assert set(titles) == {"CIDEr", "Size (MB)", "Latency (ms)"}
    mark = page.locator(f"#plot .mark[data-trial='{front(whole)[0]}']")
    before = mark.get_attribute("transform")
    drag(page, (200, 200), (290, 240))
    assert mark.get_attribute("transform") != before
    mark.hover(force=True)
    assert "Trial" in page.locator("#tip").inner_text()
    page.select_option("#axis-y", "latency_ms")
    page.select_option("#axis-z", "cider")
    assert page.locator("#plot .beyond-bound").count() > 1  # the walls behind the floor
    hint = page.locator("#hint").inner_text()
    assert hint == "1 without CIDEr, not drawn · 1 failed, not drawn · Drag to turn"


def test_other_metrics_kinds_and_a_closer_view(open_page: Open, report: Path):
    page = open_page(report)
    page.select_option("#axis-x", "params")
    assert "Parameters" in page.locator("#plot .title").all_text_contents()
    marks = page.locator("#plot .mark[data-trial]")
    all_marks = marks.count()
    page.locator("#legend button", has_text="other trials").click()
    assert marks.count() < all_marks
    page.locator("#legend button", has_text="other trials").click()
    assert marks.count() == all_marks
    drag(page, (100, 30), (330, 210))
    assert marks.count() < all_marks
    page.locator("#whole").click()
    assert marks.count() == all_marks
    assert not page.locator("#whole").is_visible()


def test_intervals_are_shown_where_there_are_some(open_page: Open, report: Path, whole: Path):
    page = open_page(report, fragment=f"#trial={front(whole)[0]}")
    shown = page.locator("#chosen").inner_text()
    for reference in ("dense", "control"):
        assert re.search(rf"CIDEr minus {reference}'s: [+−]\d\.\d+ to [+−]\d\.\d+", shown)


@pytest.mark.parametrize("width", [1280, 800, 420])
def test_nothing_sticks_out_sideways(open_page: Open, report: Path, width: int):
    page = open_page(report, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_is_dark(open_page: Open, report: Path):
    def brightness(page: Any) -> float:
        return float(
            page.evaluate(
                "getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"
                ".slice(0, 3).reduce((sum, one) => sum + Number(one), 0)"
            )
        )

    dark = open_page(report, color_scheme="dark")
    light = open_page(report, color_scheme="light")
    assert brightness(dark) < 150 < 600 < brightness(light)


def test_an_older_study_shows_what_is_missing(open_page: Open, bare: Path, tmp_path: Path):
    page = open_page(write_report(Study.load(bare), tmp_path / "old.html"))
    assert "tensors.json" in page.locator("#layers").inner_text()
    assert "predictions.json" in page.locator("#photos").inner_text()
    assert page.locator("#plot .mark[data-trial]").count() == TRIALS - 1


def test_a_hostile_study_stays_harmless(open_page: Open, tmp_path: Path):
    directory = make_study(tmp_path / "<img src=x onerror='window.hurt=1'>&\"é", reason=EVIL)
    add_tensors(directory)
    add_predictions(directory, caption=EVIL)
    page = open_page(write_report(Study.load(directory)).resolve(), fragment=f"#trial={FAILED}")
    assert EVIL.split("\u2028")[0] in page.locator("#chosen").inner_text()
    page.locator("#rows tr[data-trial='2']").click()
    assert "<script>" in page.locator("#gallery").inner_text()
    page.locator("#plot .mark[data-trial='2']").hover(force=True)
    page.fill("#filter", EVIL)
    assert page.locator("h1").inner_text() == directory.name
    assert page.evaluate("window.hurt") is None
    assert page.locator("img[src='x']").count() == 0

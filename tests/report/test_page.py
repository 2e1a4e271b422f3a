from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocomp.errors import StudyError
from autocomp.report.digest import digest
from autocomp.report.page import SCRIPTS, as_json, render, write_report
from autocomp.study.study import Study

WEB = Path(render.__code__.co_filename).with_name("web")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


def between(text: str, start: str, end: str) -> str:
    return text.partition(start)[2].partition(end)[0]


@settings(max_examples=40)
@given(JSON)
def test_json_comes_back_and_cannot_end_its_block(content):
    text = as_json(content)
    assert json.loads(text) == content
    assert not set("<>&\u2028\u2029") & set(text)


def test_the_page_holds_the_digest_and_nothing_of_it_as_markup(whole: Path):
    content = json.loads(json.dumps(digest(Study.load(whole))))
    content["name"] = "<b>'\"&</title><script>alert(1)</script>"
    page = render(content)
    data = between(page, '<script type="application/json" id="data">', "</script>")
    assert json.loads(data) == content
    assert "<b>" not in page
    assert "<title>&lt;b&gt;" in page


def test_only_what_autocomp_wrote_may_run(whole: Path):
    page = render(digest(Study.load(whole)))
    policy = between(page, 'Content-Security-Policy" content="', '"')
    style, script = between(page, "<style>", "</style>"), page.rpartition("<script>")[2]
    for text in (style, script.partition("</script>")[0]):
        found = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{found}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_every_file_of_the_page_is_in_it():
    assert {path.stem for path in WEB.glob("*.js")} == set(SCRIPTS)
    assert len(SCRIPTS) == len(set(SCRIPTS))


@pytest.mark.parametrize("path", sorted(WEB.iterdir()), ids=lambda path: path.name)
def test_files_of_the_page_are_short_and_load_nothing(path: Path):
    text = path.read_text()
    assert len(text.splitlines()) <= 320
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(", text)
    assert not re.search(r"fetch\(|XMLHttp|@import|url\((?!#)", text)
    links = set(re.findall(r"https?://[^\s\"']+", text))
    assert links <= {"http://www.w3.org/2000/svg"}


def test_is_written_whole_beside_the_study(whole: Path, tmp_path: Path):
    study = Study.load(whole)
    path = write_report(study, tmp_path / "new" / "page.html")
    assert path.read_text(encoding="utf-8") == render(digest(study))
    assert write_report(study) == whole / "report.html"


def test_a_file_that_cannot_be_written_is_named(whole: Path, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(StudyError, match=r"page\.html: must be a file that can be written"):
        write_report(Study.load(whole), tmp_path / "file" / "page.html")

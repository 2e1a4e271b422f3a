"""report.html: one file that opens offline, with the study's digest and all that draws it inside.

The page may load nothing and run nothing but its own script: its content security policy names the
hashes of both. What comes from a study is JSON in a block that no browser executes, and the script
puts it into the page as text alone.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from autocomp.errors import StudyError
from autocomp.files import write_text
from autocomp.report.digest import digest
from autocomp.study.study import Study

REPORT = "report.html"
SCRIPTS = (
    "basics",
    "choice",
    "scale",
    "plot",
    "flat",
    "cloud",
    "headline",
    "chosen",
    "photos",
    "layers",
    "filter",
    "table",
    "search",
    "start",
)
"""In the order they run: one scope, so a later one may use what an earlier one declares."""
UNSAFE = re.compile("[<>&\u2028\u2029]")
"""What could end the block that holds the JSON, or a line in it."""


def write_report(study: Study, path: Path | None = None) -> Path:
    """Write a study's report to `path` (default: report.html in its folder); returns where.

    `StudyError` if it cannot be written, or for a file of the study that is damaged.
    """
    path = study.directory / REPORT if path is None else path
    text = render(digest(study))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as failure:
        raise StudyError(f"{path}: must be a file that can be written, but {failure}") from None
    return path


def render(content: dict[str, Any]) -> str:
    """The page that shows a digest."""
    style = _asset("style.css")
    script = '(() => {\n"use strict";\n' + "".join(_asset(f"{one}.js") for one in SCRIPTS) + "})();"
    return Template(_asset("page.html")).substitute(
        title=html.escape(f"{content['name']}: autocomp report"),
        policy=(
            f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
            f"style-src 'sha256-{_digest(style)}'; script-src 'sha256-{_digest(script)}'"
        ),
        style=style,
        script=script,
        data=as_json(content),
    )


def as_json(content: Any) -> str:
    """JSON that may stand inside a script element, whatever its strings hold."""
    text = json.dumps(content, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _asset(name: str) -> str:
    return (files("autocomp.report") / "web" / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """What a content security policy calls a text."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()

"""The benchmark that says on how many images a compressed model agrees with the dense one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from autocomp.study.study import Study

ROOT = Path(__file__).parents[1]


def test_agreement_is_of_every_image_of_dev_and_test(
    shapes_study: Path, tiny_cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "agreement.json"
    script = ROOT / "benchmarks" / "agreement.py"
    command = [sys.executable, str(script), str(shapes_study), str(out), "--all"]
    own = {"AUTOCOMP_CACHE": str(tiny_cache), "PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, env=os.environ | own)
    found = json.loads(out.read_text())
    study = Study.load(shapes_study)
    assert {"command", "commit", "versions", "machine"} <= set(found)
    dense, *others = found["policies"]
    assert dense["policy"] == ["dense, nothing changed"]
    assert dense["both"] == found["dense"]["both"]
    assert others
    for row in found["policies"]:
        dev, test, both = (row[name] for name in ("dev", "test", "both"))
        assert dev["top_1"] == study.results[row["trial"]].metrics["top_1"]
        assert both["examples"] == dev["examples"] + test["examples"]
        for name in ("agreement", "top_1"):
            total = sum(part[name] * part["examples"] for part in (dev, test))
            assert abs(both[name] * both["examples"] - total) < 1e-6
        # where one is right and the other wrong they disagree
        assert 1 - both["agreement"] >= abs(both["top_1"] - found["dense"]["both"]["top_1"]) - 1e-9

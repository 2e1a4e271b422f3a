"""An interpreter where checkpoints are deployed: it has three packages, and no autocomp."""

from __future__ import annotations

import shutil
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import PIL

PACKAGES = (np, onnxruntime, PIL)
Python = Callable[..., subprocess.CompletedProcess[str]]


def damaged(model: Path, folder: Path, name: str, content: bytes | None) -> Path:
    """A copy of the checkpoint `model` in which a file has other content, or is missing."""
    copy = shutil.copytree(model, folder / "model")
    (copy / name).unlink()
    if content is not None:
        (copy / name).write_bytes(content)
    return copy


def make_python(folder: Path) -> Python:
    """Runs Python in an environment that has numpy, onnxruntime and Pillow, and nothing else."""
    venv.create(folder / "env", symlinks=True)
    (site,) = (folder / "env" / "lib").glob("python3*/site-packages")
    for package in PACKAGES:
        home = Path(package.__file__).parent
        for one in (home, *home.parent.glob(f"{home.name}.libs"), home.parent / "pillow.libs"):
            if one.exists() and not (site / one.name).exists():
                (site / one.name).symlink_to(one)

    def run(*arguments: object, cwd: Path = folder) -> subprocess.CompletedProcess[str]:
        command = [folder / "env" / "bin" / "python", *arguments]
        return subprocess.run(
            [str(one) for one in command],
            capture_output=True,
            text=True,
            timeout=120,
            cwd=cwd,
            env={"PYTHONDONTWRITEBYTECODE": "1"},
        )

    return run

"""Files of other commits, for benchmarks that compare this checkout with one."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ROOT", "commit_of", "files_of", "paths_of"]

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def files_of(commit: str | None) -> Iterator[Path]:
    """The folder with a commit's files; this checkout where there is no commit."""
    if commit is None:
        yield ROOT
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "tree"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", folder, commit], cwd=ROOT, check=True)
        try:
            yield folder
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)


def paths_of(tree: Path, *parts: str) -> dict[str, str]:
    """The environment in which Python finds the package and the commands of `tree`, and folders of it beside them."""
    return {"PYTHONPATH": os.pathsep.join(str(tree / part) for part in ("", "cli", *parts))}


def commit_of(tree: Path) -> str:
    """The commit that a folder has checked out, `+changes` after it where files differ from it."""
    commit, changes = (
        subprocess.run(["git", *words], cwd=tree, check=True, capture_output=True, text=True).stdout.strip()
        for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
    )
    return commit + ("+changes" if changes else "")

"""The folder of a run: its recipe, configuration, facts, metrics, checkpoints and evaluation. This module needs no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.configuration import NothingToResume, RunFolderTaken
from vlmdsl.source import Span

__all__ = ["RunFolder", "flush", "write_atomically"]

_COMMAND_LINE = Span("<command line>", 0, 0)


@dataclass(frozen=True)
class RunFolder:
    """Paths inside the folder `path`, and what is read from and written to them as a whole."""

    path: Path

    @property
    def recipe(self) -> Path:
        """The text of the recipe."""
        return self.path / "recipe.vlo"

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.yaml"

    @property
    def facts(self) -> Path:
        """Versions, seeds, digests, the command."""
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        """One JSON object a line, each with its `step`."""
        return self.path / "metrics.jsonl"

    @property
    def curves(self) -> Path:
        """The metrics as a picture."""
        return self.path / "curves.png"

    @property
    def evaluation(self) -> Path:
        """Held-out results beside chance and beside the untrained model."""
        return self.path / "evaluation.json"

    @property
    def untrained(self) -> Path:
        """The same of the model before its first step."""
        return self.path / "untrained.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.path / "checkpoints"

    @classmethod
    def create(cls, out: str | None, recipe: str) -> RunFolder:
        """A new folder: `out`, or the first free `runs/RECIPE-N`. DiagnosticError V0815 if `out` holds anything."""
        if out is None:
            return cls(_first_free(Path("runs"), recipe))
        cls.check_free(out)
        path = Path(out)
        path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    @staticmethod
    def check_free(out: str | None) -> None:
        """DiagnosticError V0815 if `out` holds anything, before any work is done for it."""
        path = None if out is None else Path(out)
        if path is not None and (path.is_file() or (path.is_dir() and any(path.iterdir()))):
            help = ("give another `--out`", f"`--resume {out}` goes on with the run in it")
            raise DiagnosticError((RunFolderTaken.at(_COMMAND_LINE, path=out, help=help),))

    @classmethod
    def existing(cls, path: str) -> RunFolder:
        """The folder of a run that was started. DiagnosticError V0816 if it is none."""
        folder = cls(Path(path))
        missing = [file.name for file in (folder.recipe, folder.config, folder.facts) if not file.is_file()]
        if missing:
            reason = "there is no such folder" if not folder.path.is_dir() else f"it has no {' and no '.join(missing)}"
            raise DiagnosticError((NothingToResume.at(_COMMAND_LINE, path=path, reason=reason),))
        return folder

    def read_facts(self) -> dict[str, Any]:
        """What `run.json` holds."""
        return dict(json.loads(self.facts.read_text(encoding="utf-8")))

    def write_facts(self, facts: Mapping[str, object]) -> None:
        """Replace `run.json`."""
        write_atomically(self.facts, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")

    def read_evaluation(self) -> dict[str, Any]:
        """What `evaluation.json` holds; empty before the first evaluation."""
        return _read(self.evaluation)

    def write_evaluation(self, results: Mapping[str, object]) -> None:
        """Replace `evaluation.json`."""
        write_atomically(self.evaluation, json.dumps(results, indent=2, ensure_ascii=False) + "\n")

    def read_untrained(self) -> dict[str, Any]:
        """What `untrained.json` holds; empty before the untrained model is measured."""
        return _read(self.untrained)

    def write_untrained(self, results: Mapping[str, object]) -> None:
        """Replace `untrained.json`."""
        write_atomically(self.untrained, json.dumps(results, indent=2, ensure_ascii=False) + "\n")

    def forget_after(self, step: int) -> None:
        """Drop the metrics of steps after `step`, and a last line that was cut off: the run goes on from there."""
        if self.metrics.is_file():
            lines = self.metrics.read_text(encoding="utf-8").splitlines(keepends=True)
            write_atomically(self.metrics, "".join(line for line in lines if line.endswith("\n") and _step(line) <= step))


def write_atomically(path: Path, text: str) -> None:
    """Replace the file at `path` by `text`; whoever reads it sees the old text or the new, never a part."""
    partial = path.with_name(f".partial-{path.name}")
    partial.write_text(text, encoding="utf-8")
    flush(partial)
    partial.replace(path)


def flush(path: Path) -> None:
    """Wait until a file, or the list of a folder's entries, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def _first_free(parent: Path, recipe: str) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = parent / f"{recipe}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def _step(line: str) -> int:
    return int(json.loads(line)["step"])

"""The folder of a run: its recipe, configuration, facts, metrics, checkpoints and evaluation. This module needs no torch.

A folder may come from a stranger. Nothing in it is executed, no path in it may lead out of it, and every file is checked
before use.
"""

from __future__ import annotations

import errno
import hashlib
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.configuration import NothingToResume, RunFolderTaken
from vlmdsl.diagnostics.catalog.environment import CannotWrite
from vlmdsl.diagnostics.catalog.runs import FolderUnusable
from vlmdsl.runtime.files import damaged, file_digest, read_json, read_text, seal, write_atomically, write_json
from vlmdsl.runtime.tracking import cut_metrics
from vlmdsl.runtime.training.lock import LOCK
from vlmdsl.runtime.training.records import RunRecord, StoredEvaluation
from vlmdsl.schema import CONFIG_SEAL, RunConfig
from vlmdsl.source import SourceText, Span

__all__ = ["KEPT", "RunFolder", "make_folder"]

_COMMAND_LINE = Span("<command line>", 0, 0)
_FORMAT = 2
KEPT = "kept"
"""Subfolder of files that the recipe or the settings name and that lie elsewhere."""
_MEASURED_AGAIN = "remove it: what it holds is measured again"


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
        """One JSON object per line, each with its `step`."""
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

    @property
    def stages(self) -> Path:
        """The folder of what stages ended with from which later ones start."""
        return self.path / "stages"

    @property
    def written(self) -> Path:
        """The folder of what decoders of earlier stages wrote for later ones."""
        return self.path / "written"

    def not_finite(self, step: int) -> Path:
        """The facts about a step whose loss or gradient was not finite (V0819)."""
        return self.path / f"not-finite-step-{step}.json"

    @classmethod
    def create(cls, out: str | None, recipe: str) -> RunFolder:
        """A new folder: `out`, or the first free `runs/RECIPE-N`. DiagnosticError V0815 if `out` holds anything."""
        if out is None:
            return cls(_first_free(Path("runs"), recipe))
        cls.check_free(out)
        return cls(make_folder(out))

    @staticmethod
    def check_free(out: str | None, option: str = "`--out`") -> None:
        """DiagnosticError before any work is done for it: V0815 if `out` holds anything, V0854 if it cannot be a folder.

        `option` is what names it on the command line.
        The lock of another process is not checked here, but when it is taken.
        """
        if out is None:
            return
        path = Path(out)
        with _naming(out):
            path.lstat()
            if not path.is_dir() or any(entry.name != LOCK for entry in path.iterdir()):
                resumes = (path / "run.json").is_file()
                help = (f"choose another {option}", *([f"`--resume {out}` resumes the run in it"] if resumes else []))
                raise DiagnosticError((RunFolderTaken.at(_COMMAND_LINE, path=path, help=help),))

    @classmethod
    def existing(cls, path: str) -> RunFolder:
        """The folder of a run that was started. DiagnosticError V0816 if it is not one, V0850 if a file of it is damaged."""
        folder = cls(Path(path))
        with _naming(path):
            is_folder = folder.path.is_dir()
            present = is_folder and any(file.exists() for file in (folder.recipe, folder.config, folder.facts))
        if not present:
            reason = "it is not a run folder: it has no run.json" if is_folder else "there is no such folder"
            help = ("name the folder that `vlmdsl train` has written, such as `runs/clip-1`",)
            raise DiagnosticError((NothingToResume.at(_COMMAND_LINE, path=path, reason=reason, help=help),))
        folder.check_plain()
        facts = folder.read_facts()
        folder.check_config()
        for name, digest in facts.files.items():
            file = folder.path / name
            _check_plain(file, folder.path)
            if not file.is_file():
                raise damaged(file, "it is a folder" if file.is_dir() else "it is missing")
            if file_digest(file) != digest:
                raise damaged(file, "it is not what the run wrote: its SHA-256 differs")
        unlisted = [use.file for use in facts.recipe.uses if use.file not in facts.files]
        if unlisted:
            raise damaged(folder.facts, f"it does not list the SHA-256 of `{unlisted[0]}`")
        if folder.recipe.name not in facts.files:
            raise damaged(folder.facts, "it does not list the recipe")
        return folder

    def kept_uses(self) -> dict[tuple[str, str], SourceText]:
        """The texts of `use "PATH"` in the recipe's files: (name of the file, PATH) -> the kept text."""
        uses = self.read_facts().recipe.uses
        texts = {use.file: SourceText(str(self.path / use.file), read_text(self.path / use.file)) for use in uses}
        return {(str(self.path / use.by), use.path): texts[use.file] for use in uses}

    def check_plain(self) -> None:
        """V0850 if a file or folder that the run writes to is a link to elsewhere, or of the other kind."""
        files = (self.recipe, self.config, self.facts, self.metrics, self.curves, self.evaluation, self.untrained)
        for file in (*files, self.checkpoints, self.stages, self.written, self.path / KEPT, self.path / LOCK):
            _check_plain(file, self.path)
        for file in files:
            if file.is_dir():
                raise damaged(file, "a folder is in its place", "remove it")
        if self.checkpoints.exists() and not self.checkpoints.is_dir():
            raise damaged(self.checkpoints, "it is not a folder")

    def read_facts(self) -> RunRecord:
        """The contents of `run.json`; V0850 if it is damaged."""
        return read_json(self.facts, RunRecord, sealed=True)

    def write_facts(self, facts: Mapping[str, object]) -> None:
        """Replace `run.json`."""
        write_json(self.facts, seal({"format": _FORMAT, **facts}))

    def write_config(self, text: str) -> None:
        """Replace `config.yaml`; its last line seals the lines above."""
        digest = hashlib.sha256(text.encode()).hexdigest()
        write_atomically(self.config, f"{text}{CONFIG_SEAL}{digest}\n")

    def check_config(self) -> None:
        """V0850 if `config.yaml` is cut off or altered: settings that are missing would silently be the defaults."""
        text = read_text(self.config)
        above, seal_line, digest = text.rpartition(CONFIG_SEAL)
        if not seal_line or not digest.endswith("\n"):
            raise damaged(self.config, "it is truncated: its last line is not the SHA-256 of the others")
        if hashlib.sha256(above.encode()).hexdigest() != digest.strip():
            help = "change settings of a resumed run with `--set`"
            raise damaged(self.config, "it is not what the run wrote: its SHA-256 differs", help)

    def with_kept(self, config: RunConfig, *, without_weights: Collection[str] = ()) -> RunConfig:
        """The configuration with the copies in this folder for the files and the folders of towers that it names.

        Where this folder has the settings of all towers `without_weights`, named by the settings that name them, they are
        built from these alone, and get their weights from a checkpoint: nothing is read from a hub.
        """
        facts = self.read_facts()
        alone = bool(without_weights) and facts.settings.keys() >= set(without_weights)
        if alone:
            config = config.model_copy(update={"model": config.model.model_copy(update={"pretrained": False})})
        for name, place in (facts.kept | facts.settings if alone else facts.kept).items():
            is_tower = any(file.startswith(f"{place}/") for file in facts.files)
            if not is_tower and place not in facts.files:
                raise damaged(self.facts, f"it does not list the SHA-256 of `{place}`")
            section, key, *tower = name.split(".")
            own = getattr(config, section)
            named = str(getattr(own, key)[tower[0]] if tower else getattr(own, key))
            value: object = f"{named.partition(':')[0]}:{self.path / place}" if is_tower else str(self.path / place)
            changed = own.model_copy(update={key: {**getattr(own, key), tower[0]: value} if tower else value})
            config = config.model_copy(update={section: changed})
        return config

    def with_kept_towers(self, config: RunConfig, towers: Collection[str]) -> tuple[RunConfig, bool]:
        """`with_kept` for a model that gets its weights from a checkpoint; `towers` are the settings that name those of
        other libraries. Also whether this folder does not have the weights that they began with."""
        here = self.read_facts().kept.keys() >= set(towers)
        own = self.with_kept(config, without_weights=() if here else towers)
        return own, config.model.pretrained and not own.model.pretrained

    def forget_after(self, step: int, records: int = 0) -> int:
        """Drop the metrics of steps after `step`, from which the run continues. Returns how many lines are left; V0850 if a
        line is not a record, or fewer than `records` are left."""
        return cut_metrics(self.metrics, step, records)

    def read_evaluation(self) -> dict[str, Any]:
        """The contents of `evaluation.json`; empty before the first evaluation."""
        return _stored(self.evaluation)

    def write_evaluation(self, results: Mapping[str, object]) -> None:
        """Replace `evaluation.json`."""
        write_json(self.evaluation, results)

    def read_untrained(self) -> dict[str, Any]:
        """The contents of `untrained.json`; empty before the untrained model is measured."""
        return _stored(self.untrained)

    def write_untrained(self, results: Mapping[str, object]) -> None:
        """Replace `untrained.json`."""
        write_json(self.untrained, results)


def make_folder(path: str) -> Path:
    """Create the folder at `path` if it does not exist; V0854 if that is impossible, V0903 where nothing can be written."""
    with _naming(path):
        Path(path).mkdir(parents=True, exist_ok=True)
        return Path(path)
    reason = "the system allows no folder there"
    raise DiagnosticError((CannotWrite.at(_COMMAND_LINE, path=path, reason=reason, help=("choose another path",)),))


def _stored(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    return read_json(path, StoredEvaluation, help=_MEASURED_AGAIN).plain()


def _check_plain(file: Path, folder: Path) -> None:
    """V0850 if anything from `folder` to `file` is neither a plain file nor a folder, such as a link to elsewhere."""
    for place in (file, *file.parents):
        if place == folder:
            return
        kind = place.lstat().st_mode if place.exists() or place.is_symlink() else stat.S_IFREG
        if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
            what = "a symbolic link" if stat.S_ISLNK(kind) else "not a regular file"
            raise damaged(place, f"it is {what}, which no run writes")


@contextmanager
def _naming(path: str) -> Iterator[None]:
    """V0854 if `path` can name no folder on this system; without permission, the machine's own error stands."""
    try:
        path.encode("utf-8")
        yield
    except FileNotFoundError:
        pass
    except UnicodeEncodeError:
        raise _unusable(path, "its name is not UTF-8 text") from None
    except ValueError:
        raise _unusable(path, "it has a character that is not allowed in a path") from None
    except (NotADirectoryError, FileExistsError):
        raise _unusable(path, "there is a file in its place, or instead of a parent folder") from None
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise DiagnosticError((CannotWrite.at(_COMMAND_LINE, path=path, reason=error.strerror or str(error)),)) from None
        raise _unusable(path, error.strerror or str(error)) from None


def _unusable(path: str, reason: str) -> DiagnosticError:
    return DiagnosticError((FolderUnusable.at(_COMMAND_LINE, path=path, reason=reason, help=("choose another path",)),))


def _first_free(parent: Path, recipe: str) -> Path:
    with _naming(str(parent)):
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

"""The files that a run writes before its first step: recipe, configuration, the files that it names, and `run.json`."""

from __future__ import annotations

import hashlib
import platform
import shutil
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from vlmdsl._resources import installed_version
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.configuration import ResumeMismatch
from vlmdsl.runtime.data import Survey, source_facts
from vlmdsl.runtime.files import file_digest, write_atomically
from vlmdsl.runtime.model import FlowModels, VisionLanguageModel
from vlmdsl.runtime.modules.towers import Encoder, folder_of, is_pretrained
from vlmdsl.runtime.training.assembly import Data
from vlmdsl.runtime.training.encoders import library_towers
from vlmdsl.runtime.training.identity import identity_of, setting
from vlmdsl.runtime.training.processes import World
from vlmdsl.runtime.training.run_folder import KEPT, RunFolder
from vlmdsl.schema import RunConfig, dump_config
from vlmdsl.source import Span

__all__ = ["RecipeFiles", "check_same_data", "data_facts", "write_resumed", "write_start", "write_towers"]

_NAMES_A_FILE = ("data.synonyms", "data.font", "data.concepts", "model.tokenizer")
_OF_A_TOWER = (".json", ".safetensors", ".txt", ".model")
"""Endings of the files that a pretrained tower is loaded from."""


@dataclass(frozen=True)
class RecipeFiles:
    """A recipe for its run: what `run.json` says of it, and its texts by the path in the run folder."""

    record: Mapping[str, Any]
    texts: Mapping[str, str] = field(default_factory=dict)


def data_facts(data: Data, surveys: Mapping[str, Survey]) -> dict[str, Any]:
    """The samples in `run.json`, with the results of the survey."""
    sources = {"train": data.train, "held_out": data.held_out, "reference": data.reference}
    facts: dict[str, Any] = {name: source_facts(source) for name, source in sources.items() if source is not None}
    if data.stream is not None:  # how many samples it has is not known
        shards, fingerprint = data.stream.shards, data.stream.fingerprint()
        facts["train"] |= {"samples": None, "shards": shards, "fingerprint": fingerprint}
    for name, survey in surveys.items():
        facts[name] |= survey.as_dict()
    facts["train"]["stand_ins"] = data.mapping.stand_ins
    facts["train"]["fields"] = {name: fact for name, fact in data.mapping.facts.items() if isinstance(fact, int | None)}
    return facts


def write_start(
    folder: RunFolder,
    recipe: RecipeFiles,
    config: RunConfig,
    data: Mapping[str, Any],
    model: VisionLanguageModel | FlowModels,
    world: World,
) -> None:
    """Everything that is needed to resume the run from its folder alone, and to load it without anything from a hub;
    `run.json` last, which shows that it is complete."""
    files: dict[str, bytes] = {name: text.encode("utf-8", "backslashreplace") for name, text in recipe.texts.items()}
    kept: dict[str, str] = {}
    for name in _NAMES_A_FILE:
        value = setting(config, name)
        if value is not None and not is_pretrained(value):
            kept[name] = f"{KEPT}/{name}{Path(value).suffix}"
            files[kept[name]] = Path(value).read_bytes()
    settings, of_towers = _tower_settings(config, model)
    digests = _written(folder, files | of_towers)
    for name, tower in _tower_folders(config).items():
        kept[name] = f"{KEPT}/{name}"
        digests |= _copied(tower, folder, kept[name])
    folder.write_config(dump_config(config))
    folder.write_facts(
        {
            "identity": identity_of(recipe.record, config, data),
            "recipe": dict(recipe.record),
            "seed": config.train.seed,
            "files": digests,
            "kept": kept,
            "settings": settings,
            "data": data,
            "towers": model.notes,
            "started": _now(world),
        }
    )


def _tower_folders(config: RunConfig) -> dict[str, Path]:
    """Setting that names a tower of a library in a folder of this machine -> the folder."""
    folders = {name: folder_of(encoder) for name, encoder in library_towers(config.model).items()}
    return {name: folder for name, folder in folders.items() if folder is not None}


def write_towers(folder: RunFolder, config: RunConfig, model: VisionLanguageModel | FlowModels) -> None:
    """The same of the towers of a later stage that those before it do not have."""
    facts = folder.read_facts()
    settings, files = _tower_settings(config, model, without=facts.settings)
    if settings:
        plain = facts.plain()
        every = {**plain.get("files", {}), **_written(folder, files)}
        folder.write_facts({**plain, "files": every, "settings": {**facts.settings, **settings}})


def _tower_settings(
    config: RunConfig, model: VisionLanguageModel | FlowModels, without: Collection[str] = ()
) -> tuple[dict[str, str], dict[str, bytes]]:
    """Setting that names a tower of another library -> the folder of the files that it is built from, its weights being in a
    checkpoint; and the content of these files. Those that are named by the settings `without` are left out."""
    usual, settings, files = (
        {"Image": "model.image_encoder", "Text": "model.text_encoder"},
        dict[str, str](),
        dict[str, bytes](),
    )
    for tower, encoder in model.encoders.items():
        assert isinstance(encoder, Encoder)
        name = f"model.towers.{tower}" if tower in config.model.towers else usual.get(encoder.kind, "")
        own = {} if name in without or name in settings else encoder.settings_files()
        if own:
            settings[name] = f"{KEPT}/settings/{name}"
            files |= {f"{settings[name]}/{file}": content for file, content in own.items()}
    return settings, files


def _written(folder: RunFolder, files: Mapping[str, bytes]) -> dict[str, str]:
    """Write files by their paths in a run folder; returns the SHA-256 of each."""
    for name, content in files.items():
        path = folder.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


def _copied(tower: Path, folder: RunFolder, place: str) -> dict[str, str]:
    """Copy what a tower is loaded from to a `place` in the run folder; the SHA-256 of each copy by its path there."""
    (folder.path / place).mkdir(parents=True)
    digests: dict[str, str] = {}
    for file in sorted(tower.iterdir()):
        if file.is_file() and file.suffix in _OF_A_TOWER:
            name = f"{place}/{file.name}"
            shutil.copyfile(file, folder.path / name)
            digests[name] = file_digest(folder.path / name)
    return digests


def write_resumed(folder: RunFolder, config: RunConfig, world: World) -> None:
    """The settings that were changed, and a line in `run.json` about the process that resumes it."""
    folder.write_config(dump_config(config))
    facts = folder.read_facts().plain()
    folder.write_facts({**facts, "resumed": [*facts.get("resumed", []), _now(world)]})


def check_same_data(folder: RunFolder, data: Mapping[str, Any]) -> None:
    """V0818 if the run in `folder` was started with other samples."""
    stored = folder.read_facts().data
    for name in dict.fromkeys(("train", "reference", *stored, *data)):
        if name.endswith("held_out"):
            continue
        before, now = stored.get(name), data.get(name)
        if before is None and now is None:
            continue
        differs = before is None or now is None or any(before.get(key) != now[key] for key in ("samples", "fingerprint"))
        if differs:
            counts = [0 if facts is None else facts.get("samples", 0) for facts in (before, now)]
            note = f"it had {counts[0]} samples ({name}), now it has {counts[1]}"
            if None in counts:
                note = f"it was read from other shards ({name}), or not as a stream"
            help = "restore the data, or start a new run"
            place = Span("<command line>", 0, 0)
            mismatch = ResumeMismatch.at(place, path=folder.path, what="set of samples", notes=(note,), help=(help,))
            raise DiagnosticError((mismatch,))


def _now(world: World) -> dict[str, Any]:
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "processes": world.size,
        "device": world.device.type,
        "versions": {
            "vlmdsl": installed_version(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "platform": platform.platform(),
        },
    }

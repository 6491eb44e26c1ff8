"""A trained model as its weights with what loads them: a run folder that holds nothing of the machine it was trained on."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Any

from vlmdsl.runtime.trained.exports.sides import Exported, refused
from vlmdsl.runtime.trained.model import TrainedModel
from vlmdsl.runtime.training.checkpoint import write_weights_only
from vlmdsl.runtime.training.run_folder import RunFolder
from vlmdsl.schema import RunConfig, dump_config, load_config

__all__ = ["export_weights", "without_folder"]

_OF_DATA = ("train", "val", "reference", "synonyms", "font", "concepts")
_OF_MODEL = ("image_encoder", "text_encoder", "shared_encoder", "tokenizer")


def export_weights(trained: TrainedModel, folder: RunFolder, out: Path) -> Exported:
    """A run folder that has one checkpoint without the optimiser's states: `vlmdsl.load` loads it, and it cannot be resumed.

    The checkpoint's `model.safetensors` has all weights by name. Of files and folders that the settings name, only the names
    are left. Raises `DiagnosticError` (V0865) where the model reads samples of such a file while it encodes.
    """
    config, _ = load_config(str(folder.config))
    assert config is not None
    portable = _portable(config)
    if trained.model.objective.references.columns and portable.data != config.data:
        raise refused(trained, "it retrieves from samples in files of this machine while it encodes")
    record = folder.read_facts()
    for name in (folder.recipe.name, *record.files):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder.path / name, out / name)
    if folder.evaluation.exists():
        shutil.copyfile(folder.evaluation, out / folder.evaluation.name)
    written, copy = write_weights_only(trained.checkpoint, out / folder.checkpoints.name), RunFolder(out)
    copy.write_config(dump_config(portable))
    copy.write_facts(_portable_facts(record.plain()))
    place = written.relative_to(out).as_posix()
    files = {
        f"{place}/model.safetensors": "all weights by name, for `safetensors.torch.load_file`",
        f"{place}/tokenizer.json": "the tokenizers of the text towers",
        folder.recipe.name: "the recipe",
        folder.config.name: "the settings of the run",
    }
    return Exported(files, 'import vlmdsl\n\nmodel = vlmdsl.load(".")  # this folder\nmodel.encode_image("cat.png")')


def _portable(config: RunConfig) -> RunConfig:
    """The settings without places on this machine: of a path its last part is left, which says what the file was."""
    settings = config.model_dump(mode="json")
    for part in (settings, *settings["stages"].values(), *settings["flows"].values()):
        data, model = part.get("data", {}), part.get("model", {})
        for name in _OF_DATA:
            _change(data, name, without_folder)
        for name in _OF_MODEL:
            _change(model, name, without_folder)
        _change(data, "allowed_folders", lambda _: [])
        _change(model, "towers", lambda towers: {name: without_folder(encoder) for name, encoder in towers.items()})
        _change(model, "init", lambda _: None)
    return RunConfig.model_validate({**settings, "out": None}, strict=False)


def _change(section: dict[str, Any], name: str, change: Callable[[Any], Any]) -> None:
    value = section.get(name)
    if value is not None:
        section[name] = (
            [change(one) for one in value] if isinstance(value, list) and change is without_folder else change(value)
        )


def without_folder(text: str) -> str:
    """A source of data, an encoder or a file by name, without the folder that it is in; what is not a path on a machine,
    such as a model of a hub, stays as it is.

    >>> [without_folder(text) for text in ("/home/me/shards/train-*.tar", "shapes:samples=9", "hf:google/vit-base")]
    ['train-*.tar', 'shapes:samples=9', 'hf:google/vit-base']
    """
    scheme, colon, path = text.rpartition(":")
    local = "//" not in text and (not colon or path.startswith(("/", ".", "~")) or Path(path).exists())
    return f"{scheme}{colon}{PurePath(path).name}" if local and ("/" in path or "\\" in path) else text


def _portable_facts(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What `run.json` says, without commands, and without the names of skipped samples."""
    started = {name: fact for name, fact in facts["started"].items() if name != "command"}
    digests = {_of_recipe(name): digest for name, digest in facts["recipe"]["digests"].items()}
    data = {name: {**own, "name": without_folder(str(own.get("name", "data")))} for name, own in facts["data"].items()}
    left_out = ("skipped", "resumed", "towers", "sha256")
    kept = {name: fact for name, fact in facts.items() if name not in left_out}
    return {**kept, "recipe": {**facts["recipe"], "digests": digests}, "started": started, "data": data}


def _of_recipe(file: str) -> str:
    """A file of a recipe: a bundled one, `std/contrast.vlo`, as it is."""
    return file if len(PurePath(file).parts) <= 2 and not file.startswith((".", "/")) else PurePath(file).name

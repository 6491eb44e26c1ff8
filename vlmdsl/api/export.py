"""`export`: a trained model for others, with a model card. Torch is imported when it is called."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from vlmdsl._resources import installed_version
from vlmdsl.api.driver import build_flows
from vlmdsl.api.load import load
from vlmdsl.api.runs import folder_and_checkpoint
from vlmdsl.backends.latex import formula
from vlmdsl.diagnostics.cells import displayed, plain

if TYPE_CHECKING:
    from vlmdsl.runtime.trained import Exported, TrainedModel
    from vlmdsl.runtime.training.run_folder import RunFolder

__all__ = ["FORMATS", "ExportResult", "Format", "export"]

Format = Literal["safetensors", "hf", "open_clip", "onnx", "torch-export"]
FORMATS: tuple[str, ...] = get_args(Format)
_CARD = "README.md"
_LIBRARIES: dict[str, str] = {
    "safetensors": "vlmdsl", "hf": "transformers", "open_clip": "open_clip", "onnx": "onnxruntime", "torch-export": "torch",
}  # fmt: skip
"""What loads each format, as model cards name it."""


@dataclass(frozen=True)
class ExportResult:
    """The folder, and each file in it with a line that says what it is."""

    folder: Path
    files: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The same, for a machine."""
        return {"folder": str(self.folder), "files": self.files}

    def to_text(self) -> str:
        """A line for each file."""
        return "\n".join(f"{displayed(str(self.folder / name))}: {line}" for name, line in self.files.items())


def export(run: str | Path, out: str | Path, *, format: Format = "safetensors") -> ExportResult:
    """Write the newest checkpoint of a run, or one of its checkpoints, to a new folder, with a model card.

    `safetensors`: the weights, the recipe and the settings; `vlmdsl.load(OUT)` loads them. `hf` and `open_clip`: a folder
    that `transformers` or `open_clip` loads as one of its own models. `torch-export` and `onnx`: one program from images to
    vectors, and one from token ids. Raises `DiagnosticError` as `load` does, V0815 if the folder holds anything, V0870 for
    one in that of the run, V0865 for what the format cannot hold, and V0901 without the package that writes it.

    Args:
        run: the run folder, or that of a checkpoint in it.
        out: the folder to write, new or empty.
        format: one of `FORMATS`.

    >>> import tempfile, vlmdsl
    >>> settings = {"train.batch": 8, "train.compile": False, "evaluation.limit": 32}
    >>> run = vlmdsl.train("clip", data=["shapes:samples=32"], steps=2, settings=settings, out=tempfile.mkdtemp())
    >>> out = tempfile.mkdtemp()
    >>> sorted(export(run.folder, out).files)[:2]
    ['README.md', 'checkpoints/step-00000002/model.safetensors']
    >>> vlmdsl.load(out).recipe
    'clip'
    """
    folders = import_module("vlmdsl.runtime.training.run_folder")
    folders.RunFolder.check_free(str(out), "folder")
    folder, _ = folder_and_checkpoint(run)
    import_module("vlmdsl.runtime.data.read_places").check_apart_from(out, folder.path, "OUT_DIR")
    model, trained = load(run, device="cpu"), import_module("vlmdsl.runtime.trained")
    place: Path = folders.make_folder(str(out))
    written: Exported = trained.write_export(format, model, folder, place)
    import_module("vlmdsl.runtime.files").write_atomically(place / _CARD, _card(folder, model, written, format))
    return ExportResult(place, {**written.files, _CARD: "the model card"})


def _card(folder: RunFolder, model: TrainedModel, written: Exported, format: Format) -> str:
    """What the model is, what it learnt from, how it was measured, and how it is used; to be completed by its author."""
    record, recipe = folder.read_facts(), folder.recipe.read_text(encoding="utf-8")
    own_name = import_module("vlmdsl.runtime.trained").without_folder
    built = build_flows(folder.recipe, knobs=record.recipe.given_knobs, kept=folder.kept_uses())
    formulas = [
        line
        for one in built
        for line in (*([f"{one.title}:", ""] if one.title else []), "$$", formula(one.written), "$$", "")
    ]
    sources = [(name, own_name(str(facts.get("name", "data"))), facts["samples"]) for name, facts in record.data.items()]
    samples = [f"- {name}: {displayed(source)}, {count} samples" for name, source, count in sources]
    measured = import_module("vlmdsl.runtime.training.measuring").results_text
    results = folder.read_evaluation()
    parts = [
        "---",
        f"library_name: {_LIBRARIES[format]}",
        "license:  # of the weights: fill in",
        "datasets:  # and their licences: fill in",
        "---",
        "",
        f"# {displayed(record.recipe.name)}, {model.step:,} steps",
        "",
        f"Trained with vlmdsl {installed_version()}.",
        "",
        "## Use",
        "",
        "```python",
        written.usage,
        "```",
        "",
        *(f"- `{name}`: {line}" for name, line in written.files.items()),
        "",
        "## Objective",
        "",
        "~~~~",
        plain(recipe.rstrip()),
        "~~~~",
        "",
        *formulas,
        "## Data",
        "",
        *samples,
        "",
        "## Evaluation",
        "",
        "~~~~",
        measured(results) if results.get("step") == model.step else "not measured",
        "~~~~",
        "",
        "## Licence and limits",
        "",
        "The licence of the weights and of the data, intended uses and known limits: fill in.",
        "",
    ]
    return "\n".join(parts)

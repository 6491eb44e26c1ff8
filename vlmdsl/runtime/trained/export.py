"""A trained model for others: its weights with what loads them, or its encoders as programs of torch."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.trained import CannotExport
from vlmdsl.ir import Encoder as ObjectiveEncoder
from vlmdsl.ir import Head, uses_of
from vlmdsl.runtime.evaluation import comparison_of, first_image_tower
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.trained.model import TrainedModel
from vlmdsl.runtime.training.checkpoint import write_weights_only
from vlmdsl.runtime.training.run_folder import RunFolder
from vlmdsl.runtime.values import ImageFormat, TextFormat
from vlmdsl.source import Span

__all__ = ["Exported", "export_programs", "export_weights"]

IMAGE, TEXT = "image.pt2", "text.pt2"
"""The files of programs."""


@dataclass(frozen=True)
class Exported:
    """What was written: the names of files in the folder, each with a line that says what it is."""

    files: dict[str, str]


def export_weights(folder: RunFolder, checkpoint: Path, out: Path) -> Exported:
    """A run folder that has one checkpoint without the optimiser's states: `vlmdsl.load` loads it, and it cannot be resumed.

    The checkpoint's `model.safetensors` has all weights by name.
    """
    record = folder.read_facts()
    for name in (folder.recipe.name, folder.config.name, folder.facts.name, *record.files):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder.path / name, out / name)
    if folder.evaluation.exists():
        shutil.copyfile(folder.evaluation, out / folder.evaluation.name)
    written = write_weights_only(checkpoint, out / folder.checkpoints.name)
    place = written.relative_to(out).as_posix()
    return Exported(
        {
            f"{place}/model.safetensors": "all weights by name, for `safetensors.torch.load_file`",
            f"{place}/tokenizer.json": "the tokenizers of the text towers",
            folder.recipe.name: "the recipe",
            folder.config.name: "the settings of the run",
        }
    )


def export_programs(trained: TrainedModel, out: Path) -> Exported:
    """Programs of `torch.export` for any batch size, `image.pt2` and `text.pt2`: from standardised pixels `[b, 3, S, S]` and
    from token ids and mask `[b, L]`, to the vectors `[b, D]` that `encode_image` and `encode_text` return.

    `tokenizer.json` makes the ids. Raises `DiagnosticError` (V0865) where a vector is more than the output of one tower and
    its heads.
    """
    model = trained.model
    comparison = comparison_of(model.objective.program)
    if comparison is None:
        first = first_image_tower(model.objective.program)
        if first is None:
            raise _refused(trained, "it encodes no images to vectors")
        return Exported({IMAGE: _image_program(model, first[0], (), False, out)})
    if not comparison.pooled:
        raise _refused(trained, "it compares images with texts token by token")
    if comparison.image_features is not None:
        raise _refused(trained, "its images are encoded with reference samples or other features")
    normalized = comparison.normalized
    files = {IMAGE: _image_program(model, comparison.image_tower, comparison.image_heads, normalized, out)}
    form = model.form(comparison.text_tower, "Text")
    if comparison.text_source is not None or not isinstance(form, TextFormat):
        files[IMAGE] += "; texts are rendered as images first, so they have no program"
        return Exported(files)
    example = form.encode(["a dog", "two dogs on a sofa"])
    program = _Encoder(model, comparison.text_tower, "Text", comparison.text_heads, normalized)
    _export(program, (example.ids, example.mask), out / TEXT)
    (out / "tokenizer.json").write_text(form.tokenizer.to_library_json(), encoding="utf-8")
    files[TEXT] = f"ids [b, {form.length}], int64, and mask [b, {form.length}], true = a token -> vectors [b, D]"
    files["tokenizer.json"] = "the tokenizer of these ids, for the package `tokenizers`; texts are padded to that length"
    return Exported(files)


class _Encoder(nn.Module):
    """A tower with its heads, from tensors to vectors."""

    def __init__(self, model: VisionLanguageModel, tower: str, kind: str, heads: Sequence[Head], normalized: bool) -> None:
        super().__init__()
        self.tower = model.encoders[tower]
        uses = uses_of(ObjectiveEncoder(tower, kind, heads=tuple(heads)))[1:]
        self.heads = nn.ModuleList(model.part(use) for use in uses)
        self.normalized = normalized

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        vectors: Tensor = self.tower(values, mask).pooled if mask is not None else self.tower(values).pooled
        for head in self.heads:
            (vectors,) = head([vectors])
        return functional.normalize(vectors, dim=-1) if self.normalized else vectors


def _image_program(model: VisionLanguageModel, tower: str, heads: Sequence[Head], normalized: bool, out: Path) -> str:
    """Write the program of images; its line."""
    form = model.form(tower, "Image")
    assert isinstance(form, ImageFormat)
    _export(_Encoder(model, tower, "Image", heads, normalized), (torch.zeros(2, 3, form.size, form.size),), out / IMAGE)
    numbers = f"level in [0, 1] minus {list(form.mean)} over {list(form.deviation)}"
    return f"pixels [b, 3, {form.size}, {form.size}], float32, {numbers} -> vectors [b, D]"


def _export(program: nn.Module, example: tuple[Tensor, ...], place: Path) -> None:
    batch = torch.export.Dim("batch", min=1, max=65_536)
    shapes = tuple({0: batch} for _ in example)
    with torch.no_grad():
        exported = torch.export.export(program.eval().cpu(), example, dynamic_shapes=(*shapes,))
    torch.export.save(exported, place)


def _refused(trained: TrainedModel, reason: str) -> DiagnosticError:
    return DiagnosticError((CannotExport.at(Span("<command line>", 0, 0), recipe=trained.recipe, reason=reason),))

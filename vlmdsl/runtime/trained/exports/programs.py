"""A trained model as programs: of `torch.export`, and of ONNX."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.environment import PackageMissing
from vlmdsl.ir import Encoder as ObjectiveEncoder
from vlmdsl.ir import uses_of
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.trained.exports.sides import Exported, ImageSide, Sides, TextSide, sides_of
from vlmdsl.runtime.trained.model import TrainedModel
from vlmdsl.source import Span

__all__ = ["export_onnx", "export_programs"]

Writer: TypeAlias = Callable[[nn.Module, tuple[Tensor, ...], Sequence[str], Path], None]
"""Writes a program with its example inputs and their names."""
_LARGEST_BATCH = 65_536


def export_programs(trained: TrainedModel, out: Path) -> Exported:
    """Programs of `torch.export` for any batch size, `image.pt2` and `text.pt2`: from standardised pixels `[b, 3, S, S]` and
    from token ids and mask `[b, L]`, to the vectors `[b, D]` that `encode_image` and `encode_text` return.

    `tokenizer.json` makes the ids. Raises `DiagnosticError` as `sides_of` does.
    """
    files = _written(trained, out, "pt2", _write_torch)
    return Exported(files, 'import torch\n\nimages = torch.export.load("image.pt2").module()')


def export_onnx(trained: TrainedModel, out: Path) -> Exported:
    """The same as ONNX, `image.onnx` and `text.onnx`, with inputs `pixels`, `ids` and `mask` and the output `vectors`.

    Raises `DiagnosticError` as `sides_of` does, and V0901 without onnxscript, which torch writes ONNX with.
    """
    if find_spec("onnxscript") is None:
        missing = PackageMissing.at(
            Span("<command line>", 0, 0),
            what="the export to ONNX",
            package="onnxscript",
            help=("`pip install 'vlmdsl[onnx]'` installs it",),
        )
        raise DiagnosticError((missing,))
    files = _written(trained, out, "onnx", _write_onnx)
    usage = (
        'import onnxruntime\n\nimages = onnxruntime.InferenceSession("image.onnx")\n'
        'vectors = images.run(None, {"pixels": pixels})[0]'
    )
    return Exported(files, usage)


def _written(trained: TrainedModel, out: Path, ending: str, write: Writer) -> dict[str, str]:
    sides = sides_of(trained)
    image, text = f"image.{ending}", f"text.{ending}"
    form = sides.image.form
    write(_Program(trained.model, sides, sides.image), (torch.zeros(2, 3, form.size, form.size),), ("pixels",), out / image)
    files = {image: f"{sides.image.pixels} -> vectors [b, D]"}
    if sides.rendered:
        files[image] += "; texts are rendered as images first, so they have no program"
    if sides.text is None:
        return files
    length = sides.text.form.length
    example = sides.text.form.encode(["a dog", "two dogs on a sofa"])
    write(_Program(trained.model, sides, sides.text), (example.ids, example.mask), ("ids", "mask"), out / text)
    (out / "tokenizer.json").write_text(sides.text.form.tokenizer.to_library_json(), encoding="utf-8")
    files[text] = f"ids [b, {length}], int64, and mask [b, {length}], true = a token -> vectors [b, D]"
    files["tokenizer.json"] = "the tokenizer of these ids, for the package `tokenizers`; texts are padded to that length"
    return files


class _Program(nn.Module):
    """A tower with its heads, from tensors to vectors."""

    def __init__(self, model: VisionLanguageModel, sides: Sides, side: ImageSide | TextSide) -> None:
        super().__init__()
        kind = "Image" if isinstance(side, ImageSide) else "Text"
        self.tower = side.tower
        uses = uses_of(ObjectiveEncoder(side.name, kind, heads=side.heads))[1:]
        self.heads = nn.ModuleList(model.part(use) for use in uses)
        self.normalized = sides.normalized

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        vectors: Tensor = self.tower(values, mask).pooled if mask is not None else self.tower(values).pooled
        for head in self.heads:
            (vectors,) = head([vectors])
        return functional.normalize(vectors, dim=-1) if self.normalized else vectors


def _write_torch(program: nn.Module, example: tuple[Tensor, ...], names: Sequence[str], place: Path) -> None:
    torch.export.save(_traced(program, example), place)


def _write_onnx(program: nn.Module, example: tuple[Tensor, ...], names: Sequence[str], place: Path) -> None:
    reports = logging.getLogger("torch.onnx")
    level = reports.level
    try:
        reports.setLevel(logging.ERROR)  # what it says of its own passes is not for users
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _traced(program, example),
                kwargs=None,
                f=str(place),
                input_names=list(names),
                output_names=["vectors"],
                external_data=False,
                verbose=False,
                dynamo=True,
            )
    finally:
        reports.setLevel(level)


def _traced(program: nn.Module, example: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    shapes = tuple({0: batch} for _ in example)
    with torch.no_grad():
        return torch.export.export(program.eval().cpu(), example, dynamic_shapes=(*shapes,))

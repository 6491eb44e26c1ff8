"""What a run computes from its data before the first step: codebooks, and the features of a reference set by frozen
towers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vlmdsl.backends.torch.search import load_faiss
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import NoUsableSample
from vlmdsl.runtime.data import EvaluationLoader
from vlmdsl.runtime.data.loading import workers_for
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.training.assembly import Data, materials_of, reference_values
from vlmdsl.runtime.training.codebooks import fill_codebooks
from vlmdsl.runtime.values import TextFormat, key_number, to
from vlmdsl.schema import RunConfig
from vlmdsl.source import Span

__all__ = ["fill_references", "prepare"]

_AT_ONCE = 256
"""Names that are encoded together."""


def prepare(model: VisionLanguageModel, data: Data, config: RunConfig) -> None:
    """Fill the codebooks that have no entries, and the reference set."""
    fill_codebooks(model, data, config)
    fill_references(model, data, config)


@torch.no_grad()
def fill_references(model: VisionLanguageModel, data: Data, config: RunConfig) -> None:
    """Encode the reference set, every process the whole of it; nothing where the objective retrieves nothing.

    A function of the data and of weights that never change, so a resumed run has the same set. Raises
    `DiagnosticError`: V0820 if none of its samples can be used, V0901 without the package that is to search it.
    """
    references = model.objective.references
    names = [column for column in references.columns if column.of_names]
    if names:
        texts = {column.name: _names(data, config, column.field) for column in names}
        encoded = {column.name: _encoded(model, column.encoder.tower, texts[column.name]) for column in names}
        references.fill(encoded, torch.arange(len(next(iter(encoded.values())))))
        return
    if not references.columns or data.reference is None or data.reference_mapping is None:
        return
    if config.data.reference_search == "faiss":
        load_faiss()  # a missing package is reported before an hour of encoding
    loader = EvaluationLoader(
        data.reference,
        data.reference_mapping,
        reference_values(model),
        batch=config.evaluation.batch,
        workers=workers_for(config.data.workers, len(data.reference) // config.evaluation.batch),
    )
    device = next(model.encoders.parameters()).device
    parts: dict[str, list[Tensor]] = {column.name: [] for column in references.columns}
    keys: list[int] = []
    for batch in loader:
        moved = batch.to(device)
        keys.extend(key_number(key) for key in batch.keys)
        for column in references.columns:
            pooled = model.encode(column.encoder.tower, moved.values[column.name]).pooled
            assert pooled is not None
            parts[column.name].append(pooled)
    if not keys:
        place = Span("<command line>", 0, 0)
        raise DiagnosticError((NoUsableSample.at(place, samples=len(data.reference), help=("look at `data.reference`",)),))
    values = {name: torch.cat(encoded) for name, encoded in parts.items()}
    references.fill(values, torch.tensor(keys), search=config.data.reference_search)


def _names(data: Data, config: RunConfig, field: str) -> list[str]:
    """The texts of a table of names: those of `data.concepts`, or that occur in the data."""
    concepts = materials_of(config).concepts
    if concepts is not None:
        return [concepts.text(name) for name in concepts.names]
    names = data.mapping.facts.get(field, ())
    if not names:
        place, help = Span("<command line>", 0, 0), ("name some with `data.concepts`",)
        raise DiagnosticError((NoUsableSample.at(place, samples=len(data.train), help=help),))
    return list(names)


def _encoded(model: VisionLanguageModel, tower: str, texts: Sequence[str]) -> Tensor:
    """The pooled features of texts: [K, D]."""
    form = model.form(tower, "Text")
    assert isinstance(form, TextFormat)
    device = next(model.encoders.parameters()).device
    parts = []
    for start in range(0, len(texts), _AT_ONCE):
        pooled = model.encode(tower, to(form.encode(texts[start : start + _AT_ONCE]), device)).pooled
        assert pooled is not None
        parts.append(pooled)
    return torch.cat(parts)

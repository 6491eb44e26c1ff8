"""The tokenizer of each text tower of a run: its own, one that the settings name, or one trained on the data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from vlmdsl.backends.torch.objective import Objective
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.data import TokenizerUnusable
from vlmdsl.diagnostics.catalog.encoders import TowerDoesNotFit
from vlmdsl.diagnostics.suggest import suggestion
from vlmdsl.ir import Node, Stream, parts_of
from vlmdsl.ir.operations.views import FIELD, MASK
from vlmdsl.primitives.plugins import MODULES
from vlmdsl.runtime.files import damaged
from vlmdsl.runtime.model.tower_needs import tower_needs
from vlmdsl.runtime.modules.towers import is_pretrained
from vlmdsl.runtime.modules.towers.tokenizers import load_tokenizer
from vlmdsl.runtime.tokenizer import Tokenizer, Tokenizers, train_tokenizer
from vlmdsl.schema import ModelConfig
from vlmdsl.source import Span

__all__ = [
    "TOKENIZER", "check_towers", "encoder_name", "stored_tokenizers", "text_towers", "tokenizer_notes", "tokenizers_for",
    "with_masks",
]  # fmt: skip

TOKENIZER = "tokenizer.json"
"""The file of a checkpoint."""
_MAIN = "language"
"""The tower whose tokenizer is that of the run, where there are several."""


def encoder_name(config: ModelConfig, tower: str, kind: str) -> str:
    """The encoder that the settings give to a tower for fields of a kind (`Image`, `Text`, `Image|Text`); for a plug-in's
    kind the preset `default` of the family that brings towers for it."""
    usual = {"Image": config.image_encoder, "Text": config.text_encoder, "Image|Text": config.shared_encoder}
    usual |= {taken: f"{family}:default" for family, taken in reversed(MODULES) if taken not in usual}
    return config.towers.get(tower, usual[kind])


def check_towers(objectives: Iterable[Objective], config: ModelConfig) -> None:
    """V0832 for a tower in the settings that none of the objectives has."""
    towers = {tower for one in objectives for tower in tower_needs(one.streams, one.references.columns)}
    place = Span("<command line>", 0, 0)
    faults = [
        TowerDoesNotFit.at(
            place, tower=name, problem="is not a tower of the recipe", help=(suggestion(name, towers, "its towers"),)
        )
        for name in dict.fromkeys((*config.towers, *config.freeze, *config.lora))
        if name not in towers
    ]
    if faults:
        raise DiagnosticError(tuple(faults))


def text_towers(objective: Objective, config: ModelConfig) -> dict[str, str]:
    """The towers that read texts, `language` first, each with the name of its encoder."""
    needs = tower_needs(objective.streams, objective.references.columns)
    names = {tower: encoder_name(config, tower, need.kind) for tower, need in needs.items() if "Text" in need.kind}
    return dict(sorted(names.items(), key=lambda item: item[0] != _MAIN))


def tokenizers_for(objectives: Sequence[Objective], config: ModelConfig, texts: Callable[[], Iterable[str]]) -> Tokenizers:
    """The tokenizer of every text tower: the one that the settings name, else a pretrained tower's own, else one trained on
    `texts()`; with a mask token where texts are masked. Raises `DiagnosticError` for one that cannot be used."""
    towers, masked = _towers(objectives, config), _masked_towers(objectives)
    read: dict[str | None, Tokenizer] = {}
    names = {tower: config.tokenizer or (name if is_pretrained(name) else None) for tower, name in towers.items()}
    for source in dict.fromkeys(names.values()):
        tokenizer = train_tokenizer(texts(), config.vocabulary) if source is None else load_tokenizer(source)
        masking = [tower for tower, own in names.items() if own == source and tower in masked]
        for tower in masking:
            _check_room(tokenizer, source or "", towers[tower])
        read[source] = tokenizer.with_mask() if masking else tokenizer
    of = {tower: read[source] for tower, source in names.items()}
    return Tokenizers(next(iter(of.values()), None) or train_tokenizer(()), of)


def stored_tokenizers(checkpoint: Path) -> Tokenizers:
    """The tokenizers of a checkpoint; V0850 if its file holds none."""
    path = checkpoint / TOKENIZER
    try:
        return Tokenizers.from_json(path.read_text(encoding="utf-8"))
    except Exception as error:  # the library raises plain `Exception` for a file that is not a tokenizer
        raise damaged(path, "it is not a tokenizer that a run writes") from error


def with_masks(tokenizers: Tokenizers, objectives: Sequence[Objective], config: ModelConfig) -> Tokenizers:
    """The tokenizers of the run that another one begins with (`model.init`), which may have masked no text: with a mask
    token for the towers that read masked ones here. Raises `DiagnosticError` for a tower that has no room for one."""
    towers, masked = _towers(objectives, config), _masked_towers(objectives)
    for tower in masked & towers.keys():
        _check_room(tokenizers[tower], config.init or "", towers[tower])
    of = {tower: tokenizers[tower].with_mask() if tower in masked else tokenizers[tower] for tower in towers}
    return Tokenizers(next(iter(of.values()), tokenizers.default), of)


def _towers(objectives: Sequence[Objective], config: ModelConfig) -> dict[str, str]:
    """The text towers of all objectives, `language` first, each with the name of its encoder."""
    towers = {tower: name for one in objectives for tower, name in text_towers(one, config).items()}
    return dict(sorted(towers.items(), key=lambda item: item[0] != _MAIN))


def _masked_towers(objectives: Sequence[Objective]) -> set[str]:
    return {stream.encoder.tower for one in objectives for stream in one.streams if _is_masked(stream)}


def _check_room(tokenizer: Tokenizer, source: str, encoder: str) -> None:
    """Check that a pretrained tower, whose embeddings are given, has one for the mask token."""
    if tokenizer.mask is None and is_pretrained(encoder):
        raise _without_mask(source, encoder)


def tokenizer_notes(name: str, setting: str | None, tokenizer: Tokenizer) -> tuple[str, ...]:
    """What is to be said of an encoder that reads the ids of a tokenizer that the settings name and is not its own."""
    if setting is None or not is_pretrained(name) or setting == name:
        return ()
    try:
        own = load_tokenizer(name).vocabulary
    except DiagnosticError:
        return (f"uses the tokenizer `{setting}`; it has no tokenizer",)
    same = sum(own.get(token) == number for token, number in tokenizer.vocabulary.items())
    total = len(tokenizer.vocabulary)
    if same == total:
        return ()
    return (
        f"uses the tokenizer `{setting}` instead of its tokenizer: {total - same:,} of {total:,} ids are different tokens",
    )


def _is_masked(stream: Stream) -> bool:
    return any(_has_mask(part) for part in parts_of(stream.source))


def _has_mask(source: Node) -> bool:
    return source.operation is MASK or (source.operation is not FIELD and _has_mask(source.inputs[0]))


def _without_mask(tokenizer: str, encoder: str) -> DiagnosticError:
    reason = f"it has no mask token, and `{encoder}` has no embedding for a new one"
    help = "choose a text encoder that was pretrained with masked language modelling, or a built-in one"
    return DiagnosticError(
        (TokenizerUnusable.at(Span("<command line>", 0, 0), given=tokenizer, reason=reason, help=(help,)),)
    )

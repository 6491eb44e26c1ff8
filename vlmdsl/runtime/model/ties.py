"""Modules that share weights: a fusion module the blocks of a text tower, all but cross-attention; a text decoder those of
a fusion module, all but self-attention, and the embeddings of its text tower.

One language model in several modes, as in BLIP (Li et al., ICML 2022): an encoder of texts has no cross-attention, and an
encoder of texts given images and a decoder differ in which tokens see which.
"""

from __future__ import annotations

from torch import nn

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import TowerDoesNotFit
from vlmdsl.runtime.model.family import Families, Needs
from vlmdsl.runtime.model.text_decoders import tower_of_words
from vlmdsl.runtime.model.towers import Towers
from vlmdsl.runtime.modules import Fusion, TextDecoder, TextDecoderTower
from vlmdsl.runtime.modules.towers import Encoder
from vlmdsl.runtime.modules.towers.blocks import Block
from vlmdsl.source import Span

__all__ = ["tie_modules"]


def tie_modules(needs: Needs, families: Families) -> frozenset[str]:
    """Give the fusion modules and text decoders that say so the weights that they share; the names of all towers that share
    some.

    Raises `DiagnosticError` (V0832) where a module and what it shares are not of one size.
    """
    towers, tied = families["tower"], set[str]()
    assert isinstance(towers, Towers)
    for fusion in families["fusion"].parts.values():
        if isinstance(fusion, Fusion) and fusion.settings.shares:
            tied.add(fusion.settings.shares)
            _share_tower(towers.encoder(fusion.settings.shares), fusion)
    encoders = dict.fromkeys(stream.encoder.bare for stream in needs.streams if stream.encoder.teacher is None)
    for tower, shares in {each.tower: each.decoder.shares for each in encoders if each.decoder is not None}.items():
        if shares and tower not in tied:
            words = tower_of_words(needs.streams, tower)
            _tie(tower, towers, words, families["fusion"].parts[shares])
            tied |= {tower, words}
    return frozenset(tied)


def _share_tower(tower: Encoder, fusion: Fusion) -> None:
    """Make the blocks of a fusion module those of a text tower."""
    blocks, positions = tower.shared_blocks, getattr(tower, "positions", None)
    assert blocks is not None, "a tower without such blocks was refused"
    assert isinstance(positions, nn.Parameter)
    fusion.share(blocks, positions, getattr(tower, "embedding_norm", None))


def _tie(tower: str, towers: Towers, words: str, fusion: object) -> None:
    """Make the modules of a fusion module, and the embeddings of a text tower, those of a decoder."""
    own, texts = towers.encoder(tower), towers.encoder(words)
    embedding, positions = texts.token_embedding, getattr(texts, "positions", None)
    if not isinstance(own, TextDecoderTower) or not isinstance(fusion, Fusion):
        raise _unfit(tower, "is not a built-in decoder, which can share the weights of a built-in fusion module")
    if not isinstance(embedding, nn.Embedding):
        raise _unfit(tower, f"shares the words of `{words}`, which has no embedding of token ids", "leave `shares` out")
    decoder = own.decoder
    shapes = {
        "states": (decoder.width, fusion.width),
        "attention heads": (decoder.heads, fusion.heads),
        "words": (decoder.embedding.weight.shape, embedding.weight.shape),
        "positions": (decoder.positions.shape, decoder.positions.shape if positions is None else positions.shape),
        "contexts": (_context_width(decoder), _context_width(fusion)),
    }
    for what, (mine, theirs) in shapes.items():
        if mine != theirs:
            problem = f"shares weights, but its {what} are {_said(mine)}, and of what it shares {_said(theirs)}"
            raise _unfit(tower, problem, "leave `shares` out, or give both one size")
    for block, shared in zip(decoder.transformer.blocks, fusion.transformer.blocks, strict=True):
        for name in ("cross_norm", "cross_attention", "cross_gate", "feed_forward_norm", "feed_forward"):
            setattr(block, name, getattr(shared, name))
    decoder.transformer.norm = fusion.transformer.norm
    decoder.embedding = embedding
    if positions is not None:
        decoder.positions = positions
    if own.tied_vocabulary:
        own.tie_vocabulary(tower)


def _context_width(module: Fusion | TextDecoder) -> int:
    """The length of the tokens that a stack attends to; 0 if it attends to none."""
    last = module.transformer.blocks[-1]
    assert isinstance(last, Block)
    return 0 if last.cross_attention is None else last.cross_attention.key_value.in_features


def _said(size: object) -> str:
    return "x".join(map(str, size)) if isinstance(size, tuple) else str(size)


def _unfit(tower: str, problem: str, *help_texts: str) -> DiagnosticError:
    return DiagnosticError((TowerDoesNotFit.at(Span("encoders", 0, 0), tower=tower, problem=problem, help=help_texts),))

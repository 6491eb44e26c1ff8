"""The tokenizer of an exported model, as `transformers` and `open_clip` load it from the folder of a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as Backend
from torch import Tensor

from vlmdsl.runtime.tokenizer import Tokenizer
from vlmdsl.runtime.trained.exports.sides import TextSide

__all__ = ["moved_end", "write_tokenizer"]


def write_tokenizer(side: TextSide, tokenizer: str, out: Path) -> None:
    """Write `tokenizer`, the text of a `tokenizer.json`, and how the library uses it: which tokens are its marks, how long
    texts are, and where they are padded."""
    own = side.form.tokenizer
    ids = Backend.from_str(own.to_library_json())
    marks = {"bos_token": own.start, "eos_token": own.end, "pad_token": own.pad, "mask_token": own.mask}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": side.form.length,
        "padding_side": side.form.padding_side,
        "truncation_side": "right",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids"] if side.tower.reads_padding else ["input_ids", "attention_mask"],
        **{name: ids.id_to_token(number) for name, number in marks.items() if number is not None},
    }
    (out / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
    (out / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def moved_end(tokenizer: Tokenizer, embedding: Tensor) -> tuple[str, int, Tensor] | None:
    """The tokenizer with the ids of its end mark and of its last token exchanged, as the package `tokenizers` reads it; the
    new id of the end mark; and the rows of the `embedding [V, W]` in the new order. None for a tokenizer that cannot be
    renumbered.

    A text transformer of transformers whose end mark is number 2 is read where the largest id is, as CLIP's first version
    was; the end mark of our tokenizers is number 2.
    """
    end, last = tokenizer.end, tokenizer.vocabulary_size - 1
    assert end is not None
    state: dict[str, Any] = json.loads(tokenizer.to_library_json())
    vocabulary = state["model"].get("vocab")
    if not isinstance(vocabulary, dict):
        return None
    exchanged = {end: last, last: end}
    state["model"]["vocab"] = {token: exchanged.get(number, number) for token, number in vocabulary.items()}
    for token in state["added_tokens"]:
        token["id"] = exchanged.get(token["id"], token["id"])
    state["added_tokens"].sort(key=lambda token: token["id"])
    processor = state.get("post_processor") or {}
    if processor.get("type") != "TemplateProcessing":
        return None
    for special in processor["special_tokens"].values():
        special["ids"] = [exchanged.get(number, number) for number in special["ids"]]
    order = torch.arange(len(embedding))
    order[end], order[last] = last, end
    return json.dumps(state, ensure_ascii=False), last, embedding[order]

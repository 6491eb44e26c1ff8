"""Texts to token ids and back, and the byte-level BPE that is trained on the data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from tokenizers import AddedToken, Encoding, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend
from torch import Tensor

__all__ = ["Side", "Tokenizer", "Tokenizers", "train_tokenizer"]

Side = Literal["left", "right"]

_PAD, _START, _END, _MASK = "<pad>", "<start>", "<end>", "<mask>"
_MASKS = (_MASK, "[MASK]", "<|mask|>")
"""Usual names of the mask token."""
_FORMAT, _FORMAT_OF_SEVERAL = 1, 2
_LONGEST_TEXT = 10_000
_PIECE = 64
_LONG_WORD = re.compile(rf"\S{{{_PIECE + 1},}}")
_MOST_IN_LONG_WORDS = 2_000_000


class Tokenizer:
    """A tokenizer with the ids of its special tokens; `start` and `end` are None if it adds none, `mask` if it has none.

    >>> tokenizer = train_tokenizer(["a red circle", "a blue star"], vocabulary_size=300)
    >>> ids, mask = tokenizer.encode(["a red star"], length=8)
    >>> tokenizer.decode(ids[0].tolist()), ids.shape == mask.shape == (1, 8)
    ('a red star', True)
    """

    def __init__(self, backend: Backend, pad: int | None = None, padding_side: Side = "right") -> None:
        # Otherwise `<end>` in a text would become the special token.
        backend.encode_special_tokens = True
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        marks = backend.encode("").ids
        single = backend.num_special_tokens_to_add(False) == 1
        self.start: int | None = marks[0] if marks and not single else None
        self.end: int | None = marks[-1] if marks else None
        # The padding mask marks padding, so any id will do if the tokenizer has none for it.
        self.pad: int = pad if pad is not None else self.end or 0
        self.padding_side: Side = padding_side
        """Where the texts were padded that a pretrained tower was trained on."""
        masks = (backend.token_to_id(name) for name in _MASKS)
        self.mask: int | None = next((number for number in masks if number is not None), None)

    @property
    def marks_around(self) -> int:
        """The number of special tokens that it adds to a text."""
        return int(self._backend.num_special_tokens_to_add(False))

    @property
    def vocabulary(self) -> dict[str, int]:
        """The id of every token, including special tokens."""
        return dict(self._backend.get_vocab(with_added_tokens=True))

    @property
    def vocabulary_size(self) -> int:
        """One more than the largest id."""
        return max(self.vocabulary.values()) + 1

    def marks(self) -> np.ndarray:
        """The ids of special tokens: start, end, padding if separate, and mask."""
        return self._marks

    def words(self) -> np.ndarray:
        """All other ids."""
        return self._words

    @cached_property
    def _marks(self) -> np.ndarray:
        added = {number for number, token in self._backend.get_added_tokens_decoder().items() if token.special}
        special = added | {number for number in (self.start, self.end, self.mask) if number is not None}
        return np.array(sorted(special), dtype=np.int64)

    @cached_property
    def _words(self) -> np.ndarray:
        ids = np.array(sorted(self.vocabulary.values()), dtype=np.int64)
        return np.setdiff1d(ids, self.marks())

    def with_mask(self) -> Tokenizer:
        """This tokenizer if it has a mask token; else a copy with one, at the next id."""
        if self.mask is not None:
            return self
        backend = Backend.from_str(self._backend.to_str())
        backend.add_special_tokens([AddedToken(_MASK, special=True)])
        return Tokenizer(backend, self.pad, self.padding_side)

    def encode(self, texts: Sequence[str], length: int, padding_side: Side = "right") -> tuple[Tensor, Tensor]:
        """Ids `int64 [b, length]` with the marks, and the mask `bool [b, length]`, true = a token (marks included).

        A longer text is cut before its end mark, a shorter one padded on that side whatever the tokenizer's own is, because
        towers take texts so. ValueError if `length` leaves no room for a token.
        """
        if length <= self.marks_around:
            raise ValueError(f"texts of {length} tokens have no room beside the special tokens")
        self._backend.enable_truncation(length)
        mark = self._backend.id_to_token(self.pad) or _PAD
        self._backend.enable_padding(direction=padding_side, length=length, pad_id=self.pad, pad_token=mark)
        encodings: list[Encoding] = self._backend.encode_batch_fast(list(texts))
        ids = torch.tensor([encoding.ids for encoding in encodings], dtype=torch.int64).view(len(encodings), length)
        mask = torch.tensor([encoding.attention_mask for encoding in encodings], dtype=torch.bool)
        return ids, mask.view(len(encodings), length)

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens of each text, uncut, including special tokens."""
        self._backend.no_padding()
        self._backend.no_truncation()
        return [len(encoding.ids) for encoding in self._backend.encode_batch_fast(list(texts))]

    def characters(self, text: str, length: int, padding_side: Side = "right") -> tuple[np.ndarray, np.ndarray]:
        """The first character of each token that `encode` makes of a text, and the one after its last: `int64 [length]`.

        Both are 0 of special tokens and padding, which stand for no part of the text.

        >>> tokenizer = train_tokenizer(["a red circle", "a blue star"], vocabulary_size=300)
        >>> first, last = tokenizer.characters("a red star", length=12)
        >>> sorted({"a red star"[i:j].strip() for i, j in zip(first, last)})[:2]
        ['', 'a']
        """
        return next(self.characters_of([text], length, padding_side))

    def characters_of(
        self, texts: Sequence[str], length: int, padding_side: Side = "right"
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same of several texts in turn, which takes less time."""
        self._backend.enable_truncation(length)
        self._backend.no_padding()
        for encoding in self._backend.encode_batch(list(texts)):
            special = np.array(encoding.special_tokens_mask, dtype=bool)
            offsets = np.where(special[:, None], 0, np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2))
            padded = np.zeros((length, 2), dtype=np.int64)
            start = length - len(offsets) if padding_side == "left" else 0
            padded[start : start + len(offsets)] = offsets
            yield padded[:, 0], padded[:, 1]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids without marks and padding; as the tokenizer saw it (lower case, blanks joined)."""
        text: str = self._backend.decode(list(ids), skip_special_tokens=True)
        return text.strip(" ")

    def to_json(self) -> str:
        """All of it as text; equal tokenizers give equal texts."""
        self._backend.no_padding()
        self._backend.no_truncation()
        return json.dumps(
            {
                "format": _FORMAT,
                "pad": self.pad,
                "padding_side": self.padding_side,
                "tokenizer": json.loads(self._backend.to_str()),
            },
            ensure_ascii=False,
        )

    def to_library_json(self) -> str:
        """The tokenizer as the package `tokenizers` reads it: `tokenizers.Tokenizer.from_str`."""
        self._backend.no_padding()
        self._backend.no_truncation()
        return str(self._backend.to_str())

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        """The tokenizer that `to_json` wrote."""
        state = json.loads(text)
        return cls(Backend.from_str(json.dumps(state["tokenizer"])), state["pad"], state.get("padding_side", "right"))

    def __reduce__(self) -> tuple[object, ...]:
        return (Tokenizer.from_json, (self.to_json(),))


@dataclass(frozen=True)
class Tokenizers:
    """The tokenizer of each text tower: the one in `of` under its name, else `default`."""

    default: Tokenizer
    of: Mapping[str, Tokenizer] = field(default_factory=dict)

    def __getitem__(self, tower: str) -> Tokenizer:
        return self.of.get(tower, self.default)

    def to_json(self) -> str:
        """All of them as text: that of the tokenizer where there is only one."""
        if all(tokenizer is self.default for tokenizer in self.of.values()):
            return self.default.to_json()
        written = {tower: json.loads(tokenizer.to_json()) for tower, tokenizer in self.of.items()}
        default = json.loads(self.default.to_json())
        return json.dumps({"format": _FORMAT_OF_SEVERAL, "default": default, "towers": written}, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Tokenizers:
        """What `to_json` wrote."""
        state = json.loads(text)
        if state["format"] == _FORMAT:
            return cls(Tokenizer.from_json(text))
        read = {
            one: Tokenizer.from_json(one)
            for one in dict.fromkeys(map(json.dumps, [state["default"], *state["towers"].values()]))
        }
        of = {tower: read[json.dumps(one)] for tower, one in state["towers"].items()}
        return cls(read[json.dumps(state["default"])], of)


def train_tokenizer(texts: Iterable[str], vocabulary_size: int = 2000) -> Tokenizer:
    """A byte-level BPE of at most `vocabulary_size` entries (at least 259: all bytes and three marks).

    Any text can be encoded. Capitals and the width of blanks are not told apart. Depends on the texts and not their order.
    Of each text the first 10,000 characters are learned from. What has no blank for 64 characters is learned in pieces, and
    of such words only the beginning once two million characters were: time grows with the square of a word's length, and few
    pieces are alike.
    """
    backend = Backend(models.BPE())
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Lowercase(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=[_PAD, _START, _END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(_in_pieces(texts), trainer)
    start, end = backend.token_to_id(_START), backend.token_to_id(_END)
    backend.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}", special_tokens=[(_START, start), (_END, end)]
    )
    return Tokenizer(backend, backend.token_to_id(_PAD))


def _in_pieces(texts: Iterable[str]) -> Iterator[str]:
    """The texts without overlong words: pieces of them instead, or their beginnings where there are too many."""
    left = _MOST_IN_LONG_WORDS

    def pieces(match: re.Match[str]) -> str:
        nonlocal left
        word = match[0] if left > 0 else match[0][:_PIECE]
        left -= len(word)
        return " ".join(word[start : start + _PIECE] for start in range(0, len(word), _PIECE))

    for text in texts:
        yield _LONG_WORD.sub(pieces, text[:_LONGEST_TEXT])

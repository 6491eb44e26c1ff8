"""The tokenizer: any text, exact lengths, and the same one again from the same texts or its own file."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.modules.towers.tokenizers import load_tokenizer
from vlmdsl.runtime.tokenizer import Tokenizer, train_tokenizer

TEXTS = [
    f"a {size} {colour} {shape}" for size in ("large", "small") for colour in ("red", "blue") for shape in ("circle", "box")
]
TOKENIZER = train_tokenizer(TEXTS, 320)


def test_marks_masks_and_padding() -> None:
    ids, mask = TOKENIZER.encode(["a red box", "a large blue circle"], 12)
    assert (ids.dtype, mask.dtype, ids.shape) == (torch.int64, torch.bool, (2, 12))
    for row, real in zip(ids.tolist(), mask.sum(1).tolist(), strict=True):
        assert (row[0], row[real - 1]) == (TOKENIZER.start, TOKENIZER.end)
        assert row[real:] == [TOKENIZER.pad] * (12 - real)
    assert mask[0].tolist() == sorted(mask[0].tolist(), reverse=True)
    assert TOKENIZER.decode(ids[1].tolist()) == "a large blue circle"


def test_a_long_text_is_cut_before_its_end_mark() -> None:
    whole, _ = TOKENIZER.encode(["a large red circle"], 32)
    ids, mask = TOKENIZER.encode(["a large red circle"], 4)
    assert mask.all()
    assert ids[0].tolist() == [*whole[0, :3].tolist(), TOKENIZER.end]
    with pytest.raises(ValueError, match="no room"):
        TOKENIZER.encode(["a"], 2)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3))
def test_any_text_can_be_encoded_and_read_again(texts: list[str]) -> None:
    ids, mask = TOKENIZER.encode(texts, 400)
    assert ids.shape == mask.shape == (len(texts), 400)
    for text, row in zip(texts, ids.tolist(), strict=True):
        again, _ = TOKENIZER.encode([TOKENIZER.decode(row)], 400)
        assert again[0].tolist() == row
        if text.isascii() and text.isprintable():
            assert TOKENIZER.decode(row) == " ".join(text.lower().split())


def test_marks_in_a_text_are_words() -> None:
    ids, mask = TOKENIZER.encode(["a <end><pad><start> b"], 40)
    row = ids[0][mask[0]].tolist()
    assert [row.count(mark) for mark in (TOKENIZER.start, TOKENIZER.end, TOKENIZER.pad)] == [1, 1, 0]


def test_capitals_blanks_and_composed_characters_are_not_distinguished() -> None:
    ids, _ = TOKENIZER.encode(["a  RED\n box ", "a red box", "café", "cafe\u0301"], 16)
    assert torch.equal(ids[0], ids[1])
    assert torch.equal(ids[2], ids[3])


def test_training_depends_on_the_texts_alone() -> None:
    again = train_tokenizer(list(reversed(TEXTS)), 320)
    assert again.to_json() == TOKENIZER.to_json()
    assert train_tokenizer(TEXTS, 270).vocabulary_size == 270
    assert train_tokenizer([], 300).vocabulary_size == 259


def test_it_goes_through_json_files_and_processes(tmp_path: Path) -> None:
    ids, mask = TOKENIZER.encode(["a red box"], 8)
    text = TOKENIZER.to_json()
    (tmp_path / "ours.json").write_text(text)
    (tmp_path / "plain.json").write_text(json.dumps(json.loads(text)["tokenizer"]))
    copies = [
        Tokenizer.from_json(text), pickle.loads(pickle.dumps(TOKENIZER)),
        load_tokenizer(str(tmp_path / "ours.json")), load_tokenizer(str(tmp_path / "plain.json")),
    ]  # fmt: skip
    for copy in copies:
        assert torch.equal(copy.encode(["a red box"], 8)[0], ids)
        assert torch.equal(copy.encode(["a red box"], 8)[1], mask)
        assert (copy.pad, copy.start, copy.end) == (TOKENIZER.pad, TOKENIZER.start, TOKENIZER.end)
        assert copy.to_json() == text


@pytest.mark.parametrize("content", [None, "{", "{}", "[]", '"x"', '{"tokenizer": {}, "pad": 0}', b"\xff"])
def test_what_is_not_a_tokenizer(tmp_path: Path, content: str | bytes | None) -> None:
    path = tmp_path / "t.json"
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DiagnosticError) as caught:
        load_tokenizer(str(path))
    assert caught.value.diagnostics[0].code == "V0822"


def test_a_tokenizer_of_transformers(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    backend = TOKENIZER._backend
    loaded = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", eos_token="<end>")
    loaded.save_pretrained(tmp_path)
    ours = load_tokenizer(f"hf:{tmp_path}")
    assert torch.equal(ours.encode(["a red box"], 9)[0], TOKENIZER.encode(["a red box"], 9)[0])
    assert (ours.pad, ours.end) == (TOKENIZER.pad, TOKENIZER.end)
    with pytest.raises(DiagnosticError) as caught:
        load_tokenizer(f"hf:{tmp_path / 'nowhere'}")
    assert caught.value.diagnostics[0].code == "V0822"


def test_a_mask_token_is_added_behind_the_others_and_kept() -> None:
    assert TOKENIZER.mask is None
    before = TOKENIZER.to_json()
    masked = TOKENIZER.with_mask()
    assert (masked.mask, masked.vocabulary_size) == (TOKENIZER.vocabulary_size, TOKENIZER.vocabulary_size + 1)
    assert TOKENIZER.to_json() == before
    again = Tokenizer.from_json(masked.to_json())
    assert again.mask == masked.mask
    assert again.with_mask() is again
    # The words of a text are never taken for the mask.
    ids, mask = masked.encode(["a <mask>"], 20)
    assert masked.mask not in ids[mask]
    assert not set(masked.words()) & {masked.pad, masked.start, masked.end, masked.mask}
    assert len(masked.words()) == masked.vocabulary_size - 4

"""Texts swapped with those of other samples: which they are, and one draw for all views of a text."""

from __future__ import annotations

import torch

import vlmdsl
from vlmdsl.ir import readings, streams
from vlmdsl.runtime.data import BatchLoader, map_fields, open_source, requirements
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import ImageFormat, TextFormat, masked_batch
from vlmdsl.runtime.values.mask import MaskedText

RECIPE = """recipe swapped(image: Image, text: Text)
let caption = swap(text, share=50%)
minimize {
  pairs: contrast(image, caption, queries=matches(caption))
  words: mlm(mask(caption, random(15%), hidden=0, replaced=0))
}"""


def test_a_text_is_that_of_its_sample_or_of_another() -> None:
    program = vlmdsl.compile(RECIPE, compiled=False).program
    source = open_source(("shapes:samples=40,size=16",))
    texts = [str(source[index]["text"]) for index in range(len(source))]
    tokenizer = train_tokenizer(texts, 300).with_mask()
    form = TextFormat(tokenizer, 40)
    mapping = map_fields(source, requirements(program))
    forms = {"Image": ImageFormat(16), "Text": form}
    loader = BatchLoader(source, mapping, readings(streams(program), lambda encoder, node: forms[node.type.kind]), batch=40)
    batch = next(iter(loader))
    own, plain, masked = (batch.values[name] for name in ("text_swap.own", "text_swap", "text_swap_masked"))
    expected = form.encode([texts[index] for index in batch.index.tolist()])
    equal = (plain.ids == expected.ids).all(dim=1)
    assert torch.equal(equal, own.own)
    assert 10 < int(own.own.sum()) < 30
    assert torch.equal(masked.ids, plain.ids)  # of what it selects nothing is hidden
    assert torch.equal(batch.values["text_swap_masked.own"].own, own.own)


def test_whole_words_are_masked() -> None:
    words = ["extraordinary", "circumstances", "undoubtedly", "notwithstanding"]
    tokenizer = train_tokenizer(["a bird"], 260).with_mask()  # a token for each letter
    form = TextFormat(tokenizer, 80)
    texts = [MaskedText(" ".join(words), 0.5, 1.0, 0.0, ("key", number), "whole_words") for number in range(20)]
    changed, masked = masked_batch(texts, form)
    hidden = (masked.targets >= 0).numpy()
    assert (changed.ids.numpy()[hidden] == tokenizer.mask).all()
    for row in hidden:
        shown = [
            {bool(row[place]) for place, (first, last) in enumerate(zip(*form.characters(texts[0].text), strict=True))
             if last > first and begin <= first and last <= end and texts[0].text[first:last].strip()}
            for begin, end in _places(words)
        ]  # fmt: skip
        assert all(len(states) == 1 for states in shown)
        assert 0 < sum(states == {True} for states in shown) < len(words)


def test_padding_before_texts_changes_no_word_that_is_masked() -> None:
    tokenizer = train_tokenizer(["a bird"], 260).with_mask()  # a token for each letter
    texts = [MaskedText(text, 0.5, 1.0, 0.0, (text,), "whole_words") for text in ("a bird on a wire", "a b", "", "bird")]
    after, before = (masked_batch(texts, TextFormat(tokenizer, 24, side)) for side in ("right", "left"))
    for row in range(len(texts)):
        words = after[0].mask[row]
        assert torch.equal(after[1].targets[row][words], before[1].targets[row][before[0].mask[row]])
    assert (after[1].targets >= 0).any(dim=1).tolist() == [True, True, False, False], "the only word is too long"


def test_spans_of_tokens_are_masked() -> None:
    tokenizer = train_tokenizer(["a bird"], 260).with_mask()  # a token for each letter
    form = TextFormat(tokenizer, 80)
    letters = "abcdefghijklmnopqrstuvwxyz" * 2
    texts = [MaskedText(letters, 0.25, 1.0, 0.0, ("key", number), "spans", (("mean_length", 4.0),)) for number in range(40)]
    changed, masked = masked_batch(texts, form)
    plain = form.encode([letters]).ids[0]
    words = ~torch.isin(plain, torch.tensor(sorted(tokenizer.marks())))
    hidden = masked.targets >= 0
    assert set((hidden & words).sum(1).tolist()) == {round(0.25 * int(words.sum()))}
    assert not hidden[:, ~words].any(), "special tokens are in no span"
    assert not hidden[:, words.nonzero()[0]].any(), "nor is the first token"
    starts = (hidden[:, 1:] & ~hidden[:, :-1]).sum(1)
    assert set(starts.tolist()) == {round(int(hidden[0].sum()) / 4)}
    assert len({tuple(row.tolist()) for row in hidden}) > 30, "each sample has its own"
    assert torch.equal(masked_batch(texts[3:4], form)[0].ids[0], changed.ids[3]), "whatever else is in the batch"
    assert (changed.ids[hidden] == tokenizer.mask).all()


def test_a_text_too_short_for_a_span_stays_whole() -> None:
    form = TextFormat(train_tokenizer(["a bird"], 260).with_mask(), 8)
    _, masked = masked_batch([MaskedText("", 0.5, 1.0, 0.0, ("key",), "spans", (("mean_length", 3.0),))], form)
    assert not (masked.targets >= 0).any()


def _places(words: list[str]) -> list[tuple[int, int]]:
    ends = [len(" ".join(words[: count + 1])) for count in range(len(words))]
    return [(max(end - len(word) - 1, 0), end) for word, end in zip(words, ends, strict=True)]

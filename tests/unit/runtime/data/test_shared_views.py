"""What several values of a sample have in common is made once, and is what each of them has by itself."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import vlmdsl
from batches import streams_in_forms
from vlmdsl.ir import readings, streams
from vlmdsl.runtime.data import BatchLoader, map_fields, open_source, requirements, views
from vlmdsl.runtime.data.sample import SampleReader
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import Batch, ImageBatch, ImageFormat

VIEW = "recipe shown(image: Image, text: Text)\nlet view = augment(image)\n"
TERMS = {
    "whole": "contrast(view, text)",
    "blocks": "contrast(mask(view, blocks(50%, smallest=10%, aspect=0.3)), text)",
    "dropped": "contrast(drop(view, random(50%)), text)",
}
SWAPPED = """recipe swapped(image: Image, text: Text)
let caption = swap(text, share=50%)
minimize {
  pairs: contrast(image, caption, queries=matches(caption))
  words: mlm(mask(caption, random(15%)))
}"""


def first_batch(recipe: str) -> Batch:
    program = vlmdsl.compile(recipe, compiled=False).program
    source = open_source(("shapes:samples=24,size=20",))
    tokenizer = train_tokenizer((str(source[index]["text"]) for index in range(len(source))), 300).with_mask()
    taken = streams_in_forms(readings(streams(program)), ImageFormat(16, patch=4), tokenizer, 24)
    return next(iter(BatchLoader(source, map_fields(source, requirements(program)), taken, batch=16, seed=5)))


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str) -> list[object]:
    """The results of all calls of a function, from now on."""
    calls, function = list[object](), getattr(owner, name)

    def count(*arguments: Any) -> Any:
        calls.append(function(*arguments))
        return calls[-1]

    monkeypatch.setattr(owner, name, count)
    return calls


def test_a_view_and_masks_of_it_show_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = [_pixels(first_batch(f"{VIEW}minimize {{\n  {name}: {term}\n}}")) for name, term in TERMS.items()]
    calls = counted(monkeypatch, views, "augmented")
    terms = "\n".join(f"  {name}: {term}" for name, term in TERMS.items())
    together = _pixels(first_batch(f"{VIEW}minimize {{\n{terms}\n}}"))
    assert len(calls) == 16, "one crop for each sample"
    assert len(together) == len(TERMS)
    for one in (*together, *(pixels for of_one in alone for pixels in of_one)):
        assert torch.equal(one, together[0])


def _pixels(batch: Batch) -> list[torch.Tensor]:
    return [value.pixels for value in batch.values.values() if isinstance(value, ImageBatch)]


def test_another_text_is_looked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch, SampleReader, "_swapped")
    values = first_batch(SWAPPED).values
    assert len(calls) == 16
    plain, masked = values["text_swap"], values["text_swap_masked"]
    assert torch.equal(plain.mask, masked.mask)
    assert torch.equal(values["text_swap.own"].own, values["text_swap_masked.own"].own)

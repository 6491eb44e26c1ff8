"""Image-text matching and masked words on held-out samples, with modules whose answers are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import vlmdsl
from vlmdsl.backends.torch.step import Step
from vlmdsl.planning import applied_of
from vlmdsl.runtime.evaluation import (
    HardNegatives,
    masked_word_accuracy,
    masked_words_of,
    matching_accuracy,
    matching_of,
)
from vlmdsl.runtime.evaluation.mined import mined_by_comparison
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules import SequenceFeatures
from vlmdsl.runtime.modules.towers import TextConfig, TextTransformer, VisionConfig, VisionTransformer
from vlmdsl.runtime.tokenizer import train_tokenizer
from vlmdsl.runtime.values import Batch, ImageBatch, MaskedTokens, ReplacedPatches, TextFormat, Value, port, take

RECIPE = """recipe matched_pairs(image: Image, text: Text)
encoder fusion = fuse(depth=1)
let logits = similarity(image, text)
let wrong_text = mine(logits, along="rows")
let wrong_image = mine(logits, along="columns")
minimize {
  itm: matched(text | image, take(text, wrong_text) | image, text | take(image, wrong_image))
  mlm: mlm(mask(text, random(30%)) | image)
}
"""
KEPT = """recipe matched_pairs(image: Image, text: Text, key: Key)
encoder fusion = fuse(depth=1)
let keys = queue(key, size=9)
let texts = queue(stop(text), size=9)
let words = queue(text, size=9, keep="inputs")
let earlier = exclude_pairs(similarity(image, texts), key=key, keys=keys)
let wrong_text = mine(unite(similarity(image, text), earlier), along="rows")
minimize {
  itm: matched(text | image, take(text, wrong_text, queue=words) | image)
  mlm: mlm(mask(text, random(30%)) | image)
}
"""
"""Negatives of the batch and of earlier steps."""
COLOURS = ("red", "blue", "green", "red")
TEXTS = [f"a {colour} disc" for colour in COLOURS]
"""The last sample is as the first."""
TOKENIZER = train_tokenizer(TEXTS, 300).with_mask()
FORM = TextFormat(TOKENIZER, 6)
ENTRIES = {entry: TOKENIZER.decode([entry]).strip() for entry in range(TOKENIZER.vocabulary_size)}
WORDS = FORM.encode(TEXTS)


class Answer(nn.Module):
    """A fusion module whose pooled features are (0, 1) for pairs and (1, 0) for others, or always the same, and whose token
    states are the number of the image."""

    def __init__(self, *, always: bool) -> None:
        super().__init__()
        self.always = always
        self.texts, self.images = torch.zeros(0), torch.zeros(0)

    def forward(self, states: Tensor, mask: Tensor, context: Tensor) -> SequenceFeatures:
        image = torch.cdist(context.flatten(1), self.images).argmin(dim=1)
        text = torch.cdist(states.flatten(1), self.texts).argmin(dim=1)
        match = torch.ones_like(text, dtype=torch.bool) if self.always else text % 3 == image % 3
        pooled = nn.functional.one_hot(match.long(), 2).float()
        return SequenceFeatures(image[:, None, None].expand(*states.shape[:2], 1).float(), mask, pooled)


class Colours(nn.Module):
    """The logits of the colour of the image that the states are the number of."""

    def forward(self, states: Tensor) -> Tensor:
        entries = torch.tensor([next(entry for entry, word in ENTRIES.items() if word == colour) for colour in COLOURS])
        return 5 * nn.functional.one_hot(entries[states[..., 0].long()], len(ENTRIES)).float()


class Same(nn.Module):
    """A head that gives what it takes."""

    def forward(self, views: list[Tensor]) -> list[Tensor]:
        return views


def model_of(*, always: bool = False, recipe: str = RECIPE) -> VisionLanguageModel:
    torch.manual_seed(0)
    vision = VisionTransformer(VisionConfig(8, 4, 8, 1, 2), 4, ("pooled", "states"), replaced_patches=True)
    shape = TextConfig(vocabulary_size=len(ENTRIES), text_length=6, width=8, depth=1, heads=2)
    language = TextTransformer(shape, 4, ("pooled", "states"))
    language.text_format = FORM
    model = VisionLanguageModel({"vision": vision, "language": language}, vlmdsl.compile(recipe, compiled=False))
    answer = Answer(always=always)
    with torch.no_grad():
        answer.images = vision.eval()(PIXELS).states.flatten(1)
        answer.texts = language.eval()(*WORDS).states.flatten(1)
    (head,) = model.heads.parts
    model.fusions.parts["fusion"], model.heads.parts[head] = answer, Same()
    model.vocabularies.parts["fusion"] = Colours()
    return model


PIXELS = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def batch_of(model: VisionLanguageModel) -> Batch:
    colours = torch.isin(WORDS.ids, torch.tensor([entry for entry, word in ENTRIES.items() if word in COLOURS]))
    assert colours.sum(dim=1).tolist() == [1, 1, 1, 1]
    discs = torch.isin(WORDS.ids, torch.tensor([entry for entry, word in ENTRIES.items() if word == "disc"]))
    masked = MaskedTokens(torch.where(colours | discs, WORDS.ids, -100))
    values = {"image": ImageBatch(PIXELS), "text": WORDS, "text_masked": WORDS, port("text_masked", "masked"): masked}
    assert {reading.name for reading in model.readings} == {"image", "text", "text_masked"}
    return Batch(values, torch.arange(4), list("abcd"))


def test_negatives_of_queues_are_measured_among_those_of_the_batch() -> None:
    model = model_of(recipe=KEPT)
    batch, matching = batch_of(model), matching_of(model.objective.program)
    assert matching is not None
    model.train()(replace(batch, draws={"wrong_text_uniform": torch.rand(4)}))
    before = {name: value.clone() for name, value in model.objective.state.state_dict().items()}
    assert before["words_written"] == 4
    measures = matching_accuracy(model, [batch], matching)
    assert measures is not None
    assert (measures.values["pairs"], measures.values["mined"]) == (1.0, 1.0)
    assert measures.facts["mined"] in range(1, 5)
    after = model.objective.state.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@pytest.mark.parametrize("always", [False, True])
def test_an_answer_that_is_always_the_same_has_one_half(always: bool) -> None:
    model = model_of(always=always)
    matching = matching_of(model.objective.program)
    assert matching is not None
    measures = matching_accuracy(model, [batch_of(model)], matching)
    assert measures is not None
    wrong = 0.0 if always else 1.0
    expected = {"pairs": 1.0, "mined": wrong, "random": wrong}
    assert measures.values == expected | {"balanced": (1 + wrong) / 2, "balanced random": (1 + wrong) / 2}
    # Eight are mined; those whose text is that of the pair are not negatives.
    assert measures.facts["pairs"] == 4
    assert 4 <= measures.facts["mined"] < 8
    assert model.training


def test_hard_negatives_are_counted_by_what_is_wrong() -> None:
    model = model_of()
    matching = matching_of(model.objective.program)
    assert matching is not None
    assert matching.text == "text"
    batch = batch_of(model)
    # The texts of other samples, of which the first is right; the kind of the last is not known.
    wrong = take(WORDS, torch.tensor([3, 0, 1, 1]))
    kinds = {0: "size", 1: "colour", 2: "colour"}
    hard = HardNegatives([replace(batch, values={**batch.values, "text": wrong})], kinds.get)
    measures = matching_accuracy(model, [batch], matching, hard)
    assert measures is not None
    assert measures.values["wrong colour"] == 1.0
    assert measures.values["wrong size"] == 0.0
    assert measures.values["wrong"] == pytest.approx(2 / 3)
    assert measures.values["balanced wrong"] == pytest.approx(5 / 6)
    assert set(measures.chance) == set(measures.values)


MASKED = """recipe masked_pairs(image: Image, text: Text)
encoder fusion = fuse(depth=1)
let caption = swap(text)
let selected = random(30%)
let both = mask(caption, selected) | mask(image, blocks(50%))
minimize {
  itm: matching(both, matches(caption))
  mlm: token_loss(linear(both), caption, at=selected)
}
"""


def test_what_a_recipe_masks_is_read_whole() -> None:
    model = model_of(recipe=MASKED)
    hidden = torch.isin(WORDS.ids, torch.tensor([entry for entry, word in ENTRIES.items() if word in COLOURS]))
    assert TOKENIZER.mask is not None
    masked = WORDS._replace(ids=torch.where(hidden, TOKENIZER.mask, WORDS.ids))
    names = {reading.name for reading in model.readings}
    values: dict[str, Value] = {"image": ImageBatch(PIXELS), "text": WORDS}
    for name in names - values.keys():
        what = ("replace", ReplacedPatches(torch.ones(4, 4, dtype=torch.bool)))
        if name.startswith("text"):
            what = ("masked", MaskedTokens(torch.where(hidden, WORDS.ids, -100)))
        values |= {name: masked if name.startswith("text") else ImageBatch(PIXELS), port(name, what[0]): what[1]}
    batch = Batch(values, torch.arange(4), list("abcd"))
    matching, words = matching_of(model.objective.program), masked_words_of(model.objective.program)
    assert matching is not None
    assert words is not None
    measures = matching_accuracy(model, [batch], matching)
    assert measures is not None
    assert measures.values["pairs"] == measures.values["random"] == 1.0
    predicted = masked_word_accuracy(model, [batch], words, {"colours": frozenset(COLOURS)})
    assert predicted is not None
    assert predicted.values == {"accuracy": 1.0, "colours": 1.0}


def test_masked_words_are_compared_with_what_can_be_said_without_the_image() -> None:
    model = model_of()
    masked = masked_words_of(model.objective.program)
    assert masked is not None
    words = {"colours": frozenset(COLOURS), "sizes": frozenset({"large"})}
    measures = masked_word_accuracy(model, [batch_of(model)], masked, words)
    assert measures is not None
    # All colours and no disc. Without the image red is more likely than the others, except for one of the red discs.
    assert measures.values == {"accuracy": 0.5, "colours": 1.0}
    assert measures.facts == {"words": 8}
    # Evidence and comparisons read the measures that have a chance.
    assert measures.chance == dict.fromkeys(measures.values, 1 / len(ENTRIES))
    assert measures.baselines["without image"]["colours"] < 1.0


def test_a_recipe_with_labels_mines_no_negatives() -> None:
    recipe = "recipe labelled(image: Image, text: Text)\nencoder fusion = fuse(depth=1)\nlet caption = swap(text)\n"
    program = vlmdsl.compile(f"{recipe}minimize matching(caption | image, matches(caption))", compiled=False).program
    matching = matching_of(program)
    assert matching is not None
    assert matching.negatives == ()


COMPARED = """recipe labelled(image: Image, text: Text)
encoder fusion = fuse(depth=1)
let caption = swap(text)
minimize {
  itm: matching(caption | image, matches(caption))
  pairs: contrast(image, caption)
}
"""


@pytest.mark.parametrize("always", [False, True])
def test_for_a_recipe_that_mines_none_negatives_are_mined_by_its_comparison(always: bool) -> None:
    model = model_of(recipe=COMPARED, always=always)
    name = next(reading.name for reading in model.readings if reading.name.startswith("text"))
    batch = Batch({"image": ImageBatch(PIXELS), name: WORDS}, torch.arange(4), list("abcd"))
    matching = matching_of(model.objective.program)
    assert matching is not None
    assert matching.negatives == ()
    measures = matching_accuracy(model, [batch], matching)
    assert measures is not None
    # Answers are right where neither side is of the last sample, which is as the first.
    assert measures.values["pairs"] == 1.0
    assert measures.values["mined"] == (0.0 if always else 1.0)
    assert measures.values["balanced"] == (0.5 if always else 1.0)
    assert measures.facts["mined"] > 0


def test_the_most_similar_image_of_another_sample_is_mined() -> None:
    model = model_of(recipe=COMPARED)
    name = next(reading.name for reading in model.readings if reading.name.startswith("text"))
    environment = model.begin(Batch({"image": ImageBatch(PIXELS), name: WORDS}, torch.arange(4), list("abcd")))
    Step(model.objective, model)(environment)
    sides = {stream.encoder.tower: applied_of(stream.encode) for stream in model.streams if stream.pooled}
    text = torch.eye(4)
    image = text.roll(-1, dims=0) + 0.9 * torch.eye(4)  # most like its own text, then like the next one's
    for tower, features in {"vision": image, "language": text}.items():
        environment[sides[tower]] = environment[sides[tower]]._replace(pooled=features)
    for seed in range(5):
        mined = mined_by_comparison(model, environment, torch.Generator().manual_seed(seed))
        assert mined is not None
        assert mined.tolist() == [3, 0, 1, 2]

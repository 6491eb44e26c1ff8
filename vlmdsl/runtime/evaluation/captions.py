"""What a text decoder says of held-out images: how well it predicts their captions, and the captions that it writes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vlmdsl.backends.torch.applied import states_input
from vlmdsl.backends.torch.step import Environment
from vlmdsl.ir import Node, Program, Writing, decoded_texts, encoder_of, parts_of, root_field, walk, writes
from vlmdsl.ir.operations.encoding import ENCODE, context_of
from vlmdsl.ir.operations.mining import FETCH
from vlmdsl.ir.operations.scalars import STOP
from vlmdsl.runtime.evaluation.features import evaluation_mode
from vlmdsl.runtime.evaluation.generation import write
from vlmdsl.runtime.evaluation.named_objects import Objects, right_shares
from vlmdsl.runtime.evaluation.retrieval import Example, Measures
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.model.applied import apply_modules
from vlmdsl.runtime.modules.towers import Encoder, KeyValueCache
from vlmdsl.runtime.values import (
    Batch,
    ImageBatch,
    ImageFormat,
    Prefix,
    TextBatch,
    TextFormat,
    TowerInput,
    Value,
    next_ids,
    prompted,
    to,
    token_ids,
)

__all__ = [
    "Captioning", "CaptionSettings", "caption_measures", "captioning_of", "captions_of", "written_captions",
    "writing_captioning",
]  # fmt: skip

_EXAMPLES = 12
"""The captions that are shown in a picture."""


@dataclass(frozen=True)
class Captioning:
    """A text decoder of a program: the `encode` node of the text that it predicts, the fields of the `text` and of its
    `prompt`, and the `encode` node of the `image` that it attends to; the last two may be missing."""

    encode: Node
    text: str
    prompt: str | None
    image: Node | None

    @property
    def tower(self) -> str:
        """The decoder, by name."""
        return encoder_of(self.encode).tower

    @property
    def image_tower(self) -> str:
        """The tower of the image, which there must be."""
        assert self.image is not None
        return encoder_of(self.image).tower

    @property
    def image_field(self) -> str | None:
        """The field of the image."""
        return None if self.image is None else root_field(self.image.inputs[0]).string("name")


def captioning_of(program: Program) -> Captioning | None:
    """The first text decoder of a program, by preference one with an image; None if it has none."""
    captionings = [_captioning(encode) for encode in decoded_texts(program)]
    return next((own for own in captionings if own.image is not None), next(iter(captionings), None))


def writing_captioning(program: Program, writing: Writing) -> Captioning | None:
    """The first text decoder of a program that can write this; None if it has none."""
    return next((_captioning(encode) for encode in decoded_texts(program) if writes(encode, writing)), None)


def _captioning(encode: Node) -> Captioning:
    *prompt, text = (root_field(part).string("name") for part in parts_of(encode.inputs[0]))
    context = _attended(encode)
    encoded = [] if context is None else [node for node in walk([context]) if node.operation is ENCODE]
    return Captioning(encode, text, prompt[0] if prompt else None, encoded[0] if encoded else None)


def _attended(encode: Node) -> Node | None:
    """The tokens that a text attends to: of the sample itself, where training takes those of another one or stops their
    gradient."""
    context = context_of(encode)
    while context is not None and context.operation in (STOP, FETCH):
        context = context.inputs[0]
    return context


@dataclass(frozen=True)
class CaptionSettings:
    """How captions are written: for at most `most` images, by a search with so many `beams`. `scores` computes further
    measures of what was written, from the captions and the references."""

    most: int = 500
    beams: int = 1
    scores: Callable[[Sequence[str], Sequence[str]], Mapping[str, float]] | None = None


class _Text(NamedTuple):
    """Captions as a decoder is given them, how much of each is a prompt, and the captions alone."""

    whole: TextBatch
    prefix: Prefix | None
    own: TextBatch


class _Context(NamedTuple):
    """What captions attend to: `tokens [b, K, C]`, with their mask."""

    tokens: Tensor
    mask: Tensor | None

    def of(self, samples: Tensor) -> _Context:
        """The same for these samples."""
        return _Context(self.tokens[samples], None if self.mask is None else self.mask[samples])

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of a decoder."""
        return {"context": self.tokens} if self.mask is None else {"context": self.tokens, "context_mask": self.mask}


@dataclass
class _Counts:
    """Tokens that were predicted right, of all, with the own image and with another one."""

    right: int = 0
    right_blind: int = 0
    tokens: int = 0
    tokens_blind: int = 0
    images: int = 0
    written: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    """References of another image of the same batch."""
    places: list[int] = field(default_factory=list)
    other_places: list[int] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)


def caption_measures(
    model: VisionLanguageModel,
    batches: Iterable[Batch],
    captioning: Captioning,
    settings: CaptionSettings | None = None,
    objects: Sequence[Callable[[int], Objects | None]] = (),
) -> Measures | None:
    """How well captions of held-out images are predicted, and how right the ones are that the decoder writes; None without
    any caption.

    Batches hold the image, the text and the prompt under the names of their fields. `token accuracy` is the share of tokens
    that are the most likely ones after the true tokens before them, a prompt apart. Captions are written without them:
    `exact` is the share of those equal to the reference, as the tokenizer decodes both. Each of `objects` says what a
    sample shows, in words, by its index; see `right_shares`, of the first one whose words the references have. The baseline
    `blind` is given the image of another sample, or what is written for one. The model is left in the mode it was in.
    """
    settings, counts = settings or CaptionSettings(), _Counts()
    with evaluation_mode(model):
        device = next(model.encoders.parameters()).device
        for batch in batches:
            moved = replace(batch, values={name: to(value, device) for name, value in batch.values.items()})
            _count(model, moved, captioning, settings, counts)
    if not counts.tokens:
        return None
    values = {"token accuracy": counts.right / counts.tokens}
    blind = {"token accuracy": counts.right_blind / counts.tokens_blind} if counts.tokens_blind else {}
    if counts.written:
        own = _written(counts.written, counts.references, objects, counts.places)
        other = _written(counts.written, counts.others, objects, counts.other_places)
        values, blind = values | own, blind | {name: other[name] for name in own if name in other}
        if settings.scores is not None:
            values |= settings.scores(counts.written, counts.references)
    size = model.encoders.encoder(captioning.tower).vocabulary_size or 1
    baselines = {"blind": blind} if captioning.image is not None and blind else {}
    facts = {"images": counts.images, "written": len(counts.written)}
    # Tokens that are drawn at random make no caption.
    chance = {**dict.fromkeys(values, 0.0), "token accuracy": 1 / size}
    return Measures(values, chance, facts, baselines, tuple(counts.examples))


def written_captions(
    model: VisionLanguageModel, captioning: Captioning, images: ImageBatch, *, prompt: str = "", beams: int = 1
) -> list[str]:
    """The caption that the decoder writes of each of these images, after a `prompt` where the decoder was trained with
    them."""
    prompts: TextBatch | None = None
    if captioning.prompt is not None:
        form = model.encoders[captioning.tower].text_format
        assert isinstance(form, TextFormat)
        prompts = form.encode([prompt] * len(images.pixels))
    return captions_of(model, captioning, images, prompts, beams=beams)


def captions_of(
    model: VisionLanguageModel,
    captioning: Captioning,
    images: ImageBatch,
    prompts: TextBatch | None = None,
    *,
    beams: int = 1,
) -> list[str]:
    """The same after a prompt of its own for each image, in the format of the decoder."""
    tower, count, device = model.encoders.encoder(captioning.tower), len(images.pixels), images.pixels.device
    form = tower.text_format
    assert isinstance(form, TextFormat)
    assert captioning.image_field is not None
    values: dict[str, Value] = {captioning.image_field: images}
    values[captioning.text] = to(form.encode([""] * count), device)
    if captioning.prompt is not None:
        assert prompts is not None
        values[captioning.prompt] = to(prompts, device)
    batch = Batch(values, torch.arange(count), [str(number) for number in range(count)])
    with evaluation_mode(model):
        context, chosen = _context(model, batch, captioning), torch.arange(count, device=device)
        return _captions(tower, _text(batch, captioning), context, chosen, beams)


def _written(
    written: Sequence[str],
    references: Sequence[str],
    objects: Sequence[Callable[[int], Objects | None]],
    places: Sequence[int],
) -> dict[str, float]:
    exact = sum(own == reference for own, reference in zip(written, references, strict=True)) / len(written)
    shares = (right_shares(written, references, [shown(place) for place in places]) for shown in objects)
    return {"exact": exact, **next(filter(None, shares), {})}


def _count(
    model: VisionLanguageModel, batch: Batch, captioning: Captioning, settings: CaptionSettings, counts: _Counts
) -> None:
    """Adds what one batch has to the counts."""
    tower, text = model.encoders.encoder(captioning.tower), _text(batch, captioning)
    context = None if captioning.image is None else _context(model, batch, captioning)
    samples = torch.arange(len(text.own.ids), device=text.own.ids.device)
    right, tokens = _predicted(tower, text, context, samples)
    counts.right, counts.tokens, counts.images = counts.right + right, counts.tokens + tokens, counts.images + len(samples)
    if context is None:
        return
    others = samples.roll(1)
    if len(samples) > 1:
        right, tokens = _predicted(tower, text, context, others)
        counts.right_blind, counts.tokens_blind = counts.right_blind + right, counts.tokens_blind + tokens
    left = settings.most - len(counts.written)
    if left <= 0 or len(samples) == 1:
        return
    chosen = samples[:left]
    captions = _captions(tower, text, context, chosen, settings.beams)
    references = _decoded(tower, text.own)
    counts.written += captions
    counts.references += references[: len(chosen)]
    counts.others += [references[other] for other in others[: len(chosen)].tolist()]
    counts.places += batch.index[: len(chosen)].tolist()
    counts.other_places += batch.index[others[: len(chosen)].cpu()].tolist()
    if not counts.examples:
        counts.examples = _examples(model, batch, captioning, captions, references)


def _text(batch: Batch, captioning: Captioning) -> _Text:
    own = batch.values[captioning.text]
    assert isinstance(own, TextBatch)
    if captioning.prompt is None:
        return _Text(own, None, own)
    prompt = batch.values[captioning.prompt]
    assert isinstance(prompt, TextBatch)
    whole, lengths = prompted(prompt, own)
    return _Text(whole, Prefix(lengths), own)


def _context(model: VisionLanguageModel, batch: Batch, captioning: Captioning) -> _Context:
    """What the decoder attends to, as the modules of the program encode the images."""
    context, image = _attended(captioning.encode), captioning.image
    assert context is not None
    assert image is not None
    assert captioning.image_field is not None
    source, form = image.inputs[0], model.form(captioning.image_tower, "Image")
    environment: Environment = {source: {form: TowerInput(batch.values[captioning.image_field])}}
    apply_modules(model, context, environment)
    return _Context(*states_input(context, environment))


def _predicted(tower: Encoder, text: _Text, context: _Context | None, samples: Tensor) -> tuple[int, int]:
    """How many tokens are the most likely ones given those before them and the context of these samples, and of how many."""
    words = TextBatch(*(part[:, :-1] for part in text.whole))
    states = _states(tower, words, text.prefix, None if context is None else context.of(samples))
    expected = next_ids(token_ids(text.whole, None), text.prefix)[:, : states.shape[1]]
    counted = expected >= 0
    assert tower.vocabulary_head is not None
    likeliest = tower.vocabulary_head(states[counted]).argmax(dim=1)
    return int((likeliest == expected[counted]).sum()), int(counted.sum())


def _states(
    tower: Encoder, words: TextBatch, prefix: Prefix | None, context: _Context | None, cache: KeyValueCache | None = None
) -> Tensor:
    arguments = {} if context is None else context.arguments
    if prefix is not None:
        arguments["prefix"] = prefix.lengths
    if cache is not None:
        arguments["cache"] = cache
    states: Tensor = tower(words.ids, words.mask, **arguments).states
    return states


def _captions(tower: Encoder, text: _Text, context: _Context, chosen: Tensor, beams: int) -> list[str]:
    """The captions that the decoder writes of these images, after their prompts."""
    form = tower.text_format
    assert isinstance(form, TextFormat)
    lengths = torch.ones_like(chosen) if text.prefix is None else text.prefix.lengths[chosen]
    longest, most = int(lengths.max()), text.whole.ids.shape[1]
    mask = torch.arange(longest, device=chosen.device) < lengths[:, None]
    first = TextBatch(text.whole.ids[chosen, :longest], mask)
    cache = KeyValueCache(longest + most) if tower.takes_cache else None
    context = context.of(chosen)

    def following(texts: TextBatch, samples: Tensor) -> Tensor:
        prefix = None if text.prefix is None else Prefix(lengths[samples])
        states = _states(tower, texts, prefix, context.of(samples) if cache is None else context, cache)
        last = states[torch.arange(len(states), device=states.device), texts.mask.sum(dim=1) - 1]
        assert tower.vocabulary_head is not None
        logits: Tensor = tower.vocabulary_head(last)
        return logits

    size = form.tokenizer.vocabulary_size
    with _as_written(tower):
        tokens = write(following, first, end=form.tokenizer.end, longest=most, beams=beams, size=size, cache=cache).tokens
    return [form.tokenizer.decode(written) for written in tokens]


@contextmanager
def _as_written(tower: Encoder) -> Iterator[None]:
    """Inside, a compiled tower runs without its graphs: every token would be another size, and another graph."""
    if tower._compiled_call_impl is None:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _decoded(tower: Encoder, texts: TextBatch) -> list[str]:
    form = tower.text_format
    assert isinstance(form, TextFormat)
    return [form.tokenizer.decode(ids[mask].tolist()) for ids, mask in zip(*texts, strict=True)]


def _examples(
    model: VisionLanguageModel, batch: Batch, captioning: Captioning, captions: Sequence[str], references: Sequence[str]
) -> list[Example]:
    """The first images with what was written of them, and the reference where it is another."""
    assert captioning.image_field is not None
    value, form = batch.values[captioning.image_field], model.form(captioning.image_tower, "Image")
    if not isinstance(value, ImageBatch) or not isinstance(form, ImageFormat):
        return []
    shown = []
    for pixels, caption, reference in zip(value.pixels[:_EXAMPLES].cpu(), captions, references, strict=False):
        levels = pixels.permute(1, 2, 0).numpy() * np.array(form.deviation) + np.array(form.mean)
        line = caption if caption == reference else f"{caption}\n({reference})"
        shown.append(Example((255 * levels.clip(0, 1)).astype(np.uint8), line))
    return shown

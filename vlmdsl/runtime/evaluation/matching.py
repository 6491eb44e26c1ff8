"""How well texts given images are read: which of them are pairs, and which words were masked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from vlmdsl.backends.torch.applied import states_input
from vlmdsl.backends.torch.step import Environment
from vlmdsl.ir import Node, Program, loaded_origin, parts_of, root_field, vocabulary_use
from vlmdsl.ir.operations.encoding import TOKENS, source_of
from vlmdsl.ir.operations.mining import FETCH, fetches_input
from vlmdsl.ir.operations.modules import APPLY, EMBEDDED, MATCHED, MATCHING, STATES, use_of
from vlmdsl.ir.operations.prediction import TOKEN_IDS
from vlmdsl.ir.schedule import Apply, Mode
from vlmdsl.planning import applied_of
from vlmdsl.runtime.evaluation.features import evaluation_mode
from vlmdsl.runtime.evaluation.mined import mined_by_comparison
from vlmdsl.runtime.evaluation.retrieval import Measures
from vlmdsl.runtime.evaluation.steps import evaluated_steps, unmasked, whole_images
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.values import (
    Batch,
    MaskedTokens,
    TextBatch,
    TextFormat,
    TowerInput,
)

__all__ = [
    "HardNegatives",
    "MaskedWords",
    "Matching",
    "masked_word_accuracy",
    "masked_words_of",
    "matching_accuracy",
    "matching_of",
]

_OTHERS = 8
"""Other images over which the probabilities of a masked word are averaged, for a model that sees none."""


@dataclass(frozen=True)
class Matching:
    """The image-text matching of a program: the two logits of the `pairs`, and those of `negatives` that it mines."""

    pairs: Node
    negatives: tuple[Node, ...]

    @property
    def text(self) -> str:
        """The field of the texts."""
        return root_field(parts_of(source_of(_fused(self.pairs)))[-1]).string("name")


@dataclass(frozen=True)
class MaskedWords:
    """A masked text given its image, whose tokens a program predicts: the `apply` node of the fusion module."""

    fused: Node


@dataclass(frozen=True)
class HardNegatives:
    """Samples whose text has one thing wrong, as `batches` that hold what a step takes, and what is wrong in that of the
    sample at a position; None where that is not known."""

    batches: Iterable[Batch]
    kind: Callable[[int], str | None]


def matching_of(program: Program) -> Matching | None:
    """The first image-text matching of a program; None if it has none."""
    for node in program.nodes():
        if node.operation is MATCHED:
            pairs, *others = (parent for parent in node.inputs if parent.operation is APPLY)
            return Matching(pairs, tuple(others))
        if node.operation is MATCHING:
            return Matching(node.inputs[0], ())
    return None


def masked_words_of(program: Program) -> MaskedWords | None:
    """The first masked text given an image whose tokens a program predicts; None if it has none."""
    for node in program.nodes():
        encoded = node.inputs[0] if node.operation is TOKEN_IDS and node.string("which") == "selected" else None
        if encoded is not None and encoded.operation is APPLY and len(encoded.inputs) == 2:
            return MaskedWords(encoded)
    return None


@dataclass
class _Counts:
    """How many pairs and negatives were recognised, of how many."""

    right: dict[str, int] = field(default_factory=dict)
    total: dict[str, int] = field(default_factory=dict)

    def add(self, name: str, right: Tensor) -> None:
        self.right[name] = self.right.get(name, 0) + int(right.sum())
        self.total[name] = self.total.get(name, 0) + right.numel()

    def share(self, name: str) -> float:
        return self.right[name] / self.total[name]


def matching_accuracy(
    model: VisionLanguageModel, batches: Iterable[Batch], matching: Matching, hard: HardNegatives | None = None
) -> Measures | None:
    """How well pairs and negatives are distinguished; None without any.

    Batches hold what a step of the model takes; a text and an image of which the recipe masks a part are read whole, as in
    retrieval (FLAVA trains on masked ones). The negatives are those that the recipe mines among the samples of a batch,
    without queues, `mined`, and the text of each sample with the image of the sample before it, `random`; a text that equals
    the pair's is not a negative. For a recipe that mines none, but compares pooled features, an image is mined for each text
    by these. `pairs`, `mined` and `random` are the shares that are recognised, `balanced` and `balanced
    random` the means of the share of pairs and that of negatives: an answer that is always the same has one half. Of `hard`
    negatives `wrong` is the share that is recognised, `wrong KIND` that of those with this one thing wrong, and `balanced
    wrong` the mean of the shares of pairs and of all of them. The model is left in the mode it was in.
    """
    counts, samples, generator = _Counts(), 0, torch.Generator().manual_seed(0)
    with evaluation_mode(model), model.objective.state.emptied():
        if hard is not None:
            _count_by_kind(counts, model, matching, hard)
        for _, environment in evaluated_steps(model, batches, unmasked):
            ids = _ids(model, matching.pairs, environment)
            samples += len(ids)
            counts.add("pairs", _matches(environment[applied_of(matching.pairs)]))
            for logits in matching.negatives:
                picks = _picks(_fused(logits), environment)
                counts.add("mined", ~_matches(environment[applied_of(logits)])[_differ(ids, ids[picks])])
            if len(ids) > 1:
                before = torch.arange(len(ids), device=ids.device).roll(1)
                mined = None if matching.negatives else mined_by_comparison(model, environment, generator)
                for kind, images in {"mined": mined, "random": before}.items():
                    if images is not None:
                        right = ~_matches(_of_images(model, matching.pairs, environment, images))
                        counts.add(kind, right[_differ(ids, ids[images])])
    kinds = ("pairs", "mined", "random") if matching.negatives else ("pairs", "random")
    if not all(counts.total.get(name) for name in kinds):
        return None
    values = {name: counts.share(name) for name in counts.total}
    for name, kind in {"balanced": "mined", "balanced random": "random", "balanced wrong": "wrong"}.items():
        if kind in values:
            values[name] = (values["pairs"] + values[kind]) / 2
    return Measures(values, dict.fromkeys(values, 0.5), {"pairs": samples, "mined": counts.total.get("mined", 0)})


def _count_by_kind(counts: _Counts, model: VisionLanguageModel, matching: Matching, hard: HardNegatives) -> None:
    """Count the texts that are recognised as wrong, all and by what is wrong in them."""
    for batch, environment in evaluated_steps(model, hard.batches, unmasked):
        right = ~_matches(environment[applied_of(matching.pairs)])
        kinds = [hard.kind(index) for index in batch.index.tolist()]
        for kind in sorted({kind for kind in kinds if kind is not None}):
            own = right[torch.tensor([each == kind for each in kinds], device=right.device)]
            counts.add("wrong", own)
            counts.add(f"wrong {kind}", own)


def masked_word_accuracy(
    model: VisionLanguageModel, batches: Iterable[Batch], masked: MaskedWords, words: Mapping[str, frozenset[str]]
) -> Measures | None:
    """The share of masked tokens that are the most likely ones given the rest of the text and the image, as `accuracy`;
    None without any.

    `words` are kinds of words, such as those of colours, of which the shares are measured apart, where they are tokens. The
    baseline `without image` has for each word its mean probability given 8 other images of the batch, which is what can
    be said without seeing the image. Images of which the recipe masks a part are seen whole, since no word can be read off
    a hidden object. The model is left in the mode it was in.
    """
    own, blind = _Counts(), _Counts()
    with evaluation_mode(model):
        for _, environment in evaluated_steps(model, batches, whole_images):
            batch_words = _masked(model, masked.fused, environment)
            if batch_words is None:
                continue
            tokens, targets, alone = batch_words
            for kind, chosen in _kinds(model, masked.fused, targets, words).items():
                own.add(kind, (tokens == targets)[chosen])
                blind.add(kind, (alone == targets)[chosen])
    if not own.total.get("accuracy"):
        return None
    names = [name for name, total in own.total.items() if total]
    size = model.encoders.encoder(_text_tower(model, masked.fused)).vocabulary_size or 1
    baselines = {"without image": {name: blind.share(name) for name in names}}
    values = {name: own.share(name) for name in names}
    return Measures(values, dict.fromkeys(names, 1 / size), {"words": own.total["accuracy"]}, baselines)


def _fused(logits: Node) -> Node:
    """The fusion module below a head."""
    return logits.inputs[0].inputs[0]


def _text_tower(model: VisionLanguageModel, fused: Node) -> str:
    states = applied_of(fused)
    return model.parts.families[states.use.module.family].text_tower(states)


def _text(model: VisionLanguageModel, fused: Node, environment: Environment) -> TowerInput:
    """The text below a fusion module, in the form that its tower takes."""
    source = parts_of(source_of(fused))[-1]
    text: TowerInput = environment[source][model.form(_text_tower(model, fused), "Text")]
    return text


def _ids(model: VisionLanguageModel, logits: Node, environment: Environment) -> Tensor:
    """The token ids of the texts of pairs, [b, L], -1 for padding."""
    words = _text(model, _fused(logits), environment).value
    assert isinstance(words, TextBatch)
    return torch.where(words.mask, words.ids, -1)


def _differ(ids: Tensor, others: Tensor) -> Tensor:
    """Which texts are not the same, [b]."""
    return (ids != others).any(dim=1)


def _matches(logits: Tensor) -> Tensor:
    """Which texts and images are read as pairs, [b]."""
    return logits[:, 1] > logits[:, 0]


def _picks(fused: Node, environment: Environment) -> Tensor:
    """The samples whose text or image stands in for each sample's own, [b]: those with the same states, or, where it is
    encoded again, the same ids or pixels."""
    fetched = next((parent for parent in fused.inputs if parent.operation is FETCH), None)
    if fetched is not None:
        own, taken = states_input(_of_batch(fetched), environment)[0], environment[fetched].values
    else:
        sources = (source_of(parent) for parent in fused.inputs)
        source = next(source for source in sources if fetches_input(source))
        ((form, loaded),) = environment[source].items()
        own, taken = environment[loaded_origin(source)][form].value[0], loaded.value[0]
    return torch.cdist(taken.flatten(1).double(), own.flatten(1).double()).argmin(dim=1)


def _of_batch(taken: Node) -> Node:
    """What the tokens of picked samples were taken from: those of the whole batch, by a tower or a pooler."""
    while taken.operation not in (STATES, EMBEDDED, TOKENS):
        taken = taken.inputs[0]
    return taken


def _call(model: VisionLanguageModel, fused: Node, inputs: TowerInput) -> Any:
    """The output of a fusion module."""
    return model.call_tower(Apply(use_of(fused), Mode("Text"), (fused,)), [inputs])[0]


def _with_images(model: VisionLanguageModel, fused: Node, environment: Environment, images: Tensor) -> TowerInput:
    """The inputs of a fusion module, with the images of these samples [b] in place of each sample's own."""
    (inputs,) = model.inputs(Apply(use_of(fused), Mode("Text"), (fused,)), environment)
    moved = inputs.map(lambda part: part[images])
    return TowerInput(inputs.value, moved.ports)


def _of_images(model: VisionLanguageModel, logits: Node, environment: Environment, images: Tensor) -> Tensor:
    """The two logits of each text with the image of another sample, by the number of the sample, [b]."""
    fused = _fused(logits)
    pooled = _call(model, fused, _with_images(model, fused, environment, images)).pooled
    (other,) = model.part(use_of(logits))([pooled])
    assert isinstance(other, Tensor)
    return other


def _masked(model: VisionLanguageModel, fused: Node, environment: Environment) -> tuple[Tensor, Tensor, Tensor] | None:
    """The most likely entries of the masked tokens given their image, what they were, and the most likely ones without the
    image, [n] each; None without any."""
    use, masked = use_of(fused), _text(model, fused, environment).ports.get("masked")
    if not isinstance(masked, MaskedTokens):
        return None
    at, family = masked.targets >= 0, model.parts.families[use.module.family]
    vocabulary = model.predictions.head(vocabulary_use(use))

    def logits(output: Any) -> Tensor:
        states = family.predicted_states(output)
        assert states is not None
        entries: Tensor = vocabulary(states[at]).float()
        return entries

    others = min(_OTHERS, len(at) - 1)
    if not bool(at.any()) or not others:
        return None
    own = logits(environment[applied_of(fused)]).argmax(dim=1)
    own_images = torch.arange(len(at), device=at.device)
    shifted = (_with_images(model, fused, environment, own_images.roll(shift)) for shift in range(1, others + 1))
    mean = sum((logits(_call(model, fused, inputs)).softmax(dim=1) for inputs in shifted), torch.zeros(()))
    return own, masked.targets[at], mean.argmax(dim=1)


def _kinds(
    model: VisionLanguageModel, fused: Node, targets: Tensor, words: Mapping[str, frozenset[str]]
) -> dict[str, Tensor]:
    """Which of the masked tokens are of each kind, [n]; `accuracy` is of all of them."""
    form = model.form(_text_tower(model, fused), "Text")
    assert isinstance(form, TextFormat)
    named = {entry: form.tokenizer.decode([entry]).strip() for entry in set(targets.tolist())}
    kinds = {"accuracy": torch.ones_like(targets, dtype=torch.bool)}
    for kind, own in words.items():
        entries = [entry for entry, word in named.items() if word in own]
        kinds[kind] = torch.isin(targets, torch.tensor(entries, dtype=targets.dtype, device=targets.device))
    return kinds

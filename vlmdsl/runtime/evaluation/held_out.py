"""Measures a model on held-out batches."""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from vlmdsl.ir import Head, Node, walk
from vlmdsl.runtime.evaluation.comparison import Comparison
from vlmdsl.runtime.evaluation.examples import Confusion, best_matches
from vlmdsl.runtime.evaluation.features import blocks, evaluation_mode, gather
from vlmdsl.runtime.evaluation.neighbours import neighbour_accuracy
from vlmdsl.runtime.evaluation.probe import linear_probe_accuracy
from vlmdsl.runtime.evaluation.report import Evaluation
from vlmdsl.runtime.evaluation.retrieval import Measures, retrieval_recall
from vlmdsl.runtime.evaluation.zero_shot import ClassPrompts, zero_shot_accuracy
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import EncodedFeatures
from vlmdsl.runtime.values import MISSING_LABEL, Batch, ScalarBatch, Value, count, take, to

__all__ = ["evaluate", "evaluate_images", "image_names"]

_PROMPTS_AT_ONCE = 256


def image_names(model: VisionLanguageModel, comparison: Comparison) -> dict[str, str]:
    """The name in a batch of the image for each tower that reads it; towers that take it in one form read one value."""
    read = set() if comparison.image_features is None else set(walk([comparison.image_features]))
    names: dict[Hashable, str] = {model.form(comparison.image_tower, "Image"): comparison.image_field}
    others = (stream.encoder.tower for stream in model.streams if stream.encode in read)
    return {
        tower: names.setdefault(model.form(tower, "Image"), f"{comparison.image_field}.{tower}")
        for tower in dict.fromkeys((comparison.image_tower, *others))
    }


def evaluate(
    model: VisionLanguageModel,
    batches: Iterable[Batch],
    comparison: Comparison,
    *,
    with_retrieval: bool = True,
    prompts: ClassPrompts | None = None,
    neighbours: int = 0,
    training: Iterable[Batch] | None = None,
    numbers: Mapping[int, int] | None = None,
) -> Evaluation:
    """Retrieval over the images and texts of `batches`, and zero-shot classification of its images if `prompts` are given.

    Batches hold the image (`image_names`) and the text (`comparison.text_field`), without random views, and the field
    `prompts.field`, or `label` without prompts if `neighbours` vote or a linear classifier is fitted to `training` images
    (where the image tower gives pooled features), whose classes have other `numbers`, if any are given: each -> that of the
    held-out data. Equal images, and texts of equal tokens, are taken together: each is one
    query and one candidate, and whatever was paired with any of them belongs to it. The model is left in the mode it was in.
    """
    comparison = replace(comparison, device=_device(model))
    with evaluation_mode(model):
        source = image_names(model, comparison), comparison.image_heads, comparison.image_features
        images = _Collection(model, comparison.image_tower, *source)
        texts = _Collection(
            model, comparison.text_tower, {comparison.text_tower: comparison.text_field}, comparison.text_heads
        )
        labels: list[Tensor] = []
        for batch in batches:
            images.add(batch)
            texts.add(batch)
            if prompts is not None or neighbours or training is not None:
                labels.append(_classes(batch, "label" if prompts is None else prompts.field))
        if not images.places:
            return Evaluation(samples=0)
        retrieved, matches = None, None
        if with_retrieval:
            pairs = torch.tensor(list(zip(images.places, texts.places, strict=True))).unique(dim=0)
            compared = images.features(), texts.features(), pairs, comparison
            retrieved = retrieval_recall(*compared)
            matches = best_matches(*compared, (images.samples, texts.samples))
        separation = Evaluation(0)
        if neighbours or training is not None:
            fitted = _Labelled(_Collection(model, comparison.image_tower, *source))
            fitted.add(training or (), numbers=numbers)
            separation = _told_apart(_Labelled(images, torch.cat(labels).tolist()), fitted, neighbours)
        classified, confusion, classes = None, None, separation.classes
        if prompts is not None:
            every_image = take(images.features(), torch.tensor(images.places))
            classified, confusion = _classify(model, every_image, torch.cat(labels), prompts, comparison)
            classes = len(prompts.names) if classified else classes
    return Evaluation(
        len(images.places), retrieved, classified, classes, separation.neighbours, separation.probe,
        matches=matches, confusion=confusion,
    )  # fmt: skip


def evaluate_images(
    model: VisionLanguageModel,
    batches: Iterable[Batch],
    tower: str,
    stream: str,
    *,
    label: str = "label",
    neighbours: int = 20,
    training: Iterable[Batch] = (),
    numbers: Mapping[int, int] | None = None,
) -> Evaluation:
    """How well the pooled features of `tower`, without any head, separate the classes of the images of `batches`.

    See `neighbour_accuracy`, and `linear_probe_accuracy` for the classifier that is fitted to the `training` images (their
    classes' `numbers` as for `evaluate`). Equal images are one, of the class that came first, and images without a class
    (negative) are left out. The model is left in the mode it was in.
    """
    with evaluation_mode(model):
        held_out, fitted = (_Labelled(_Collection(model, tower, {tower: stream})) for _ in range(2))
        held_out.add(batches, label)
        fitted.add(training, label, numbers)
        separation = _told_apart(held_out, fitted, neighbours)
    return replace(separation, samples=len(held_out.labels))


@dataclass(frozen=True)
class _Labelled:
    """Images and the class of each sample."""

    images: _Collection
    labels: list[int] = field(default_factory=list)

    def add(self, batches: Iterable[Batch], label: str = "label", numbers: Mapping[int, int] | None = None) -> None:
        """Encode the images of a loader; their classes by the given numbers."""
        for batch in batches:
            self.images.add(batch)
            own = _classes(batch, label).tolist()
            self.labels.extend(own if numbers is None else (numbers.get(number, MISSING_LABEL) for number in own))

    def with_class(self) -> tuple[Tensor, Tensor] | None:
        """The pooled features `[n, D]` of the distinct images that have a class, and their classes `[n]`."""
        classes = dict(zip(reversed(self.images.places), reversed(self.labels), strict=True))
        kept = torch.tensor([place for place in sorted(classes) if classes[place] >= 0], dtype=torch.int64)
        pooled = self.images.features().pooled if len(kept) else None
        return None if pooled is None else (pooled[kept], torch.tensor([classes[int(place)] for place in kept]))


def _told_apart(held_out: _Labelled, fitted: _Labelled, neighbours: int) -> Evaluation:
    """The accuracy of `neighbours` and of a linear classifier; None with too few images that have a class."""
    own, training = held_out.with_class(), fitted.with_class()
    if own is None or len(own[1]) < 2:
        return Evaluation(0)
    return Evaluation(
        0,
        classes=len(own[1].unique()),
        neighbours=neighbour_accuracy(*own, neighbours) if neighbours else None,
        probe=None if training is None else linear_probe_accuracy(*training, *own),
    )


@dataclass
class _Collection:
    """The distinct images or texts of a data set: their features, and which of them each sample has."""

    model: VisionLanguageModel
    tower: str
    names: Mapping[str, str]
    """The name in a batch of what each tower reads, which is one image or text in the form of each."""
    heads: tuple[Head, ...] = ()
    composite: Node | None = None
    """The node to compute; None for the features of the tower, or of the last head."""
    places: list[int] = field(default_factory=list)
    samples: list[int] = field(default_factory=list)
    """The sample in which each distinct one came first, as its index in the data."""
    _known: dict[bytes, int] = field(default_factory=dict)
    _parts: list[EncodedFeatures] = field(default_factory=list)

    def add(self, batch: Batch) -> None:
        """Encode those of a batch that are new."""
        new: list[int] = []
        for position, identity in enumerate(_identities(batch.values[self.names[self.tower]])):
            if identity not in self._known:
                self._known[identity] = len(self._known)
                self.samples.append(int(batch.index[position]))
                new.append(position)
            self.places.append(self._known[identity])
        if new:
            rows = torch.tensor(new)
            values = {tower: take(batch.values[name], rows) for tower, name in self.names.items()}
            self._parts.append(self._encoded(values, [batch.keys[position] for position in new]))

    def _encoded(self, values: Mapping[str, Value], keys: Sequence[str]) -> EncodedFeatures:
        if self.composite is None:
            return _encode(self.model, self.tower, values[self.tower], self.heads)
        on_device = {tower: to(value, _device(self.model)) for tower, value in values.items()}
        return _kept(self.model.features(self.composite, on_device, keys))

    def features(self) -> EncodedFeatures:
        """The features of the distinct ones, in the order in which they came."""
        return gather(self._parts)


def _classes(batch: Batch, field: str) -> Tensor:
    value = batch.values[field]
    assert isinstance(value, ScalarBatch)
    return value.numbers


def _identities(value: Value) -> Iterator[bytes]:
    """A digest of each image, or of each text's tokens without padding."""
    value = to(value, "cpu")
    first, mask = value[0], getattr(value, "mask", None)
    assert first is not None
    for row in range(count(value)):
        tokens = first[row] if mask is None else first[row][mask[row]]
        yield hashlib.sha256(tokens.contiguous().numpy().tobytes()).digest()


def _encode(model: VisionLanguageModel, tower: str, value: Value, heads: tuple[Head, ...] = ()) -> EncodedFeatures:
    return _kept(model.encode(tower, to(value, _device(model)), heads))


def _kept(features: EncodedFeatures) -> EncodedFeatures:
    """Features in float32 on the CPU, which has room for those of a whole data set."""
    pooled, tokens = (None if part is None else part.float().cpu() for part in (features.pooled, features.tokens))
    return EncodedFeatures(pooled, tokens, None if features.mask is None else features.mask.cpu())


def _classify(
    model: VisionLanguageModel, images: EncodedFeatures, labels: Tensor, prompts: ClassPrompts, comparison: Comparison
) -> tuple[Measures | None, Confusion | None]:
    """None if no image has a class with a name."""
    labels = prompts.places(labels)
    labelled = (labels >= 0).nonzero().flatten()
    if len(labelled) == 0:
        return None, None
    value = prompts.tokenize(prompts.texts())
    parts = (take(value, piece) for piece in blocks(count(value), _PROMPTS_AT_ONCE))
    features = gather(_encode(model, comparison.text_tower, part, comparison.text_heads) for part in parts)
    classified = take(images, labelled), labels[labelled], features, len(prompts.templates), comparison
    measures, predicted = zero_shot_accuracy(*classified)
    return measures, Confusion.of(prompts.names, labels[labelled], predicted)


def _device(model: VisionLanguageModel) -> torch.device:
    return next(model.encoders.parameters()).device

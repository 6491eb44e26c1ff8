"""Zero-shot classification: the class of an image is the one with the most similar name, in prompts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from vlmdsl.runtime.evaluation.comparison import Comparison
from vlmdsl.runtime.evaluation.features import block_size, blocks
from vlmdsl.runtime.evaluation.retrieval import Measures
from vlmdsl.runtime.modules.towers import EncodedFeatures
from vlmdsl.runtime.values import MISSING_LABEL, Value, count, take

__all__ = ["DEFAULT_TEMPLATES", "ClassPrompts", "class_similarities", "zero_shot_accuracy"]

DEFAULT_TEMPLATES = ("a photo of a {}", "a picture of a {}", "{}")
"""The default prompts."""


@dataclass(frozen=True)
class ClassPrompts:
    """The classes of a data set and their prompts; each template has one `{}` for the name of a class.

    `tokenize` gives what the recipe's tower takes for n texts: `TextBatch`, or the `ImageBatch` of rendered ones.
    `field` is the batch field with the class of a sample: an index into `names`, or what `numbers` makes one of, where they
    are given. Any other number stands for no class.
    """

    names: Sequence[str]
    tokenize: Callable[[list[str]], Value]
    templates: Sequence[str] = DEFAULT_TEMPLATES
    field: str = "label"
    numbers: Mapping[int, int] | None = None

    def places(self, labels: Tensor) -> Tensor:
        """Indices into `names` of classes; `MISSING_LABEL` where there is none."""
        indices = range(len(self.names))
        numbers = {number: number for number in indices} if self.numbers is None else self.numbers
        return torch.tensor([numbers.get(number, MISSING_LABEL) for number in labels.tolist()])

    def texts(self) -> list[str]:
        """Every prompt, all templates of the first class first."""
        return [template.replace("{}", name) for name in self.names for template in self.templates]


def zero_shot_accuracy(
    images: EncodedFeatures,
    labels: Tensor,
    prompts: EncodedFeatures,
    templates: int,
    comparison: Comparison,
    cutoffs: Sequence[int] = (1, 5),
    size: int | None = None,
) -> tuple[Measures, Tensor]:
    """How often the class of an image (`labels [n]`) is among its first K, ties counting against the model; and the class
    that each image is given to, `[n]`.

    `prompts` are the features of all prompts, `templates` for each class in turn. Blocks of at most `size` images and
    prompts are compared at a time.
    """
    classes = count(prompts) // templates
    ranks, predicted = [], []
    for part, scores in class_similarities(images, prompts, templates, comparison, size):
        ranks.append(_ranks(scores, labels[part].cpu()))
        predicted.append(scores.argmax(dim=1))
    rank = torch.cat(ranks)
    measures = Measures(
        values={f"top-{cutoff}": (rank <= cutoff).double().mean().item() for cutoff in cutoffs},
        chance={f"top-{cutoff}": min(cutoff, classes) / classes for cutoff in cutoffs},
        facts={"classes": classes, "images": count(images)},
    )
    return measures, torch.cat(predicted)


def class_similarities(
    images: EncodedFeatures,
    prompts: EncodedFeatures,
    templates: int,
    comparison: Comparison,
    size: int | None = None,
) -> Iterator[tuple[slice, Tensor]]:
    """Blocks of images, and the similarities `[n, classes]` of the images of each to the classes.

    Pooled features of a class's prompts are averaged to one (Radford et al., 2021); token-wise similarities are averaged
    themselves, as in FILIP.
    """
    if comparison.pooled:
        prompts, templates = _ensemble(prompts, templates, comparison.normalized), 1
    size = size or block_size(images, prompts)
    for part in blocks(count(images), size):
        yield part, _class_scores(take(images, part), prompts, templates, comparison, size)


def _ensemble(prompts: EncodedFeatures, templates: int, normalized: bool) -> EncodedFeatures:
    """One pooled feature per class: the mean over its prompts, of unit vectors where those are compared."""
    assert prompts.pooled is not None
    features = functional.normalize(prompts.pooled, dim=-1) if normalized else prompts.pooled
    return EncodedFeatures(pooled=features.unflatten(0, (-1, templates)).mean(dim=1))


def _class_scores(
    images: EncodedFeatures, prompts: EncodedFeatures, templates: int, comparison: Comparison, size: int
) -> Tensor:
    """`[n, classes]`: the mean similarity of each image to the prompts of each class."""
    whole_classes = max(1, size // templates) * templates
    parts = [comparison(images, take(prompts, part)).rows for part in blocks(count(prompts), whole_classes)]
    return torch.cat([part.cpu().unflatten(1, (-1, templates)).mean(dim=2) for part in parts], dim=1)


def _ranks(scores: Tensor, labels: Tensor) -> Tensor:
    """One more than the number of other classes that are not below the right one, `[n]`."""
    right = scores.gather(1, labels[:, None])
    others = torch.arange(scores.shape[1]) != labels[:, None]
    return (~(scores < right) & others).sum(dim=1) + 1

"""Nearest neighbours: an image is not its own neighbour, votes weigh by similarity, ties and lonely classes are misses."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import vlmdsl
from batches import batch_of, scalars
from vlmdsl.runtime.evaluation import (
    Comparison,
    Evaluation,
    Measures,
    evaluate,
    evaluate_images,
    first_image_tower,
    neighbour_accuracy,
    results_json,
)
from vlmdsl.runtime.evaluation.report import stored_untrained
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import EncodedFeatures, Encoder, Kind
from vlmdsl.runtime.values import ImageBatch


def measured(features: torch.Tensor, labels: torch.Tensor, neighbours: int, temperature: float = 0.07) -> Measures:
    accuracy = neighbour_accuracy(features, labels, neighbours, temperature)
    assert accuracy is not None
    return accuracy


def test_an_image_does_not_vote_for_itself() -> None:
    features, labels = torch.eye(4).repeat_interleave(2, dim=0), torch.arange(4).repeat_interleave(2)
    assert measured(features, labels, 1).values == {"top-1": 1.0}
    swapped = torch.tensor([0, 1, 0, 1, 2, 3, 2, 3])
    assert measured(features, swapped, 1).values == {"top-1": 0.0}


def test_nearer_neighbours_count_more() -> None:
    angles = torch.tensor([0.0, 0.1, 0.8, 0.82, 0.84, 0.86, 0.88, 0.9])
    features = torch.stack([angles.cos(), angles.sin()], dim=1)
    labels = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1])
    # An image of the first class has one neighbour of its own, near, and two of the other, far: alone it would be outvoted.
    assert measured(features, labels, 3).values == {"top-1": 1.0}
    assert measured(features, labels, 3, temperature=1e6).values == {"top-1": 0.75}


def test_no_more_vote_than_a_class_has() -> None:
    labels = torch.tensor([0, 1]).repeat(8)
    features = torch.eye(2)[labels] + 0.1 * torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
    accuracy = measured(features, labels, 20)
    assert accuracy.values == {"top-1": 1.0}
    assert accuracy.facts == {"classes": 2, "k": 7, "images": 16, "alone": 0}


def test_an_image_that_is_alone_in_its_class_is_not_asked() -> None:
    accuracy = measured(torch.eye(3).repeat(2, 1)[:5], torch.tensor([0, 1, 2, 0, 1]), 20)
    assert (accuracy.values, accuracy.chance) == ({"top-1": 1.0}, {"top-1": 0.5})
    assert accuracy.facts == {"classes": 2, "k": 1, "images": 4, "alone": 1}
    assert neighbour_accuracy(torch.eye(3), torch.arange(3)) is None


@pytest.mark.parametrize("sizes", [(8, 8), (14, 2), (5, 5, 1, 1, 1), (3, 3, 3), (9, 4, 4), (2, 1), (40, 2, 2, 2, 2)])
def test_perfect_features_are_never_below_chance(sizes: tuple[int, ...]) -> None:
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    accuracy = measured(torch.eye(len(sizes))[labels], labels, 20)
    assert accuracy.values["top-1"] >= accuracy.chance["top-1"]


def test_features_that_say_nothing_are_not_better_than_chance() -> None:
    labels = torch.tensor([0] * 6 + [1] * 2)
    accuracy = measured(torch.ones(8, 3), labels, 20)
    assert accuracy.chance == {"top-1": 0.75}
    assert accuracy.values == {"top-1": 0.75}


class Values(Encoder):
    """Its features are the first values of the image."""

    def __init__(self, kind: Kind = "Image") -> None:
        super().__init__(kind, 2, ("pooled",))
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, values: torch.Tensor, mask: torch.Tensor | None = None) -> EncodedFeatures:
        return EncodedFeatures(self.scale * values[:, :2, 0, 0])


def test_a_rendered_text_is_not_an_image_of_the_data() -> None:
    assert first_image_tower(vlmdsl.compile("contrast(render(text), text)", compiled=False).program) is None
    both = "contrast(render(text), image)"
    assert first_image_tower(vlmdsl.compile(both, compiled=False).program) == ("vision", "image")


def test_images_of_a_recipe_without_texts_are_measured_by_the_tower() -> None:
    objective = vlmdsl.compile("byol", compiled=False, hidden=4, out=4)
    assert first_image_tower(objective.program) == ("vision", "image")
    model = VisionLanguageModel({"vision": Values()}, objective, steps=2).train()
    pixels = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0], [0.5, 0.5], [1.0, 0.0]])
    values = pixels[:, :, None, None].expand(-1, -1, 2, 2)
    batch = batch_of({"image": ImageBatch(values), **scalars(label=torch.tensor([0, 0, 1, 1, -1, 1]))}, [""] * 6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluation = evaluate_images(model, [batch], "vision", "image", neighbours=1)
    # Four distinct images have a class: the last is the first again, and its class is the one that came first.
    assert evaluation.neighbours is not None
    assert (evaluation.samples, evaluation.classes, evaluation.neighbours.values) == (6, 2, {"top-1": 1.0})
    assert evaluation.neighbours.chance == {"top-1": 0.5}
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_beside_texts_the_images_are_measured_alike() -> None:
    objective = vlmdsl.compile("clip", compiled=False)
    model = VisionLanguageModel({"vision": Values(), "language": Values(kind="Text")}, objective)
    values = torch.randn(9, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    labels = scalars(label=torch.tensor([0, 1, 0, 1, -1, 2, 2, 0, 1]))
    batch = batch_of({"image": ImageBatch(values), "text": ImageBatch(values), **labels}, [""] * 9)
    alone = evaluate_images(model, [batch], "vision", "image", neighbours=3)
    beside = evaluate(model, [batch], Comparison("vision", "language"), neighbours=3)
    assert beside.neighbours is not None
    assert (beside.neighbours, beside.classes) == (alone.neighbours, 3)
    assert evaluate(model, [batch], Comparison("vision", "language")).neighbours is None


def test_the_results_hold_the_untrained_model() -> None:
    trained, untrained = (
        Evaluation(4, classes=2, neighbours=neighbour_accuracy(torch.eye(2).repeat(2, 1), torch.tensor(labels), 1))
        for labels in ([0, 1, 0, 1], [0, 1, 1, 0])
    )
    results = results_json(trained, untrained)
    assert results["nearest_neighbours"] == {
        "classes": 2,
        "k": 1,
        "images": 4,
        "alone": 0,
        "top-1": 1.0,
        "chance": {"top-1": pytest.approx(0.5)},
        "untrained": {"top-1": 0.0},
    }
    assert stored_untrained(results) == untrained

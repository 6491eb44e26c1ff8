"""The linear probe: least squares on standardised features, fitted to other images than it is measured on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor

import vlmdsl
from batches import batch_of as made_batch
from batches import scalars
from vlmdsl.runtime.data import some_samples
from vlmdsl.runtime.data.shapes import ShapesSource
from vlmdsl.runtime.evaluation import Comparison, Evaluation, evaluate, evaluate_images, linear_probe_accuracy, results_json
from vlmdsl.runtime.evaluation.report import stored_untrained
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import EncodedFeatures, Encoder, Kind
from vlmdsl.runtime.values import Batch, ImageBatch


def two_classes(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features whose third tells the classes 4 and 7 apart, a thousand times smaller than the others."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.where(torch.rand(count, generator=random) < 0.4, 4, 7)
    features = torch.randn(count, 5, generator=random)
    features[:, 2] = 1e-3 * (labels - 5.5 + 0.3 * features[:, 2])
    return features, labels


def test_it_names_the_classes_of_what_it_was_not_fitted_to() -> None:
    fitted, (held_out, labels) = two_classes(300, seed=0), two_classes(200, seed=1)
    accuracy = linear_probe_accuracy(*fitted, held_out, labels)
    assert accuracy is not None
    assert accuracy.values == {"top-1": 1.0}
    assert accuracy.chance == {
        "top-1": pytest.approx(max((labels == 4).double().mean(), (labels == 7).double().mean()).item())
    }
    swapped = linear_probe_accuracy(*fitted, held_out, torch.where(labels == 4, 7, 4))
    assert swapped is not None
    assert swapped.values == {"top-1": 0.0}
    some = linear_probe_accuracy(*fitted, held_out, torch.where(torch.arange(200) < 50, 5, labels))
    assert some is not None
    assert some.values == {"top-1": 1.0}
    assert some.facts == {"classes": 2, "fitted": 300, "images": 150, "left_out": 50}
    assert linear_probe_accuracy(*fitted, held_out, torch.full_like(labels, 5)) is None


def test_it_is_ridge_regression_to_one_number_per_class() -> None:
    random = np.random.default_rng(0)
    features, held_out = random.normal(size=(60, 6)), random.normal(size=(500, 6))
    labels, ridge = random.integers(3, size=60), 0.5
    inputs = (features - features.mean(0)) / features.std(0)
    # The penalty as further equations: sqrt(penalty) * weight = 0, for all weights but the constants'.
    equations = np.vstack([np.hstack([inputs, np.ones((60, 1))]), np.eye(6, 7) * np.sqrt(ridge * 60)])
    targets = np.vstack([np.eye(3)[labels], np.zeros((6, 3))])
    weights = np.linalg.lstsq(equations, targets, rcond=None)[0]
    inputs = (held_out - features.mean(0)) / features.std(0)
    expected = np.argmax(inputs @ weights[:6] + weights[6], axis=1)
    tensors = [torch.from_numpy(array) for array in (features, labels, held_out, expected)]
    assert linear_probe_accuracy(*tensors, ridge=ridge).values == {"top-1": 1.0}


def test_features_that_do_not_vary_say_nothing() -> None:
    random = torch.Generator().manual_seed(0)
    constant = torch.full((80, 3), 0.1) * (1 + 1e-8 * torch.randn(80, 3, generator=random, dtype=torch.float64))
    labels = torch.tensor([1] * 50 + [2] * 30)
    accuracy = linear_probe_accuracy(constant, labels, constant.flip(0), labels)
    assert accuracy.values == accuracy.chance == {"top-1": 0.625}


class Values(Encoder):
    """Its features are the first values of the image."""

    def __init__(self, kind: Kind = "Image") -> None:
        super().__init__(kind, 2, ("pooled",))
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, values: Tensor, mask: Tensor | None = None) -> EncodedFeatures:
        return EncodedFeatures(self.scale * values[:, :2, 0, 0])


def batch_of(values: list[list[float]], labels: list[int]) -> Batch:
    pixels = torch.tensor(values)[:, :, None, None].expand(-1, -1, 2, 2)
    values = {"image": ImageBatch(pixels), "text": ImageBatch(pixels), **scalars(label=torch.tensor(labels))}
    return made_batch(values, [""] * len(labels))


def test_images_with_a_class_are_fitted_to_alone_and_beside_texts() -> None:
    objective = vlmdsl.compile("clip", compiled=False)
    model = VisionLanguageModel({"vision": Values(), "language": Values("Text")}, objective)
    training = batch_of([[0.0, 0.1], [0.1, 0.3], [1.0, 0.2], [0.9, 0.0], [1.1, 0.1]], [0, 0, 1, 1, -1])
    held_out = batch_of([[0.2, 0.2], [0.8, 0.1], [0.9, 0.9], [0.5, 0.5]], [0, 1, 0, -1])
    alone = evaluate_images(model, [held_out], "vision", "image", training=[training])
    beside = evaluate(model, [held_out], Comparison("vision", "language"), training=[training])
    assert alone.probe is not None
    assert (alone.samples, alone.classes, alone.probe.values["top-1"]) == (4, 2, pytest.approx(2 / 3))
    assert (beside.probe, beside.classes, beside.neighbours) == (alone.probe, 2, None)
    assert evaluate_images(model, [held_out], "vision", "image").probe is None
    unlabelled = batch_of([[0.0, 1.0]], [-1])
    assert evaluate_images(model, [held_out], "vision", "image", training=[unlabelled]).probe is None
    assert evaluate_images(model, [unlabelled], "vision", "image", training=[training]).probe is None


def test_the_results_hold_the_untrained_model() -> None:
    fitted = two_classes(50, seed=0)
    held_out, labels = two_classes(20, seed=1)
    trained, untrained = (
        Evaluation(20, classes=2, probe=linear_probe_accuracy(*fitted, features, labels))
        for features in (held_out, -held_out)
    )
    results = json.loads(json.dumps(results_json(trained, untrained)))
    assert results["linear_probe"]["top-1"] == 1.0
    assert results["linear_probe"]["untrained"] == {"top-1": 0.0}
    assert stored_untrained(results) == untrained


def test_some_samples_are_spread_over_the_source() -> None:
    source = ShapesSource(samples=10)
    assert some_samples(source, 10) is source
    few = some_samples(source, 4)
    assert few.keys == [source.keys[index] for index in (0, 2, 5, 7)]
    assert few[2]["text"] == source[5]["text"]

"""A step in micro-batches: how often towers run, what is replayed, and what it refuses."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vlmdsl
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.runtime.model import VisionLanguageModel
from vlmdsl.runtime.modules.towers import VisionConfig, VisionTransformer
from vlmdsl.runtime.modules.towers.contract import EncodedFeatures
from vlmdsl.runtime.values import Batch, ImageBatch

SHAPE = VisionConfig(image_size=8, patch_size=4, width=8, depth=1, heads=1)
PLAIN = "recipe pairs(a: Image, b: Image)\nminimize contrast(a, b)"
TAUGHT = """recipe taught(a: Image, b: Image)
encoder slow = ema(vision, momentum=0.9, order="before")
let key = slow(b)
minimize memory_contrast(vision(a), key, queue(key, size=8), temperature=0.2)
"""
FROZEN = """recipe tuned(a: Image, b: Image)
encoder still = frozen(separate(vision, name="still"))
minimize contrast(a, still(b))
"""
SAMPLES = 6


class Tower(VisionTransformer):
    """A vision transformer that counts its calls by the samples and whether a graph is made, and may drop features out."""

    def __init__(self, dropout: float = 0.0, statistics: bool = False) -> None:
        super().__init__(SHAPE, 4, ("pooled",))
        self.dropout = nn.Dropout(dropout)
        self.normalised = nn.BatchNorm1d(4) if statistics else nn.Identity()
        self.calls: Counter[tuple[int, bool]] = Counter()
        self.dtypes: set[torch.dtype] = set()

    def forward(self, values: Tensor, *arguments: Any, **options: Any) -> EncodedFeatures:
        features = super().forward(values, *arguments, **options)
        assert features.pooled is not None
        self.calls[len(values), torch.is_grad_enabled()] += 1
        self.dtypes.add(features.pooled.dtype)
        return EncodedFeatures(self.normalised(self.dropout(features.pooled)))


def model_of(recipe: str, **options: Any) -> VisionLanguageModel:
    torch.manual_seed(0)
    objective = vlmdsl.compile(recipe, compiled=False)
    towers = {name: Tower(**options) for name in dict.fromkeys(stream.encoder.tower for stream in objective.streams)}
    return VisionLanguageModel(towers, objective).train()


def batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    images = {name: ImageBatch(torch.rand(SAMPLES, 3, 8, 8, generator=generator)) for name in ("a", "b")}
    return Batch(images, torch.arange(SAMPLES), [str(number) for number in range(SAMPLES)])


def gradients(model: nn.Module) -> list[Tensor]:
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def test_a_chunk_of_no_samples_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        vlmdsl.CachedStep(model_of(PLAIN), micro=0)


def test_a_tower_with_batch_statistics_is_refused_by_name() -> None:
    with pytest.raises(DiagnosticError) as caught:
        vlmdsl.CachedStep(model_of(PLAIN, statistics=True), micro=2)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "V0833"
    assert "vision" in diagnostic.message
    assert "normalised" in diagnostic.message


def test_a_frozen_tower_may_have_batch_statistics() -> None:
    """It is in evaluation mode, so that the features of a chunk are those of the batch."""
    model = model_of(FROZEN)
    model.encoders["still"].normalised = nn.BatchNorm1d(4)
    plain = copy.deepcopy(model.train())
    plain.train()
    step = vlmdsl.CachedStep(model, micro=2)
    output, expected = step(batch()), plain(batch())
    torch.testing.assert_close(output.loss, expected.loss)
    assert int(model.encoders["still"].normalised.num_batches_tracked) == 0


def test_a_tower_runs_once_without_a_graph_and_once_with_one() -> None:
    model = model_of(PLAIN)
    step = vlmdsl.CachedStep(model, micro=4)
    output = step(batch())
    both_images = {(8, False): 1, (4, False): 1}
    assert model.encoders["vision"].calls == both_images
    step.backward(output.loss)
    assert model.encoders["vision"].calls == both_images | {(8, True): 1, (4, True): 1}


@pytest.mark.parametrize(("recipe", "other"), [(FROZEN, "still"), (TAUGHT, "slow")], ids=["frozen", "teacher"])
def test_what_has_no_gradient_does_not_run_again(recipe: str, other: str) -> None:
    model = model_of(recipe)
    towers = dict(model.encoders.items())
    if model.teachers is not None:
        towers |= {"slow": next(module for module in model.teachers.modules() if isinstance(module, Tower))}
    step = vlmdsl.CachedStep(model, micro=4)
    step.backward(step(batch()).loss)
    assert towers[other].calls == {(4, False): 1, (2, False): 1}
    assert towers["vision"].calls == {(4, False): 1, (2, False): 1, (4, True): 1, (2, True): 1}


def test_teachers_move_and_queues_are_written_once_per_step() -> None:
    plain = model_of(TAUGHT)
    cached = copy.deepcopy(plain)
    with torch.no_grad():
        for model in (plain, cached):
            model.encoders["vision"].pooled_projection.weight.mul_(2)
    plain(batch()).loss.backward()
    step = vlmdsl.CachedStep(cached, micro=1)
    step.backward(step(batch()).loss)
    for model in (plain, cached):
        model.after_step()
    for (name, expected), state in zip(plain.state_dict().items(), cached.state_dict().values(), strict=True):
        torch.testing.assert_close(state, expected, msg=lambda text, name=name: f"{name}: {text}")


def test_dropout_is_replayed() -> None:
    """The gradient is that of the very loss that was returned: by differences of it, drawn again from the same state."""
    model = model_of(PLAIN, dropout=0.5).double()
    single = batch()
    values = {name: ImageBatch(value.pixels.double()) for name, value in single.values.items()}
    images = Batch(values, single.index, single.keys)
    step = vlmdsl.CachedStep(model, micro=4)

    def loss() -> Tensor:
        torch.manual_seed(3)
        return step(images).loss

    step.backward(loss())
    weight = model.encoders["vision"].pooled_projection.weight
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    along = (weight.grad * direction).sum()
    losses = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(direction, alpha=sign * 1e-6)
            losses.append(loss())
            weight.sub_(direction, alpha=sign * 1e-6)
    torch.testing.assert_close((losses[0] - losses[1]) / 2e-6, along, rtol=1e-6, atol=1e-9)


def test_random_numbers_go_on_as_if_nothing_had_been_replayed() -> None:
    step = vlmdsl.CachedStep(model_of(PLAIN, dropout=0.5), micro=4)
    output = step(batch())
    state = torch.get_rng_state()
    step.backward(output.loss)
    assert torch.equal(torch.get_rng_state(), state)


def test_both_passes_have_the_precision_of_the_step() -> None:
    model = model_of(PLAIN)
    plain = copy.deepcopy(model)
    step = vlmdsl.CachedStep(model, micro=4)
    with torch.autocast("cpu", torch.bfloat16):
        output, expected = step(batch()), plain(batch())
    step.backward(output.loss)
    expected.loss.backward()
    assert model.encoders["vision"].dtypes == {torch.bfloat16}
    for gradient, whole in zip(gradients(model), gradients(plain), strict=True):
        torch.testing.assert_close(gradient, whole, rtol=0.05, atol=0.02 * float(whole.abs().max()))

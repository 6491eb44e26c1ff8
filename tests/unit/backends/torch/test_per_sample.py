"""Numbers kept per sample of the data set: what a step reads and writes, and what follows an epoch."""

from __future__ import annotations

import copy
import math
import pickle

import pytest
import torch
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.backends.torch.ops import per_sample

KEPT = """
recipe kept(image: Image, text: Text)
let s = score(image, text)
let u = running_mean(s, per="sample", momentum=0.75)
minimize mean(s * exp(u))
"""
NOISY = """
recipe noisy(image: Image, text: Text)
let latest = running_mean(1 - score(image, text), per="sample", momentum=0)
let noise = mixture(latest)
minimize contrast(image, text, weight=1 - noise)
"""
SAMPLES = 12
BATCHES = ([0, 5, 11, 7], [5, 3, 7, 1], [11, 5, 0, 2])


def compiled(recipe: str, samples: int | None = SAMPLES) -> Objective:
    return vlmdsl.compile(recipe, samples=samples, compiled=False).double()


def features_of(places: list[int], seed: int = 0) -> dict[str, Tensor]:
    """Random features of the samples in these places."""
    generator = torch.Generator().manual_seed(seed)
    image, text = torch.randn(2, len(places), 6, generator=generator, dtype=torch.float64)
    return {"image": image, "text": text, "index": torch.tensor(places)}


def scores(features: dict[str, Tensor]) -> Tensor:
    return torch.cosine_similarity(features["image"], features["text"])


def table(objective: Objective, name: str = "u_mean") -> Tensor:
    return objective.state.get_buffer(name)


def test_a_step_moves_the_means_of_its_samples_and_no_others() -> None:
    objective, expected = compiled(KEPT), torch.full((SAMPLES,), math.nan, dtype=torch.float64)
    for step, places in enumerate(BATCHES):
        features = features_of(places, step)
        s = scores(features)
        for place, score in zip(places, s, strict=True):
            expected[place] = score if expected[place].isnan() else 0.75 * expected[place] + 0.25 * score
        out = objective(**features)
        torch.testing.assert_close(out.loss, (s * expected[places].exp()).mean(), rtol=1e-12, atol=0)
        torch.testing.assert_close(table(objective), expected, rtol=1e-12, atol=0, equal_nan=True)
    assert table(objective).isnan().sum() == SAMPLES - len({place for places in BATCHES for place in places})


def test_the_mean_of_the_steps_before_is_the_score_of_a_sample_that_is_new_or_its_start() -> None:
    previous = KEPT.replace("momentum=0.75", 'momentum=0.75, reads="previous"{}')
    without, started = compiled(previous.format("")), compiled(previous.format(", start=0.5"))
    first, second = features_of(BATCHES[0]), features_of(BATCHES[1], seed=1)
    torch.testing.assert_close(without(**first).loss, (scores(first) * scores(first).exp()).mean())
    torch.testing.assert_close(started(**first).loss, (scores(first) * math.exp(0.5)).mean())
    before = table(without)[second["index"]]
    assert before.isnan().any()
    assert not before.isnan().all()
    read = torch.where(before.isnan(), scores(second), before)
    torch.testing.assert_close(without(**second).loss, (scores(second) * read.exp()).mean())
    torch.testing.assert_close(table(started)[0], 0.75 * 0.5 + 0.25 * scores(first)[0])


def test_no_gradient_enters_through_what_is_kept() -> None:
    objective, features = compiled(KEPT), features_of(BATCHES[0])
    image = features["image"].requires_grad_()
    objective(**features).loss.backward()
    s = scores(features)
    (expected,) = torch.autograd.grad((s * s.detach().exp()).mean(), image)
    torch.testing.assert_close(image.grad, expected)
    assert not table(objective).requires_grad


def test_of_a_sample_that_is_twice_in_a_batch_the_last_score_stays() -> None:
    objective, features = compiled(KEPT), features_of([4, 2, 4, 4, 2])
    objective(**features)
    torch.testing.assert_close(table(objective)[[2, 4]], scores(features)[[4, 3]])


def test_an_evaluation_reads_and_does_not_write() -> None:
    objective = compiled(NOISY)
    objective(**features_of(BATCHES[0]))
    objective.after_epoch()
    before = copy.deepcopy(objective.state_dict())
    evaluated = objective.eval()(**features_of(BATCHES[1], 1)).loss
    assert all(
        torch.equal(value.nan_to_num(9), before[name].nan_to_num(9)) for name, value in objective.state_dict().items()
    )
    assert objective.train()(**features_of(BATCHES[1], 1)).loss == evaluated


def test_a_mixture_is_fitted_after_the_epoch_and_at_no_other_time() -> None:
    objective = compiled(NOISY)
    for step, places in enumerate(BATCHES):
        objective(**features_of(places, step))
    assert not table(objective, "noise_probability").any()
    objective.after_epoch()
    latest = table(objective, "latest_mean")
    fitted = ops.mixture(latest, torch.zeros_like(latest), "larger", 20)
    assert torch.equal(table(objective, "noise_probability"), fitted)
    assert fitted[~latest.isnan()].max() > 0.5
    assert not fitted[latest.isnan()].any()
    features = features_of(BATCHES[0], seed=7)
    plain = vlmdsl.compile(
        "recipe plain(image: Image, text: Text, w: Number)\nminimize contrast(image, text, weight=w)", compiled=False
    ).double()
    weight = 1.0 - fitted[features["index"]]
    expected = plain(image=features["image"], text=features["text"], w=weight).loss
    torch.testing.assert_close(objective(**features).loss, expected)


def test_without_state_of_epochs_nothing_follows_one() -> None:
    objective = compiled(KEPT)
    objective(**features_of(BATCHES[0]))
    before = table(objective).clone()
    objective.after_epoch()
    assert torch.equal(table(objective).nan_to_num(9), before.nan_to_num(9))
    assert "after_epoch" not in objective.source


@pytest.mark.parametrize("block", [1, 3, 100])
def test_a_mixture_does_not_depend_on_how_many_samples_are_in_memory(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.cat([torch.randn(30, generator=generator), 5 + 2 * torch.randn(10, generator=generator)]).double()
    values[::7] = math.nan
    before = torch.full_like(values, 0.25)
    whole = ops.mixture(values, before, "larger", 20)
    monkeypatch.setattr(per_sample, "_BLOCK", block)
    torch.testing.assert_close(ops.mixture(values, before, "larger", 20), whole, rtol=1e-9, atol=1e-12)
    assert torch.equal(whole[::7], before[::7])
    assert not torch.equal(whole, before)


@pytest.mark.parametrize("values", [[math.nan, 1.0, math.nan], [2.0, 2.0, 2.0], [0.0, 0.0, 1e9], [math.inf, 1.0, 1.5]])
def test_a_mixture_of_few_or_equal_numbers_is_finite(values: list[float]) -> None:
    fitted = ops.mixture(torch.tensor(values), torch.full((3,), 0.125), "larger", 20)
    assert fitted.isfinite().all()
    assert ((fitted >= 0) & (fitted <= 1)).all()
    if not torch.tensor(values).isfinite().all():
        assert fitted[0] == 0.125


def test_what_does_not_fit_is_named() -> None:
    objective = compiled(KEPT, samples=None)
    features = features_of(BATCHES[0])
    with pytest.raises(ValueError, match=r"keeps a number per sample .* `vlmdsl.compile\(..., samples=N\)`"):
        objective(**features)
    objective.state.allocate_samples(SAMPLES)
    with pytest.raises(TypeError, match=r"lacks index \[B\], the position of each sample in the data set"):
        objective(image=features["image"], text=features["text"])
    for wrong in (-1, SAMPLES):
        with pytest.raises(ValueError, match=f"index holds {wrong}, but the data set has the samples 0 to 11"):
            objective(**features | {"index": torch.tensor([0, 1, 2, wrong])})
    with pytest.raises(ValueError, match="the table u_mean is of 12 samples, not of 13: it belongs to another data set"):
        objective.state.allocate_samples(13)
    with pytest.raises(
        RuntimeError, match="the table u_mean holds numbers of 13 samples in the checkpoint, and numbers of 12"
    ):
        objective.load_state_dict(compiled(KEPT, samples=13).state_dict())


def test_a_table_is_saved_loaded_copied_and_sent() -> None:
    objective = compiled(NOISY)
    objective(**features_of(BATCHES[0]))
    objective.after_epoch()
    loaded = compiled(NOISY, samples=None)  # a checkpoint says how many samples there are
    loaded.load_state_dict(objective.state_dict())
    copies = [loaded, copy.deepcopy(objective), pickle.loads(pickle.dumps(objective))]
    expected = [run(objective), *map(run, copies)]
    assert len(set(expected)) == 1


def run(objective: Objective) -> tuple[float, float]:
    """The loss of a step, and the largest probability after its epoch."""
    loss = objective(**features_of(BATCHES[1], seed=3)).loss.item()
    objective.after_epoch()
    return loss, table(objective, "noise_probability").max().item()


def test_a_field_may_be_called_as_the_index_is() -> None:
    recipe = KEPT.replace("text: Text)", "text: Text, index: Number)").replace("s * exp(u)", "index * s * exp(u)")
    objective = compiled(recipe)
    assert objective.inputs["index_2"].dtype == "int64"
    features = features_of(BATCHES[0])
    out = objective(**features | {"index_2": features["index"], "index": torch.ones(4)})
    assert out.loss.isfinite()


def test_what_is_excluded_and_not_a_number_is_not_kept() -> None:
    recipe = """
recipe some(image: Image, text: Text, valid: Flag)
let s = score(image, text)
let u = running_mean(s, per="sample", momentum=0.5)
minimize where_mean(s * u, valid)
def where_mean(x, condition) = mean(x, over=condition)
"""
    objective, features = compiled(recipe), features_of(BATCHES[0])
    features |= {"valid": torch.tensor([True, False, True, True])}
    features["image"][1] = math.nan
    features["image"].requires_grad_()
    out = objective(**features)
    out.loss.backward()
    assert out.loss.isfinite()
    assert features["image"].grad.isfinite().all()
    assert table(objective)[[0, 5, 11, 7]].isfinite().tolist() == [True, False, True, True]


@pytest.mark.parametrize("options", [{"passes": "off"}, {"lowering": "chunked"}], ids=["without passes", "in blocks"])
def test_passes_and_lowerings_change_nothing(options: dict[str, str]) -> None:
    usual, other = compiled(NOISY), vlmdsl.compile(NOISY, samples=SAMPLES, compiled=False, **options).double()
    for step, places in enumerate(BATCHES):
        losses = [objective(**features_of(places, step)).loss for objective in (usual, other)]
        torch.testing.assert_close(*losses, rtol=1e-12, atol=0)
        for objective in (usual, other):
            objective.after_epoch()
    assert usual.state.state_dict().keys() == other.state.state_dict().keys()
    for name in usual.state.state_dict():
        torch.testing.assert_close(table(usual, name), table(other, name), rtol=1e-9, atol=1e-12, equal_nan=True)

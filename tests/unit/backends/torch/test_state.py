"""State: what a training step leaves behind, what an evaluation does not, and what a checkpoint brings back."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.backends.torch.ops.state import nearest_entry
from vlmdsl.backends.torch.values import Memory
from vlmdsl.runtime.training.checkpoint import Position, load_checkpoint, save_checkpoint
from vlmdsl.testing.laws import example_features

GATED = """
recipe gated(image: Image, text: Text)
let usual = running_mean(score(image, text), momentum=0.75, start=0.5)
minimize contrast(image, text, weight=exp(stop(score(image, text)) - usual))
"""


QUEUED = """
recipe queued(image: Image, text: Text)
let words = queue(text, size=7)
minimize memory_contrast(image, text, words, temperature=0.5)
"""


def compiled(recipe: str) -> Objective:
    return vlmdsl.compile(recipe, compiled=False).double()


def steps(objective: Objective, first: int, last: int) -> list[float]:
    return [objective(**example_features(objective, seed=step)).loss.item() for step in range(first, last)]


def test_a_running_mean_takes_the_batch_in_before_it_is_read() -> None:
    objective = compiled(GATED)
    features = example_features(objective)
    scores = torch.cosine_similarity(features["image"], features["text"])
    expected = 0.75 * 0.5 + 0.25 * scores.mean()
    out = objective(**features)
    assert out.metrics["usual_mean"].item() == pytest.approx(expected.item(), abs=1e-12)
    assert objective.get_buffer("state.usual_mean").item() == pytest.approx(expected.item(), abs=1e-12)
    objective(**features)
    again = 0.75 * expected + 0.25 * scores.mean()
    assert objective.get_buffer("state.usual_mean").item() == pytest.approx(again.item(), abs=1e-12)


def test_no_gradient_enters_through_the_mean() -> None:
    open_ended = (
        "recipe r(image: Image, text: Text)\nlet s = score(image, text)\nminimize mean(s - running_mean(s, momentum=0))"
    )
    objective = compiled(open_ended)
    features = {name: value.requires_grad_() for name, value in example_features(objective).items()}
    objective(**features).loss.backward()
    gradient = torch.autograd.grad(torch.cosine_similarity(features["image"], features["text"]).mean(), features["image"])[0]
    torch.testing.assert_close(features["image"].grad, gradient)


def test_evaluation_mode_gives_the_next_loss_and_changes_nothing() -> None:
    objective = compiled(GATED)
    steps(objective, 0, 2)
    before = copy.deepcopy(objective.state_dict())
    expected = steps(objective.eval(), 2, 3)
    assert all(torch.equal(value, before[name]) for name, value in objective.state_dict().items())
    assert steps(objective.train(), 2, 3) == expected


def test_a_loss_may_be_differentiated_after_further_steps() -> None:
    def gradients(*, late: bool) -> list[Tensor]:
        objective = compiled("alip")
        losses = []
        for step in range(2):
            losses.append(objective(**example_features(objective, seed=step)).loss)
            if not late:
                losses[-1].backward()
        if late:
            torch.stack(losses).sum().backward()
        return [parameter.grad for parameter in objective.parameters()]

    torch.testing.assert_close(gradients(late=True), gradients(late=False))


@pytest.mark.parametrize("recipe", ["alip", QUEUED.replace("0.5", "learned(0.5)")], ids=["alip", "queue"])
def test_a_resumed_run_goes_on_bit_for_bit(recipe: str, tmp_path: Path) -> None:
    whole = steps(compiled(recipe), 0, 4)
    first = compiled(recipe)
    optimizer = torch.optim.AdamW(first.named_parameters())
    half = steps(first, 0, 2)
    folder = save_checkpoint(tmp_path, first, optimizer, Position(2, 0, 2, seed=0))
    resumed = compiled(recipe)
    load_checkpoint(folder, resumed, torch.optim.AdamW(resumed.named_parameters()))
    assert half + steps(resumed, 2, 4) == whole


def test_state_that_nothing_reads_is_not_kept() -> None:
    silent = "let unused = running_mean(score(image, text))\nminimize contrast(image, text)"
    assert [name for name, _ in compiled(silent).named_buffers()] == []
    weightless = GATED.replace("minimize ", "minimize {\n  a: contrast(image, text)\n  b: 0 * ") + "}"
    assert [name for name, _ in compiled(weightless).named_buffers()] == []


def test_states_have_names_of_their_own() -> None:
    recipe = """
    recipe twice(image: Image, text: Text)
    def centred(s) = exp(s - running_mean(s))
    let a = centred(stop(score(image, text)))
    let b = centred(stop(score(image, text, by=dot)))
    minimize contrast(image, text, weight=a * b * centred(a), temperature=learned(0.07, form="direct", name="a_mean"))
    """
    objective = compiled("\n".join(line.strip() for line in recipe.strip().splitlines()))
    names = [*objective.state_dict()]
    assert len(names) == len(set(names)) == 4
    assert {"a_mean_2", "state.a_mean", "state.b_mean"} < set(names)


def unit(values: Tensor) -> Tensor:
    return values / values.norm(dim=-1, keepdim=True)


def test_a_queue_is_read_before_it_is_written_and_unfilled_slots_take_no_part() -> None:
    """Batches of 5 into 7 slots: empty, partly filled, wrapped around; the loss written out over what was there before."""
    objective = compiled(QUEUED)
    history = torch.zeros(0, 6, dtype=torch.float64)
    for step in range(4):
        features = {name: value.requires_grad_() for name, value in example_features(objective, seed=step).items()}
        out = objective(**features)
        image, text = unit(features["image"]), unit(features["text"])
        logits = torch.cat([(image * text).sum(1, keepdim=True), image @ history[-7:].T], dim=1) / 0.5
        expected = (logits.logsumexp(1) - logits[:, 0]).mean()
        torch.testing.assert_close(out.loss, expected)
        gradients, expected_gradients = (torch.autograd.grad(loss, [*features.values()]) for loss in (out.loss, expected))
        torch.testing.assert_close(gradients, expected_gradients)
        history = torch.cat([history, text.detach()])
    slots = torch.stack([history[number] for number in (14, 15, 16, 17, 18, 19, 13)])  # the 14th took the first slot again
    torch.testing.assert_close(objective.get_buffer("state.words"), slots)


def test_of_a_batch_larger_than_the_queue_the_newest_stay() -> None:
    objective = compiled(QUEUED)
    features = example_features(objective, batch=17)
    objective(**features)
    expected = unit(features["text"])[[14, 15, 16, 10, 11, 12, 13]]
    torch.testing.assert_close(objective.get_buffer("state.words"), expected)


def test_several_streams_enter_one_after_the_other() -> None:
    objective = compiled(QUEUED.replace("queue(text, size=7)", "queue((text, image), size=64)"))
    features = example_features(objective)
    objective(**features)
    expected = torch.cat([unit(features["text"]), unit(features["image"])])
    torch.testing.assert_close(objective.get_buffer("state.words")[:10], expected)
    assert int(objective.get_buffer("state.words_written")) == 10


def test_the_neighbour_in_an_empty_queue_is_oneself() -> None:
    recipe = QUEUED.replace(
        "memory_contrast(image, text, words,", 'contrast(image, nearest(text, words), directions="rows",'
    )
    objective, plain = compiled(recipe), compiled(recipe.replace("nearest(text, words)", "stop(text)"))
    features = example_features(objective)
    torch.testing.assert_close(objective(**features).loss, plain(**features).loss)
    other = example_features(objective, seed=1)
    best = (unit(other["text"]) @ unit(features["text"]).T).argmax(1)
    loss = objective(**other).loss
    torch.testing.assert_close(loss, plain(image=other["image"], text=features["text"][best]).loss)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
@pytest.mark.parametrize("written", [1, 5, 7, 20])
def test_neighbours_are_found_a_few_entries_at_a_time(chunk: int, written: int) -> None:
    generator = torch.Generator().manual_seed(chunk + written)
    entries = torch.randint(-2, 3, (7, 3), generator=generator).double()  # small whole numbers: many products are equal
    query = torch.randint(-2, 3, (6, 3), generator=generator).double()
    memory = Memory(entries, torch.tensor(written))
    nearest = nearest_entry(query, entries, memory.written, chunk)
    assert torch.equal(nearest, (query @ entries[:written].T).argmax(dim=1))
    matrix = ops.similarity(query, memory, by="dot")
    assert torch.equal(ops.nearest(query, memory, query), ops.nearest(matrix, memory, query))


def test_similarities_that_only_the_search_reads_are_never_made() -> None:
    recipe = "let words = queue(text, size=7)\nminimize contrast(image, nearest(text, words{by}), directions='rows'){more}"
    alone = compiled(recipe.format(by="", more="").replace("'", '"'))
    assert "ops.similarity" not in alone.source
    blended = compiled(recipe.format(by=", by=0.5*cosine + 0.5*euclidean", more="").replace("'", '"'))
    assert "ops.similarity" in blended.source


def test_a_random_start_fills_every_slot_alike_everywhere() -> None:
    recipe = QUEUED.replace("size=7", 'size=7, start="random"')
    one, other = compiled(recipe), compiled(recipe)
    features = example_features(one)
    assert one(**features).loss.item() == other(**features).loss.item() > 0
    lengths = one.get_buffer("state.words").norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ('mean(cross_entropy(past, targets=paired, along="rows"))', "V0303"),
        ("mean(logsumexp(past + similarity(image, text)))", "V0303"),
        ("mean(logsumexp(transpose(past)))", "V0301"),
        ("mean(logsumexp(restrict(past, to=score(image, text) < 0)))", "V0301"),
        ('mean(logsumexp(reuse(past, matrix="rows")))', "V0301"),
        ("mean(logsumexp(past) * score(image, words))", "V0301"),
        ("mean(logsumexp(past) * logsumexp(similarity(image, words, by=tokenmax)))", "V0301"),
    ],
)
def test_what_has_no_meaning_against_a_queue_is_reported(expression: str, code: str) -> None:
    lets = "let words = queue(text)\nlet past = similarity(image, words)"
    diagnostics = vlmdsl.check(f"recipe r(image: Image, text: Text)\n{lets}\nminimize {expression}")
    assert [fault.code for fault in diagnostics] == [code], diagnostics


def test_chance_counts_the_candidates_there_are() -> None:
    """A queue of 7 takes batches of 5: it is empty, holds five, is full."""
    objective = compiled(QUEUED)
    chances = [
        objective(**example_features(objective, seed=step)).metrics["memory_contrast.chance"].item() for step in range(3)
    ]
    assert chances == pytest.approx([0.0, math.log(6), math.log(8)])
    constant = {name: torch.ones_like(value) for name, value in example_features(objective).items()}
    for _ in range(3):
        out = objective(**constant)
    assert out.loss.item() == pytest.approx(out.metrics["memory_contrast.chance"].item())
    excess = "softplus(logsumexp(similarity(image, words)) - score(image, text) * score(image, text))"
    for unknown in (f"mean({excess})", "memory_contrast(image, text, words, weight=exp(score(image, text)))"):
        other = compiled(f"{QUEUED.partition('minimize')[0]}minimize {unknown}")
        assert not [name for name in other(**constant).metrics if name.endswith("chance")]


CENTRED = """
recipe centred(image: Image, text: Text)
let m = cosine_ramp(0.5, 1)
let centre = running_mean(stop(image), momentum=m, start=0.1, reads="previous")
let usual = running_mean(text, momentum=0.75)
minimize mean(score(image.pooled - centre, text.pooled + usual, by=euclidean))
"""


def test_a_mean_of_features_is_a_vector_that_is_read_before_or_after_the_batch_enters() -> None:
    objective = compiled(CENTRED)
    centre, mean = torch.full((6,), 0.1, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    for step, momentum in ((0, 0.5), (1, 0.75), (2, 1.0)):
        features = example_features(objective, seed=step) | {"m": torch.tensor(momentum)}
        mean = 0.75 * mean + 0.25 * features["text"].mean(dim=0)
        expected = -((features["image"] - centre - features["text"] - mean) ** 2).sum(dim=1).mean()
        torch.testing.assert_close(objective(**features).loss, expected, rtol=1e-12, atol=0)
        centre = momentum * centre + (1 - momentum) * features["image"].mean(dim=0)
        torch.testing.assert_close(objective.get_buffer("state.centre_mean"), centre, rtol=1e-12, atol=1e-15)
        torch.testing.assert_close(objective.get_buffer("state.usual_mean"), mean, rtol=1e-12, atol=1e-15)


def test_a_vector_is_in_checkpoints_keeps_its_precision_and_is_of_one_length() -> None:
    fresh = vlmdsl.compile(CENTRED, compiled=False)
    assert fresh.get_buffer("state.centre_mean").shape == (0,)
    steps(fresh.double(), 0, 1)
    assert torch.equal(fresh.get_buffer("state.usual_mean"), steps_of_mean())
    saved = copy.deepcopy(fresh.state_dict())
    other = vlmdsl.compile(CENTRED, compiled=False).double()
    other.load_state_dict(saved)
    assert steps(other.eval(), 1, 2) == steps(fresh.eval(), 1, 2)
    assert all(torch.equal(value, saved[name]) for name, value in fresh.state_dict().items())
    assert other.bfloat16().get_buffer("state.centre_mean").dtype is torch.float32
    with pytest.raises(
        RuntimeError, match=r"the mean centre_mean holds a vector of 6 features in the checkpoint, and a vector of 7"
    ):
        moved(7).load_state_dict(saved)
    with pytest.raises(ValueError, match="the mean centre_mean holds vectors of 6 features, but image has 7"):
        fresh(image=torch.zeros(2, 7), text=torch.zeros(2, 7), m=torch.tensor(0.5))


def steps_of_mean() -> Tensor:
    return 0.25 * example_features(compiled(CENTRED))["text"].mean(dim=0)


def moved(dimension: int) -> Objective:
    """An objective whose vectors have a length."""
    objective = vlmdsl.compile(CENTRED, compiled=False)
    objective(image=torch.zeros(2, dimension), text=torch.zeros(2, dimension), m=torch.tensor(0.5))
    return objective


def test_an_exact_start_in_double_precision_and_on_meta() -> None:
    doubled = vlmdsl.compile(CENTRED, compiled=False).double().eval()
    doubled.state.allocate({"image": 3, "text": 3})
    assert torch.equal(doubled.get_buffer("state.centre_mean"), torch.full((3,), 0.1, dtype=torch.float64))
    later = vlmdsl.compile(CENTRED, compiled=False)
    later.state.allocate({"image": 3, "text": 3})
    assert torch.equal(later.double().get_buffer("state.centre_mean"), torch.full((3,), 0.1, dtype=torch.float64))
    with torch.device("meta"):
        on_meta = vlmdsl.compile(CENTRED, compiled=False)
        features = {name: torch.zeros(value.shape) for name, value in example_features(on_meta).items()}
    assert on_meta(**features).loss.is_meta

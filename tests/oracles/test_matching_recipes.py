"""The recipes albef, blip and fiber give the numbers of their authors.

Contrast with queues and soft targets, matching of mined pairs, masked and next tokens, on the oracles' own features."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.ir import Teacher
from vlmdsl.runtime.model.teachers import momentum_at
from vlmdsl.testing.oracle import Oracle, load_oracle

DATA = Path(__file__).parent / "data"
VIEW = {"albef": "image_augment_mae_0", "blip": "image_augment_mae_0", "fiber": "image"}
SAMPLES, ENTRIES = 8, 5
NUMBERS = torch.arange(SAMPLES, dtype=torch.float64)[:, None, None]
"""States that say which sample they are of."""


def objective_of(recipe: str, oracle: Oracle, *, compiled: bool = False, filled: int | None = None) -> Objective:
    """The recipe with the oracle's temperature, as the authors' clamp leaves it, and its queues, full or so far `filled`."""
    queues = {name: oracle.inputs.get(f"{name}_queue", torch.zeros(16, 24)).T for name in ("image", "text")}
    stage = "coarse" if recipe == "fiber" else None
    objective = vlmdsl.compile(recipe, stage=stage, compiled=compiled, size=len(queues["text"])).double()
    bounds = oracle.hyperparameters.get("temp_clamp") or oracle.hyperparameters.get("clamp") or (0.001, 1.0)
    state: dict[str, Any] = {"temperature": oracle.inputs.get("temp", torch.tensor(0.07)).clamp(*bounds)}
    for name, queue in queues.items():
        written = len(queue) + int(oracle.inputs.get("queue_ptr", torch.tensor(0))) if filled is None else filled
        state |= {f"state.{name}s": queue, f"state.{name}s_written": torch.tensor(written)}
    if recipe == "fiber":  # inputs that say which entry of the pool they are
        numbers = torch.arange(SAMPLES, SAMPLES + len(queues["text"]))
        state |= {"state.kept_images": numbers[:, None, None, None].double(), "state.keys": numbers}
        state |= {"state.kept_texts": numbers[:, None], "state.kept_texts_mask": torch.ones_like(numbers[:, None]).bool()}
        state |= {f"state.{name}_written": torch.tensor(written) for name in ("kept_images", "kept_texts", "keys")}
    objective.load_state_dict(state)
    return objective


def modules_of(**tensors: Tensor) -> dict[str, Any]:
    """A fusion whose pooled features are looked up by the image and the text, and linear maps that are the oracle's."""
    fused = tensors.get("fused", torch.zeros(SAMPLES + 24, SAMPLES + 24, 10, dtype=torch.float64))
    weight = tensors.get("itm_weight", torch.zeros(2, fused.shape[2], dtype=torch.float64))
    bias = tensors.get("itm_bias", torch.zeros(2, dtype=torch.float64))
    nothing = torch.zeros(SAMPLES, 1, ENTRIES, dtype=torch.float64)

    def fusion(states: Tensor, mask: Tensor | None, context: Tensor, context_mask: Tensor | None) -> SimpleNamespace:
        pooled = fused[context[:, 0, 0].long(), states[:, 0, 0].long()]
        return SimpleNamespace(pooled=pooled, tokens=states, mask=mask)

    def tower(inputs: Tensor, mask: Tensor | None = None) -> SimpleNamespace:
        states = inputs.double().flatten(1)[:, :1, None]
        return SimpleNamespace(states=states, embedded=states, mask=mask, pooled=None)

    return {
        "vision": tower,
        "language": tower,
        "fusion": fusion,
        "fusion_teacher": fusion,
        "matched": lambda pooled: pooled @ weight.T + bias,
        "vocabulary": lambda states: tensors.get("logits", nothing),
        "vocabulary_teacher": lambda states: tensors.get("logits_m", nothing),
    }


def losses(objective: Objective, recipe: str, **tensors: Tensor) -> dict[str, Tensor]:
    """The terms of an objective for an oracle's tensors; what it lacks is 0."""
    view, zeros = VIEW[recipe], torch.zeros(SAMPLES, 16, dtype=torch.float64)
    inputs = {
        f"{view}_contrast": tensors.get("image_raw", zeros),
        "text_contrast": tensors.get("text_raw", zeros),
        f"{view}_contrast_teacher": tensors.get("image_raw_m", zeros),
        "text_contrast_teacher": tensors.get("text_raw_m", zeros),
        "text_masked_fusion_targets": tensors.get("labels", torch.full((SAMPLES, 1), -100)),
        "text_captioner_vocabulary": tensors.get("logits", torch.zeros(SAMPLES, 1, ENTRIES, dtype=torch.float64)),
        "text_captioner_next": tensors.get("labels", torch.full((SAMPLES, 1), -100)),
        "alpha": tensors.get("alpha", torch.tensor(0.0, dtype=torch.float64)),
        "wrong_text_uniform": tensors.get("wrong_text", torch.rand(SAMPLES, dtype=torch.float64)),
        "wrong_image_uniform": tensors.get("wrong_image", torch.rand(SAMPLES, dtype=torch.float64)),
    }
    numbers = torch.arange(SAMPLES)
    inputs |= {"image_input": NUMBERS[:, :, :, None], "text_input": numbers[:, None], "key": numbers}
    inputs["text_input_mask"] = torch.ones(SAMPLES, 1, dtype=torch.bool)
    for name in (view, "text", "text_masked", "text_masked_teacher", f"{view}_teacher"):
        inputs |= {f"{name}_states": NUMBERS, f"{name}_embedded": NUMBERS}
        inputs |= {f"{name}_mask": torch.ones(SAMPLES, 1, dtype=torch.bool)}
    features = {name: value for name, value in inputs.items() if name in objective.inputs}
    return dict(objective(modules=modules_of(**tensors), **features).terms)


def leaves_of(oracle: Oracle) -> dict[str, Tensor]:
    """The inputs of an oracle; those that it has gradients of require one."""
    return {
        name: value.clone().requires_grad_() if name in oracle.gradients else value for name, value in oracle.inputs.items()
    }


def assert_agrees(oracle: Oracle, objective: Objective, leaves: dict[str, Tensor], loss: Tensor) -> None:
    loss.backward()
    torch.testing.assert_close(loss.detach(), oracle.outputs["total"], rtol=oracle.rtol, atol=0)
    leaves = leaves | {"temp": dict(objective.named_parameters())["temperature"]}
    for name, expected in oracle.gradients.items():
        torch.testing.assert_close(leaves[name].grad, expected, rtol=oracle.rtol, atol=1e-12)


CONTRASTS = [
    ("albef", "albef-itc-tempclamp"),
    ("blip", "blip-itc"),
    ("fiber", "fiber-itc"),
    ("fiber", "fiber-itc-tempclamp"),
]


@pytest.mark.parametrize(("recipe", "name"), CONTRASTS)
def test_contrast_with_queues(recipe: str, name: str) -> None:
    """FIBER's loss counts slots that hold what they were initialised with, as its queue is full here."""
    oracle = load_oracle(DATA, name)
    objective, leaves = objective_of(recipe, oracle), leaves_of(oracle)
    assert_agrees(oracle, objective, leaves, losses(objective, recipe, **leaves)["itc"])
    if "image_queue" in oracle.outputs:
        for side in ("image", "text"):
            written = dict(objective.named_buffers())[f"state.{side}s_written"]
            assert written % len(oracle.inputs["image_queue"].T) == oracle.outputs["queue_ptr"]
            torch.testing.assert_close(
                dict(objective.named_buffers())[f"state.{side}s"], oracle.outputs[f"{side}_queue"].T, rtol=1e-12, atol=1e-15
            )


def test_only_slots_that_were_filled_are_keys() -> None:
    """Where the authors' loss counts what a queue was initialised with: their formula over the filled slots."""
    oracle = load_oracle(DATA, "fiber-itc")
    filled = int(oracle.inputs["queue_total"])
    objective, leaves = objective_of("fiber", oracle, filled=filled), leaves_of(oracle)
    loss = losses(objective, "fiber", **leaves)["itc"]
    again = leaves_of(oracle)
    image, text = (torch.nn.functional.normalize(again[f"{side}_raw"], dim=1) for side in ("image", "text"))
    halves = [
        torch.nn.functional.cross_entropy(
            torch.cat([query @ key.detach().T, query @ again[queue][:, :filled]], dim=1) / again["temp"],
            torch.arange(SAMPLES),
        )
        for query, key, queue in ((image, text, "text_queue"), (text, image, "image_queue"))
    ]
    expected = (halves[0] + halves[1]) / 2
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    loss.backward()
    expected.backward()
    for name in ("image_raw", "text_raw"):
        torch.testing.assert_close(leaves[name].grad, again[name].grad, rtol=1e-9, atol=1e-13)
    torch.testing.assert_close(objective.get_parameter("temperature").grad, again["temp"].grad, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    ("recipe", "name"), [("albef", "albef-itm-alpha0"), ("blip", "blip-itm"), ("blip", "blip-itm-alpha0")]
)
def test_matching_of_the_pairs_that_were_drawn(recipe: str, name: str) -> None:
    oracle = load_oracle(DATA, name)
    objective, leaves = objective_of(recipe, oracle), leaves_of(oracle)
    leaves |= {
        "wrong_image": middle_of(oracle.outputs["w_t2i"], oracle.inputs["neg_image_for_text"]),
        "wrong_text": middle_of(oracle.outputs["w_i2t"], oracle.inputs["neg_text_for_image"]),
    }
    assert_agrees(oracle, objective, leaves, losses(objective, recipe, **leaves)["itm"])


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_matching_with_what_was_drawn_from_the_batch_and_from_queues(compiled: bool) -> None:
    oracle = load_oracle(DATA, "fiber-itm")
    drawn = {"image": oracle.inputs["neg_image_for_text"], "text": oracle.inputs["neg_text_for_image"]}
    assert all((picks < SAMPLES).any() and (picks >= SAMPLES).any() for picks in drawn.values())
    objective = objective_of("fiber", oracle, compiled=compiled, filled=int(oracle.inputs["queue_total"]))
    leaves = leaves_of(oracle) | {
        "wrong_image": middle_of(oracle.outputs["w_t2i"], drawn["image"]),
        "wrong_text": middle_of(oracle.outputs["w_i2t"], drawn["text"]),
    }
    assert_agrees(oracle, objective, leaves, losses(objective, "fiber", **leaves)["itm"])
    kept = dict(objective.named_buffers())
    expected = torch.cat([torch.arange(8, 18), torch.arange(8), torch.tensor([26, 27])])
    assert torch.equal(kept["state.kept_images"].flatten().long(), expected)
    assert torch.equal(kept["state.kept_texts"].flatten(), expected)
    assert torch.equal(kept["state.keys"], expected)


def middle_of(weights: Tensor, picks: Tensor) -> Tensor:
    """Numbers by which each row draws its pick in proportion to the weights: the middle of its part of [0, 1)."""
    shares = weights / weights.sum(dim=1, keepdim=True)
    return (shares.cumsum(dim=1) - shares / 2).gather(1, picks[:, None]).squeeze(1)


@pytest.mark.parametrize(("recipe", "name"), [("albef", "albef-mlm-alpha0"), ("fiber", "fiber-mlm")])
def test_masked_tokens(recipe: str, name: str) -> None:
    oracle = load_oracle(DATA, name)
    objective, leaves = objective_of(recipe, oracle), leaves_of(oracle)
    assert_agrees(oracle, objective, leaves, losses(objective, recipe, **leaves)["mlm"])


def test_masked_tokens_with_a_teachers_targets() -> None:
    """With `alpha` above 0, for which there are no numbers of the authors, their formula."""
    oracle = load_oracle(DATA, "albef-mlm-alpha0")
    objective, leaves = objective_of("albef", oracle), leaves_of(oracle) | {"alpha": torch.tensor(0.4, dtype=torch.float64)}
    loss = losses(objective, "albef", **leaves)["mlm"]
    loss.backward()
    again = oracle.inputs["logits"].clone().requires_grad_()
    at = oracle.inputs["labels"] >= 0
    hard = torch.nn.functional.cross_entropy(again[at], oracle.inputs["labels"][at])
    soft = torch.nn.functional.cross_entropy(again[at], oracle.inputs["logits_m"][at].softmax(dim=-1))
    expected = 0.6 * hard + 0.4 * soft
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=0)
    expected.backward()
    torch.testing.assert_close(leaves["logits"].grad, again.grad, rtol=1e-10, atol=1e-14)


def test_next_tokens() -> None:
    oracle = load_oracle(DATA, "blip-lm")
    objective, leaves = objective_of("blip", oracle), leaves_of(oracle)
    ids = oracle.inputs["input_ids"]
    labels = torch.where(ids == oracle.hyperparameters["pad"], -100, ids)[:, 1:]
    shown = leaves | {"logits": leaves["logits"][:, :-1], "labels": labels}
    assert_agrees(oracle, objective, leaves, losses(objective, "blip", **shown)["lm"])


@pytest.mark.slow
def test_compiled() -> None:
    oracle = load_oracle(DATA, "albef-itc-tempclamp")
    objective, leaves = objective_of("albef", oracle, compiled=True), leaves_of(oracle)
    assert_agrees(oracle, objective, leaves, losses(objective, "albef", **leaves)["itc"])


def test_the_teacher_moves_as_theirs() -> None:
    oracle = load_oracle(DATA, "albef-ema")
    teachers = {use.follows for use in vlmdsl.compile("albef", compiled=False).schedule.before}
    assert teachers == {Teacher(0.995, "constant", "before")}
    (teacher,) = teachers
    own = oracle.inputs["teacher"].clone().lerp_(oracle.inputs["student"], 1 - momentum_at(teacher, 0, 10))
    torch.testing.assert_close(own, oracle.outputs["teacher"], rtol=oracle.rtol, atol=1e-15)

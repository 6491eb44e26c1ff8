"""Entries of a queue as further columns (XBM, Wang et al., CVPR 2020), with labels: slots that are not written yet take part
in nothing, on one process and on two."""

from __future__ import annotations

from collections import deque

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import vlmdsl
from vlmdsl.backends.torch.collectives import own_slice
from vlmdsl.testing.distributed import run_processes

SIZE, SAMPLES, STEPS, MISSING = 9, 4, 5, -1
RECIPE = f"""
recipe cross_batch(image: Image, text: Text, label: Label)
let texts = queue(text, size={SIZE})
let others = queue(image, size={SIZE}, start="random")
let labels = queue(label, size={SIZE})
let z = unite(similarity(image, text), similarity(image, texts)) / learned(0.1)
minimize {{
  pairs: mean(cross_entropy(z, targets=paired, along="rows"))
  classes: mean(cross_entropy(z, targets=same(label, earlier=labels), along="rows"))
  supervised: mean(cross_entropy(exclude_pairs_of_batch, targets=same(label, earlier=labels), along="rows"))
  softened: mean(kl(z, targets=softmax(0.5 * z), along="rows"))
  earlier: mean(cross_entropy(similarity(image, texts), targets=softmax(3 * similarity(text, texts)), along="rows"))
  judged: mean(sigmoid_loss(z, targets=same(label, earlier=labels)))
  triplets: mean(hinge(z, along="rows", negatives="hardest"))
  scores: mean(min(logsumexp(z), 100))
  both: mean(cross_entropy(unite(z, similarity(text, others)), targets=paired, along="rows"))
}}
let exclude_pairs_of_batch = unite(exclude_pairs(similarity(image, image)), similarity(image, texts))
"""


def step_inputs(step: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(step)
    features = {name: torch.randn(SAMPLES, 5, generator=generator, dtype=torch.float64) for name in ("image", "text")}
    return {**features, "label": torch.randint(MISSING, 2, (SAMPLES,), generator=generator)}


def unit(values: Tensor) -> Tensor:
    return F.normalize(values, dim=-1)


def cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Of each row, its target a distribution over the columns; a row without a target has loss 0."""
    mass = target.sum(1, keepdim=True)
    return -(logits.log_softmax(1) * target / mass.clamp(min=1e-300)).sum(1)


class Reference:
    """The terms from their definitions: what a queue holds is a list of what has entered it."""

    def __init__(self, random: Tensor) -> None:
        self.texts: deque[Tensor] = deque(maxlen=SIZE)
        self.labels: deque[Tensor] = deque(maxlen=SIZE)
        self.others: deque[Tensor] = deque(random, maxlen=SIZE)

    def terms(self, image: Tensor, text: Tensor, label: Tensor) -> dict[str, Tensor]:
        image, text, eye = unit(image), unit(text), torch.eye(SAMPLES, dtype=torch.bool)
        earlier = torch.stack([*self.texts]) if self.texts else text.new_zeros(0, 5)
        labels = torch.cat([label, torch.stack([*self.labels])]) if self.labels else label
        same = (label[:, None] == labels[None, :]) & (label != MISSING)[:, None]
        same[:, :SAMPLES] |= eye
        z = image @ torch.cat([text, earlier]).T / 0.1
        own = torch.cat([image, earlier]) @ image.T
        own.fill_diagonal_(-torch.inf)
        alone = same.clone()
        alone[:, :SAMPLES] &= ~eye
        soft, pairs = (0.5 * z).softmax(1).detach(), torch.zeros_like(z)
        pairs[:, :SAMPLES] = eye.double()
        targets = (3 * text @ earlier.T).softmax(1).detach()
        signed = torch.where(same, z, -z)
        negative = z.masked_fill(pairs.bool(), -torch.inf)
        wide = torch.cat([z, text @ torch.stack([*self.others]).T], dim=1)
        of_soft = cross_entropy(z, soft) + (soft * soft.log()).sum(1)
        return {
            "pairs": -z.log_softmax(1).diagonal().mean(),
            "classes": cross_entropy(z, same.double()).mean(),
            "supervised": cross_entropy(own.T.clamp(min=-1e9), alone.double()).mean(),
            "softened": of_soft.mean(),
            "earlier": cross_entropy(image @ earlier.T, targets).mean() if len(earlier) else torch.zeros(()).double(),
            "judged": -F.logsigmoid(signed).sum(1).mean(),
            "triplets": (0.2 + negative.amax(1) - z.diagonal()).clamp(min=0).mean(),
            "scores": z.logsumexp(1).mean(),
            "both": -wide.log_softmax(1).diagonal().mean(),
        }

    def enter(self, image: Tensor, text: Tensor, label: Tensor) -> None:
        self.texts.extend(unit(text))
        self.others.extend(unit(image))
        self.labels.extend(label)


def objective_of(recipe: str = RECIPE) -> vlmdsl.Objective:
    objective = vlmdsl.compile(recipe, compiled=False).double()
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.copy_(torch.tensor(10.0).double().log())
    return objective


def test_terms_and_gradients_are_those_of_what_has_entered() -> None:
    objective = objective_of()
    objective.eval()(**step_inputs(0))  # gives the queues their D
    objective.train()
    reference = Reference(objective.state.get_buffer("others").clone())
    for step in range(STEPS):
        features = step_inputs(step)
        mine, theirs = ({name: value.clone() for name, value in features.items()} for _ in range(2))
        for inputs in (mine, theirs):
            for name in ("image", "text"):
                inputs[name].requires_grad_()
        out, expected = objective(**mine), reference.terms(**theirs)
        reference.enter(**features)
        for name, value in expected.items():
            torch.testing.assert_close(out.terms[name], value, rtol=1e-10, atol=1e-12, msg=f"{name} in step {step}")
        filled = min(step * SAMPLES, SIZE)
        assert out.metrics["pairs.chance"].item() == pytest.approx(torch.tensor(SAMPLES + filled).log().item())
        assert out.metrics["both.chance"].item() == pytest.approx(torch.tensor(SAMPLES + filled + SIZE).log().item())
        out.loss.backward()
        sum(expected.values(), start=torch.zeros(())).backward()
        for name in ("image", "text"):
            torch.testing.assert_close(mine[name].grad, theirs[name].grad, rtol=1e-9, atol=1e-11)


def losses_of_steps() -> list[Tensor]:
    objective, losses = objective_of(), []
    for step in range(STEPS):
        own = {name: own_slice(value) for name, value in step_inputs(step).items()}
        losses.append(objective(**own).loss.detach())
    return [*losses, objective.state.get_buffer("labels").double(), objective.state.get_buffer("texts")]


@pytest.mark.distributed
@pytest.mark.slow
def test_two_processes_hold_what_one_does() -> None:
    for losses in run_processes(losses_of_steps, 2):
        for value, expected in zip(losses, losses_of_steps(), strict=True):
            torch.testing.assert_close(value, expected, rtol=1e-10, atol=1e-12)


def test_samples_that_are_left_out_are_not_in_the_queue() -> None:
    recipe = f"""
    recipe kept(image: Image, text: Text, valid: Flag)
    let texts = queue(text, size={SIZE})
    let z = restrict(unite(similarity(image, text), similarity(image, texts)) / 0.1, to=valid)
    minimize mean(cross_entropy(z, targets=paired, along="rows"), over=valid)
    """
    objective, steps = objective_of(recipe), [step_inputs(step) for step in range(2)]
    valid = torch.tensor([True, False, True, True])
    objective(image=steps[0]["image"], text=steps[0]["text"], valid=valid)
    loss = objective(image=steps[1]["image"], text=steps[1]["text"], valid=valid).loss
    image, text, earlier = unit(steps[1]["image"]), unit(steps[1]["text"]), unit(steps[0]["text"])
    logits = image[valid] @ torch.cat([text[valid], earlier]).T / 0.1
    torch.testing.assert_close(loss, F.cross_entropy(logits, torch.arange(3)))


@pytest.mark.parametrize(
    ("expression", "code"),
    [
        ("similarity(image, queue(text, size=9)) + similarity(image, queue(text, size=8))", "V0303"),
        ("transpose(unite(similarity(image, text), similarity(image, queue(text, size=9))))", "V0315"),
        ("exclude_pairs(similarity(image, queue(text, size=9)))", "V0303"),
        ("similarity(image, queue(label, size=9))", "V0301"),
        ("similarity(image, queue((text, label), size=9))", "V0301"),
        ("restrict(similarity(image, queue(text, size=9)), to=flag)", "V0301"),
    ],
)
def test_what_has_no_meaning_is_refused(expression: str, code: str) -> None:
    head = "recipe wrong(image: Image, text: Text, label: Label, flag: Flag)\n"
    diagnostics = vlmdsl.check(f"{head}minimize mean(logsumexp({expression}))")
    assert [fault.code for fault in diagnostics if fault.severity == "error"] == [code], diagnostics


@pytest.mark.parametrize(
    "criterion",
    [
        'hinge(z, along="rows")',
        'cross_entropy(z, targets=softmax(z), along="rows", denominator="negatives")',
        'cross_entropy(similarity(image, texts), targets=same(label), along="rows")',
        'cross_entropy(z, targets=softmax(z), along="columns")',
    ],
)
def test_pairs_are_asked_for_only_where_the_batch_comes_first(criterion: str) -> None:
    head = "recipe wrong(image: Image, text: Text, label: Label)\nlet texts = queue(text, size=9)\n"
    diagnostics = vlmdsl.check(
        f"{head}let z = unite(similarity(image, texts), similarity(image, text))\nminimize mean({criterion})"
    )
    assert [fault.severity for fault in diagnostics if fault.code != "V0206"] == ["error"], diagnostics

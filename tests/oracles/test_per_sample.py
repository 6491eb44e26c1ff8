"""Numbers kept per sample: FastCLIP's and SogCLR's averages over three steps, NLIP's mixture and its smoothed targets."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import vlmdsl
from oracles.cases import DATA
from vlmdsl.backends.torch import ops
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.backends.torch.ops.per_sample import fitted_mixture

FASTCLIP = """
recipe fastclip(image: Image, text: Text, gamma: Scalar, epsilon = 1e-14)
let tau = learned(0.07, name="temperature")
let logits = similarity(image, text) / tau
let own = score(image, text) / tau
def others(matrix) = exp(logsumexp(exclude_pairs(matrix)) - own) / (samples - 1)
def average(values) = running_mean(values, per="sample", momentum=1 - gamma)
let g_image = others(logits)
let g_text = others(transpose(logits))
let u_image = average(g_image)
let u_text = average(g_text)
minimize {
  image: 0.5 * mean(g_image / (u_image + epsilon))
  text: 0.5 * mean(g_text / (u_text + epsilon))
}
"""

# Both views mix their own value into the same old average, and the mean of the two is kept.
SOGCLR = """
recipe sogclr(one: Image, other: Image, gamma: Scalar, temperature = 0.2)
def among(x, y) = exclude_pairs(similarity(x, y) / temperature)
def others(x, y) = exp(logsumexp(unite(among(x, y), among(x, x)))) / (2 * (samples - 1))
let g_one = others(one, other)
let g_other = others(other, one)
let both = 0.5 * (g_one + g_other)
let before = running_mean(both, per="sample", momentum=1 - gamma, start=0, reads="previous", name="u")
def ratio(g) = g / stop((1 - gamma) * before + gamma * g)
minimize mean(temperature * (ratio(g_one) + ratio(g_other)) - 2 * score(one, other))
"""

# NLIP's other reading: how much the negatives of a pair weigh beside it, and not how much of its target is theirs.
REWEIGHTED = """
recipe reweighted(image: Image, text: Text, noise: Number, rate = 0.5)
let tau = learned(0.07, name="temperature")
let logits = similarity(image, text) / tau
let odds = rate * noise / ((1 - rate * noise) * (samples - 1))
def loss(matrix) = log(1 + odds * exp(logsumexp(exclude_pairs(matrix)) - score(image, text) / tau))
minimize mean(0.5 * (loss(logits) + loss(transpose(logits))))
"""

# The loss of one pair in each direction, by either reading: that of the pair whose `chosen` is 1.
OF_ONE_PAIR = {
    "nlip-nitc_softlabel": """
recipe smoothed(image: Image, text: Text, noise: Number, chosen: Number, rate = 0.5)
let logits = similarity(image, text) / learned(0.07, name="temperature")
def loss(along) = cross_entropy(logits, targets=smooth(paired, epsilon=rate * noise, over="others"), along=along)
minimize {
  image: mean(chosen * loss("rows"))
  text: mean(chosen * loss("columns"))
}
""",
    "nlip-nitc_reweighted": REWEIGHTED.replace(
        "minimize mean(0.5 * (loss(logits) + loss(transpose(logits))))",
        "minimize {\n  image: mean(chosen * loss(logits))\n  text: mean(chosen * loss(transpose(logits)))\n}",
    ).replace("noise: Number", "noise: Number, chosen: Number"),
}


def arrays_of(oracle: str) -> tuple[dict[str, Tensor], dict[str, object], float]:
    """The arrays of an oracle, its hyper-parameters and its relative tolerance."""
    with np.load(DATA / f"{oracle}.npz") as arrays:
        tensors = {name: torch.from_numpy(np.asarray(arrays[name])) for name in arrays.files}
    facts = json.loads((DATA / f"{oracle}.json").read_text())
    return tensors, facts["hyperparameters"], facts["rtol"]


def agrees(actual: Tensor | None, expected: Tensor, rtol: float) -> None:
    assert actual is not None
    torch.testing.assert_close(actual.detach(), expected.reshape(actual.shape), rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("oracle", ["fastclip-steps", "fastclip-schedule"])
def test_fastclip_gives_the_averages_and_gradients_of_every_step(oracle: str) -> None:
    arrays, facts, rtol = arrays_of(oracle)
    objective = vlmdsl.compile(FASTCLIP, compiled=False, samples=facts["data_size"]).double()
    objective.load_state_dict({**objective.state_dict(), "log_scale": arrays["log_scale"]})
    for step in range(3):
        features = {name: arrays[f"{name}_features_{step}"].clone().requires_grad_() for name in ("image", "text")}
        objective.zero_grad()
        gamma = arrays[f"gamma_{step}"].double()
        objective(**features, gamma=gamma, index=arrays[f"index_{step}"]).loss.backward()
        for name, values in features.items():
            table = objective.state.get_buffer(f"u_{name}_mean").nan_to_num(0.0)  # theirs is 0 where no sample was yet
            agrees(table, arrays[f"out_u_{name}_{step}"], rtol)
            agrees(values.grad, arrays[f"grad_{name}_features_{step}"], rtol)
        # Theirs counts the scale in both halves of its sum.
        agrees(2.0 * objective.get_parameter("log_scale").grad, arrays[f"grad_log_scale_{step}"], rtol)


@pytest.mark.parametrize("oracle", ["sogclr-steps", "sogclr-fresh"])
def test_sogclr_gives_the_averages_and_gradients_of_every_step(oracle: str) -> None:
    arrays, facts, rtol = arrays_of(oracle)
    objective = vlmdsl.compile(SOGCLR, compiled=False, samples=facts["data_size"], temperature=facts["T"]).double()
    for step in range(3):
        one, other = (arrays[f"view_{view}_{step}"].clone().requires_grad_() for view in (0, 1))
        index = arrays[f"index_{step}"]
        fresh = not objective.state.get_buffer("u")[index].any()  # theirs takes the first value whole only if all are new
        gamma = torch.tensor(1.0 if fresh else facts["gamma"], dtype=torch.float64)
        objective(one=one, other=other, gamma=gamma, index=index).loss.backward()
        agrees(objective.state.get_buffer("u"), arrays[f"out_u_{step}"], rtol)
        agrees(one.grad, arrays[f"grad_view_0_{step}"], rtol)
        agrees(other.grad, arrays[f"grad_view_1_{step}"], rtol)


def test_the_mixture_of_nlip() -> None:
    arrays, facts, rtol = arrays_of("nlip-gmm")
    loss, expected = arrays["loss"], arrays["out_noise_prob"]
    parameters = fitted_mixture(loss, facts["em_iterations"])
    for own, theirs in zip(parameters, ("weights", "means", "variances"), strict=True):
        agrees(own.squeeze(1), arrays[f"out_{theirs}"], rtol)
    for component, probability in (("larger", expected), ("smaller", 1.0 - expected)):
        fitted = ops.mixture(loss, torch.zeros_like(loss), component, facts["em_iterations"])
        torch.testing.assert_close(fitted, probability, rtol=rtol, atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [{}, {"lowering": "chunked"}, pytest.param({"compiled": True}, marks=pytest.mark.slow)],
    ids=["eager", "in blocks", "compiled"],
)
def test_nlip_smooths_targets_by_how_noisy_each_pair_is(options: dict[str, Any]) -> None:
    arrays, facts, rtol = arrays_of("nlip-nitc_softlabel")
    samples = len(arrays["noise_prob"])
    knobs = {"rate": facts["lambda"], "captions_weight": 0, "pixels_weight": 0}
    options = {"compiled": False, **options}
    objective = vlmdsl.compile("nlip", stage="pretraining", samples=samples, **knobs, **options).double()
    order = torch.randperm(samples, generator=torch.Generator().manual_seed(0))
    table = torch.zeros(samples, dtype=torch.float64).scatter(0, order, arrays["noise_prob"])
    objective.load_state_dict({**objective.state_dict(), "state.noise": table})
    check_pairs("nlip-nitc_softlabel", objective, {"image_drop": "image", "text": "text"}, index=order)
    clean = arrays["noise_prob"] == 0  # whose loss is the plain one, which is kept for the next fit
    rows = 0.5 * (arrays["out_rows_i2t"] + arrays["out_rows_t2i"])
    agrees(objective.state.get_buffer("losses")[order][clean], rows[clean], rtol)


def test_nlip_read_as_a_weight_of_negatives() -> None:
    arrays, facts, _ = arrays_of("nlip-nitc_reweighted")
    objective = vlmdsl.compile(REWEIGHTED, compiled=False, rate=facts["lambda"]).double()
    check_pairs("nlip-nitc_reweighted", objective, {"image": "image", "text": "text"}, noise=arrays["noise_prob"])


@pytest.mark.parametrize("oracle", OF_ONE_PAIR)
def test_both_readings_of_nlip_for_each_pair(oracle: str) -> None:
    arrays, facts, rtol = arrays_of(oracle)
    objective = vlmdsl.compile(OF_ONE_PAIR[oracle], compiled=False, rate=facts["lambda"]).double()
    with torch.no_grad():
        objective.get_parameter("log_scale").copy_(arrays["log_scale"])
    features = {name: arrays[f"{name}_features"] for name in ("image", "text")}
    for pair, chosen in enumerate(torch.eye(len(arrays["noise_prob"]), dtype=torch.float64)):
        terms = objective(**features, noise=arrays["noise_prob"], chosen=chosen).terms
        agrees(len(chosen) * terms["image"], arrays["out_rows_i2t"][pair], rtol)
        agrees(len(chosen) * terms["text"], arrays["out_rows_t2i"][pair], rtol)


def check_pairs(oracle: str, objective: Objective, names: dict[str, str], **inputs: Tensor) -> None:
    """The loss of pairs, and its gradients; `names` are those of the features in the objective and in the oracle."""
    arrays, _, rtol = arrays_of(oracle)
    with torch.no_grad():
        objective.get_parameter("log_scale").copy_(arrays["log_scale"])
    features = {name: arrays[f"{other}_features"].clone().requires_grad_() for name, other in names.items()}
    out = objective(**features, **inputs)
    out.loss.backward()
    agrees(out.loss, arrays["out_total"], rtol)
    agrees(objective.get_parameter("log_scale").grad, arrays["grad_log_scale"], rtol)
    for name, other in names.items():
        agrees(features[name].grad, arrays[f"grad_{other}_features"], rtol)

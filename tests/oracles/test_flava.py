"""The recipe of FLAVA against the authors' code: every term, values and gradients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import vlmdsl
from vlmdsl.backends.torch.objective import Objective
from vlmdsl.runtime.model.tower_needs import tower_needs
from vlmdsl.runtime.modules.sequences import SequenceFeatures
from vlmdsl.runtime.modules.towers import TextConfig, TextTransformer
from vlmdsl.testing.oracle import Oracle, load_oracle

DATA = Path(__file__).parent / "data"
PATCHES, WORDS, PROJECTED = 9, 7, 12
IMAGE, TEXT = "image_augment_flava_0", "text_swap"


class Transformed(nn.Module):
    """A linear map, a GELU, a norm, and the map to logits, with the authors' weights."""

    def __init__(self, inputs: Mapping[str, Tensor], head: str, size: int = 2) -> None:
        super().__init__()
        parts = {name.removeprefix(f"{head}_"): value for name, value in inputs.items() if name.startswith(f"{head}_")}
        self.parts = parts
        self.weight = parts.get("dec_weight", torch.zeros(size, 16, dtype=torch.float64))
        self.bias = parts.get("dec_bias", torch.zeros(size, dtype=torch.float64))

    def forward(self, states: Tensor, *, product: bool = True) -> Tensor:
        if self.parts:
            states = functional.gelu(functional.linear(states, self.parts["dense_weight"], self.parts["dense_bias"]))
            states = functional.layer_norm(states, (16,), self.parts["ln_weight"], self.parts["ln_bias"], eps=1e-5)
        return functional.linear(states, self.weight, self.bias) if product else states


def pooled_head(inputs: Mapping[str, Tensor]) -> Any:
    def head(vectors: Tensor) -> Tensor:
        if "itm_pool_weight" not in inputs:
            return torch.zeros(len(vectors), 2, dtype=vectors.dtype)
        pooled = functional.linear(vectors, inputs["itm_pool_weight"], inputs["itm_pool_bias"]).tanh()
        return functional.linear(pooled, inputs["itm_cls_weight"], inputs["itm_cls_bias"])

    return head


def of_pairs(objective: Objective, inputs: Mapping[str, Tensor]) -> Any:
    """The output for the inputs of an oracle; those that it lacks are of no account for its term."""
    samples = len(inputs["itm_labels"])
    zeros = torch.zeros(samples, PROJECTED, dtype=torch.float64)
    sequence = inputs.get("multimodal_masked_sequence", torch.zeros(samples, 2 + PATCHES + WORDS, 16, dtype=torch.float64))
    codes = inputs.get("mim_labels", torch.full((samples, PATCHES), -1))
    tokens = inputs.get("mlm_labels", torch.full((samples, WORDS), -1))

    def fusion(states: Tensor, mask: Tensor | None, context: Tensor, context_mask: Tensor | None) -> SequenceFeatures:
        return SequenceFeatures(sequence[:, -WORDS:], mask, sequence[:, 0], sequence[:, 2 : 2 + PATCHES])

    return objective(
        modules={
            "fusion": fusion,
            "matching": pooled_head(inputs),
            "vocabulary": Transformed(inputs, "thead"),
            "mmm": Transformed(inputs, "ihead"),
        },
        **{
            f"{IMAGE}_contrast": inputs.get("projected_image", zeros),
            f"{TEXT}_contrast": inputs.get("projected_text", zeros),
            f"{TEXT}_masked_states": torch.zeros(samples, WORDS, 1, dtype=torch.float64),
            f"{TEXT}_masked_mask": torch.ones(samples, WORDS, dtype=torch.bool),
            f"{IMAGE}_masked_states": torch.zeros(samples, PATCHES, 1, dtype=torch.float64),
            f"{IMAGE}_masked_replaced": codes >= 0,
            f"{IMAGE}_codebook_codes": codes.clamp(min=0),
            f"{TEXT}_masked_fusion_targets": tokens,
            "text_own": inputs["itm_labels"] != 0,
        },
    )


def pairs_objective(oracle: Oracle, **options: Any) -> Objective:
    entries = len(oracle.inputs["ihead_dec_bias"]) if "ihead_dec_bias" in oracle.inputs else 2
    objective = vlmdsl.compile("flava", flow="pairs", entries=entries, **options).double()
    if "logit_scale" in oracle.inputs:
        objective.log_scale.data.copy_(oracle.inputs["logit_scale"])
    return objective


def assert_term(oracle: Oracle, term: str | None, **options: Any) -> None:
    """A term, or the sum of all, has the authors' value and gradients; where theirs is NaN, ours is 0 with none."""
    objective = pairs_objective(oracle, **options)
    inputs = {name: value.requires_grad_() if name in oracle.gradients else value for name, value in oracle.inputs.items()}
    out = of_pairs(objective, inputs)
    total, expected = out.loss if term is None else out.terms[term], oracle.outputs["total"]
    torch.testing.assert_close(total, expected.nan_to_num(0.0), rtol=oracle.rtol, atol=0)
    if term is None:
        for name in ("itm", "mmm_text", "mmm_image", "gc"):
            torch.testing.assert_close(out.terms[name], oracle.outputs[f"loss_{name}"], rtol=oracle.rtol, atol=0)
    if total.requires_grad:
        total.backward()
    for name, gradient in oracle.gradients.items():
        own = objective.log_scale.grad if name == "logit_scale" else inputs[name].grad
        torch.testing.assert_close(own, gradient, rtol=oracle.rtol, atol=1e-12)
    if expected.isnan():
        own = inputs["multimodal_masked_sequence"].grad
        assert own is None or not own.any()


@pytest.mark.parametrize(
    ("name", "term"),
    [
        ("flava-gc", "gc"),
        ("flava-itm", "itm"),
        ("flava-mmm_text", "mmm_text"),
        ("flava-mmm_text-nomask", "mmm_text"),
        ("flava-total-allpos", None),
    ],
)
@pytest.mark.parametrize("lowering", ["dense", "chunked"])
def test_pairs(name: str, term: str | None, lowering: str) -> None:
    assert_term(load_oracle(DATA, name), term, compiled=False, lowering=lowering)


def test_pairs_none_of_which_matches() -> None:
    """All count then, as where all match; only that they do not is what matching is to say."""
    oracle = load_oracle(DATA, "flava-total-allpos")
    inputs = {**oracle.inputs, "itm_labels": torch.zeros_like(oracle.inputs["itm_labels"])}
    terms = of_pairs(pairs_objective(oracle, compiled=False), inputs).terms
    for name in ("gc", "mmm_text", "mmm_image"):
        torch.testing.assert_close(terms[name], oracle.outputs[f"loss_{name}"], rtol=oracle.rtol, atol=0)
    logits = pooled_head(inputs)(inputs["multimodal_masked_sequence"][:, 0])
    torch.testing.assert_close(terms["itm"], functional.cross_entropy(logits, inputs["itm_labels"]), rtol=1e-9, atol=0)


@pytest.mark.parametrize("lowering", ["dense", "chunked"])
def test_words_of_texts(lowering: str) -> None:
    """The text tower's head and the mean over masked tokens, which are those of captions: of pairs that match all count."""
    oracle = load_oracle(DATA, "flava-mmm_text")
    sequence = oracle.inputs["multimodal_masked_sequence"].requires_grad_()
    labels = oracle.inputs["mlm_labels"].masked_fill(oracle.inputs["itm_labels"][:, None] == 0, -1)
    head = head_of_words(oracle.inputs)
    objective = vlmdsl.compile("flava", flow="texts", compiled=False, lowering=lowering)
    states = sequence[:, -WORDS:]
    if lowering == "dense":
        predicted = {"text_masked_vocabulary": head(states)}
    else:
        weights = {f"language_vocabulary_{part}": getattr(head, part) for part in ("weight", "bias")}
        predicted = {"text_masked_predicted": head(states, product=False), **weights}
    loss = objective(**predicted, text_masked_targets=labels).loss
    torch.testing.assert_close(loss, oracle.outputs["total"], rtol=oracle.rtol, atol=0)
    loss.backward()
    torch.testing.assert_close(sequence.grad, oracle.gradients["multimodal_masked_sequence"], rtol=oracle.rtol, atol=1e-12)


def head_of_words(inputs: Mapping[str, Tensor]) -> nn.Module:
    """The head that the recipe asks of a text tower, with the authors' weights."""
    (stream,) = vlmdsl.compile("flava", flow="texts", compiled=False).streams
    assert tower_needs([stream])["language"].transform
    size, width = inputs["thead_dec_weight"].shape
    config = TextConfig(vocabulary_size=size, text_length=WORDS, width=width, depth=1, heads=2)
    tower = TextTransformer(config, width, stream.outputs)
    tower.transform_vocabulary("language")
    head = tower.double().vocabulary_head
    assert head is not None
    names = {"weight": "dec_weight", "bias": "dec_bias"}
    for at, part in ((0, "dense"), (2, "ln")):
        names |= {f"transform.{at}.{kind}": f"{part}_{kind}" for kind in ("weight", "bias")}
    head.load_state_dict({own: inputs[f"thead_{theirs}"] for own, theirs in names.items()})
    return head


def test_pairs_compiled() -> None:
    assert_term(load_oracle(DATA, "flava-total-allpos"), None, compiled=True)


@pytest.mark.parametrize("lowering", ["dense", "chunked"])
def test_images(lowering: str) -> None:
    oracle = load_oracle(DATA, "flava-mim")
    codes, sequence = oracle.inputs["mim_labels"], oracle.inputs["image_masked_sequence"].requires_grad_()
    entries = len(oracle.inputs["head_dec_bias"])
    objective = vlmdsl.compile("flava", flow="images", entries=entries, compiled=False, lowering=lowering)
    loss = objective(
        modules={"mim": Transformed(oracle.inputs, "head")},
        **{
            f"{IMAGE}_masked_states": sequence[:, 1:],
            f"{IMAGE}_masked_replaced": codes >= 0,
            f"{IMAGE}_codebook_codes": codes.clamp(min=0),
        },
    ).loss
    torch.testing.assert_close(loss, oracle.outputs["total"], rtol=oracle.rtol, atol=0)
    loss.backward()
    torch.testing.assert_close(sequence.grad, oracle.gradients["image_masked_sequence"], rtol=oracle.rtol, atol=1e-12)


@pytest.mark.parametrize("mode", ["global", "none"])
def test_queries_of_two_processes(mode: str) -> None:
    """The authors' processes average over their own pairs; by how many each has, that is our average over all."""
    oracle = load_oracle(DATA, f"flava-gc-dist2-{mode}")
    matching = oracle.inputs["row_mask"]
    objective = vlmdsl.compile("flava", flow="pairs", entries=2, compiled=False).double()
    objective.log_scale.data.fill_(oracle.hyperparameters["logit_scale"])
    inputs = {
        "itm_labels": matching.long(),
        "projected_image": oracle.inputs["image_raw"],
        "projected_text": oracle.inputs["text_raw"],
    }
    counts = matching.view(2, -1).sum(dim=1)
    expected = (oracle.outputs["loss_per_rank"] * counts).sum() / counts.sum()
    torch.testing.assert_close(of_pairs(objective, inputs).terms["gc"], expected, rtol=oracle.rtol, atol=0)

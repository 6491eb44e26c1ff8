"""Text decoders and losses of next tokens, against the authors' code: values, gradients, and what attends to what."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import vlmdsl
from oracles.test_masked_prediction import assert_agrees
from vlmdsl.backends.torch import ops
from vlmdsl.ir.modules import TextDecoderSettings
from vlmdsl.runtime.modules import TextDecoder
from vlmdsl.runtime.modules.sequences import attention_mask
from vlmdsl.runtime.modules.towers import blocks
from vlmdsl.runtime.values import NOT_SELECTED, Prefix, next_ids
from vlmdsl.testing.oracle import Oracle, load_oracle

DATA = Path(__file__).parent / "data"
SUFFIXES = ["pali-suffixxent", "pali-suffixxent_emptysuffix", "pali-suffixxent_ls", "simvlm-prefixlm_bv"]
SUFFIX = "next_token(linear(text_decoder(depth=1)(text, image)), text, {})"


def suffix_codes(oracle: Oracle) -> Tensor:
    """The next tokens that are supervised, as the split of the text gives them: `[b, L - 1]`."""
    text, supervised = oracle.inputs["text"], oracle.inputs["mask_loss"].bool()
    real = (text != 0) | supervised
    empty = ~supervised.any(dim=1)
    lengths = torch.where(empty, real.sum(dim=1), supervised.int().argmax(dim=1))
    return next_ids(torch.where(real, text, NOT_SELECTED), Prefix(lengths))[:, :-1]


@pytest.mark.parametrize("name", SUFFIXES)
def test_the_tokens_after_a_prefix_are_those_that_the_authors_supervise(name: str) -> None:
    oracle = load_oracle(DATA, name)
    expected = torch.where(oracle.inputs["mask_loss"] == 1, oracle.inputs["text"], NOT_SELECTED)[:, 1:]
    assert torch.equal(suffix_codes(oracle), expected)


@pytest.mark.parametrize("name", SUFFIXES)
def test_a_prefix_is_seen_in_both_directions_as_the_authors_ids_say(name: str) -> None:
    """Theirs are 1 from the first token on that those before it do not see; what padding sees does not matter."""
    oracle = load_oracle(DATA, name)
    block, real = oracle.inputs["mask_ar"].cumsum(dim=1), oracle.inputs["text"] != 0
    expected = (block[:, None, :] <= block[:, :, None]) & real[:, None, :]
    seen = attention_mask(real.shape[1], real, causal=True, prefix=(block == 0).sum(dim=1))
    assert torch.equal(seen[real], expected[real])


@pytest.mark.parametrize("lowering", ["dense", "chunked"])
@pytest.mark.parametrize("name", SUFFIXES)
def test_the_loss_of_the_tokens_after_a_prefix(name: str, lowering: str) -> None:
    check_suffix(name, lowering, compiled=False)


@pytest.mark.slow
@pytest.mark.parametrize("lowering", ["dense", "chunked"])
def test_the_compiled_loss_of_the_tokens_after_a_prefix(lowering: str) -> None:
    check_suffix("pali-suffixxent_ls", lowering, compiled=True)


def check_suffix(name: str, lowering: str, *, compiled: bool) -> None:
    oracle = load_oracle(DATA, name)
    smoothing = oracle.hyperparameters["label_smoothing"]
    arguments = f'smoothing={smoothing}, over="others", reduction="sample"'
    objective = vlmdsl.compile(SUFFIX.format(arguments), compiled=compiled, lowering=lowering)
    assert_agrees(oracle, partial(_loss, objective, suffix_codes(oracle)))


@pytest.mark.parametrize("name", SUFFIXES)
def test_the_same_averaged_over_all_tokens_and_summed_over_those_of_a_sample(name: str) -> None:
    oracle = load_oracle(DATA, name)
    expected = {"token": oracle.outputs["token_mean"], "sum": oracle.outputs["nll_sum_per_sample"].mean()}
    for reduction, value in expected.items():
        objective = vlmdsl.compile(SUFFIX.format(f'reduction="{reduction}"'), compiled=False)
        loss = _loss(objective, suffix_codes(oracle), oracle.inputs["logits"])
        torch.testing.assert_close(loss, value, rtol=oracle.rtol, atol=0)


def test_an_image_as_the_prefix_of_a_text() -> None:
    """In their one sequence, the first token is predicted from the last patch."""
    oracle = load_oracle(DATA, "simvlm-genlip")
    text, patches = oracle.inputs["text"], oracle.inputs["patch_valid"].shape[1]
    codes = torch.where(oracle.inputs["text_valid"], text, NOT_SELECTED)
    objective = vlmdsl.compile(SUFFIX.format('reduction="token"'), compiled=False)
    assert_agrees(oracle, lambda logits: _loss(objective, codes, logits[:, patches - 1 : -1]))


def test_what_an_image_and_its_text_attend_to() -> None:
    oracle = load_oracle(DATA, "simvlm-genlip")
    patches = oracle.inputs["patch_valid"]
    real = torch.cat([patches, oracle.inputs["text_valid"]], dim=1)
    prefix = torch.full((len(real),), patches.shape[1])
    seen = attention_mask(real.shape[1], real, causal=True, prefix=prefix)
    assert torch.equal(seen, oracle.outputs["attn_mask"].squeeze(1).bool())


def _loss(objective: vlmdsl.Objective, codes: Tensor, logits: Tensor) -> Tensor:
    if "text_captioner_predicted" in objective.inputs:
        identity = torch.eye(logits.shape[2], dtype=logits.dtype)
        features = {"text_captioner_predicted": logits, "captioner_vocabulary_weight": identity}
    else:
        features = {"text_captioner_vocabulary": logits}
    return objective(text_captioner_next=codes, **features).loss


def test_the_paper_sums_over_the_tokens_of_a_caption() -> None:
    """CoCa's equations: both directions are summed, and so are the tokens of each caption."""
    oracle = load_oracle(DATA, "coca-paper")
    codes = torch.where(oracle.inputs["valid"], oracle.inputs["labels"], NOT_SELECTED)
    contrast = f'contrast(image, text, temperature={oracle.hyperparameters["sigma"]}, combine="sum")'
    captions = SUFFIX.format('reduction="sum"')
    weight = oracle.hyperparameters["lambda_cap"]
    objective = vlmdsl.compile(f"minimize {contrast} + {weight} * {captions}", compiled=False)

    def loss(image_features: Tensor, text_features: Tensor, logits: Tensor) -> Tensor:
        features = {"text_captioner_vocabulary": logits, "text_captioner_next": codes}
        return objective(image=image_features, text=text_features, **features).loss

    assert_agrees(oracle, loss)
    summed = ops.linear_cross_entropy(oracle.inputs["logits"], torch.eye(14, dtype=torch.float64), codes, reduction="sum")
    torch.testing.assert_close(summed, oracle.outputs["caption_sum"], rtol=oracle.rtol, atol=0)


@pytest.mark.parametrize("name", ["cappa-cap", "cappa-causal", "cappa-mixed", "cappa-parallel"])
def test_the_decoder_of_captioners(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check_captioner(name, monkeypatch, _chunked)


@pytest.mark.slow
def test_the_compiled_loss_of_captioners(monkeypatch: pytest.MonkeyPatch) -> None:
    objective = vlmdsl.compile("cappa", lowering="dense").double()

    def loss(states: Tensor, kernel: Tensor, targets: Tensor, bias: Tensor) -> Tensor:
        features = {"text_captioner_vocabulary": states @ kernel + bias, "text_captioner_next": targets}
        return objective(**features).loss

    check_captioner("cappa-mixed", monkeypatch, loss)


def _chunked(states: Tensor, kernel: Tensor, targets: Tensor, bias: Tensor) -> Tensor:
    return ops.linear_cross_entropy(states, kernel.T, targets, bias, reduction="sample")


def check_captioner(name: str, monkeypatch: pytest.MonkeyPatch, loss_of: Callable[..., Tensor]) -> None:
    """Words, positions, blocks, logits and loss. Theirs has another form of the GELU, and no bias in its blocks."""
    monkeypatch.setattr(blocks.functional, "gelu", partial(nn.functional.gelu, approximate="tanh"))
    oracle = load_oracle(DATA, name)
    words, share = oracle.inputs["words"], oracle.hyperparameters["masked_pred_prob"]
    decoder, theirs = _decoder(oracle), {name: oracle.inputs[name].clone().requires_grad_() for name in oracle.gradients}
    shifted = torch.cat([torch.zeros_like(words[:, :1]), words[:, :-1]], dim=1)
    parallel = {"parallel": oracle.inputs["draw"] < share} if share else {}
    states = functional_call(
        decoder, _ours(decoder, theirs), (shifted,), {"context": theirs["image_tokens"], **parallel}
    ).tokens
    targets = torch.where(words != 0, words, NOT_SELECTED)
    kernel, bias = theirs["LogitsDense_kernel"], theirs["LogitsDense_bias"]
    logits = (states @ kernel + bias).detach()
    torch.testing.assert_close(logits, oracle.outputs["logits"], rtol=oracle.rtol, atol=oracle.rtol)
    loss = loss_of(states, kernel, targets, bias)
    torch.testing.assert_close(loss.detach(), oracle.outputs["total"], rtol=oracle.rtol, atol=0)
    loss.backward()
    for part, value in theirs.items():
        torch.testing.assert_close(value.grad, oracle.gradients[part], rtol=oracle.rtol, atol=oracle.rtol)


def _decoder(oracle: Oracle) -> TextDecoder:
    """Our decoder in the authors' shape."""
    hyper, longest = oracle.hyperparameters, oracle.inputs["words"].shape[1]
    settings = TextDecoderSettings(depth=hyper["layers"], width=8, heads=hyper["heads"])
    decoder = TextDecoder(settings, hyper["vocabulary"], longest, 8, parallel=hyper["masked_pred_prob"] > 0)
    feed = decoder.transformer.blocks[0].feed_forward
    feed.hidden, feed.output = nn.Linear(8, hyper["mlp_dim"]), nn.Linear(hyper["mlp_dim"], 8)
    for module in decoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = hyper["layernorm_eps"]
    return decoder.double()


def _ours(decoder: TextDecoder, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of our decoder as the authors hold them: kernels are [in, out], with the axis of the heads apart."""
    block, stem = "transformer.blocks.0.", "EncDecBlock0_"
    weights = {name: torch.zeros_like(value) for name, value in decoder.named_parameters()}
    table = theirs["EmbedTargets_embedding"]
    weights["embedding.weight"], weights["positions"] = table[: len(decoder.embedding.weight)], theirs["positions"][0]
    if decoder.mask_token is not None:
        weights["mask_token"] = table[-1]
    for ours, name in (("attention", "SelfAttn"), ("cross_attention", "CrossAttn")):
        query, key, value = (theirs[f"{stem}{name}_{part}_kernel"].reshape(8, 8).T for part in ("query", "key", "value"))
        weights[f"{block}{ours}.query.weight"] = query
        weights[f"{block}{ours}.key_value.weight"] = torch.cat([key, value])
        weights[f"{block}{ours}.output.weight"] = theirs[f"{stem}{name}_out_kernel"].reshape(8, 8).T
    for number, ours in enumerate(("attention_norm", "cross_norm", "feed_forward_norm"), start=1):
        weights[f"{block}{ours}.weight"] = theirs[f"{stem}LayerNorm{number}_scale"]
    for number, ours in enumerate(("hidden", "output")):
        weights[f"{block}feed_forward.{ours}.weight"] = theirs[f"{stem}MLP_Dense_{number}_kernel"].T
    weights["transformer.norm.weight"], weights["transformer.norm.bias"] = (
        theirs["LayerNorm_scale"],
        theirs["LayerNorm_bias"],
    )
    return weights


def coca_loss(oracle: Oracle, **knobs: object) -> tuple[vlmdsl.Objective, dict[str, Tensor]]:
    """The recipe of CoCa, and what it takes of an oracle besides the features of the image: padding has the id 0."""
    hyper, text = oracle.hyperparameters, oracle.inputs["text"]
    weights = {"contrast_weight": hyper.get("contrastive_loss_weight", 1.0), "caption_weight": hyper["caption_loss_weight"]}
    objective = vlmdsl.compile("coca", **{"compiled": False, **weights, **knobs}).double()
    following = torch.where(text == 0, NOT_SELECTED, text)[:, 1:]
    spare = oracle.inputs["logits"].shape[1] - following.shape[1]  # open_clip drops the last logit, CoCa-pytorch has none
    codes = torch.nn.functional.pad(following, (0, spare), value=NOT_SELECTED)
    return objective, {"text_captioner_next": codes}


def coca(objective: vlmdsl.Objective, codes: dict[str, Tensor], image: Tensor, text: Tensor, logits: Tensor) -> Any:
    """The output of the recipe where the poolers gave these features of the images."""
    modules = {
        "generative": lambda states, mask: SimpleNamespace(tokens=states, mask=None, pooled=None),
        "contrastive": lambda tokens, mask: SimpleNamespace(tokens=tokens, mask=None, pooled=image),
    }
    pairs = {"image_states": torch.zeros(len(text), 2, 3, dtype=text.dtype), "text_captioner": text}
    pairs = {name: value for name, value in pairs.items() if name in objective.inputs}
    return objective(
        modules={name: modules[name] for name in objective.applied}, text_captioner_vocabulary=logits, **pairs, **codes
    )


@pytest.mark.parametrize(
    "name", ["coca-openclip", "coca-openclip_captiononly", "coca-openclip_padidcollision", "coca-lucidrains"]
)
def test_the_recipe_of_contrastive_captioners(name: str) -> None:
    check_coca(name, compiled=False)


@pytest.mark.slow
def test_the_compiled_recipe_of_contrastive_captioners() -> None:
    check_coca("coca-openclip", compiled=True)


def check_coca(name: str, *, compiled: bool) -> None:
    oracle = load_oracle(DATA, name)
    objective, codes = coca_loss(oracle, compiled=compiled)
    scale = next(oracle.inputs[name] for name in ("log_scale", "temperature") if name in oracle.inputs).reshape(())
    parts = [next(part for part in names if part in oracle.inputs) for names in _CONTRASTED]
    with torch.no_grad():
        for parameter in objective.parameters():
            parameter.copy_(scale)

    def loss(**features: Tensor) -> Tensor:
        image, text = (features[part] if part in features else oracle.inputs[part] for part in parts)
        out = coca(objective, codes, image, text, features["logits"])
        for term, value in out.terms.items():
            expected = oracle.outputs["contrastive" if term == "contrast" else "caption"]
            torch.testing.assert_close(value, expected, rtol=oracle.rtol, atol=0)
        return out.loss

    assert_agrees(replace(oracle, gradients=_of_features(oracle)), loss)
    for parameter in objective.parameters():
        loss(**{part: oracle.inputs[part] for part in [*parts, "logits"]}).backward()
        expected = next(oracle.gradients[part] for part in ("log_scale", "temperature") if part in oracle.gradients)
        torch.testing.assert_close(parameter.grad, expected.reshape(()), rtol=1e-9, atol=1e-9)


_CONTRASTED = (("image_features", "image_latents"), ("text_features", "text_latents"))


def _of_features(oracle: Oracle) -> dict[str, Tensor]:
    """The gradients without that of the learned number; without a contrast there are those of the logits only."""
    alone = oracle.hyperparameters.get("contrastive_loss_weight", 1.0) == 0
    names = [
        name for name in oracle.gradients if name == "logits" or (not alone and name.split("_")[0] in ("image", "text"))
    ]
    return {name: _along_sphere(oracle, name) for name in names}


def _along_sphere(oracle: Oracle, name: str) -> Tensor:
    """CoCa-pytorch's latents are unit vectors, and its gradients are not through the division by their length."""
    gradient, value = oracle.gradients[name], oracle.inputs[name]
    return gradient - (gradient * value).sum(dim=1, keepdim=True) * value if name.endswith("latents") else gradient


def test_captions_without_any_token_are_zero() -> None:
    """Where the authors' mean is not a number."""
    oracle = load_oracle(DATA, "coca-openclip_allpad")
    objective, codes = coca_loss(oracle)
    logits = oracle.inputs["logits"].clone().requires_grad_()
    loss = coca(objective, codes, oracle.inputs["image_features"], oracle.inputs["text_features"], logits).loss
    assert loss.item() == 0
    loss.backward()
    assert not logits.grad.any()


def test_captions_are_averaged_over_the_tokens_of_all_processes() -> None:
    """The authors average the means of processes, which weigh a token of a process with few of them more."""
    oracle = load_oracle(DATA, "coca-openclip_2rank")
    objective, codes = coca_loss(oracle)
    with torch.no_grad():
        objective.get_parameter("log_scale").copy_(oracle.inputs["log_scale"])
    features = (oracle.inputs[f"{side}_features"] for side in ("image", "text"))
    terms = coca(objective, codes, *features, oracle.inputs["logits"]).terms
    contrasts, captions = (
        torch.stack([oracle.outputs[f"{term}_rank{rank}"] for rank in (0, 1)]) for term in ("contrastive", "caption")
    )
    torch.testing.assert_close(terms["contrast"], contrasts.mean(), rtol=1e-9, atol=0)
    counts = (codes["text_captioner_next"] >= 0).sum(dim=1).view(2, -1).sum(dim=1)
    torch.testing.assert_close(terms["captions"], (captions * counts).sum() / counts.sum(), rtol=1e-9, atol=0)
    assert not torch.isclose(terms["captions"], captions.mean())

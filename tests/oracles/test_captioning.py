"""Text decoders and losses of next tokens, against the authors' code: values, gradients, and what attends to what."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

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


@pytest.mark.parametrize("lowering", ["dense", "chunked"])
@pytest.mark.parametrize("name", SUFFIXES)
def test_the_loss_of_the_tokens_after_a_prefix(name: str, lowering: str) -> None:
    oracle = load_oracle(DATA, name)
    smoothing = oracle.hyperparameters["label_smoothing"]
    arguments = f'smoothing={smoothing}, over="others", reduction="sample"'
    objective = vlmdsl.compile(SUFFIX.format(arguments), compiled=False, lowering=lowering)
    assert_agrees(oracle, partial(_loss, objective, suffix_codes(oracle)))


def test_the_same_averaged_over_all_tokens() -> None:
    oracle = load_oracle(DATA, "simvlm-prefixlm_bv")
    objective = vlmdsl.compile(SUFFIX.format('reduction="token"'), compiled=False)
    loss = _loss(objective, suffix_codes(oracle), oracle.inputs["logits"])
    torch.testing.assert_close(loss, oracle.outputs["token_mean"], rtol=oracle.rtol, atol=0)


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
    loss = ops.linear_cross_entropy(states, kernel.T, targets, bias, reduction="sample")
    torch.testing.assert_close(loss, oracle.outputs["total"], rtol=oracle.rtol, atol=0)
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

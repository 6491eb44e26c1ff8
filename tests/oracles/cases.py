"""Which recipe gives the numbers of which oracle, and how its inputs are called there.

The files under `data/` hold inputs, losses and gradients made by the authors' code, a trusted re-implementation, or the
paper's formula (their JSON says which).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Case:
    """One oracle and the recipe that must give its numbers.

    `inputs` maps inputs of the objective to names in the oracle, `parameters` learned numbers likewise; `total` is the
    oracle's loss; `times` what our loss is multiplied by to be theirs (transformers halves ALIGN's sum);
    inputs of `no_gradient` get none, and of `unstated` ones the oracle gives none.
    """

    oracle: str
    recipe: str
    inputs: Mapping[str, str]
    parameters: Mapping[str, str]
    knobs: Mapping[str, object] = field(default_factory=dict)
    total: str = "out_total"
    times: float = 1.0
    rtol: float | None = None
    no_gradient: tuple[str, ...] = ()
    unstated: tuple[str, ...] = ()
    stage: str | None = None
    """Of a recipe with stages, the one whose objective it is."""

    def load(self) -> tuple[dict[str, np.ndarray[Any, Any]], float]:
        """The oracle's arrays and its relative tolerance."""
        with np.load(DATA / f"{self.oracle}.npz") as arrays:
            stored = {name: arrays[name] for name in arrays.files}
        stated = json.loads((DATA / f"{self.oracle}.json").read_text())["rtol"]
        stored |= _derived(stored)
        return stored, self.rtol or stated


def teachers(inputs: Mapping[str, str]) -> tuple[str, ...]:
    """The inputs that a teacher makes, which get no gradient."""
    return tuple(name for name in inputs if name.endswith("_teacher"))


def _derived(arrays: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """What an objective wants and an oracle holds in another form: masks from ids, first tokens, sources apart."""
    derived: dict[str, np.ndarray[Any, Any]] = {}
    if "text_ids" in arrays:
        derived["text_real"] = arrays["text_ids"] != 0
        for side in ("image", "text"):
            derived[f"{side}_first"] = arrays[f"{side}_tokens"][:, 0]
            derived[f"grad_{side}_first"] = arrays[f"grad_{side}_tokens"][:, 0]
    if "mask" in arrays:
        derived["valid"] = arrays["mask"].astype(bool)
    if "crops_raw" in arrays:
        derived |= {f"crop_{crop}": values for crop, values in enumerate(arrays["crops_raw"])}
        derived |= {f"grad_crop_{crop}": values for crop, values in enumerate(arrays["grad_crops_raw"])}
    if "alpha" in arrays:
        derived["heads"] = np.array(1.0)
    if "prompt_x" in arrays:
        for prompt in range(arrays["prompt_x"].shape[1]):
            derived[f"prompt_{prompt}"] = arrays["prompt_x"][:, prompt]
            derived[f"grad_prompt_{prompt}"] = arrays["grad_prompt_x"][:, prompt]
    if arrays.get("text_x", np.zeros(0)).ndim == 3:
        for source in range(len(arrays["text_x"])):
            derived[f"text_{source}"] = arrays["text_x"][source]
            derived[f"grad_text_{source}"] = arrays["grad_text_x"][source]
    return derived


FEATURES = {"image": "image_features", "text": "text_features"}
EMBEDDED = {"image": "image_embed", "text": "text_embed"}
REWRITTEN = {"image": "image_embed", "text_rewrite": "text_embed"}
SEEN = {"image_augment_crop_flip_0_drop": "image_raw", "text": "text_raw"}
LABELLED = {"image": "image_x", "text": "text_x", "label": "label"}
TOKENS = {"image_tokens": "image_tokens", "text_tokens": "text_tokens", "text_mask": "text_mask"}
VOCABULARY = {"text_masked_vocabulary": "logits", "text_masked_targets": "labels"}
RENDERED = {"image": "z_image", "text_render": "z_rendered"}
SCALE = {"log_scale": "log_scale"}
SCALE_AND_BIAS = {"log_scale": "log_scale", "bias": "logit_bias"}
SIGMA = {"temperature": "sigma"}
TAU = {"temperature": "temperature"}

BIASED = """
recipe biased(image: Image, text: Text)
minimize contrast(image, text, temperature=learned(0.1), bias=learned(-10, form="direct"))
"""
DECOUPLED = """
recipe decoupled(image: Image, text: Text)
minimize contrast(image, text, temperature=learned(0.5), denominator="negatives")
"""
UNLOCKED = """
recipe unlocked(image: Image, text: Text)
minimize contrast(image, text, sim=cosine(epsilon=1e-8), temperature=learned(0.1))
"""
MASKED = """
recipe masked(image: Image, text: Text, valid: Flag)
minimize contrast(image, text, temperature=learned(0.1), keep=valid)
"""
CLIPPO_MASKED = """
recipe masked(image: Image, text: Text, valid: Flag)
minimize contrast(image, render(text), sim=cosine(epsilon=1e-8), temperature=learned(0.1), keep=valid)
"""
# x-clip divides both directions over the images and leaves the image rows' scores as text x image.
OVER_IMAGES = """
recipe x_clip(image: Image, text: Text)
let words = similarity(image, text, by=tokenmax)
let tau = learned(0.5, name="temperature")
def over_images(logits) = mean(cross_entropy(logits / tau, targets=paired, along="columns"))
minimize 0.5 * over_images(words) + 0.5 * over_images(reuse(words, matrix="rows"))
"""

MASKED_LANGUAGE = "minimize mlm(mask(text, random(15%)))"
# KELIP's weighted mean over the crops of an image, each contrasted with the caption.
KELIP = """
recipe kelip_crops(image: Image, text: Text)
let tau = learned(0.07)
let crops = multi_crop(image, n=2, small=2)
def one(crop) = contrast(crop, text, temperature=tau)
minimize (one(crops[0]) + one(crops[1]) + 0.5 * one(crops[2]) + 0.5 * one(crops[3])) / 3
"""
CROPS = {f"image_crop_{crop}": f"crop_{crop}" for crop in range(4)}
GROUPVIT = """
recipe groupvit_caption(image: Image, text: Text)
minimize contrast(image, text, temperature=learned(0.07, max_scale=100, clamp="hard"))
"""
OTTER_BASELINE = """
recipe otter_baseline(image: Image, text: Text, smoothing = 0)
minimize contrast(
  image, text, temperature=learned(0.02, min_scale=1, max_scale=100, clamp="hard"), combine="sum",
  targets=smoothed(epsilon=smoothing, over="others")
)
"""
ZEROVL = """
recipe zerovl_contrast(image: Image, text: Text, smoothing = 0)
minimize contrast(
  image, text, sim=cosine(epsilon=1e-8), targets=smoothed(epsilon=smoothing),
  temperature=learned(0.1, form="direct", lower=0.001, upper=0.5, clamp="hard")
)
"""
# Ignored samples: as keys they are zeros that stay in the softmax, as rows they have no loss, but the mean counts them.
ZEROVL_IGNORE = """
recipe zerovl_ignore(image: Image, text: Text, ignored: Number)
let valid = 1 - ignored
minimize contrast(
  gate(image, by=valid), gate(text, by=valid), sim=cosine(epsilon=1e-8), weight=valid,
  temperature=learned(0.1, form="direct", lower=0.001, upper=0.5, clamp="hard")
)
"""
# In the authors' repository, not in their recipe.
TRIPLET = """
recipe triplet(image: Image, text: Text, margin = 0.2, negatives = "mean")
let z = similarity(image, text, by=cosine(epsilon=1e-8))
def side(along) = sum(hinge(z, along=along, margin=margin, negatives=negatives))
minimize side("rows") + side("columns")
"""
# CyCLIP in six lines.
CYCLIP = """
recipe cyclip(image: Image, text: Text, cross = 0.25, within = 0.25)
let across = similarity(image, text)
minimize {
  clip: contrast(image, text, temperature=learned(0.07))
  cross: cross * mean(row_sum(square(across - transpose(across))))
  within: within * mean(row_sum(square(similarity(image, image) - similarity(text, text))))
}
"""
# One path of ALIP over unit vectors, with the gates as given.
ALIP_PATH = """
recipe alip_path(image: Image, text: Text, pair: Number, gate: Number)
minimize contrast(image, text, sim=dot, weight=stop(pair * gate))
"""
GATED = {**EMBEDDED, "pair": "weight_pair", "gate": "weight_sample"}
PYRAMID = {
    "image_crop": "image_global",
    "image_crop_2": "image_local",
    "regions": "image_rois",
    "text": "text_original",
    "summary": "text_summary",
    "attributes": "text_attributes",
}

# The authors' features of the two views, as they leave the projection head.
VIEWS = {f"image_augment_simclr_{view}_project": f"aug{view + 1}_embed" for view in (0, 1)}
SLIP = {
    "image_augment_crop_0": "image_embed",
    "text": "text_embed",
    "image_augment_slip_0_project": "aug1_embed",
    "image_augment_slip_1_project": "aug2_embed",
}

# OTTER's baseline, whose targets are the softmax of the same affinity, pairs kept; the features of the teacher are given.
OTTER_SOFTMAX = """
recipe otter_softmax(image: Image, text: Text, image_teacher: Image, text_teacher: Text, teacher_scale = 100)
let affinity = (
  similarity(image_teacher, image_teacher) + similarity(text_teacher, text_teacher)
  + similarity(image_teacher, text_teacher)
)
let soft = softmax(teacher_scale * affinity)
def scale(name) = learned(0.02, min_scale=1, max_scale=100, clamp="hard", name=name)
let logits = similarity(image, text) / scale("soft_temperature")
minimize {
  contrastive: 0.5 * contrast(image, text, temperature=scale("hard_temperature"), combine="sum")
  distillation: 0.5 * (mean(kl(logits, targets=soft, along="rows")) + mean(kl(logits, targets=soft, along="columns")))
}
"""
TAUGHT = {**FEATURES, "image_teacher": "teacher_image_features", "text_teacher": "teacher_text_features"}
TWO_SCALES = {"hard_log_scale": "log_scale_contrastive", "soft_log_scale": "log_scale_distill"}
TEACHERS = ("image_teacher", "text_teacher")

# The features are those of mixed images already: the coin has fallen for pixels.
MIXED = {"image_mix": "image_features", "text": "text_features", "lam": "alpha", "coin": "heads"}


# A prediction of each view, and what it should be: of a teacher's (BYOL) or of the same tower (SimSiam).
def _both_views(pipeline: str, asking: str, goal: str, *, head: str = "project_teacher") -> dict[str, str]:
    """The predictions of two views of an image, and what each of them should find, which another head or a teacher makes."""
    names = {"predict": asking, head: goal}
    return {
        f"image_augment_{pipeline}_{view}_{made_by}": f"{name}{view + 1}"
        for made_by, name in names.items()
        for view in (0, 1)
    }


BYOL = _both_views("byol", "p", "t")
SIMSIAM = _both_views("moco_v2", "p", "z", head="project")
MOCO_V3 = _both_views("moco_v3", "q", "k")
HEADS = {"image_project": "a", "text_project": "b"}
XCLIP = {"image": "image_x", "text": "text_x", "image_project": "a", "text_project": "b"}
# The paper of GroupViT is remembered to sum an image's positives inside of the logarithm; the code does not.
GROUPVIT_INSIDE = """
recipe groupvit_inside(image: Image, text: Text)
let texts = rewrite(text, M=3, pick="each")
let tau = learned(0.07, name="prompt_temperature", max_scale=100, clamp="hard")
let first = similarity(image, texts[1]) / tau
let second = similarity(image, texts[2]) / tau
let third = similarity(image, texts[3]) / tau
def own(logits) = mean(cross_entropy(logits, targets=paired, along="columns"))
def chosen(own, other, further) = exp(
  -cross_entropy(unite(unite(own, other), further), targets=paired, along="rows")
)
let images = mean(-log(chosen(first, second, third) + chosen(second, third, first) + chosen(third, first, second)))
minimize (images + (own(first) + own(second) + own(third)) / 3) / 2
"""
PROMPTED = {"image": "image_x", **{f"text_alternative_{view + 1}": f"prompt_{view}" for view in range(3)}}
PROJECTED = {f"{name}_project": key for name, key in {**PROMPTED, "text_alternative_0": "text_x"}.items()}
UNICLIP = {"image_augment_uniclip_0": "image_1", "image_augment_uniclip_1": "image_2", "text": "text"}
UNICLIP_START = {
    "image_temperature": 0.1, "cross_temperature": 0.2, "text_temperature": 0.3, "image_offset": 0.3, "cross_offset": 0.1,
}  # fmt: skip
CASES = [
    Case("clip-openclip", "clip", FEATURES, SCALE),
    Case("clip-openclip_scale100", "clip", FEATURES, SCALE),
    Case("clip-openclip_bias", BIASED, FEATURES, SCALE_AND_BIAS),
    Case("clip-xclip_dcl", DECOUPLED, {"image": "image_first", "text": "text_first"}, {"log_scale": "temperature"}),
    Case("clip-openclip", "hiclip", FEATURES, SCALE),
    Case("clip-openclip", "growclip", FEATURES, {"tau_log_scale": "log_scale"}, stage="first"),
    Case("clip-openclip", "growclip", FEATURES, {"tau_log_scale": "log_scale"}, stage="third"),
    Case("chineseclip-contrast", "chinese_clip", FEATURES, {"tau_log_scale": "log_scale"}, stage="both"),
    Case(
        "chineseclip-kd",
        "chinese_clip",
        {**FEATURES, "image_teacher": "teacher_features"},
        {"tau_log_scale": "log_scale"},
        {"distillation": 0.5},
        no_gradient=("image_teacher",),
        stage="both",
    ),
    Case("laclip-clip", "laclip", REWRITTEN, SCALE, total="out_loss"),
    Case("align-paper", "align", FEATURES, SIGMA),
    Case("align-paper_trained", "align", FEATURES, SIGMA),
    Case("align-paper_nosmoothing", "align", FEATURES, SIGMA, {"smoothing": 0}),
    Case("align-coyo", "align", FEATURES, SIGMA),
    Case("align-hf", "align", FEATURES, SIGMA, times=0.5),
    Case("filip-paper", "filip", TOKENS, SCALE),
    Case("filip-paper_singleword", "filip", TOKENS, SCALE),
    Case("filip-xclip", OVER_IMAGES, {**TOKENS, "text_mask": "text_real"}, {"log_scale": "temperature"}),
    Case("unicl-mixed", "unicl", LABELLED, SCALE, {"missing": 0}),
    Case("unicl-labels", "unicl", LABELLED, SCALE, {"missing": 0}),
    Case("unicl-pairs", "unicl", LABELLED, SCALE, {"missing": 0}),
    Case("siglip-bigvision", "siglip", FEATURES, SCALE_AND_BIAS),
    Case("siglip-bigvision_duplicates", "siglip", FEATURES, SCALE_AND_BIAS),
    Case("siglip-openclip", "siglip", FEATURES, SCALE_AND_BIAS),
    Case("siglip-openclip_chunked", "siglip", FEATURES, SCALE_AND_BIAS),
    Case("siglip-openclip_dist_reference", "siglip", FEATURES, SCALE_AND_BIAS),
    Case("lit-softmax_unlocked_4dev", UNLOCKED, FEATURES, {"log_scale": "log_temperature"}),
    Case("lit-softmax_unlocked_4dev", "lit", FEATURES, {"log_scale": "log_temperature"}, no_gradient=("image",)),
    Case("lit-masked", MASKED, {**FEATURES, "valid": "valid"}, {"log_scale": "log_temperature"}),
    Case("clippo-contrastive", "clippo", RENDERED, SCALE, total="out_loss"),
    Case("clippo-contrastive-mask", CLIPPO_MASKED, {**RENDERED, "valid": "valid"}, SCALE, total="out_loss"),
    Case("florence-unicl_mean", "florence", {**FEATURES, "label": "labels"}, SCALE),
    Case(
        "florence-unicl_sum",
        "florence",
        {**FEATURES, "label": "labels"},
        SCALE,
        {"reduction": "sum", "combine": "sum"},
    ),
    Case("flip-contrast-clamped", "flip", SEEN, {"log_scale": "logit_scale"}),
    Case("kelip-multicrop-weighted", KELIP, {**CROPS, "text": "text_raw"}, {"tau_log_scale": "logit_scale"}),
    Case("groupvit-loss-clamped", GROUPVIT, {"image": "image_x", "text": "text_x"}, SCALE, total="out_loss"),
    Case("otter-infonce", OTTER_BASELINE, FEATURES, SCALE),
    Case("otter-labelsmooth", OTTER_BASELINE, FEATURES, SCALE, {"smoothing": 0.1}),
    Case("zerovl-nce_smoothing", ZEROVL, FEATURES, TAU, {"smoothing": 0.1}),
    Case("zerovl-nce_tau_clamped", ZEROVL, FEATURES, TAU),
    Case("zerovl-nce_ignore", ZEROVL_IGNORE, {**FEATURES, "ignored": "ignore_mask"}, TAU, unstated=("ignored",)),
    Case("cyclip-base", CYCLIP, FEATURES, SCALE),
    Case("cyclip-cross_only", CYCLIP, FEATURES, SCALE, {"cross": 1.5, "within": 0}),
    Case("cyclip-scale100", CYCLIP, FEATURES, SCALE),
    Case("zerovl-triplet_mean", TRIPLET, FEATURES, {}),
    Case("alip-adaptive_loss", ALIP_PATH, GATED, SCALE, total="out_loss", no_gradient=("pair", "gate")),
    Case("pyramidclip-paper", "pyramidclip", PYRAMID, SCALE),
    Case("pyramidclip-paper_literal", "pyramidclip", PYRAMID, SCALE, {"targets": "printed"}),
    Case("pyramidclip-paper_hard", "pyramidclip", PYRAMID, SCALE, {"smoothing": 0}),
    Case("simclr-slip", "simclr", VIEWS, {}, total="out_loss"),
    Case("simclr-slip-t05", "simclr", VIEWS, {}, {"temperature": 0.5}, total="out_loss"),
    Case("simclr-slip-sameviews", "simclr", VIEWS, {}, total="out_loss"),
    Case("simclr-slip-b1", "simclr", VIEWS, {}, total="out_loss"),
    Case("slip-total", "slip", SLIP, SCALE),
    Case("otter-kd", OTTER_SOFTMAX, TAUGHT, TWO_SCALES, no_gradient=TEACHERS),
    Case("otter-kd_soft", OTTER_SOFTMAX, TAUGHT, TWO_SCALES, {"teacher_scale": 8}, no_gradient=TEACHERS),
    Case("otter-ot_clamped", "otter", TAUGHT, TWO_SCALES, no_gradient=TEACHERS),
    Case("otter-ot_duplicates", "otter", TAUGHT, TWO_SCALES, no_gradient=TEACHERS),
    Case(
        "groupvit-multilabel",
        "groupvit",
        PROJECTED,
        {"log_scale": "log_scale", "prompt_log_scale": "log_scale_multi"},
    ),
    Case("groupvit-multilabel-mil", GROUPVIT_INSIDE, PROMPTED, {"prompt_log_scale": "log_scale"}),
    Case("uniclip-mpnce", "uniclip", UNICLIP, {}, UNICLIP_START, rtol=1e-6),  # learned numbers start in float32
    Case("zerovl-mixupnce", "zerovl", MIXED, TAU, {"learns": "yes"}, unstated=("lam", "coin")),
    Case("zerovl-mixupnce_alpha1", "zerovl", MIXED, TAU, {"learns": "yes"}, unstated=("lam", "coin")),
    Case("zerovl-mixupnce_odd", "zerovl", MIXED, TAU, {"learns": "yes"}, unstated=("lam", "coin")),
    Case("byol-regression", "byol", BYOL, {}, total="out_loss", no_gradient=teachers(BYOL)),
    Case(
        "byol-regression-zerorow",
        "byol",
        BYOL,
        {},
        total="out_loss",
        no_gradient=teachers(BYOL),
        unstated=("image_augment_byol_1_predict",),
    ),
    Case(
        "simsiam-cosine",
        "simsiam",
        SIMSIAM,
        {},
        total="out_loss",
        no_gradient=tuple(name for name in SIMSIAM if name.endswith("_project")),
    ),
    Case("moco_v3-loss", "moco_v3", MOCO_V3, {}, no_gradient=teachers(MOCO_V3)),
    Case("moco_v3-loss-t1", "moco_v3", MOCO_V3, {}, {"temperature": 1}, no_gradient=teachers(MOCO_V3)),
    Case("nclip-terms", "nclip", HEADS, {}),
    Case("nclip-terms-nosharp", "nclip", HEADS, {}, {"sharpness": 0}),
    Case("nclip-terms-sg", "nclip", HEADS, {}, {"stopped": 1}),
    Case("xclip-total", "xclip", XCLIP, SCALE),
    Case("declip-infonce", "clip", FEATURES, SCALE),
    Case("albef-mlm-alpha0", MASKED_LANGUAGE, VOCABULARY, {}),
    Case("fiber-mlm", MASKED_LANGUAGE, VOCABULARY, {}),
    Case(
        "oner-cic",
        "oner",
        {"image_shared": "img", "text_shared": "txt", "image_text_shared": "joint"},
        SCALE,
        {"image_text_weight": 0, "mixed_weight": 0},
    ),
    Case(
        "laclip_mt",
        "laclip_mt",
        {"image": "image_x", **{f"text_alternative_{source}": f"text_{source}" for source in range(5)}},
        SCALE,
    ),
]

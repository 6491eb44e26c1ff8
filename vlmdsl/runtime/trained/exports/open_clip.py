"""A trained model as a folder of `open_clip`: its VisionTransformer without a norm before the blocks, and its text
transformer read at the end mark. The library is not needed to write it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vlmdsl.runtime.modules.towers import TextTransformer, VisionTransformer
from vlmdsl.runtime.trained.exports.built_in import MLP_RATIO, block_weights, end_mark, text_obstacle, vision_obstacle
from vlmdsl.runtime.trained.exports.sides import Exported, ImageSide, TextSide, refused, sides_of
from vlmdsl.runtime.trained.exports.tokenizers import write_tokenizer
from vlmdsl.runtime.trained.model import TrainedModel

__all__ = ["export_open_clip"]

_OF_BLOCK = {
    "norm_1": "ln_1", "output": "attn.out_proj", "norm_2": "ln_2", "hidden": "mlp.c_fc", "feed_forward": "mlp.c_proj",
}  # fmt: skip


def export_open_clip(trained: TrainedModel, out: Path) -> Exported:
    """A folder that `open_clip.create_model_and_transforms("local-dir:OUT")` loads: weights, settings, tokenizer.

    Features agree up to rounding: the bias of the patch embedding, which open_clip has not, is added to the positions.
    Raises `DiagnosticError` (V0865) where its two towers are not a plain vision transformer and a causal text transformer.
    """
    sides = sides_of(trained)
    if sides.text is None:
        raise refused(trained, "a model of open_clip has a text tower, and the recipe encodes no texts")
    obstacle = vision_obstacle(sides.image) or text_obstacle(sides.text)
    if obstacle is not None:
        raise refused(trained, obstacle)
    vision, text = _vision(sides.image), _text(sides.text)
    scale = torch.tensor(-math.log(sides.temperature))
    weights = {**vision[0], **text[0], "logit_scale": scale}
    save_file({name: weight.detach().cpu().contiguous().clone() for name, weight in weights.items()}, out / _WEIGHTS)
    form = sides.image.form
    settings = {
        "model_cfg": {"embed_dim": sides.image.tower.dimension, "vision_cfg": vision[1], "text_cfg": text[1]},
        "preprocess_cfg": {
            "mean": list(form.mean),
            "std": list(form.deviation),
            "interpolation": form.resampling,
            "resize_mode": "shortest" if form.fitting == "crop" else "squash",
        },
    }
    (out / "open_clip_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    write_tokenizer(sides.text, sides.text.form.tokenizer.to_library_json(), out)
    files = {
        _WEIGHTS: "the weights",
        "open_clip_config.json": f"the settings; {sides.image.pixels}",
        "tokenizer.json": f"the tokenizer; texts are of {sides.text.form.length} tokens",
    }
    return Exported(files, _USAGE)


_WEIGHTS = "open_clip_model.safetensors"
_USAGE = (
    'import open_clip\n\nmodel, preprocess = open_clip.create_model_from_pretrained("local-dir:.")\n'
    'tokenizer = open_clip.get_tokenizer("local-dir:.")\n'
    "images, texts = model.encode_image(pixels), model.encode_text(tokenizer(texts))"
)


def _vision(side: ImageSide) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tower = side.tower
    assert isinstance(tower, VisionTransformer)
    assert isinstance(tower.stem, nn.Conv2d)
    assert tower.stem.bias is not None
    assert tower.class_token is not None
    assert tower.pooled_projection is not None
    shape, norm = tower.config, tower.transformer.norm
    weights = {
        "visual.class_embedding": tower.class_token,
        "visual.positional_embedding": torch.cat(
            [torch.zeros(1, shape.width), (tower.positions_of(side.form.size) + tower.stem.bias).detach().cpu()]
        ),
        "visual.conv1.weight": tower.stem.weight,
        "visual.ln_post.weight": norm.weight,
        "visual.ln_post.bias": norm.bias,
        "visual.proj": tower.pooled_projection.weight.T,
        **_blocks(tower.transformer, "visual.transformer.resblocks"),
    }
    settings = {
        "layers": shape.depth,
        "width": shape.width,
        "head_width": shape.width // shape.heads,
        "mlp_ratio": float(MLP_RATIO),
        "patch_size": shape.patch_size,
        "image_size": side.form.size,
        "no_ln_pre": True,
    }
    return weights, settings


def _text(side: TextSide) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tower = side.tower
    assert isinstance(tower, TextTransformer)
    assert tower.pooled_projection is not None
    shape, norm = tower.config, tower.transformer.norm
    weights = {
        "token_embedding.weight": tower.embedding.weight,
        "positional_embedding": tower.positions[: side.form.length],
        "ln_final.weight": norm.weight,
        "ln_final.bias": norm.bias,
        "text_projection": tower.pooled_projection.weight.T,
        **_blocks(tower.transformer, "transformer.resblocks"),
    }
    settings = {
        "context_length": side.form.length,
        "vocab_size": shape.vocabulary_size,
        "hf_tokenizer_name": "tokenizer.json",
        "tokenizer_kwargs": {"clean": "whitespace"},
        "width": shape.width,
        "heads": shape.heads,
        "layers": shape.depth,
        "mlp_ratio": float(MLP_RATIO),
        "pool_type": "eos",
        "eos_id": end_mark(side),
        "pad_id": side.form.tokenizer.pad,
    }
    return weights, settings


def _blocks(transformer: Any, prefix: str) -> dict[str, Tensor]:
    """The weights of blocks under the library's names; query, key and value are one map there."""
    named: dict[str, Tensor] = {}
    for number, block in enumerate(block_weights(transformer)):
        for what in ("weight", "bias"):
            parts = [block[f"{role}.{what}"] for role in ("query", "key", "value")]
            named[f"{prefix}.{number}.attn.in_proj_{what}"] = torch.cat(parts)
            for role, name in _OF_BLOCK.items():
                named[f"{prefix}.{number}.{name}.{what}"] = block[f"{role}.{what}"]
    return named

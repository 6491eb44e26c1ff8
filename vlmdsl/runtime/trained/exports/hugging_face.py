"""A trained model as a folder of `transformers`.

Towers that are both halves of one kind of model there are saved as that; otherwise an image and a text encoder with a
projection each are a `VisionTextDualEncoderModel`. A built-in vision transformer is a `ViTModel`, and a built-in text
transformer a `CLIPTextModel`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from tokenizers import Tokenizer as Backend
from torch import Tensor, nn

from vlmdsl.runtime.modules.towers import TextTransformer, VisionTransformer
from vlmdsl.runtime.modules.towers.hf import HuggingFaceEncoder
from vlmdsl.runtime.modules.towers.hf_images import write_image_processor
from vlmdsl.runtime.modules.towers.hf_model import transformers_for, without_progress_bars
from vlmdsl.runtime.trained.exports.built_in import (
    MLP_RATIO,
    block_weights,
    end_mark,
    text_obstacle,
    vision_obstacle,
)
from vlmdsl.runtime.trained.exports.sides import Exported, ImageSide, Sides, TextSide, refused, sides_of
from vlmdsl.runtime.trained.exports.tokenizers import moved_end, write_tokenizer
from vlmdsl.runtime.trained.model import TrainedModel

__all__ = ["export_transformers"]

_TOLERANCE = 1e-4
_LEGACY_END = 2
"""A CLIPTextModel with this end mark is read at the largest id."""
_OF_BLOCK = {
    "query": "q_proj", "key": "k_proj", "value": "v_proj", "hidden": "mlp.fc1", "feed_forward": "mlp.fc2",
}  # fmt: skip


@dataclass(frozen=True)
class _Half:
    """A model of the library with a `pooler_output [b, W]`, and the projection `[D, W]` that follows it."""

    model: Any
    projection: Tensor


def export_transformers(trained: TrainedModel, out: Path) -> Exported:
    """A folder that `transformers` loads: the model, its image processor, and the tokenizer.

    Its features agree with those of the towers, which is checked before anything is written. Raises `DiagnosticError`: V0901
    without transformers, V0865 with the reason where the library has no such model.
    """
    transformers = transformers_for("the export to transformers")
    sides = sides_of(trained)
    tokenizer = None if sides.text is None else sides.text.form.tokenizer.to_library_json()
    image = _image_half(trained, sides.image, transformers)
    joint = _joint(sides)
    if sides.text is None:
        model, kind = _with_projection(trained, image), type(image.model).__name__
        features = 'model(**processor(images, return_tensors="pt")).pooler_output'
    elif joint is not None:
        model, kind, features = joint, type(joint).__name__, _TWO_SIDES
    else:
        text, tokenizer = _text_half(trained, sides.text, transformers)
        model, kind, features = _dual_encoder(transformers, image, text, sides), _DUAL, _TWO_SIDES
    _check(trained, sides, model.eval(), tokenizer)
    with without_progress_bars():
        model.save_pretrained(out)
    write_image_processor(out, sides.image.form)
    files = {
        "model.safetensors": f"the weights of a `{kind}`, with `config.json`",
        "preprocessor_config.json": f"{sides.image.pixels}; for images that are not square, resized before they are cropped",
    }
    if sides.text is not None and tokenizer is not None:
        write_tokenizer(sides.text, tokenizer, out)
        files["tokenizer.json"] = f"the tokenizer; texts are of at most {sides.text.form.length} tokens"
    names = kind if sides.text is None else f"{kind}, AutoTokenizer"
    lines = [f"from transformers import AutoImageProcessor, {names}", "", f'model = {kind}.from_pretrained(".")']
    lines.append('processor = AutoImageProcessor.from_pretrained(".")')
    return Exported(files, "\n".join([*lines, features]))


_DUAL = "VisionTextDualEncoderModel"
_TWO_SIDES = (
    'tokenizer = AutoTokenizer.from_pretrained(".")\n'
    'images = model.get_image_features(**processor(images, return_tensors="pt")).pooler_output\n'
    'texts = model.get_text_features(**tokenizer(texts, padding=True, truncation=True, return_tensors="pt")).pooler_output'
)


def _image_half(trained: TrainedModel, side: ImageSide, transformers: ModuleType) -> _Half:
    if isinstance(side.tower, HuggingFaceEncoder):
        return _pretrained_half(trained, side)
    obstacle = vision_obstacle(side)
    if obstacle is not None:
        raise refused(trained, obstacle)
    tower = side.tower
    assert isinstance(tower, VisionTransformer)
    assert tower.pooled_projection is not None
    shape, stem = tower.config, tower.stem
    config = transformers.ViTConfig(
        hidden_size=shape.width,
        num_hidden_layers=shape.depth,
        num_attention_heads=shape.heads,
        intermediate_size=MLP_RATIO * shape.width,
        hidden_act="gelu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=tower.transformer.norm.eps,
        image_size=side.form.size,
        patch_size=shape.patch_size,
        pooler_output_size=shape.width,
        pooler_act="linear",
    )
    identity = torch.eye(shape.width)
    positions = torch.cat([torch.zeros(1, shape.width), tower.positions_of(side.form.size).cpu()])
    weights = {
        "embeddings.cls_token": tower.class_token[None, None],  # type: ignore[index]
        "embeddings.position_embeddings": positions[None],
        "embeddings.patch_embeddings.projection.weight": stem.weight,
        "embeddings.patch_embeddings.projection.bias": stem.bias,
        "layernorm.weight": tower.transformer.norm.weight,
        "layernorm.bias": tower.transformer.norm.bias,
        "pooler.dense.weight": identity,
        "pooler.dense.bias": torch.zeros(shape.width),
    }
    names = {"norm_1": "layernorm_before", "norm_2": "layernorm_after", "output": "attention.o_proj"}
    weights |= _blocks(tower.transformer, "layers", "attention", names)
    return _Half(_filled(trained, transformers.ViTModel(config), weights), tower.pooled_projection.weight.detach())


def _text_half(trained: TrainedModel, side: TextSide, transformers: ModuleType) -> tuple[_Half, str]:
    """The text half, and the tokenizer with the ids that it reads."""
    tokenizer = side.form.tokenizer.to_library_json()
    if isinstance(side.tower, HuggingFaceEncoder):
        return _pretrained_half(trained, side), tokenizer
    obstacle = text_obstacle(side)
    if obstacle is not None:
        raise refused(trained, obstacle)
    tower, end = side.tower, end_mark(side)
    assert isinstance(tower, TextTransformer)
    assert tower.pooled_projection is not None
    embedding = tower.embedding.weight
    if end == _LEGACY_END:
        moved = moved_end(side.form.tokenizer, embedding)
        if moved is None:
            raise refused(trained, "its end mark is number 2, which the library does not look for, and cannot be renumbered")
        tokenizer, end, embedding = moved  # type: ignore[assignment]
    config = transformers.CLIPTextConfig(
        vocab_size=len(embedding),
        hidden_size=tower.config.width,
        intermediate_size=MLP_RATIO * tower.config.width,
        num_hidden_layers=tower.config.depth,
        num_attention_heads=tower.config.heads,
        max_position_embeddings=tower.config.text_length,
        hidden_act="gelu",
        layer_norm_eps=tower.transformer.norm.eps,
        pad_token_id=side.form.tokenizer.pad,
        bos_token_id=side.form.tokenizer.start,
        eos_token_id=end,
    )
    weights = {
        "embeddings.token_embedding.weight": embedding,
        "embeddings.position_embedding.weight": tower.positions,
        "final_layer_norm.weight": tower.transformer.norm.weight,
        "final_layer_norm.bias": tower.transformer.norm.bias,
    }
    names = {"norm_1": "layer_norm1", "norm_2": "layer_norm2", "output": "self_attn.out_proj"}
    weights |= _blocks(tower.transformer, "encoder.layers", "self_attn", names)
    half = _Half(_filled(trained, transformers.CLIPTextModel(config), weights), tower.pooled_projection.weight.detach())
    return half, tokenizer


def _blocks(transformer: Any, prefix: str, attention: str, names: dict[str, str]) -> dict[str, Tensor]:
    """The weights of blocks under the library's names."""
    named = {role: f"{attention}.{name}" if name.endswith("proj") else name for role, name in _OF_BLOCK.items()} | names
    return {
        f"{prefix}.{number}.{named[role]}.{what}": weight
        for number, block in enumerate(block_weights(transformer))
        for (role, what), weight in ((name.rsplit(".", 1), weight) for name, weight in block.items())
    }


def _filled(trained: TrainedModel, model: Any, weights: dict[str, Any]) -> Any:
    try:
        model.load_state_dict({name: weight.detach().cpu() for name, weight in weights.items()}, strict=True)
    except RuntimeError as error:
        reason = f"the installed version of transformers names the weights of a `{type(model).__name__}` otherwise"
        raise refused(trained, reason) from error
    return model


def _pretrained_half(trained: TrainedModel, side: ImageSide | TextSide) -> _Half:
    """A tower that is itself a model of the library, or half of one."""
    tower = side.tower
    assert isinstance(tower, HuggingFaceEncoder)
    if side.heads:
        raise refused(trained, f"features of its tower `{side.name}` go through a head, for which the library has no module")
    if tower.interpolates and tower.image_format is not None:
        reason = (
            f"its tower `{side.name}` was trained on images of {tower.image_format.size} pixels, for which transformers "
            "interpolates positions only where a call asks for it"
        )
        raise refused(trained, reason)
    part = tower.pooled_part()
    if part is None:
        reason = f"its tower `{side.name}` has no pooled output of its own in transformers: {tower.pooling} tokens are read"
        raise refused(trained, reason)
    model, projection = part
    own = projection if isinstance(projection, nn.Linear) else None
    if own is not None and own.bias is not None:
        raise refused(trained, f"the projection of its tower `{side.name}` adds a bias")
    new = tower.pooled_projection
    factors = [one.weight.detach().cpu() for one in (own, new) if isinstance(one, nn.Linear)]
    width = factors[0].shape[1] if factors else tower.dimension
    matrix = torch.eye(width)
    for factor in factors:
        matrix = factor @ matrix
    return _Half(model, matrix)


def _joint(sides: Sides) -> Any:
    """One model of the library with both towers as its halves; None where they are not halves of one kind."""
    if sides.text is None or sides.image.heads or sides.text.heads:
        return None
    image, text = sides.image.tower, sides.text.tower
    if not (isinstance(image, HuggingFaceEncoder) and isinstance(text, HuggingFaceEncoder)):
        return None
    halves = (image, text)
    whole = all(tower.is_half and isinstance(tower.pooled_projection, nn.Identity) for tower in halves)
    if not whole or type(image.model) is not type(text.model):
        return None
    pictures: Any = image.model
    words: Any = text.model
    config = type(pictures.config).from_dict(pictures.config.to_dict())
    config.text_config = words.config.text_config
    joint = type(pictures)(config)
    weights = {**words.state_dict(), **pictures.state_dict()}
    if weights.keys() != joint.state_dict().keys():
        return None
    joint.load_state_dict({name: weight.cpu() for name, weight in weights.items()})
    _set_scale(joint, sides.temperature)
    return joint


def _dual_encoder(transformers: ModuleType, image: _Half, text: _Half, sides: Sides) -> Any:
    config = transformers.VisionTextDualEncoderConfig.from_vision_text_configs(
        image.model.config, text.model.config, projection_dim=len(image.projection)
    )
    model = transformers.VisionTextDualEncoderModel(config, vision_model=image.model, text_model=text.model)
    with torch.no_grad():
        model.visual_projection.weight.copy_(image.projection)
        model.text_projection.weight.copy_(text.projection)
    _set_scale(model, sides.temperature)
    return model


def _with_projection(trained: TrainedModel, half: _Half) -> Any:
    """A model of images alone, whose pooler is the projection; V0865 where it has none that could be."""
    width = half.projection.shape[1]
    if getattr(half.model.config, "pooler_act", None) == "linear":
        pooler = half.model.pooler
        half.model.config.pooler_output_size = len(half.projection)
        linear = nn.Linear(width, len(half.projection))
        with torch.no_grad():
            linear.weight.copy_(half.projection @ pooler.dense.weight)
            linear.bias.copy_(half.projection @ pooler.dense.bias)
        pooler.dense = linear
    elif not torch.equal(half.projection, torch.eye(width)):
        kind = type(half.model).__name__
        raise refused(
            trained, f"features of {width} numbers are projected, for which a `{kind}` of the library has no module"
        )
    return half.model


def _set_scale(model: Any, temperature: float) -> None:
    with torch.no_grad():
        model.logit_scale.fill_(-math.log(temperature))


@torch.no_grad()
def _check(trained: TrainedModel, sides: Sides, model: Any, tokenizer: str | None) -> None:
    """V0865 where the model of the library encodes other vectors than the towers."""
    form = sides.image.form
    pixels = torch.randn(2, 3, form.size, form.size, generator=torch.Generator().manual_seed(0))
    images = model(pixel_values=pixels) if sides.text is None else model.get_image_features(pixel_values=pixels)
    pairs = [(images.pooler_output, sides.image.tower(pixels.to(trained.device)).pooled)]
    if sides.text is not None and tokenizer is not None:
        texts, side = ["a dog", "two dogs on a sofa"], sides.text
        ids, mask = side.form.encode(texts)
        backend = Backend.from_str(tokenizer)
        backend.enable_truncation(side.form.length)
        theirs = torch.zeros_like(ids) + side.form.tokenizer.pad
        for row, encoding in enumerate(backend.encode_batch(texts)):
            theirs[row, mask[row]] = torch.tensor(encoding.ids)
        seen = {} if side.tower.reads_padding else {"attention_mask": mask.long()}
        encoded = model.get_text_features(input_ids=theirs, **seen).pooler_output
        pairs.append((encoded, side.tower(ids.to(trained.device), mask.to(trained.device)).pooled))
    for theirs, ours in pairs:
        if not torch.allclose(theirs.cpu(), ours.cpu(), rtol=_TOLERANCE, atol=_TOLERANCE):
            raise refused(trained, f"a `{type(model).__name__}` of the library computes other features with its weights")

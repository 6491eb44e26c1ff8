"""Image encoders of `timm` behind the contract of every encoder."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vlmdsl.runtime.modules.towers.contract import EncodedFeatures, Encoder
from vlmdsl.runtime.modules.towers.pretrained import (
    PatchGate,
    library,
    loading,
    new_projection,
    refused,
    without_unused,
    working,
)
from vlmdsl.runtime.values import ImageFormat
from vlmdsl.runtime.values.image import Resampling

__all__ = ["TimmEncoder"]

_CONFIG = "config.json"
_OF_WEIGHTS = ("url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source")
"""What a configuration of timm says of where weights are loaded from."""
_FILTERS: tuple[Resampling, ...] = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")


class TimmEncoder(Encoder):
    """An image model of `timm`: a name of the library, a folder in its form (`config.json`, `model.safetensors`), or
    `hf-hub:OWNER/NAME`.

    The pooled feature is what the model gives to its classifier, without the classifier; tokens are its patches without
    class token or registers, or the places of its feature map row by row. Images are standardised as its settings say. A
    plain vision transformer takes dropped patches, and images of other sizes with interpolated positions.

    Raises `DiagnosticError`: V0901 without timm, V0902 if there is no such model, V0831 if it cannot be used.
    """

    def __init__(
        self,
        name: str,
        dimension: int,
        yields: Iterable[str] = ("pooled", "tokens"),
        *,
        image_size: int | None = None,
        pretrained: bool = True,
    ) -> None:
        super().__init__("Image", dimension, yields)
        called = f"timm:{name}"
        timm = library("timm", "timm", f"the encoder `{called}`")
        self.name = name
        self.model: Any = _made(timm, name, image_size, pretrained)
        if any(isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d) for part in self.model.modules()):
            self.notes += ("has batch norms: in training, the features of a sample depend on the others in its process",)
        self.image_format = _image_format(timm, called, self.model, image_size)
        self._before = int(getattr(self.model, "num_prefix_tokens", 0))
        self._gate: PatchGate | None = None
        side = self.image_format.size
        images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
        with working(called, self), torch.no_grad():
            pooled, tokens = self._features(images, None)
            if not torch.equal(self._features(images, None)[0], pooled):
                raise refused(called, "outputs different features for the same input: it is random")
            self.image_format = self._declared(images, tokens)
        self.states_width = tokens.shape[-1]
        self.pooled_projection = new_projection(self, pooled, "pooled") if "pooled" in self.yields else None
        self.token_projection = new_projection(self, tokens, "token") if "tokens" in self.yields else None
        with working(called, self):
            without_unused(self, (images,))

    def forward(self, values: Tensor, mask: Tensor | None = None, keep: Tensor | None = None) -> EncodedFeatures:
        """Features of a batch of images; `keep [b, K]` are the patches to encode."""
        pooled, tokens = self._features(values, keep)
        return EncodedFeatures(
            pooled=None if self.pooled_projection is None else self.pooled_projection(pooled),
            tokens=None if self.token_projection is None else self.token_projection(tokens),
            states=tokens if "states" in self.yields else None,
        )

    def settings_files(self) -> dict[str, bytes]:
        called = f"timm:{self.name}"
        with loading(called, "timm"):
            own = _kept_config(library("timm", "timm", f"the encoder `{called}`"), self.name, self.model)
            return {_CONFIG: json.dumps(own, indent=2).encode()}

    def _features(self, images: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
        """The pooled feature `[b, W]` and the patches `[b, P, V]`, before any projection of ours."""
        if self._gate is None:
            features = self.model.forward_features(images)
        else:
            with self._gate.keeping(keep):
                features = self.model.forward_features(images)
        return self.model.forward_head(features, pre_logits=True).flatten(1), self._patches(features)

    def _tokens(self, images: Tensor, keep: Tensor | None) -> Tensor:
        return self._features(images, keep)[1]

    def _patches(self, features: Tensor) -> Tensor:
        if features.ndim == 4:
            channels_last = getattr(self.model, "output_fmt", "NCHW") == "NHWC"
            return features.flatten(1, 2) if channels_last else features.flatten(2).transpose(1, 2)
        return features[:, self._before :]

    def _declared(self, images: Tensor, tokens: Tensor) -> ImageFormat:
        """The form with the side of a patch, where patches may be dropped and images be of other sizes."""
        form, blocks = self.image_format, getattr(self.model, "blocks", None)
        assert form is not None
        grid = math.isqrt(tokens.shape[1])
        if not isinstance(blocks, nn.Sequential | nn.ModuleList) or grid * grid != tokens.shape[1] or form.size % grid:
            return form
        self._gate, patch = PatchGate(blocks[0], self._before), form.size // grid
        if not self._gate.fits(self._tokens, images, grid * grid):
            self._gate = None
            return form
        self.overlapping_patches = self._gate.overlaps(self._tokens, images, patch)
        larger = torch.randn(1, 3, form.size + patch, form.size + patch)
        try:
            resizable = self._features(larger, None)[1].shape[1] == (grid + 1) ** 2
        except Exception:  # whatever a model of one size raises
            resizable = False
        return replace(form, patch=patch, resizable=resizable)


def _made(timm: ModuleType, name: str, image_size: int | None, pretrained: bool) -> nn.Module:
    folder = Path(name)
    help = "name a model of timm, a folder with `config.json` and `model.safetensors`, or `hf-hub:OWNER/NAME`"
    with loading(f"timm:{name}", "timm", help):
        if folder.is_dir() and pretrained and not (folder / "model.safetensors").is_file():
            raise FileNotFoundError("the folder has no model.safetensors")
        if folder.is_dir():
            name = f"local-dir:{folder}"
        size = {} if image_size is None else {"img_size": image_size}
        for options in ({**size, "dynamic_img_size": True}, size, {}):
            try:
                model: nn.Module = timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
            except TypeError:  # a model that takes any size has no such argument
                if not options:
                    raise
            else:
                return model.eval()
        raise AssertionError("a model without arguments was refused its arguments")


def _kept_config(timm: ModuleType, name: str, model: Any) -> dict[str, Any]:
    """The `config.json` from which timm makes the model called `name` again: its own of a folder; of a hub what was read of
    it; else the name of the architecture, and how images are standardised."""
    folder = Path(name)
    if folder.is_dir():
        own: dict[str, Any] = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))
        return own
    source, _, place = name.partition(":")
    if source == "hf-hub":
        form, architecture, arguments = timm.models.load_model_config_from_hf(place)
    else:
        form, arguments = model.pretrained_cfg, {}
        architecture = form["architecture"]
    kept = {key: value for key, value in form.items() if key not in _OF_WEIGHTS}
    return {"architecture": architecture, "num_classes": 0, "model_args": arguments, "pretrained_cfg": kept}


def _image_format(timm: ModuleType, called: str, model: nn.Module, image_size: int | None) -> ImageFormat:
    settings = timm.data.resolve_model_data_config(model)
    _, height, width = settings["input_size"]
    if height != width:
        raise refused(called, f"takes images of {height} by {width} pixels; only square images are supported")
    size = image_size or int(height)
    filter = settings.get("interpolation", "bicubic")
    squash = settings.get("crop_mode") == "squash"
    return ImageFormat(
        size,
        _three(settings["mean"]),
        _three(settings["std"]),
        fitting="squash" if squash else "crop",
        shorter=None if squash else math.floor(size / settings.get("crop_pct", 1.0)),
        resampling=next((name for name in _FILTERS if name == filter), "bicubic"),
    )


def _three(numbers: Iterable[float]) -> tuple[float, float, float]:
    red, green, blue = map(float, numbers)
    return red, green, blue

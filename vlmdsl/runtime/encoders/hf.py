"""Pretrained encoders of the `transformers` library behind the contract of every encoder.

`transformers` is imported when one is built, never before, and nothing here needs torchvision.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import EncoderDoesNotFit
from vlmdsl.diagnostics.catalog.environment import PackageMissing, PretrainedModelMissing
from vlmdsl.runtime.data.images import ImageFormat
from vlmdsl.runtime.encoders.contract import EncodedFeatures, Encoder, Kind
from vlmdsl.runtime.encoders.text import never_empty
from vlmdsl.source import Span

__all__ = ["HuggingFaceEncoder"]

_HERE = Span("encoders", 0, 0)
_PARTS: dict[Kind, tuple[str, str, str]] = {
    "Image": ("vision_model", "visual_projection", "pixel_values"),
    "Text": ("text_model", "text_projection", "input_ids"),
}


class HuggingFaceEncoder(Encoder):
    """A vision or text model of `transformers`, from a folder or the hub.

    Of a model with two towers (CLIP, SigLIP) the tower of `kind` is taken, with its own projection of the pooled feature
    if it has one. Features of another length than `dimension` get a new linear projection. An image's tokens are its
    patches, without the class token or registers.

    Raises `DiagnosticError`: V0901 without transformers, V0902 if the model cannot be loaded, V0831 if it is not of `kind`.
    """

    def __init__(self, name: str, kind: Kind, dimension: int, yields: Iterable[str] = ("pooled", "tokens")) -> None:
        super().__init__(kind, dimension, yields)
        self.model, self.own_projection = _load(name, kind)
        config: Any = self.model.config
        self.patches = 0
        if kind == "Image":
            self.image_format = _image_format(name, config.image_size)
            self.patches = (config.image_size // config.patch_size) ** 2
        else:
            self.vocabulary_size, self.text_length = config.vocab_size, config.max_position_embeddings
        pooled, tokens = self._features(*self._example())
        self.pooled_projection = _projection(pooled.shape[-1], dimension) if "pooled" in self.yields else None
        self.token_projection = _projection(tokens.shape[-1], dimension) if "tokens" in self.yields else None
        if "vocabulary" in self.yields and self.vocabulary_size is not None:
            self.vocabulary_head = nn.Linear(tokens.shape[-1], self.vocabulary_size)
        self._freeze_unused()

    def forward(self, values: Tensor, mask: Tensor | None = None) -> EncodedFeatures:
        """Features of a batch, as `Encoder.forward` says; images have no mask."""
        if self.kind == "Text" and mask is None:
            mask = torch.ones_like(values, dtype=torch.bool)
        pooled, tokens = self._features(values, mask)
        return EncodedFeatures(
            pooled=None if self.pooled_projection is None else self.pooled_projection(pooled),
            tokens=None if self.token_projection is None else self.token_projection(tokens),
            mask=mask if self.kind == "Text" else None,
            states=None if self.vocabulary_head is None else tokens,
        )

    def _features(self, values: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The model's own pooled feature `[b, W]` and tokens `[b, L, V]`.

        A model that does not pool (DistilBERT) is read at its first token, as such models are in use.
        """
        inputs = {_PARTS[self.kind][2]: values}
        if mask is not None:
            inputs["attention_mask"] = never_empty(mask).long()
        output = self.model(**inputs)
        hidden = output.last_hidden_state
        pooled = getattr(output, "pooler_output", None)
        pooled = hidden[:, 0] if pooled is None else pooled
        if self.own_projection is not None:
            pooled = self.own_projection(pooled)
        return pooled, hidden[:, -self.patches :] if self.patches else hidden

    def _example(self) -> tuple[Tensor, Tensor | None]:
        """The smallest input that runs the whole model."""
        if self.image_format is not None:
            return torch.zeros(1, 3, self.image_format.size, self.image_format.size), None
        return torch.zeros(1, 2, dtype=torch.int64), torch.ones(1, 2, dtype=torch.bool)

    def _freeze_unused(self) -> None:
        """No gradient for parameters that the outputs do not depend on (a pooler where only tokens are compared).

        A gradient that never comes would stop distributed training.
        """
        with torch.enable_grad():
            features = self(*self._example())
            words = None if self.vocabulary_head is None else self.vocabulary_head(features.states)
            total = sum(part.sum() for part in (features.pooled, features.tokens, words) if part is not None)
            parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
            gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)


def _projection(width: int, dimension: int) -> nn.Module:
    return nn.Identity() if width == dimension else nn.Linear(width, dimension, bias=False)


def _load(name: str, kind: Kind) -> tuple[nn.Module, nn.Module | None]:
    """The tower of `kind` of the model called `name`, and its projection of the pooled feature if there is one."""
    transformers = _transformers(name)
    part, projection, expected = _PARTS[kind]
    try:
        # No code from the model's folder and no pickled weights: a model that is downloaded is data.
        model: Any = transformers.AutoModel.from_pretrained(
            name, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
    except (OSError, ValueError, ImportError) as error:
        raise DiagnosticError((_not_loaded(name, error),)) from error
    own_projection = getattr(model, projection, None)
    model = getattr(model, part, model)
    if model.main_input_name != expected:
        problem = f"takes `{model.main_input_name}`: it is no {kind.lower()} encoder"
        raise DiagnosticError((EncoderDoesNotFit.at(_HERE, name=f"hf:{name}", problem=problem),))
    return model, own_projection


def _transformers(name: str) -> ModuleType:
    try:
        import transformers
    except ImportError as error:
        missing = PackageMissing.at(
            _HERE,
            what=f"the encoder `hf:{name}`",
            package="transformers",
            help=(
                "`pip install 'vlmdsl[hf]'` installs it",
                "the built-in encoders `vit:tiny` and `transformer:tiny` need nothing",
            ),
        )
        raise DiagnosticError((missing,)) from error
    return transformers


def _not_loaded(name: str, error: Exception) -> Any:
    said = " ".join(str(error).split())
    return PretrainedModelMissing.at(
        _HERE,
        name=name,
        notes=(f"transformers says: {said[:300]}{'...' if len(said) > 300 else ''}",),
        help=("name a folder with `config.json` and `model.safetensors`, or a model of the hub",),
    )


def _image_format(name: str, size: int) -> ImageFormat:
    """Size and standardisation of the model's images; 0.5 and 0.5 where the model comes without a preprocessor."""
    from transformers.image_processing_base import ImageProcessingMixin

    try:
        settings, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:
        return ImageFormat(size)
    standard = ImageFormat(size)
    mean = tuple(settings.get("image_mean") or standard.mean)
    deviation = tuple(settings.get("image_std") or standard.deviation)
    return ImageFormat(size, mean, deviation)

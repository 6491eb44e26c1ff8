"""A pretrained model of `transformers` as one tower: loaded only from its files, and inspected for how to read it.

The behaviour of a family of models (positions of patches among the tokens, causal attention, randomness) is determined from
its outputs for small inputs, not from a list of names: a new family is used correctly or rejected.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vlmdsl.diagnostics import Diagnostic, DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import EncoderDoesNotFit
from vlmdsl.diagnostics.catalog.environment import PackageMissing, PretrainedModelMissing
from vlmdsl.runtime.modules.towers.contract import Kind
from vlmdsl.source import Span

__all__ = [
    "POOLING", "Call", "answers", "does_not_fit", "load_tower", "settings_files", "tower_config", "transformers_for",
    "without_progress_bars",
]  # fmt: skip

_HERE = Span("encoders", 0, 0)
_INPUTS: dict[str, tuple[str, str]] = {
    "Image": ("get_image_features", "pixel_values"),
    "Text": ("get_text_features", "input_ids"),
}
"""The two halves of a model of images and texts, and their inputs."""
POOLING = "vlmdsl_pooling"
"""What a kept configuration says of where the pooled feature is read, which may depend on weights that were not saved."""
_SETTINGS = ("config.json", "preprocessor_config.json", "processor_config.json")
_TRAINED_WITHOUT_MASK = "siglip"
"""Models whose names begin so read padding like tokens: their processors pad every text and make no mask."""


@dataclass(frozen=True)
class Call:
    """How a model encodes fields of `kind`."""

    kind: str
    half: str | None
    """The method that encodes with one half of a model of images and texts; None where the model is the tower."""
    reads_padding: bool = False
    """Whether texts come without a mask, so that padding is read like tokens."""
    patch: int | None = None
    """The side of the patches that images are cut into before they enter; None where they enter as they are."""
    has_start: bool = True
    """Whether a text's first token stands for all of it; the encoders of T5 and its kin have no such mark."""
    sorts: int | None = None
    """The side of the patches that the model sorts by a `noise`, hiding those that come last; None where it does not."""
    side: int | None = None
    """The side of the images whose positions a model has, if it interpolates them for other images when it is asked to."""

    def __call__(self, model: nn.Module, values: Tensor, mask: Tensor | None = None, **options: object) -> Any:
        """The model's own output for images `[b, 3, S, S]`, or token ids `[b, L]` with their mask."""
        encode: Callable[..., Any] = model if self.half is None else getattr(model, self.half)
        if self.kind == "Image":
            return encode(**self._of_images(values), **options)
        inputs = {"input_ids": values}
        if mask is not None and not self.reads_padding:
            inputs["attention_mask"] = mask.long()
        return encode(**inputs, **options)

    def interpolating(self, model: nn.Module, side: int | None) -> Call:
        """The same call, which asks for interpolated positions of images whose side is not `side`, if the model can."""
        encode = model.forward if self.half is None else getattr(model, self.half)
        takes = "interpolate_pos_encoding" in inspect.signature(encode).parameters
        return replace(self, side=side if takes else None)

    def _of_images(self, values: Tensor) -> dict[str, Any]:
        if self.patch is not None:
            return _as_patches(values, self.patch)
        inputs: dict[str, Any] = {"pixel_values": values}
        if self.side is not None and values.shape[-1] != self.side:
            inputs["interpolate_pos_encoding"] = True
        if self.sorts is not None:
            # The patches stay in their order, and none is hidden.
            length = math.prod(side // self.sorts for side in values.shape[-2:])
            inputs["noise"] = torch.arange(length, device=values.device, dtype=values.dtype).expand(len(values), -1)
        return inputs


def load_tower(name: str, kind: Kind, *, pretrained: bool = True) -> tuple[nn.Module, Call, frozenset[str]]:
    """The model called `name`, a folder or one of the hub, in evaluation mode; how it encodes fields of `kind`; and which of
    its parameters are not among the saved weights. If it is not `pretrained`, only its configuration is read.

    Raises `DiagnosticError`: V0901 without transformers, V0902 if the model cannot be loaded, V0831 if it is not of `kind`.
    """
    transformers = transformers_for(f"the encoder `hf:{name}`")
    try:
        # No code from the model's folder and no pickled weights: a model that is downloaded is data.
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        model, absent = _with_weights(name, config, transformers) if pretrained else (_new(config, transformers), set())
    except Exception as error:
        # The library raises whatever a damaged or foreign file provokes.
        raise DiagnosticError((_not_loaded(name, error),)) from error
    half, expected = _INPUTS[kind]
    if not all(hasattr(model, method) for method, _ in _INPUTS.values()):
        half = ""
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    translates = not half and "decoder_input_ids" in inspect.signature(model.forward).parameters
    if translates:
        model = model.get_encoder()
    if not half and model.main_input_name != expected:
        raise does_not_fit(name, f"takes `{model.main_input_name}`: it is not an encoder of {kind.lower()}s")
    config = tower_config(model, kind)
    for part in (model.config, config):
        part.use_cache = False
    taken = inspect.signature(model.forward).parameters
    sorts = kind == "Image" and "noise" in taken and hasattr(config, "mask_ratio")
    if sorts:
        config.mask_ratio = 0.0
    call = Call(
        kind,
        half or None,
        reads_padding=kind == "Text" and config.model_type.startswith(_TRAINED_WITHOUT_MASK),
        patch=config.patch_size if kind == "Image" and "spatial_shapes" in taken else None,
        has_start=not translates or getattr(config, "bos_token_id", None) is not None,
        sorts=config.patch_size if sorts else None,
    )
    missing = {key for key, parameter in model.named_parameters() if names.get(id(parameter)) in absent}
    return model.eval(), call, frozenset(missing)


def settings_files(name: str, pooling: str) -> dict[str, bytes]:
    """The files from which the model called `name`, which was loaded before, is made again without its weights, by name;
    nothing is downloaded."""
    from transformers.utils.hub import cached_file

    paths = {file: cached_file(name, file, local_files_only=True, **_MAY_BE_MISSING) for file in _SETTINGS}
    files = {file: Path(path).read_bytes() for file, path in paths.items() if path is not None}
    files[_SETTINGS[0]] = json.dumps({**json.loads(files[_SETTINGS[0]]), POOLING: pooling}, indent=2).encode()
    return files


_MAY_BE_MISSING = dict.fromkeys(("_raise_exceptions_for_missing_entries", "_raise_exceptions_for_connection_errors"), False)


@contextmanager
def without_progress_bars() -> Iterator[None]:
    """The library loads and saves without drawing on the terminal."""
    from transformers.utils import logging

    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()


def tower_config(model: nn.Module, kind: str) -> Any:
    """The configuration of the part of a model that encodes fields of `kind`."""
    config: Any = model.config
    return getattr(config, "vision_config" if kind == "Image" else "text_config", None) or config


def does_not_fit(name: str, problem: str, *help_texts: str) -> DiagnosticError:
    """The diagnostic that the model called `name` cannot be used for this."""
    return DiagnosticError((EncoderDoesNotFit.at(_HERE, name=f"hf:{name}", problem=problem, help=help_texts),))


@contextmanager
def answers(name: str, what: str) -> Iterator[None]:
    """Turns whatever the model raises into the diagnostic that it cannot be used for `what`."""
    try:
        yield
    except DiagnosticError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300]
        problem = f"cannot be used for {what}: {type(error).__name__}: {said}"
        raise does_not_fit(name, problem) from error


def _with_weights(name: str, config: Any, transformers: ModuleType) -> tuple[Any, set[str]]:
    """The model with its saved weights, and the names of those that are not there."""
    model, report = _class_of(config, transformers).from_pretrained(
        name, use_safetensors=True, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
    )
    return model, set(report["missing_keys"])


def _new(config: Any, transformers: ModuleType) -> Any:
    kind = _class_of(config, transformers)
    return kind.from_config(config) if kind is transformers.AutoModel else kind(config)


def _class_of(config: Any, transformers: ModuleType) -> Any:
    """The class of the model without a head; of one half of a model, which has no such name, the class that was saved."""
    saved = next(iter(getattr(config, "architectures", None) or ()), "")
    listed = type(config) in transformers.MODEL_MAPPING
    return transformers.AutoModel if listed else getattr(transformers, saved, transformers.AutoModel)


def _as_patches(images: Tensor, patch: int) -> dict[str, Tensor]:
    """Images as their patches, row by row, each the rows of its pixels, with the grid that they come from."""
    rows, columns = (side // patch for side in images.shape[-2:])
    cut = images.unflatten(3, (columns, patch)).unflatten(2, (rows, patch))
    patches = cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
    grid = torch.tensor([[rows, columns]], device=images.device).expand(len(images), -1)
    real = torch.ones(patches.shape[:2], dtype=torch.int32, device=images.device)
    return {"pixel_values": patches, "pixel_attention_mask": real, "spatial_shapes": grid}


def transformers_for(what: str) -> ModuleType:
    """The library; V0901 without it, which says that `what` needs it."""
    try:
        import transformers
    except ImportError as error:
        missing = PackageMissing.at(
            _HERE,
            what=what,
            package="transformers",
            help=(
                "`pip install 'vlmdsl[hf]'` installs it",
                "the built-in encoders `vit:tiny` and `transformer:tiny` work without it",
            ),
        )
        raise DiagnosticError((missing,)) from error
    return transformers


def _not_loaded(name: str, error: Exception) -> Diagnostic:
    said = " ".join(str(error).split())
    return PretrainedModelMissing.at(
        _HERE,
        name=name,
        notes=(f"transformers says: {said[:300]}{'...' if len(said) > 300 else ''}",),
        help=("name a folder with `config.json` and `model.safetensors`, or a model of the hub",),
    )

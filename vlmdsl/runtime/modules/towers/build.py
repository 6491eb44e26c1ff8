"""The one table of encoders: to add a family, write its builder and add a line to `FAMILIES`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from torch import nn

from vlmdsl.diagnostics import Diagnostic, DiagnosticError, suggestion
from vlmdsl.diagnostics.catalog.encoders import EncoderDoesNotFit, UnknownEncoder
from vlmdsl.primitives import all_primitives
from vlmdsl.primitives.plugins import MODULES
from vlmdsl.primitives.plugins.function import described, unfit
from vlmdsl.runtime.modules.towers import groupvit, segclip, shared, text, vit
from vlmdsl.runtime.modules.towers.contract import LONGEST_USUAL_TEXT, Encoder, Kind
from vlmdsl.runtime.modules.towers.hf import HuggingFaceEncoder
from vlmdsl.runtime.modules.towers.names import PRETRAINED
from vlmdsl.runtime.modules.towers.open_clip_model import OpenClipEncoder
from vlmdsl.runtime.modules.towers.timm_images import TimmEncoder
from vlmdsl.source import Span

__all__ = ["FAMILIES", "Request", "build_encoder", "built_in_size", "encoder_names", "longest_text"]

_HERE = Span("encoders", 0, 0)
_PLAIN_STEM = (
    "embeds each patch by one linear map: the overlapping convolutions of its preset would show pixels of dropped "
    "or replaced patches, which are to be predicted"
)
_GROUPING = "is `segclip:{}`, which has the same blocks and groups patches, as the recipe asks for"
_Sized = TypeVar("_Sized", vit.VisionConfig, groupvit.GroupingConfig)


@dataclass(frozen=True)
class Request:
    """An encoder to build: `name` is what follows the family; sizes that are None are the encoder's own."""

    name: str
    dimension: int
    yields: frozenset[str]
    image_size: int | None = None
    vocabulary_size: int | None = None
    text_length: int | None = None
    region_length: int | None = None
    separate_patches: bool = False
    replaced_patches: bool = False
    pretrained: bool = True
    facts: object = None
    """What `probe` reported of the field, where it is of a plug-in's kind (`runtime.values.Family`)."""


def build_encoder(
    name: str,
    kind: Kind,
    dimension: int,
    yields: Iterable[str] = ("pooled",),
    *,
    image_size: int | None = None,
    vocabulary_size: int | None = None,
    text_length: int | None = None,
    region_length: int | None = None,
    separate_patches: bool = False,
    replaced_patches: bool = False,
    pretrained: bool = True,
    facts: object = None,
) -> Encoder:
    """The encoder called `name` (`vit:tiny`, `groupvit:tiny`, `transformer:base`, `hf:NAME-OR-FOLDER`) for fields of `kind`.

    It yields `yields` in `dimension` numbers each. `image_size` is in pixels, `text_length` in tokens; None is the encoder's
    own. With a `region_length`, regions of this dimension may enter it part-way. With `separate_patches` a built-in image
    encoder embeds each patch by itself, so that no dropped or replaced patch leaks into the others, with `replaced_patches`
    it has a learned token for these. An encoder of another library (`hf:`, `timm:`, `open_clip:`) begins with its saved
    weights if it is `pretrained`. Raises `DiagnosticError`: V0830 if there is no such encoder, V0831 if it cannot take such
    images, texts or regions, V0901 and V0902 as `HuggingFaceEncoder` does.

    >>> import torch
    >>> encoder = build_encoder("vit:tiny", "Image", dimension=16, image_size=32)
    >>> encoder(torch.zeros(2, 3, 32, 32)).pooled.shape
    torch.Size([2, 16])
    """
    request = Request(
        name.partition(":")[2],
        dimension,
        frozenset(yields),
        image_size,
        vocabulary_size,
        text_length,
        region_length,
        separate_patches,
        replaced_patches,
        pretrained,
        facts,
    )
    return _built(name, kind, request)


def _built(name: str, kind: Kind, request: Request) -> Encoder:
    family = name.partition(":")[0]
    build = FAMILIES.get((family, kind)) or _of_plugin(family, kind)
    if build is None or not request.name:
        raise DiagnosticError((_unknown(name, kind),))
    encoder = build(request)
    problem = _misfit(encoder, request)
    if "codes" in request.yields and (family, kind) in FAMILIES:
        problem = "has no codes of patches", "a codebook has: `encoder tokenizer = codebook(size=8192)`, `by=tokenizer`"
    if problem is not None:
        raise DiagnosticError((EncoderDoesNotFit.at(_HERE, name=name, problem=problem[0], help=(problem[1],)),))
    encoder.build_again = partial(_built, name, kind, request)
    return encoder


def _of_plugin(family: str, kind: Kind) -> Callable[[Request], Encoder] | None:
    """The builder of a plug-in's family of encoders (`@vlmdsl.primitive(kind="module")`); None if there is none."""
    all_primitives()
    module_family = MODULES.get((family, kind))
    if module_family is None:
        return None

    def build(request: Request) -> Encoder:
        try:
            encoder = module_family.factory(request)
        except DiagnosticError:
            raise
        except Exception as error:  # third-party code: it may raise anything
            raise unfit(module_family.factory, f"fails for {request}: {type(error).__name__}: {error}") from error
        if not isinstance(encoder, nn.Module) or not isinstance(encoder, Encoder):
            raise unfit(
                module_family.factory,
                f"returns {described(encoder)} instead of an encoder (`runtime.modules.towers.Encoder`)",
            )
        return encoder

    return build


def encoder_names(kind: Kind) -> list[str]:
    """Every built-in encoder of this kind."""
    families: dict[Kind, dict[str, Iterable[str]]] = {
        "Image": {"vit": vit.PRESETS, "groupvit": groupvit.PRESETS, "segclip": vit.PRESETS},
        "Text": {"transformer": text.PRESETS},
        "Image|Text": {"shared": shared.PRESETS},
    }
    return [f"{family}:{preset}" for family, presets in families.get(kind, {}).items() for preset in presets]


def longest_text(name: str) -> int:
    """The longest text, in tokens, of the built-in text encoder called `name`; of others the usual one."""
    preset = text.PRESETS.get(name.partition(":")[2])
    return LONGEST_USUAL_TEXT if preset is None else preset.text_length


def _build_vit(request: Request) -> Encoder:
    if request.name not in vit.PRESETS:
        raise DiagnosticError((_unknown(f"vit:{request.name}", "Image"),))
    if "assignment" in request.yields:
        grouping = _build_segclip(request)
        grouping.notes += (_GROUPING.format(request.name),)
        return grouping
    config = _sized("vit", request, vit.PRESETS[request.name])
    plain = request.separate_patches and config.stem == "convolution"
    config = replace(config, stem="patch") if plain else config
    encoder = vit.VisionTransformer(
        config,
        request.dimension,
        request.yields,
        region_length=request.region_length,
        replaced_patches=request.replaced_patches,
    )
    encoder.notes += (_PLAIN_STEM,) if plain else ()
    return encoder


def _build_segclip(request: Request) -> Encoder:
    if request.name not in vit.PRESETS:
        raise DiagnosticError((_unknown(f"segclip:{request.name}", "Image"),))
    config = _sized("segclip", request, vit.PRESETS[request.name])
    plain = request.separate_patches and config.stem == "convolution"
    config = replace(config, stem="patch") if plain else config
    encoder = segclip.CentreTransformer(segclip.CentreConfig(config), request.dimension, request.yields)
    encoder.notes += (_PLAIN_STEM,) if plain else ()
    return encoder


def _build_groupvit(request: Request) -> Encoder:
    if request.name not in groupvit.PRESETS:
        raise DiagnosticError((_unknown(f"groupvit:{request.name}", "Image"),))
    config = _sized("groupvit", request, groupvit.PRESETS[request.name])
    return groupvit.GroupingTransformer(config, request.dimension, request.yields)


def _sized(family: str, request: Request, preset: _Sized) -> _Sized:
    """The preset for images of this size."""
    size = preset.image_size if request.image_size is None else request.image_size
    if size % preset.patch_size:
        raise DiagnosticError((_indivisible(f"{family}:{request.name}", size, preset.patch_size),))
    return replace(preset, image_size=size)


def _build_transformer(request: Request) -> Encoder:
    if request.name not in text.PRESETS:
        raise DiagnosticError((_unknown(f"transformer:{request.name}", "Text"),))
    preset = text.PRESETS[request.name]
    config = replace(
        preset,
        vocabulary_size=request.vocabulary_size or preset.vocabulary_size,
        text_length=request.text_length or preset.text_length,
    )
    return text.TextTransformer(config, request.dimension, request.yields)


def _build_shared(request: Request) -> Encoder:
    if request.name not in shared.PRESETS:
        raise DiagnosticError((_unknown(f"shared:{request.name}", "Image|Text"),))
    preset = shared.PRESETS[request.name]
    image = _sized("shared", request, preset.image)
    plain = request.separate_patches and image.stem == "convolution"
    config = shared.SharedConfig(
        replace(image, stem="patch") if plain else image,
        vocabulary_size=request.vocabulary_size or preset.vocabulary_size,
        text_length=request.text_length or preset.text_length,
    )
    encoder = shared.SharedTransformer(config, request.dimension, request.yields, replaced_patches=request.replaced_patches)
    encoder.notes += (_PLAIN_STEM,) if plain else ()
    return encoder


def _build_hf(kind: Kind, request: Request) -> Encoder:
    return HuggingFaceEncoder(
        request.name,
        kind,
        request.dimension,
        request.yields,
        image_size=request.image_size if kind == "Image" else None,
        pretrained=request.pretrained,
    )


def _build_timm(request: Request) -> Encoder:
    return TimmEncoder(
        request.name, request.dimension, request.yields, image_size=request.image_size, pretrained=request.pretrained
    )


def _build_open_clip(kind: Kind, request: Request) -> Encoder:
    return OpenClipEncoder(
        request.name,
        kind,
        request.dimension,
        request.yields,
        image_size=request.image_size if kind == "Image" else None,
        pretrained=request.pretrained,
    )


FAMILIES: dict[tuple[str, Kind], Callable[[Request], Encoder]] = {
    ("vit", "Image"): _build_vit,
    ("groupvit", "Image"): _build_groupvit,
    ("segclip", "Image"): _build_segclip,
    ("transformer", "Text"): _build_transformer,
    ("shared", "Image|Text"): _build_shared,
    ("hf", "Image"): partial(_build_hf, "Image"),
    ("hf", "Text"): partial(_build_hf, "Text"),
    ("timm", "Image"): _build_timm,
    ("open_clip", "Image"): partial(_build_open_clip, "Image"),
    ("open_clip", "Text"): partial(_build_open_clip, "Text"),
}
"""What builds the encoders of each family for each kind of field."""


def _misfit(encoder: Encoder, request: Request) -> tuple[str, str] | None:
    """Why the encoder does not fit the run, and what to change; None if it fits."""
    size = None if encoder.image_format is None else encoder.image_format.size
    if size is not None and request.image_size not in (None, size):
        return f"takes images of {size} pixels, not {request.image_size}", f"set `model.image_size={size}`"
    length = encoder.text_length
    if length is not None and request.text_length is not None and request.text_length > length:
        return f"takes texts of at most {length} tokens, not {request.text_length}", f"set `model.text_length={length}`"
    if request.region_length is not None and encoder.region_length is None:
        return "cannot be entered part-way by regions", "choose a built-in tower: `model.image_encoder=vit:tiny`"
    unshared = "embedded" in encoder.yields and encoder.shared_blocks is None
    if unshared or ("states" in encoder.yields and not encoder.states_width):
        what = "built-in blocks that a fusion module could share" if unshared else "states that a module could be applied to"
        return f"has no {what}", f"choose another tower, such as `{'transformer' if unshared else 'vit'}:tiny`"
    entries = encoder.vocabulary_size
    if entries is not None and request.vocabulary_size is not None and request.vocabulary_size > entries:
        return (
            f"knows {entries} tokens, fewer than the {request.vocabulary_size} of the tokenizer",
            "use its own tokenizer: leave `model.tokenizer` out",
        )
    return None


def built_in_size(name: str) -> int | None:
    """The size of the images of a built-in image encoder, in pixels, unless another one is asked for; None of others.

    >>> built_in_size("vit:tiny")
    32
    """
    family, _, preset = name.partition(":")
    sizes: dict[str, Mapping[str, vit.VisionConfig] | Mapping[str, groupvit.GroupingConfig]] = {
        "vit": vit.PRESETS, "segclip": vit.PRESETS, "groupvit": groupvit.PRESETS
    }  # fmt: skip
    config = sizes.get(family, {}).get(preset)
    return None if config is None else config.image_size


def _unknown(name: str, kind: Kind) -> Diagnostic:
    names = [*encoder_names(kind), *(f"{family}:NAME-OR-FOLDER" for family in PRETRAINED if (family, kind) in FAMILIES)]
    names += [f"{family}:PRESET" for family, taken in MODULES if taken == kind]
    help_text = suggestion(name, names, "the encoders")
    return UnknownEncoder.at(_HERE, kind=kind.lower().replace("|", " and "), name=name, help=(help_text,))


def _indivisible(name: str, size: int, patch_size: int) -> Diagnostic:
    near = max(patch_size, round(size / patch_size) * patch_size)
    problem = f"cuts images into patches of {patch_size} pixels, which do not fill {size}"
    return EncoderDoesNotFit.at(_HERE, name=name, problem=problem, help=(f"set `model.image_size={near}`",))

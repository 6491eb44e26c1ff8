"""Checks that the towers of a run accept the views of its images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import DroppedPatchesLeak, TowerDoesNotFit
from vlmdsl.ir import Node, Stream
from vlmdsl.ir.operations.views import CROP, DROP, REPLACE
from vlmdsl.runtime.modules.towers import Encoder
from vlmdsl.runtime.values import ImageFormat
from vlmdsl.source import Span

__all__ = ["check_image_views", "check_seen_alike"]


def check_image_views(encoders: Mapping[str, Encoder], streams: Iterable[Stream]) -> None:
    """Raises `DiagnosticError` where a tower gets small crops, or dropped or replaced patches, that it cannot take, or has
    no features at the places that boxes are compared with (V0832), or sees pixels of patches that are predicted (V0834)."""
    for stream in streams:
        tower = stream.encoder.tower
        form = encoders[tower].image_format
        views = list(_views(stream.source))
        sides = [float(str(dict(node.attributes).get("side", 1.0))) for node in views if node.operation is CROP]
        drops = [node.number("share") for node in views if node.operation is DROP]
        if any(node.operation is REPLACE for node in views):
            _check_replaced(tower, encoders[tower])
        if (stream.dropped or stream.replaced) and encoders[tower].overlapping_patches:
            way_out = ('build it with one linear map per patch: `VisionConfig(..., stem="patch")`',)
            raise DiagnosticError((DroppedPatchesLeak.at(Span("encoders", 0, 0), tower=tower, help=way_out),))
        if stream.placed and encoders[tower].groups:
            problem = "has to give features at places of an image, for boxes, but its tokens are groups of patches"
            own = f'`encoder eye = separate({tower}, name="eye")`, `regions(eye(image), boxes)`'
            another = "or choose one that gathers no groups, such as `vit:tiny`"
            raise _unfit(tower, problem, f"give boxes a tower of their own: {own}", another)
        if stream.segments and form is not None and form.patch is None:
            problem = "has to say which patches are of which segment, but its encoder has no patches that can be told apart"
            raise _unfit(tower, problem, "the built-in encoders `vit:` and `segclip:` have")
        if form is None or not (drops or any(side < 1 for side in sides)):
            continue
        smaller = any(side < 1 for side in sides)
        if form.patch is None or (smaller and not form.resizable):
            drops_fail = bool(drops) and form.patch is None
            what = "dropped patches" if drops_fail else "smaller crops"
            problem = f"has to encode images with {what}, but its encoder supports {_supported(form)} only"
            them = "`vit:`, `groupvit:` and `shared:`" if drops_fail else "`vit:` and `groupvit:`"
            help = f"the built-in encoders {them} support them"
            raise _unfit(tower, problem, help, _way_out(drops_fail))
        patches = left = form.patches(min(sides, default=1.0))
        for share in reversed(drops):
            left = int(left * (1 - share))
        if not left:
            raise _unfit(tower, f"sees {patches} patches per image, of which `drop` leaves none", _larger(form))


def check_seen_alike(boxes: str, forms: Mapping[str, object]) -> None:
    """Raises `DiagnosticError` (V0832) where towers that boxes are compared with, by name with the form of their images, are
    shown other parts of an image: a square of it, or all."""
    shown = {tower: form.shown(400, 300) for tower, form in forms.items() if isinstance(form, ImageFormat)}
    first = next(iter(shown), "")
    for tower, part in shown.items():
        if part != shown[first]:
            problem = f"sees another part of an image than `{first}`, and `{boxes}` are places in both"
            raise _unfit(tower, problem, "choose towers that crop images alike, or declare a field of boxes for each")


def _check_replaced(tower: str, encoder: Encoder) -> None:
    if encoder.mask_token is None or encoder.image_format is None or encoder.image_format.patch is None:
        builtin = ("shared:", "SharedTransformer") if encoder.kind == "Image|Text" else ("vit:", "VisionTransformer")
        raise _unfit(
            tower, "has to encode images with replaced patches, but its encoder has no token for them",
            f"the built-in encoders `{builtin[0]}` have one", f"from Python `{builtin[1]}(..., replaced_patches=True)`",
        )  # fmt: skip


def _views(source: Node) -> Iterator[Node]:
    """The views that a stream is made by, the last first."""
    yield source
    for parent in source.inputs:
        yield from _views(parent)


def _supported(form: ImageFormat) -> str:
    return "whole images of one size" if form.patch is None else "images of one size"


def _way_out(drops: bool) -> str:
    return "`drop(image, share=0)` drops none" if drops else "`multi_crop(image, small_side=1)` gives crops of one size"


def _larger(form: ImageFormat) -> str:
    return f"a smaller `share`, or larger images than `model.image_size={form.size}`"


def _unfit(tower: str, problem: str, *help_texts: str) -> DiagnosticError:
    return DiagnosticError((TowerDoesNotFit.at(Span("encoders", 0, 0), tower=tower, problem=problem, help=help_texts),))

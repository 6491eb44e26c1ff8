"""The two halves of a model of `open_clip` behind the contract of every encoder, and its tokenizer."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers import Tokenizer as Backend
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import interpolate

from vlmdsl.runtime.modules.towers.contract import EncodedFeatures, Encoder, Kind
from vlmdsl.runtime.modules.towers.pretrained import (
    PatchGate,
    library,
    loading,
    new_projection,
    refused,
    without_unused,
    working,
)
from vlmdsl.runtime.tokenizer import Tokenizer
from vlmdsl.runtime.values import ImageFormat, TextFormat

__all__ = ["OpenClipEncoder", "open_clip_tokenizer"]

_CONFIG, _WORDS_CONFIG = "open_clip_config.json", "config.json"
"""The files of a model, and of the text model of transformers that it may have."""
_WORDS = r"<start_of_text>|<end_of_text>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""What the byte-pair encoder of CLIP takes as a word."""


class OpenClipEncoder(Encoder):
    """One half of a model of `open_clip`: `NAME/WEIGHTS` of the library (`ViT-B-32/laion2b_s34b_b79k`), a folder in its form
    (`open_clip_config.json`), or `hf-hub:OWNER/NAME`; if it is not `pretrained`, `NAME` alone.

    The pooled feature is the library's own, projected; tokens are the last states of the patches, or of the text. Images are
    standardised as its settings say, and texts are of the length that it was built for. A vision transformer takes dropped
    patches, and images of other sizes with interpolated positions; a text transformer with a causal mask predicts next
    tokens.

    Raises `DiagnosticError`: V0901 without open_clip, V0902 if there is no such model, V0831 if it cannot be used.
    """

    def __init__(
        self,
        name: str,
        kind: Kind,
        dimension: int,
        yields: Iterable[str] = ("pooled", "tokens"),
        *,
        image_size: int | None = None,
        pretrained: bool = True,
    ) -> None:
        super().__init__(kind, dimension, yields)
        called = f"open_clip:{name}"
        self.name = name
        whole = _made(name, image_size, pretrained)
        self.model: Any = whole.visual if kind == "Image" else whole.text
        self._standardised: dict[str, Any] = dict(getattr(whole.visual, "preprocess_cfg", {}))
        words = getattr(whole.text, "config", None)
        self._words_config: dict[str, Any] | None = None if words is None else words.to_dict()
        self._gives_tokens = hasattr(self.model, "output_tokens")
        if self._gives_tokens:
            self.model.output_tokens = True
        elif self.yields - {"pooled"}:
            raise refused(called, "outputs no features of tokens, which the recipe reads")
        self._gate: PatchGate | None = None
        if kind == "Image":
            self.image_format = _image_format(called, self.model)
        else:
            self.vocabulary_size, self.text_length = int(self.model.vocab_size), int(self.model.context_length)
            self.reads_padding = True
            self.causal = getattr(self.model, "attn_mask", None) is not None and getattr(self.model, "cls_emb", None) is None
        example = self._example()
        with working(called, self), torch.no_grad():
            pooled, tokens = self._features(*example)
            if kind == "Image" and tokens is not None:
                self._declare(example[0], tokens)
        self.states_width = 0 if tokens is None else tokens.shape[-1]
        self.pooled_projection = new_projection(self, pooled, "pooled") if "pooled" in self.yields else None
        self.token_projection = None
        if tokens is not None and "tokens" in self.yields:
            self.token_projection = new_projection(self, tokens, "token")
        if "vocabulary" in self.yields and self.vocabulary_size is not None:
            self.vocabulary_head = nn.Linear(self.states_width, self.vocabulary_size)
        with working(called, self):
            without_unused(self, example)

    def forward(self, values: Tensor, mask: Tensor | None = None, keep: Tensor | None = None) -> EncodedFeatures:
        """Features of a batch, as `Encoder.forward` says; `keep [b, K]` are the patches of images to encode."""
        if self.kind == "Text" and mask is None:
            mask = torch.ones_like(values, dtype=torch.bool)
        pooled, tokens = self._features(values, keep)
        return EncodedFeatures(
            pooled=None if self.pooled_projection is None else self.pooled_projection(pooled),
            tokens=None if self.token_projection is None else self.token_projection(tokens),
            mask=mask if self.kind == "Text" else None,
            states=tokens if self.yields & {"vocabulary", "states"} else None,
        )

    def settings_files(self) -> dict[str, bytes]:
        with loading(f"open_clip:{self.name}", "open_clip"):
            own = _library(self.name).get_model_config(_called(self.name))
            files = {_CONFIG: {"model_cfg": own, "preprocess_cfg": self._standardised}}
            if self._words_config is not None:
                files[_WORDS_CONFIG] = self._words_config
            return {name: json.dumps(content, indent=2, default=str).encode() for name, content in files.items()}

    @property
    def token_embedding(self) -> nn.Module | None:
        embedding: nn.Module | None = getattr(self.model, "token_embedding", None)
        return embedding

    def take_texts(self, name: str, form: TextFormat, setting: str = "model.text_length") -> None:
        """As for every encoder; refused too are texts of another length than the model's."""
        super().take_texts(name, form, setting)
        if form.length != self.text_length:
            problem = f"needs texts of {self.text_length} tokens, padding included, not {form.length}"
            raise refused(name, problem, f"set `{setting}={self.text_length}`, or leave it out")

    def _features(self, values: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """The pooled feature `[b, D]`, and the states `[b, L, W]` of patches or of a text."""
        if self._gate is None:
            features = self._encoded(values)
        else:
            with self._gate.keeping(keep):
                features = self._encoded(values)
        return features if self._gives_tokens else (features, None)

    def _encoded(self, values: Tensor) -> Any:
        """The library's own output; images of another side than its own have interpolated positions."""
        form = self.image_format
        size = None if form is None else self.built_size or form.size
        if form is None or size is None or form.patch is None or values.shape[-1] == size:
            return self.model(values)
        positions = _interpolated(self.model.positional_embedding, size // form.patch, values.shape[-1] // form.patch)
        return functional_call(self.model, {"positional_embedding": positions}, (values,))

    def _states(self, values: Tensor, keep: Tensor | None) -> Tensor:
        states = self._features(values, keep)[1]
        assert states is not None
        return states

    def _declare(self, images: Tensor, tokens: Tensor) -> None:
        """The side of a patch, where patches may be dropped, and whether images may be of other sizes."""
        blocks, grid = getattr(getattr(self.model, "transformer", None), "resblocks", None), round(tokens.shape[1] ** 0.5)
        form = self.image_format
        if blocks is None or form is None or grid * grid != tokens.shape[1]:
            return
        self._gate, patch = PatchGate(blocks[0], before=1), form.size // grid
        if not self._gate.fits(self._states, images, grid * grid):
            self._gate = None
            return
        self.image_format = replace(form, patch=patch)
        self.overlapping_patches = self._gate.overlaps(self._states, images, patch)
        larger = torch.zeros(1, 3, form.size + patch, form.size + patch)
        try:
            resizable = self._states(larger, None).shape[1] == (grid + 1) ** 2
        except Exception:  # whatever a model of one size raises
            resizable = False
        self.image_format = replace(self.image_format, resizable=resizable)

    def _example(self) -> tuple[Tensor]:
        if self.image_format is not None:
            side = self.image_format.size
            return (torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0)),)
        assert self.text_length is not None
        assert self.vocabulary_size is not None
        ids = torch.zeros(2, self.text_length, dtype=torch.int64)
        ids[:, 0], ids[:, 1] = 1, self.vocabulary_size - 1
        return (ids,)


def _interpolated(positions: Tensor, grid: int, other: int) -> Tensor:
    """The positions `[P, W]` of a class token, if there is one, and of `grid` rows of as many patches, for `other` rows:
    as the library resizes them when it loads a model for other images. ValueError if they are not of this form."""
    before = len(positions) - grid * grid
    if positions.ndim != 2 or before not in (0, 1):
        raise ValueError("the positions are not those of patches and a class token")
    table = positions[before:].T.unflatten(1, (grid, grid))[None]
    table = interpolate(table, (other, other), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([positions[:before], table[0].flatten(1).T.to(positions.dtype)])


def _library(name: str) -> ModuleType:
    return library("open_clip", "open_clip", f"the encoder `open_clip:{name}`")


def _made(name: str, image_size: int | None, pretrained: bool) -> Any:
    open_clip = _library(name)
    called = _called(name)
    tag = "" if ":" in called else name.partition("/")[2]
    help = "name `MODEL/WEIGHTS` of open_clip, a folder with `open_clip_config.json`, or `hf-hub:OWNER/NAME`"
    new = "`model.pretrained=false` begins with new weights"
    with loading(f"open_clip:{name}", "open_clip", help, new):
        if pretrained and not tag and not _has_weights(name):
            raise ValueError(f"`{name}` names no weights: `open_clip:{name}/WEIGHTS`")
        with _without_remarks():
            return open_clip.create_model(
                called,
                pretrained=tag if pretrained and tag else None,
                load_weights=pretrained,
                force_custom_text=True,
                force_image_size=image_size,
                pretrained_text=False,
                output_dict=False,
                **({} if pretrained else _words_of_folder(name)),
            ).eval()


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Without the library's warnings that a model begins with random weights: settings say so, or a checkpoint follows."""
    logger = logging.getLogger()
    logger.addFilter(_is_of_others)
    try:
        yield
    finally:
        logger.removeFilter(_is_of_others)


def _is_of_others(record: logging.LogRecord) -> bool:
    return "open_clip" not in record.pathname or record.levelno > logging.WARNING


def _called(name: str) -> str:
    """What the library calls the model that `NAME/WEIGHTS`, a folder or a name of the hub stands for."""
    if Path(name).is_dir():
        return f"local-dir:{name}"
    return name if name.startswith("hf-hub:") else name.partition("/")[0]


def _words_of_folder(name: str) -> dict[str, Any]:
    """Of a folder that has the configuration of a text model of transformers: the text model is made of that, and not of
    the one of the hub that the settings name."""
    folder = Path(name)
    if not (folder / _CONFIG).is_file() or not (folder / _WORDS_CONFIG).is_file():
        return {}
    words = json.loads((folder / _CONFIG).read_text(encoding="utf-8"))["model_cfg"]["text_cfg"]
    own = {**words, "hf_model_name": str(folder), "hf_model_pretrained": False}
    return {"text_cfg": own} if "hf_model_name" in words else {}


def _has_weights(name: str) -> bool:
    """Whether a name without a tag says which weights are meant; of a folder, whether they are there, and not pickled."""
    folder = Path(name)
    if folder.is_dir():
        return any(folder.glob("*.safetensors"))
    return name.startswith("hf-hub:")


def _image_format(called: str, visual: Any) -> ImageFormat:
    settings = getattr(visual, "preprocess_cfg", {})
    size = visual.image_size
    height, width = (size, size) if isinstance(size, int) else size
    mode = settings.get("resize_mode", "shortest")
    if height != width or mode not in ("shortest", "squash"):
        raise refused(called, f"takes images of {height} by {width} pixels, resized by `{mode}`, which is not supported")
    mean, deviation = (tuple(map(float, settings[name])) for name in ("mean", "std"))
    shorter = None if mode == "squash" else int(height)
    fitting = "squash" if mode == "squash" else "crop"
    return ImageFormat(int(height), mean, deviation, None, fitting, shorter, settings.get("interpolation", "bicubic"))  # type: ignore[arg-type]


def open_clip_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of the model called `name`: that of CLIP, or the one of transformers that its settings name.

    Raises `DiagnosticError`: V0901 without open_clip, V0902 if it cannot be loaded, V0831 if it has another form.
    """
    open_clip = _library(name)
    with loading(f"open_clip:{name}", "open_clip"):
        loaded = open_clip.get_tokenizer(_called(name))
        inner = getattr(loaded, "tokenizer", None)
        if inner is not None and getattr(inner, "is_fast", False):
            backend = Backend.from_str(inner.backend_tokenizer.to_str())
            return Tokenizer(backend, inner.pad_token_id, "left" if inner.padding_side == "left" else "right")
        if not hasattr(loaded, "bpe_ranks"):
            raise refused(f"open_clip:{name}", "has a tokenizer of another form than CLIP's", "name one: `model.tokenizer`")
        return Tokenizer(_byte_pairs(loaded), pad=0)


def _byte_pairs(loaded: Any) -> Backend:
    """CLIP's byte-pair encoder, as the package `tokenizers` has it."""
    start, end = (loaded.decoder[number] for number in (loaded.sot_token_id, loaded.eot_token_id))
    merges = [pair for pair, _ in sorted(loaded.bpe_ranks.items(), key=lambda item: item[1])]
    backend = Backend(models.BPE(vocab=loaded.encoder, merges=merges, end_of_word_suffix="</w>", unk_token=end))
    backend.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip(), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(mark, special=True) for mark in (start, end)])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}", special_tokens=[(start, loaded.sot_token_id), (end, loaded.eot_token_id)]
    )
    return backend

"""Pretrained encoders of the `transformers` library behind the contract of every encoder.

`transformers` is imported when one is built, never before, and nothing here needs torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.environment import PretrainedModelMissing
from vlmdsl.runtime.modules.towers.contract import EncodedFeatures, Encoder, Kind
from vlmdsl.runtime.modules.towers.hf_images import image_format, square_side
from vlmdsl.runtime.modules.towers.hf_model import POOLING, answers, does_not_fit, load_tower, settings_files, tower_config
from vlmdsl.runtime.modules.towers.pretrained import PatchGate
from vlmdsl.runtime.modules.towers.text import last_token, never_empty
from vlmdsl.runtime.values import TextFormat
from vlmdsl.source import Span

__all__ = ["HuggingFaceEncoder"]

Pooling = Literal["own", "first", "last", "mean"]
_ROUNDING = 1e-5
"""The relative tolerance for equal features."""
_PROBES = 64
"""The number of vocabulary entries among which two different ones are searched."""


class HuggingFaceEncoder(Encoder):
    """A vision or text model of `transformers`, from a folder or the hub, with the outputs of the library.

    The pooled feature of a model of images and texts (CLIP, SigLIP) is what its `get_image_features` or `get_text_features`
    calls pooled: projected, where the model has a projection. That of another model is its `pooler_output`. One that has
    none is read at the last token of the text if its tokens do not see those after them (GPT-2, Qwen), at its first token
    if it has one that is not a patch (DistilBERT, ViTMAE), else as the mean of its tokens (T5). Tokens are the last hidden
    states: of an image its patches, without class token or registers, or the places of a feature map row by row; of a text
    all tokens. Nothing is masked at random. Features of another length than `dimension` get a new linear projection.

    Images come as the model's image processor makes them; those of another `image_size`, and smaller views, are for models
    that interpolate their positions, by themselves or when they are asked to, and for convolutions. One that is not
    `pretrained` has the architecture of the configuration and new weights.

    Raises `DiagnosticError`: V0901 without transformers, V0902 if the model cannot be loaded or lacks weights, V0831 if it
    is not of `kind` or cannot be used.
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
        self.model, self._call, lacking = load_tower(name, kind, pretrained=pretrained)
        self.name = name
        self.reads_padding = self._call.reads_padding
        if any(isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d) for part in self.model.modules()):
            self.notes += ("has batch norms: in training, the features of a sample depend on the others in its process",)
        self._pooling: Pooling = "own"
        self._patches: slice | None = None
        """Which of the model's tokens are patches; None for all."""
        self._gate: PatchGate | None = None
        with self._asked(name):
            if kind == "Image":
                self._take_images(name, image_size)
            else:
                self._measure_texts()
            pooled, tokens = self._read(name, lacking)
            if kind == "Image":
                self._take_dropped_patches()
        self.states_width = tokens.shape[-1]
        self.pooled_projection = self._projection(pooled, "pooled") if "pooled" in self.yields else None
        self.token_projection = self._projection(tokens, "token") if "tokens" in self.yields else None
        if "vocabulary" in self.yields and self.vocabulary_size is not None:
            self.vocabulary_head = nn.Linear(tokens.shape[-1], self.vocabulary_size)
        with self._asked(name):
            self._leave_out_unused()

    def forward(self, values: Tensor, mask: Tensor | None = None, keep: Tensor | None = None) -> EncodedFeatures:
        """Features of a batch, as `Encoder.forward` says; `keep [b, K]` are the patches of images to encode."""
        if self.kind == "Text" and mask is None:
            mask = torch.ones_like(values, dtype=torch.bool)
        if keep is None or self._gate is None:
            pooled, tokens = self._features(values, mask)
        else:
            with self._gate.keeping(keep):
                pooled, tokens = self._features(values, mask, fewer=True)
        return EncodedFeatures(
            pooled=None if self.pooled_projection is None else self.pooled_projection(pooled),
            tokens=None if self.token_projection is None else self.token_projection(tokens),
            mask=mask if self.kind == "Text" else None,
            states=tokens if self.yields & {"vocabulary", "states"} else None,
        )

    @property
    def token_embedding(self) -> nn.Module | None:
        find: Any = self.model.get_input_embeddings
        embedding: nn.Module | None = find()
        return embedding

    @property
    def pooling(self) -> Pooling:
        """Where the pooled feature is read: the model's `own`, the `first` or `last` token, or the `mean` of all."""
        return self._pooling

    @property
    def is_half(self) -> bool:
        """Whether the tower is one half of a model of images and texts."""
        return self._call.half is not None

    def settings_files(self) -> dict[str, bytes]:
        return settings_files(self.name, self._pooling)

    @property
    def interpolates(self) -> bool:
        """Whether images of this tower's format have interpolated positions, for which the library has to be asked."""
        return self._call.side not in (None, self.image_format and self.image_format.size)

    def pooled_part(self) -> tuple[nn.Module, nn.Module | None] | None:
        """The model whose `pooler_output` is read, and the model's own projection of it, which a half may have; None where
        the pooled feature is read from tokens, or where the model takes other inputs than images or ids."""
        if self._pooling != "own" or self._call.patch is not None or self._call.sorts is not None:
            return None
        if not self.is_half:
            return self.model, None
        part, projection = {"Image": ("vision_model", "visual_projection"), "Text": ("text_model", "text_projection")}[
            self.kind
        ]
        half: nn.Module | None = getattr(self.model, part, None)
        return None if half is None else (half, getattr(self.model, projection, None))

    def take_texts(self, name: str, form: TextFormat, setting: str = "model.text_length") -> None:
        """As for every encoder; refused too are texts that the model cannot take, or that all look the same to it."""
        super().take_texts(name, form, setting)
        model = name.removeprefix("hf:")
        if self.reads_padding and form.length != self.text_length:
            problem = f"attends to padding: it needs texts of {self.text_length} tokens, not {form.length}"
            raise does_not_fit(model, problem, f"set `{setting}={self.text_length}`, or leave it out")
        words = form.tokenizer.words()
        texts = ["", *(form.tokenizer.decode([int(word)]) for word in words[:: max(len(words) // _PROBES, 1)])]
        ids, mask = form.encode(texts)
        others = (ids != ids[0]).any(dim=1).nonzero()
        rows = [0, *others[0].tolist()] if len(others) else [0]
        with self._asked(model), torch.no_grad(), answers(model, f"texts of {form.length} tokens"):
            pooled, _ = self._features(ids[rows], mask[rows])
        if len(rows) == 2 and "pooled" in self.yields and torch.equal(pooled[0], pooled[1]):
            problem = (
                "outputs one pooled feature for all texts of this tokenizer: it looks for a special token that never occurs"
            )
            raise does_not_fit(model, problem, f"use its own tokenizer: `model.tokenizer=hf:{model}`")

    def _features(self, values: Tensor, mask: Tensor | None = None, *, fewer: bool = False) -> tuple[Tensor, Tensor]:
        """The pooled feature `[b, W]` and the tokens `[b, L, V]`, before any projection of ours; `fewer`: of the patches
        that were kept, which are the last tokens."""
        seen = None if mask is None else never_empty(mask)
        output = self._call(self.model, values, seen)
        hidden = _as_tokens(output.last_hidden_state)
        if self._pooling == "own":
            pooled = output.pooler_output.flatten(1)
        elif self._pooling == "last" and seen is not None:
            pooled = last_token(hidden, seen)
        elif self._pooling == "mean":
            pooled = _mean(hidden, seen)
        else:
            pooled = hidden[:, 0]
        if self._patches is None:
            return pooled, hidden
        return pooled, hidden[:, self._patches.start :] if fewer else hidden[:, self._patches]

    def _take_images(self, name: str, image_size: int | None) -> None:
        config = tower_config(self.model, "Image")
        try:
            taken = image_format(name, config, image_size)
            self._call = self._call.interpolating(self.model, square_side(config))
        except ValueError as fault:
            raise does_not_fit(name, str(fault)) from fault
        self.image_format, self.notes = taken.form, self.notes + taken.notes

    def _measure_texts(self) -> None:
        """The vocabulary size of the model, and the maximum length of a text."""
        config = tower_config(self.model, "Text")
        self.vocabulary_size = config.vocab_size
        longest = getattr(config, "max_position_embeddings", None) or 0
        self.text_length = longest if longest > 0 else None  # positions that are relative have no end
        for name, part in self.model.named_modules():
            # RoBERTa and its kin count positions from one after the padding index on.
            if "position" in name and isinstance(part, nn.Embedding) and part.padding_idx is not None:
                self.text_length = part.num_embeddings - part.padding_idx - 1

    def _read(self, name: str, lacking: frozenset[str]) -> tuple[Tensor, Tensor]:
        """Determine how to read the model's outputs; returns an example of both."""
        first, second = self._examples()
        size = "" if self.image_format is None else f" of {self.image_format.size} pixels"
        with torch.no_grad(), answers(name, f"{self.kind.lower()}s{size}"):
            output = self._call(self.model, *first)
            hidden = _as_tokens(output.last_hidden_state)
            if not _alike(hidden, _as_tokens(self._call(self.model, *first).last_hidden_state)):
                raise does_not_fit(name, "outputs different features for the same input: it is random")
            if len(hidden) != len(first[0]):
                raise does_not_fit(name, f"gives {len(hidden)} outputs for {len(first[0])} inputs")
            if self.kind == "Image" and hidden.shape[1] > 1:
                self._patches = self._places_of_patches(first[0], second[0], hidden)
            if self.kind == "Text":
                others = _as_tokens(self._call(self.model, *second).last_hidden_state)
                self.causal = _alike(others[:, :-1], hidden[:, :-1])  # the texts differ in their last token only
        own = getattr(output, "pooler_output", None) is not None
        if not own:
            self._pooling = self._pooling_without_pooler(hidden)
        with torch.enable_grad():
            self._check_weights(name, lacking, hidden)
        stated = getattr(self.model.config, POOLING, None)
        self._pooling = next((pooling for pooling in get_args(Pooling) if pooling == stated), self._pooling)
        return self._features(*first)

    def _pooling_without_pooler(self, hidden: Tensor) -> Pooling:
        config = tower_config(self.model, self.kind)
        if self.kind == "Image":
            return "mean" if self._patches is None or self._patches.start == 0 else "first"
        if self.causal or getattr(config, "summary_type", None) == "last":
            return "last"
        return "mean" if not self._call.has_start or getattr(config, "classifier_pooling", "cls") == "mean" else "first"

    def _check_weights(self, name: str, lacking: frozenset[str], hidden: Tensor) -> None:
        """Features must not depend on weights that are missing in the file; a pooler that was never trained is left out."""
        example, _ = self._examples()
        if not lacking:
            return
        pooled, tokens = self._features(*example)
        if self._pooling == "own" and self._call.half is None and lacking & self._reached(pooled) - self._reached(tokens):
            self._pooling = self._pooling_without_pooler(hidden)
            self.notes += (f"has a pooler without saved weights: its {self._pooling} token is used",)
            pooled, tokens = self._features(*example)
        needed = sorted(lacking & (self._reached(pooled) | self._reached(tokens)))
        if needed:
            notes = (f"the saved weights lack {len(needed)}, such as `{needed[0]}`",)
            raise DiagnosticError((PretrainedModelMissing.at(Span("encoders", 0, 0), name=name, notes=notes),))

    def _reached(self, features: Tensor) -> set[str]:
        """The parameters that features depend on, by name."""
        named = dict(self.model.named_parameters())
        gradients = torch.autograd.grad(features.sum(), list(named.values()), allow_unused=True, retain_graph=True)
        return {name for name, gradient in zip(named, gradients, strict=True) if gradient is not None}

    def _places_of_patches(self, first: Tensor, second: Tensor, hidden: Tensor) -> slice | None:
        """The places of patches among the tokens: those whose embeddings depend on the image. None if they all do.

        ValueError if there are other tokens between patches.
        """
        try:
            before, after = (
                self._call(self.model, images, output_hidden_states=True).hidden_states[0] for images in (first, second)
            )
        except (TypeError, AttributeError):
            return None
        if before.ndim != 3 or before.shape[:2] != hidden.shape[:2]:
            return None  # a pyramid, which merges its patches on the way
        places = (before != after).any(dim=2).any(dim=0).nonzero().flatten().tolist()
        if not places:
            return None
        if places != list(range(places[0], places[-1] + 1)):
            raise ValueError("its patch tokens are not contiguous")
        after = hidden.shape[1] - places[-1] - 1  # as many at every size of image
        return None if len(places) == hidden.shape[1] else slice(places[0], -after or None)

    @torch.no_grad()
    def _take_dropped_patches(self) -> None:
        """Declare the side of a patch, where patches may be dropped: their places are known, and the blocks take fewer."""
        (images, _), _ = self._examples()
        form, places = self.image_format, self._patches
        tokens = self._features(images)[1].shape[1]
        grid = math.isqrt(tokens)
        if form is None or grid * grid != tokens or form.size % grid:
            return
        before = 0 if places is None else places.start
        depth = getattr(tower_config(self.model, "Image"), "num_hidden_layers", 0)
        for blocks in [part for part in self.model.modules() if isinstance(part, nn.ModuleList) and len(part) == depth]:
            gate = PatchGate(blocks[0], before)
            if gate.fits(partial(self._kept_tokens, gate), images, tokens):
                self._gate, patch = gate, form.size // grid
                self.image_format = replace(form, patch=patch, resizable=self._takes_another_size(form.size, patch))
                self.overlapping_patches = gate.overlaps(partial(self._kept_tokens, gate), images, patch)
                return

    def _takes_another_size(self, side: int, patch: int) -> bool:
        """Whether images of one more row and column of patches have that many more tokens."""
        try:
            tokens = self._features(torch.zeros(1, 3, side + patch, side + patch))[1]
        except Exception:  # whatever a model of one size raises
            return False
        return tokens.shape[1] == (side // patch + 1) ** 2

    def _kept_tokens(self, gate: PatchGate, images: Tensor, keep: Tensor | None) -> Tensor:
        with gate.keeping(keep):
            return self._features(images, fewer=keep is not None)[1]

    def _projection(self, features: Tensor, what: str) -> nn.Module:
        width = features.shape[-1]
        if width == self.dimension:
            return nn.Identity()
        self.notes += (
            f"outputs {what} features of dimension {width}: a new linear layer projects them to {self.dimension}",
        )
        return nn.Linear(width, self.dimension, bias=False)

    def _examples(self) -> tuple[tuple[Tensor, Tensor | None], tuple[Tensor, Tensor | None]]:
        """Two small batches that run the whole model; their texts differ in the last token only."""
        if self.image_format is not None:
            side = self.image_format.size
            draws = torch.Generator().manual_seed(0)
            first, second = (torch.randn(2, 3, side, side, generator=draws) for _ in range(2))
            return (first, None), (second, None)
        real = torch.ones(2, 3, dtype=torch.bool)
        last = (self.vocabulary_size or 4) - 1
        return (torch.tensor([[0, 1, last]] * 2), real), (torch.tensor([[0, 1, max(last - 1, 0)]] * 2), real)

    @contextmanager
    def _asked(self, name: str) -> Iterator[None]:
        """Evaluation mode, and the random numbers of others left as they are; whatever the model raises is a diagnostic."""
        training = self.training
        self.eval()
        try:
            with torch.random.fork_rng(devices=[]), answers(name, f"{self.kind.lower()}s"):
                yield
        finally:
            self.train(training)

    def _leave_out_unused(self) -> None:
        """Parts of the model that are not run are removed (the other half of CLIP), and parameters that the outputs do not
        depend on get no gradient (a pooler where only tokens are compared).

        A gradient that never comes would stop distributed training.
        """
        example, _ = self._examples()
        run: set[nn.Module] = set()
        hooks = [part.register_forward_pre_hook(lambda part, _: run.add(part)) for part in self.model.modules()]
        try:
            with torch.enable_grad():
                features = self(*example)
                words = None if self.vocabulary_head is None else self.vocabulary_head(features.states)
                outputs = (features.pooled, features.tokens, features.states, words)
                total = sum(part.sum() for part in outputs if part is not None)
                parameters = [parameter for parameter in self.parameters() if parameter.requires_grad]
                gradients = torch.autograd.grad(total, parameters, allow_unused=True)
        finally:
            for hook in hooks:
                hook.remove()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.requires_grad_(gradient is not None)
        for name, part in list(self.model.named_children()):
            if self._call.half is not None and not run & set(part.modules()):
                delattr(self.model, name)


def _alike(features: Tensor, others: Tensor) -> bool:
    """Whether features are equal up to the order of sums."""
    limit = _ROUNDING * float(features.abs().max())
    return features.shape == others.shape and float((features - others).abs().max()) <= limit


def _as_tokens(hidden: Any) -> Tensor:
    """Hidden states `[b, L, W]`; a feature map `[b, W, H, W']` row by row. ValueError for anything else."""
    if not isinstance(hidden, Tensor) or hidden.ndim not in (3, 4):
        raise ValueError("its output has no hidden states, one per token or place")
    return hidden if hidden.ndim == 3 else hidden.flatten(2).transpose(1, 2)


def _mean(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """`[b, W]`: the mean of the tokens that are real."""
    if mask is None:
        return hidden.mean(dim=1)
    weights = mask.to(hidden.dtype)[:, :, None]
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1)

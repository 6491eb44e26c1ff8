"""The interface of all encoders."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from vlmdsl import ir
from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.encoders import EncoderDoesNotFit
from vlmdsl.ir.modules import LinearSettings
from vlmdsl.runtime.modules.towers.blocks import Transformer
from vlmdsl.runtime.values import ImageFormat, TextFormat
from vlmdsl.source import Span

__all__ = ["LONGEST_USUAL_TEXT", "OUTPUTS", "EncodedFeatures", "Encoder", "Kind", "usual_text_length"]

Kind: TypeAlias = str
"""The field types that an encoder may take: `Image`, `Text`, both with one trunk (`Image|Text`), or a kind of a plug-in."""

OUTPUTS = frozenset(map(str, ir.OUTPUTS))
"""The possible outputs of an encoder."""

LONGEST_USUAL_TEXT = 77
"""The default length of texts in tokens, if the encoder supports it: CLIP's."""


class EncodedFeatures(NamedTuple):
    """Features of one stream, not normalised; outputs that the encoder does not yield are None.

    `pooled [b, D]`, `tokens [b, L, D]`, `mask [b, L]` (bool, true where there is a token; None if all are real). An encoder
    that yields a vocabulary gives `states [b, L, W]`, what its `vocabulary_head` makes logits `[b, L, V]` of: it is for the
    caller to say of which streams, because logits are large. A tokenizer of images gives `codes [b, P]`, int64; a tower that
    groups gives the `assignment [b, P, G]` of patches to groups. `embedded [b, L, W]` enters the first block of texts.
    """

    pooled: Tensor | None = None
    tokens: Tensor | None = None
    mask: Tensor | None = None
    states: Tensor | None = None
    codes: Tensor | None = None
    assignment: Tensor | None = None
    embedded: Tensor | None = None

    @property
    def padded(self) -> tuple[str, ...]:
        """The members with the axis L."""
        return tuple(name for name in self._fields if name not in ("pooled", "codes", "assignment"))


class Encoder(nn.Module):
    """A tower: encodes the values of a field to features of dimension `dimension`.

    `kind` is the field type it takes. `yields` lists its outputs; others have no parameters, so every parameter gets a
    gradient. A subclass implements `forward`.
    """

    image_format: ImageFormat | None = None
    """The format of images for an image encoder: size and standardisation."""
    built_size: int | None = None
    """The size of the images that an image encoder was built for, where it takes others since (`take_images`)."""
    vocabulary_size: int | None = None
    """Token ids of a text encoder are below this."""
    text_length: int | None = None
    """Longest text of a text encoder, in tokens."""
    text_format: TextFormat | None = None
    """The format of texts for a text encoder: tokenizer and length; see `take_texts`."""
    reads_padding: bool = False
    """Whether a text encoder reads padding like tokens: all its texts are then `text_length` long."""
    notes: tuple[str, ...] = ()
    """What is reported about an encoder before the first step, each a sentence whose subject is the encoder."""
    states_width: int = 0
    """W, the length of the last states that an encoder yields as `states`."""
    region_length: int | None = None
    """The dimension of a region, for an image encoder that regions may enter part-way."""
    overlapping_patches: bool = False
    """Whether an embedded patch of an image encoder holds pixels of others, as those of overlapping convolutions do: a
    dropped patch is then not unknown to those that are kept."""
    causal: bool = False
    """Whether the state of a token of a text encoder depends on no token after it, so that the next one can be predicted
    from it."""
    takes_cache: bool = False
    """Whether a text decoder takes a `cache` (`KeyValueCache`) with the tokens of earlier calls. Without it each token that
    is written takes a pass over the whole text."""
    transforms_vocabulary: bool = False
    """Whether a linear map, a GELU and a norm come before the linear map to the vocabulary; see `transform_vocabulary`."""
    tied_vocabulary: bool = False
    """Whether the linear map to the vocabulary has the weight of the token embedding; see `tie_vocabulary`."""
    groups: int | None = None
    """The number of groups that an image encoder gathers patches into, if it does; its `segment(images)` then gives the
    group of each patch, `[b, grid, grid]`."""
    noise_length: int | None = None
    """The number of random numbers per image that an image encoder needs in training. Its `forward` then takes `noise [b,
    N]` of that length, standard Gumbel noise keyed by the sample; evaluation gives none."""

    def __init__(self, kind: Kind, dimension: int, yields: Iterable[str]) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.dimension = dimension
        self.yields = frozenset(yields)
        self.mask_token: nn.Parameter | None = None
        """What replaces the embedding of a patch [W] for an image encoder that takes images with replaced patches. Its
        `forward` then takes `replace [b, P]`, true where a patch is replaced."""
        self.vocabulary_head: nn.Module | None = None
        """From the last states of a text encoder that yields a vocabulary to logits over its vocabulary."""
        self.build_again: Callable[[], Encoder] | None = None
        """Builds an encoder like this one, with weights of another draw; set by `build_encoder`."""
        if not self.yields or not self.yields <= OUTPUTS:
            raise ValueError(f"an encoder yields some of {', '.join(sorted(OUTPUTS))}, not {sorted(self.yields)}")

    def settings_files(self) -> dict[str, bytes]:
        """The files from which a tower of another library is built again without its weights, by name: `FAMILY:FOLDER` with
        them in the folder, which is not `pretrained`. Nothing is asked of a hub then. Empty for other towers."""
        return {}

    def take_images(self, name: str, size: int, setting: str) -> None:
        """Take images of another size from now on, with the same weights: in the form of `image_format`, as views are.

        Raises `DiagnosticError` (V0831) where the encoder called `name` cannot take them; `setting` is what asks for the
        size.
        """
        form = self.image_format
        if form is None or size == form.size:
            return
        patch = form.patch or 1
        whole = max(patch, round(size / patch) * patch)
        problem, help = "", f"set `{setting}={whole}`"
        if form.patch is not None and size % patch:
            problem = f"cuts images into patches of {patch} pixels, which do not fill {size}"
        elif not (form.resizable if form.patch is not None else self._reads_images_of(size)):
            problem = f"takes images of {form.size} pixels only, not {size}"
            help = f"leave `{setting}` out, or choose a tower that takes other sizes, such as `vit:`"
        if problem:
            raise DiagnosticError((EncoderDoesNotFit.at(Span("encoders", 0, 0), name=name, problem=problem, help=(help,)),))
        self.built_size, self.image_format = self.built_size or form.size, form.of_size(size)

    @torch.no_grad()
    def _reads_images_of(self, size: int) -> bool:
        """Whether an encoder that does not say which sizes it takes reads images of this one."""
        training, weight = self.training, next(self.parameters(), torch.zeros(()))
        try:
            self.eval()(torch.zeros(1, 3, size, size, device=weight.device, dtype=weight.dtype))
        except Exception:  # whatever an encoder of one size raises
            return False
        finally:
            self.train(training)
        return True

    def take_texts(self, name: str, form: TextFormat, setting: str = "model.text_length") -> None:
        """Set the format of texts of the text encoder called `name`.

        Raises `DiagnosticError` (V0831) where it cannot take them; `setting` is what asks for their length.
        """
        marks, longest, problem, help = form.tokenizer.marks_around, self.text_length, "", ""
        if form.length <= marks:
            problem = (
                f"takes texts of at least {marks + 1} tokens, not {form.length}: its tokenizer adds {marks} special tokens"
            )
            help = f"set `{setting}={marks + 1}` or more"
        elif longest is not None and form.length > longest:
            problem = f"takes texts of at most {longest} tokens, not {form.length}"
            help = f"set `model.text_length={form.length}`: towers are built for the longest texts of a run"
        if problem:
            raise DiagnosticError((EncoderDoesNotFit.at(Span("encoders", 0, 0), name=name, problem=problem, help=(help,)),))
        self.text_format = form

    @property
    def token_embedding(self) -> nn.Module | None:
        """The embedding of token ids of a text encoder: a module with `weight [V, W]`; None if it has no such module."""
        embedding: nn.Module | None = getattr(self, "embedding", None)
        return embedding

    @property
    def shared_blocks(self) -> Transformer | None:
        """The blocks of a text encoder that a fusion module may share, `fuse(shares=...)`; its `positions` and
        `embedding_norm` are then those of its embedded tokens. None if it has none to share."""
        return None

    def transform_vocabulary(self, name: str) -> None:
        """Put a linear map, a GELU and a norm before the linear map to the vocabulary, as in the head of BERT; both are new.

        `name` is what the encoder is called in messages. Raises `DiagnosticError` (V0831) where its head is anything but a
        linear map.
        """
        from vlmdsl.runtime.modules.linear import LinearHead  # which stands on the towers' blocks

        head = self.vocabulary_head
        if self.transforms_vocabulary:
            return
        if not isinstance(head, nn.Linear):
            problem = "predicts tokens by a head of its own, before which no transform can be put"
            help = "leave `transform` out of `linear`"
            raise DiagnosticError((EncoderDoesNotFit.at(Span("encoders", 0, 0), name=name, problem=problem, help=(help,)),))
        settings = LinearSettings(bias=head.bias is not None, transform=True)
        self.vocabulary_head = LinearHead(settings, head.in_features, head.out_features)
        self.transforms_vocabulary = True

    def tie_vocabulary(self, name: str) -> None:
        """Make the weight of the linear map to the vocabulary and that of the token embedding one parameter.

        The bias stays; an encoder without a vocabulary is left as it is. `name` is what the encoder is called in messages.
        Raises `DiagnosticError` (V0831) where it has no embedding of that shape.
        """
        head, embedding = self.vocabulary_head, self.token_embedding
        if head is None:
            return
        weights = [getattr(module, "weight", None) for module in (head, embedding)]
        shapes = [list(weight.shape) if isinstance(weight, Tensor) else [] for weight in weights]
        if not isinstance(embedding, nn.Embedding) or shapes[0] != shapes[1]:
            problem = f"predicts tokens with a weight {shapes[0]}, which cannot be that of its token embedding {shapes[1]}"
            help = "leave `model.tied_vocabulary` out"
            raise DiagnosticError((EncoderDoesNotFit.at(Span("encoders", 0, 0), name=name, problem=problem, help=(help,)),))
        head.weight, self.tied_vocabulary = embedding.weight, True

    def forward(self, values: Tensor, mask: Tensor | None = None) -> EncodedFeatures:
        """Features of a batch.

        An image is `values [b, 3, H, W]` in the encoder's `image_format`. A text is `values [b, L]`, token ids, with
        `mask [b, L]`, true = a token, padding at the end (None: no padding). An encoder of both tells them apart by their
        shape, and takes an image joined with a text as images, the mask of the text, and a third argument `words [b, L]`;
        with `share [b]`, that of the image, both are blended (`SharedTransformer` says how).
        """
        raise TypeError(f"{type(self).__name__} does not define forward")


def usual_text_length(encoder: Encoder) -> int:
    """The default length of texts in tokens: the encoder's maximum, at most `LONGEST_USUAL_TEXT` unless it reads
    padding."""
    longest = encoder.text_length
    if longest is None:
        return LONGEST_USUAL_TEXT
    return longest if encoder.reads_padding else min(longest, LONGEST_USUAL_TEXT)

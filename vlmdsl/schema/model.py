"""The settings of the towers of a run."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import Field

from vlmdsl.schema.section import Decay, Listed, Positive, Section, Texts

__all__ = ["LoraConfig", "ModelConfig"]

Frozen: TypeAlias = Annotated[Annotated[int, Field(ge=0)] | tuple[str, ...], Listed]


class LoraConfig(Section):
    """Low-rank adapters of the linear maps of a tower's blocks (Hu et al., ICLR 2022): the rest of the tower is frozen."""

    rank: int = Field(8, ge=1, le=4096, description="rank of the difference of each adapted weight")
    alpha: Positive = Field(16.0, description="scale of the difference, over its rank")
    dropout: Decay = Field(0.0, description="share of the inputs of an adapter that are dropped in training")
    targets: Texts = Field(
        (), description="patterns of the linear maps to adapt, such as `*query`; empty: all of the blocks"
    )


class ModelConfig(Section):
    """The towers and their inputs."""

    image_encoder: str = Field(
        "vit:tiny",
        description="image encoder: a built-in preset (`vit:tiny`, `vit:tiny_patch4`, `vit:tiny_patch8`, "
        "`vit:tiny_convolution4`, `vit:small`, `vit:base`; `groupvit:tiny`, `groupvit:small`; `segclip:` as `vit:`), or one "
        "of a library: `hf:`, `timm:` or `open_clip:` and its NAME there, or a FOLDER",
    )
    text_encoder: str = Field(
        "transformer:tiny",
        description="text encoder: a built-in preset (`transformer:tiny`, `transformer:small`, `transformer:base`: causal, "
        "as in CLIP; `transformer:tiny_bidirectional`, with normalised embeddings as in BERT), `hf:NAME-OR-FOLDER` or "
        "`open_clip:NAME-OR-FOLDER`",
    )
    shared_encoder: str = Field(
        "shared:tiny",
        description="encoder of both images and texts, for recipes that share one: a preset (`shared:tiny`, ...)",
    )
    towers: dict[str, str] = Field(
        {},
        description="additional tower of the recipe (`separate`) -> its encoder; default: that of the tower it copies",
    )
    dimension: int = Field(64, ge=1, le=2**16, description="feature dimension D in which the modalities are compared")
    image_size: int | None = Field(
        None,
        ge=1,
        le=4096,
        description="height and width to which images are resized, in pixels; null: each tower's own (32 for `vit:tiny`)",
    )
    text_length: int | None = Field(
        None,
        ge=2,
        le=2**15,
        description="longest text, in tokens with special ones; longer ones are truncated; null: each tower's own (32 for "
        "`transformer:tiny`), at most 77 unless a pretrained one attends to padding",
    )
    vocabulary: int = Field(
        2000,
        ge=260,
        le=2**20,
        description="maximum vocabulary size of a tokenizer trained on the data (at least 256 bytes and the special tokens)",
    )
    pretrained: bool = Field(
        True,
        description="whether encoders of a library begin with their saved weights; false: with the same architecture and "
        "weights drawn from the seed",
    )
    freeze: dict[str, Frozen] = Field(
        {},
        description="tower -> what of it keeps its weights: a number of blocks, counted from the input, with all that is "
        "before them, or patterns of parameter names (`embedding*`); a recipe freezes a whole one: `frozen(vision)`",
    )
    lora: dict[str, LoraConfig] = Field(
        {},
        description="tower -> its low-rank adapters (`model.lora.vision.rank=8`; `alpha`, `dropout`, `targets`), which are "
        "trained instead of its weights (the extra `lora`)",
    )
    init: str | None = Field(
        None,
        description="run folder, or one of its checkpoints, whose weights the model begins with: those of towers, heads "
        "and learned numbers of the same name, and the tokenizers; null: weights drawn from the seed",
    )
    tied_vocabulary: bool = Field(
        False,
        description="whether a text tower that predicts tokens does so with the weight of its token embedding (BERT), not "
        "with one of its own",
    )
    tokenizer: str | None = Field(
        None,
        description="tokenizer to load for every text tower: a `tokenizer.json`, `hf:NAME` or `open_clip:NAME`; null: a "
        "tower of a library uses "
        "its own, and one is trained on the training texts for the others",
    )

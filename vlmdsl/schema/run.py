"""The run configuration: everything that is not part of a recipe. Closed (an unknown key is an error), strict and frozen.

The defaults train a small model on the built-in data in a few minutes of CPU time.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SerializationInfo, model_serializer

from vlmdsl.schema.class_names import ClassNames
from vlmdsl.schema.model import ModelConfig
from vlmdsl.schema.section import Decay, Listed, NonNegative, Positive, Section, Texts

__all__ = [
    "DataConfig",
    "EvaluationConfig",
    "FlowConfig",
    "OptimizerConfig",
    "RunConfig",
    "ScheduleConfig",
    "StageConfig",
    "TrackingConfig",
    "TrainConfig",
]

_Section = TypeVar("_Section", bound=Section)
LoweringName: TypeAlias = Literal["auto", "dense", "chunked"]


def _with_one_place(template: str) -> str:
    if template.count("{}") != 1:
        raise ValueError("must have one {} for the class name")
    return template


Template = Annotated[str, AfterValidator(_with_one_place)]


def _lowerings(value: object) -> object:
    """The value of `schedule.lowering`, checked as a whole: what is wrong is one fault, not one for each form."""
    possible = get_args(LoweringName)
    names = list(value.values()) if isinstance(value, dict) else [value]
    if not all(isinstance(name, str) and name in possible for name in names):
        raise ValueError(f"must be {', '.join(possible[:-1])} or {possible[-1]}, or a mapping of terms to these")
    return value


Lowerings = Annotated[LoweringName | dict[str, LoweringName], BeforeValidator(_lowerings)]


class DataConfig(Section):
    """Where samples come from and which column feeds which field."""

    train: Texts = Field(
        ("shapes",),
        min_length=1,
        description="training sources: `shapes` (`shapes:samples=500,objects=2`; `vlmdsl explain V0808` lists its options), "
        "a tar shard, a table, an image folder (`vlmdsl explain V0806` lists all formats); a glob names several",
    )
    weights: tuple[Positive, ...] = Field(
        (),
        description="how many samples of each of the training sources there are for one of another, on average: `[3, 1]`; "
        "empty: all samples alike. No sample comes twice in an epoch, which ends when one source has been read",
    )
    val: Texts = Field(
        (),
        description="held-out sources in the same formats, or a share of the training samples, `10%`; empty: the held-out "
        "scenes of the built-in data, else none",
    )
    map: dict[str, str] = Field(
        {},
        description="field of the recipe -> column of the data, where the names differ, or a stand-in "
        "(`summarize(text)`; `vlmdsl explain V0827` lists them)",
    )
    reference: Texts = Field(
        (), description="sources that a recipe retrieves from; empty: a share of the training samples, set aside"
    )
    reference_share: float = Field(
        0.1, gt=0, lt=1, description="share of the training samples that is set aside for a recipe that retrieves"
    )
    reference_search: Literal["exact", "faiss"] = Field(
        "exact",
        description="what searches the samples that a recipe retrieves from: `exact` (torch) or `faiss` (the extra `ann`, "
        "on the CPU); both give the same results",
    )
    synonyms: str | None = Field(
        None, description="file of synonyms for the view `eda`: one comma-separated set per line; null: no word is replaced"
    )
    concepts: str | None = Field(
        None,
        description="file of concepts for `prompt`, `concepts` and `dictionary`: a name per line, `: ` and a definition "
        "after it where it has one; null: names that occur in the data",
    )
    font: str | None = Field(
        None,
        description="TrueType or OpenType file for the view `render`; null: DejaVu Sans, which is installed with vlmdsl",
    )
    captions: Literal["first", "draw"] = Field(
        "draw",
        description="which of several captions is used: a random one in each epoch (`draw`), or the `first`; "
        "evaluation uses the first",
    )
    max_bad_share: float = Field(
        0.5, ge=0, le=1, description="largest share of samples that may be skipped as unusable; above it the run stops"
    )
    max_file_bytes: int = Field(
        128 * 2**20, ge=1, lt=2**31, description="largest file of one sample that is read, in bytes; others are skipped"
    )
    max_table_bytes: int = Field(2 * 2**30, ge=1, description="largest table that is read, in bytes")
    max_shard_bytes: int = Field(
        2**36, ge=1, description="largest tar shard that is fetched from a URL or unpacked, in bytes when it is unpacked"
    )
    cache: str | None = Field(
        None, description="folder for copies of such shards, which stay there; null: `~/.cache/vlmdsl/shards`"
    )
    max_image_pixels: int = Field(
        2**26,
        ge=1,
        le=2**27,
        description="largest image that is decoded, in pixels as its header states; others are skipped",
    )
    max_text_characters: int = Field(
        10_000, ge=1, description="longest text that is read, in characters; longer ones are truncated first"
    )
    allowed_folders: Texts = Field(
        (),
        description="further folders that image paths of a table, and symbolic links, may lead into; `/` allows any",
    )
    stream: bool = Field(
        False,
        description="read the training shards from front to back, without an index of their samples: for data that is too "
        "large to be looked through before the first step",
    )
    stream_lanes: int | None = Field(
        None,
        ge=1,
        description="shards of a stream that are read side by side; a divisor of the batch and a multiple of the processes; "
        "null: the largest divisor of the batch up to 16 and the number of shards",
    )
    stream_window: int = Field(
        1000, ge=1, description="samples of a stream that are shuffled together, for each of the shards read side by side"
    )
    workers: int | None = Field(
        None,
        ge=0,
        le=256,
        description="data loading worker processes, which change no batch; 0 loads in the training process; null: one for "
        "each core but one, up to 8, and none where there is little to load",
    )


class OptimizerConfig(Section):
    """AdamW. Norms, biases, embeddings and the objective's parameters (temperatures) take no weight decay."""

    learning_rate: Positive = Field(2e-3, description="peak learning rate of the encoders")
    objective_learning_rate: Positive | None = Field(
        1e-2,
        description="peak learning rate of the objective's own parameters (temperatures), for those that are not learned as "
        "logarithms and start below 1 times their start; null: as the encoders",
    )
    layer_decay: float | None = Field(
        None,
        gt=0,
        le=1,
        description="factor of the learning rate from each block of a tower to the one before it; null: one rate for all",
    )
    tower_rates: dict[str, NonNegative] = Field(
        {}, description="tower -> factor of its learning rate (`optimizer.tower_rates.language=0.1`)"
    )
    betas: tuple[Decay, Decay] = Field((0.9, 0.95), description="decay rates of the first and second moment, per step")
    epsilon: Positive = Field(1e-6, description="added to the square root of the second moment")
    weight_decay: NonNegative = Field(0.1, description="decoupled weight decay, per unit of learning rate and step")


class ScheduleConfig(Section):
    """The learning rate over the steps of the run (linear warm-up from 0, then half a cosine), and how the operations of a
    step run; `vlmdsl plan RECIPE` shows what is chosen and why."""

    warmup_steps: int = Field(20, ge=0, description="steps over which the learning rate rises to its peak")
    final: float = Field(0.0, ge=0, le=1, description="learning rate at the last step, as a fraction of the peak")
    lowering: Lowerings = Field(
        "auto",
        description="how similarities of all pairs are computed: `dense` makes their matrices, `chunked` blocks of rows, "
        "`auto` chooses by the sizes; or a mapping of terms of the recipe to these, with `*` for all other terms",
    )
    lowering_budget: int = Field(
        2**30, ge=1, description="bytes that the matrices of one operation may take before `auto` chooses `chunked`"
    )


class TrainConfig(Section):
    """The loop."""

    steps: int = Field(400, ge=1, lt=2**53, description="optimiser steps of the run; of a recipe with stages, of each stage")
    epochs: NonNegative | None = Field(
        None,
        lt=2**20,
        description="passes over the training data, instead of `steps`, which are counted when the data is opened; null: "
        "`steps`",
    )
    batch: int = Field(
        128, ge=2, lt=2**31, description="samples per step over all processes: these are each other's negatives"
    )
    micro: int | None = Field(
        None,
        ge=1,
        lt=2**31,
        description="samples of a process that go through the towers at once, for batches whose activations do not fit: the "
        "gradient is that of the whole batch, for one more forward pass of the towers; null: all at once",
    )
    clip_gradient_norm: Positive | None = Field(
        1.0, description="maximum L2 norm of the gradient, above which it is scaled down; null: off"
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32",
        description="precision of the encoders' matrix products; weights and the objective stay in float32. `float16` "
        "scales the loss, and skips steps whose gradients overflow",
    )
    compile: bool = Field(
        True, description="whether to compile the objective with torch.compile (the first step then takes seconds)"
    )
    compile_encoders: bool = Field(False, description="whether to compile the encoders too (worth it on a GPU)")
    parallel: Literal["replicated", "sharded"] = Field(
        "replicated",
        description="on several processes: `replicated`, each has all weights (DDP), or `sharded`, weights, gradients and "
        "the optimiser's moments are spread over them (FSDP2); the numbers are the same",
    )
    recompute: bool = Field(
        False,
        description="whether transformer blocks compute their activations again in the backward pass instead of keeping "
        "them (activation checkpointing): less memory, for a second forward pass of the blocks",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="device of the model; `auto` is a CUDA device if there is one"
    )
    seed: int = Field(0, ge=0, lt=2**63, description="seed of weights, data order, views and dropout")
    checkpoint_every: int = Field(100, ge=1, lt=2**53, description="steps between checkpoints; the last step always has one")
    keep: int = Field(
        2,
        ge=2,
        lt=2**31,
        description="number of newest checkpoints to keep, so that there is another one if the last is damaged",
    )
    log_every: int = Field(10, ge=1, description="steps between lines of metrics")
    term_gradients_every: int = Field(
        200,
        ge=0,
        lt=2**53,
        description="steps between measurements of the gradient norm of each term, where there are several; each costs a "
        "forward and a backward pass per term; 0: none",
    )


class EvaluationConfig(Section):
    """The evaluation on held-out data."""

    every: int = Field(0, ge=0, description="steps between evaluations during the run; 0: before and after only")
    batch: int = Field(256, ge=1, le=100_000, description="batch size for encoding")
    retrieval: bool = Field(True, description="whether to measure retrieval: R@1, R@5, R@10 in both directions")
    zero_shot: bool = Field(
        True, description="whether to measure zero-shot classification, where the held-out data has classes"
    )
    neighbours: int = Field(
        20,
        ge=0,
        description="number k of nearest neighbours that vote for an image's class, if there are classes; 0: none",
    )
    probe: int | None = Field(
        None,
        ge=0,
        description="number of training images that the linear probe is fitted to, if both kinds of data have "
        "classes; 0: none; null: 2000 for a recipe of images alone, else none",
    )
    templates: Annotated[tuple[Template, ...], Listed] = Field(
        (), description="prompts with one `{}` for the class name; empty: `a photo of a {}`"
    )
    classes: ClassNames = Field(
        (),
        description="names of the classes that zero-shot classification chooses among, or a file of them, one per line: of "
        "labels that are numbers, in order, counted from 0; of others, all candidates; empty: the classes of the data",
    )
    captions: int = Field(
        500, ge=0, description="number of held-out images that a text decoder writes captions of, if there is one"
    )
    beams: int = Field(1, ge=1, le=64, description="beams of the search that writes captions; 1: greedy")
    caption_overlap: bool = Field(
        False, description="whether BLEU and CIDEr of written captions are computed (`pip install 'vlmdsl[captions]'`)"
    )
    average_precision: bool = Field(
        False,
        description="whether COCO's average precision of predicted boxes is computed, of a recipe that predicts boxes "
        "(`pip install 'vlmdsl[detection]'`)",
    )
    limit: int | None = Field(None, ge=1, description="maximum number of held-out samples; null: all")


class TrackingConfig(Section):
    """How a run is watched, beside `metrics.jsonl`, which it always writes."""

    trackers: Annotated[tuple[Literal["tensorboard", "trackio", "wandb", "mlflow"], ...], Listed] = Field(
        (),
        description="further trackers: `tensorboard`, `trackio`, `wandb`, `mlflow` (each an extra: `pip install "
        "'vlmdsl[tensorboard]'`)",
    )
    project: str = Field("vlmdsl", min_length=1, max_length=100, description="project or experiment of the trackers")
    report: bool = Field(True, description="whether a run writes `report.html` at its end, as `vlmdsl report` does")


def _only(*possible: str) -> AfterValidator:
    """A section of which a stage may set these alone."""

    def check(section: _Section) -> _Section:
        others = sorted(section.model_fields_set - {*possible})
        if others:
            raise ValueError(f"cannot set `{others[0]}`, which is one for the whole run, only {', '.join(sorted(possible))}")
        return section

    return AfterValidator(check)


class _Part(BaseModel):
    """What a part of a run sets for itself: only that is written, so that the rest stays that of the run."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_serializer
    def _set(self, info: SerializationInfo) -> dict[str, Any]:
        written = {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}
        return {
            name: value.model_dump(mode=info.mode, exclude_unset=True) if isinstance(value, BaseModel) else value
            for name, value in written.items()
        }


class StageConfig(_Part):
    """What one stage of a run sets for itself."""

    model: Annotated[ModelConfig, _only("image_size", "text_length")] = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: Annotated[TrainConfig, _only("steps", "batch", "micro", "clip_gradient_norm", "precision")] = TrainConfig()


class FlowConfig(_Part):
    """What one flow of a recipe sets for itself."""

    data: DataConfig = DataConfig()
    share: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of the steps in place of the recipe's; other flows divide the rest as in the recipe",
    )


class RunConfig(Section):
    """One run: everything but the recipe.

    >>> RunConfig().train.batch
    128
    """

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()
    stages: dict[str, StageConfig] = Field(
        {},
        description="stage of the recipe -> its own `data`, `optimizer`, `schedule`, `train` (steps, batch, micro, "
        "clip_gradient_norm, precision) and, for the towers of the run, `model.image_size`, the size of its images, and "
        "`model.text_length`, at most that of the run: `stages.second.train.steps=100`; the rest is that of the run",
    )
    flows: dict[str, FlowConfig] = Field(
        {},
        description="flow of the recipe -> its own `data` and `share`: `flows.texts.data.train=[texts.parquet]`; the rest "
        "is that of its stage",
    )
    out: str | None = Field(None, description="folder of the run; null: `runs/RECIPE-N` with the first unused N")

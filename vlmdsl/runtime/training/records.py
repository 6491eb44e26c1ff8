"""Models of the JSON files of a run folder: strict where their contents matter, open for more."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

__all__ = [
    "CheckpointState", "FinishedRun", "KeptUse", "RecipeRecord", "RunRecord", "StoredComparison", "StoredEvaluation",
    "StoredExamples", "StoredFile", "WrittenRecord",
]  # fmt: skip

_LONGEST_NAME = 200
_NAME = r"[\w.@+\- ]+"
_DEEPEST = 8
LARGEST_PICTURE = 200_000
"""Characters of a picture in `examples.json`."""
LONGEST_TEXT = 500
MOST_CLASSES = 40


def _current(number: int) -> int:
    if number != 2:
        raise ValueError(f"it was written by another version of vlmdsl (format {number})")
    return number


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts or "\0" in name or "\\" in name:
        raise ValueError("it names a place outside of the run folder")
    return name


def _is_file_name(name: str) -> str:
    if name in ("", ".", "..") or any(character in name for character in "/\\\0"):
        raise ValueError("it is not a file name")
    return name


Format = Annotated[int, AfterValidator(_current)]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, AfterValidator(_is_file_name)]
InsidePath = Annotated[str, AfterValidator(_inside)]
KeptSetting = Annotated[
    str,
    StringConstraints(
        pattern=r"^(data\.(synonyms|font|concepts)|model\.(tokenizer|image_encoder|text_encoder|towers\.\w+))$"
    ),
]
Name = Annotated[str, StringConstraints(pattern=f"^{_NAME}$", max_length=_LONGEST_NAME)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, strict=True, allow_inf_nan=False)

    def plain(self) -> dict[str, Any]:
        """The contents as JSON."""
        return self.model_dump(mode="json", exclude_unset=True)


class StoredFile(_Record):
    """A file of a checkpoint."""

    size: Count
    sha256: Digest


class StoredScale(_Record):
    """`LossScale`."""

    value: Annotated[float, Field(ge=1, le=2**32)]
    steps: Count
    skipped: Count


class CheckpointState(_Record):
    """`state.json` of a checkpoint: how far the run was, which run it is, and every other file."""

    format: Format
    step: Count
    epoch: Count
    batch: Count
    seed: Count
    stage: str = ""
    scale: StoredScale = StoredScale(value=1.0, steps=0, skipped=0)
    records: Count
    """Lines of `metrics.jsonl` up to this step."""
    run: str
    """The identity of the run: `RunRecord.identity`."""
    files: dict[FileName, StoredFile]


class WrittenRecord(_Record):
    """The record beside texts that a decoder wrote: what it read, its weights, and what it wrote."""

    writing: dict[str, str | int]
    weights: Digest
    samples: Count
    sha256: Digest


class KeptUse(_Record):
    """That the file `by` says `use "PATH"`, and where what it means is kept; both are paths in the run folder."""

    by: InsidePath
    path: str
    file: InsidePath


class RecipeRecord(_Record):
    """The recipe in `run.json`."""

    name: Name
    given_knobs: dict[str, int | float | str | bool]
    knobs: dict[str, int | float | str | bool]
    digests: dict[str, Digest]
    uses: list[KeptUse] = []


class RunRecord(_Record):
    """`run.json`."""

    format: Format
    identity: str
    recipe: RecipeRecord
    seed: Count
    files: dict[InsidePath, Digest]
    """Every file of the recipe, and of the settings that name one, with its SHA-256."""
    kept: dict[KeptSetting, InsidePath]
    """Setting that names a file, such as `data.synonyms`, or the folder of a pretrained tower -> its copy here."""
    settings: dict[KeptSetting, InsidePath] = {}
    """Setting that names a tower of another library -> the files here that it is built from without its weights."""
    data: dict[str, dict[str, Any]]
    towers: list[str] = []
    """The remarks on the towers before the first step."""
    started: dict[str, Any]
    resumed: list[dict[str, Any]] = []


class _Group(_Record):
    """Measures of one kind: each under its name, those of chance, and those of the untrained model."""

    chance: dict[Name, float]
    untrained: dict[Name, float] | None = None


class _Classified(_Group):
    classes: Count


class _Retrieval(_Record):
    images: Count
    texts: Count
    image_to_text: _Group
    text_to_image: _Group


class StoredEvaluation(_Record):
    """`evaluation.json` and `untrained.json`; the rest may be shown, so all of it is checked."""

    samples: Count
    conditions: dict[str, Any] = {}
    retrieval: _Retrieval | None = None
    zero_shot: _Classified | None = None
    nearest_neighbours: _Classified | None = None
    linear_probe: _Classified | None = None
    flows: dict[str, StoredEvaluation] = {}
    stages: dict[str, StoredEvaluation] = {}

    @model_validator(mode="before")
    @classmethod
    def _shown(cls, value: Any) -> Any:
        _check_groups({name: entry for name, entry in value.items() if name != "conditions"}, _DEEPEST)
        return value


class FinishedRun(_Record):
    """`finished.json` of a run of a comparison."""

    evaluation: StoredEvaluation | Annotated[dict[str, Any], Field(max_length=0)]
    """Empty where nothing is held out."""
    seconds: Annotated[float, Field(ge=0)] | None


class ShownSample(_Record):
    """An image or a text of a sample, or both."""

    image: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/=]*$", max_length=LARGEST_PICTURE)] = ""
    """A small PNG, in base64."""
    text: Annotated[str, StringConstraints(max_length=LONGEST_TEXT)] = ""


class ShownMatch(_Record):
    """A candidate of a query of retrieval, and whether it belongs to the query."""

    sample: ShownSample
    similarity: float | None
    right: bool


class ShownQuery(_Record):
    """A query of retrieval with its best matches."""

    sample: ShownSample
    rank: Count
    matches: Annotated[list[ShownMatch], Field(max_length=20)]


class ShownConfusion(_Record):
    """How many images of a class were given to which class: `[class, predicted class, number]` each."""

    classes: Annotated[
        list[Annotated[str, StringConstraints(max_length=LONGEST_TEXT)]], Field(min_length=1, max_length=MOST_CLASSES)
    ]
    counts: Annotated[list[Annotated[list[Count], Field(min_length=3, max_length=3)]], Field(max_length=MOST_CLASSES**2)]

    @model_validator(mode="after")
    def _of_these_classes(self) -> ShownConfusion:
        if any(max(row[:2]) >= len(self.classes) for row in self.counts):
            raise ValueError("it counts images of a class that is not listed")
        return self


class StoredExamples(_Record):
    """`examples.json`: samples to look at, of what was measured last."""

    format: Literal[1]
    image_to_text: Annotated[list[ShownQuery], Field(max_length=20)] = []
    text_to_image: Annotated[list[ShownQuery], Field(max_length=20)] = []
    confusion: ShownConfusion | None = None
    left_out: Count = 0
    """Classes that the confusion leaves out, because they have the fewest images."""


class ComparedRun(_Record):
    """A run in `comparison.json`."""

    recipe: Name
    seed: Count
    folder: InsidePath
    seconds: Annotated[float, Field(ge=0)] | None


class ComparedRecipe(_Record):
    """A recipe in `comparison.json`."""

    steps: Count


class StoredComparison(_Record):
    """`comparison.json`; what it says of measures is computed again from its runs."""

    seeds: Annotated[list[Count], Field(min_length=1)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    recipes: Annotated[dict[Name, ComparedRecipe], Field(min_length=1)]
    runs: list[ComparedRun]


def _check_groups(group: dict[str, Any], depth: int) -> None:
    """ValueError unless names are such as a run gives, and every measure that has a chance is a number."""
    if depth == 0:
        raise ValueError("it is nested too deeply")
    for name, value in group.items():
        if not re.fullmatch(_NAME, name) or len(name) > _LONGEST_NAME:
            raise ValueError(f"{name[:40]!r} is not the name of a measure")
        if isinstance(value, dict):
            _check_groups(value, depth - 1)
    if "chance" not in group:
        return
    baselines = group.get("baselines", {})
    sides = [
        group,
        group["chance"],
        group.get("untrained") or {},
        *(baselines.values() if isinstance(baselines, dict) else [0]),
    ]
    if not all(isinstance(side, dict) for side in sides):
        raise ValueError("`chance`, `untrained` and each of the `baselines` hold measures by name")
    for name in {name for side in sides[1:] for name in side}:
        if any(isinstance(side.get(name, 0.0), bool) or not isinstance(side.get(name, 0.0), int | float) for side in sides):
            raise ValueError(f"the measure {name!r} is not a number")

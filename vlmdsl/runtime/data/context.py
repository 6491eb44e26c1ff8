"""The context of a view of a sample: its draws and materials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from vlmdsl.ir import Writing
from vlmdsl.runtime.data.concepts import ConceptNames
from vlmdsl.runtime.data.limits import DEFAULT_LIMITS, Limits
from vlmdsl.runtime.data.synonyms import Synonyms
from vlmdsl.runtime.draws import generator
from vlmdsl.runtime.values import ImageFormat

__all__ = ["NO_MATERIALS", "Attributes", "Materials", "ViewContext"]

Attributes = Mapping[str, object]
"""The attributes of a view's node."""


@dataclass(frozen=True)
class Materials:
    """What the run provides for samples: synonyms for `eda`, a font file for `render`, limits of reading, whether one of
    several captions is drawn in each epoch, concepts from which `prompt` and `concepts` draw, and texts that decoders have
    written, by the place of the sample."""

    synonyms: Synonyms | None = None
    font: str | None = None
    limits: Limits = DEFAULT_LIMITS
    draw_captions: bool = False
    concepts: ConceptNames | None = None
    written: Mapping[Writing, Sequence[str]] = field(default_factory=dict)


NO_MATERIALS = Materials()


@dataclass(frozen=True)
class ViewContext:
    """The context of a view: its draws are a function of seed, epoch and sample key; `form` is the format of the module that
    takes it; `counts` collects remarks for the report."""

    seed: int
    epoch: int
    key: str
    form: object = None
    counts: Counter[str] = field(default_factory=Counter)
    materials: Materials = NO_MATERIALS

    @property
    def images(self) -> ImageFormat:
        """The form of images."""
        assert isinstance(self.form, ImageFormat), f"images are made for a tower in an ImageFormat, not {self.form!r}"
        return self.form

    def purpose(self, operation: str, attributes: Attributes) -> tuple[int | str, ...]:
        """The key of one draw: views with the same draw and the same place in their set have the same."""
        draw, view = str(attributes.get("draw", "")), str(attributes.get("view", ""))
        return self.seed, "view", self.epoch, self.key, operation, draw, view

    def random(self, operation: str, attributes: Attributes) -> np.random.Generator:
        """The generator of one draw."""
        return generator(*self.purpose(operation, attributes))

"""The sizes of the images and texts of a stage, where it has some of its own: the towers are those of the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.configuration import BadSetting
from vlmdsl.runtime.modules.towers import Encoder
from vlmdsl.schema import RunConfig
from vlmdsl.source import Span

__all__ = ["OF_RUN", "StageSizes"]


@dataclass(frozen=True)
class StageSizes:
    """To what `image_size` the images of the stage called `stage` are resized, in pixels, and of how many tokens its texts
    are, `text_length`; None where these are those of the run."""

    stage: str = ""
    image_size: int | None = None
    text_length: int | None = None

    @classmethod
    def of(cls, config: RunConfig, stage: str) -> StageSizes:
        """What the settings of a run say of a stage."""
        part = config.stages.get(stage)
        return cls(stage) if part is None else cls(stage, part.model.image_size, part.model.text_length)

    def setting(self, name: str) -> str:
        """The setting that says a size: of the stage if it has one of its own, otherwise of the run."""
        return f"model.{name}" if getattr(self, name) is None else f"stages.{self.stage}.model.{name}"

    @property
    def any(self) -> bool:
        """Whether a size is the stage's own."""
        return self.image_size is not None or self.text_length is not None

    def check_any(self, encoders: Iterable[Encoder]) -> None:
        """V0812 if no encoder of the stage takes images, or texts, so that a setting would change nothing."""
        towers = list(encoders)
        if self.image_size is not None and all(encoder.image_format is None for encoder in towers):
            raise self._useless("image_size", "resizes no images")
        if self.text_length is not None and all(encoder.text_format is None for encoder in towers):
            raise self._useless("text_length", "shortens no texts")

    def _useless(self, name: str, problem: str) -> DiagnosticError:
        reason = f"{problem}: the stage `{self.stage}` encodes none"
        place, help = Span("the settings", 0, 0), ("leave it out",)
        return DiagnosticError((BadSetting.at(place, name=self.setting(name), problem=reason, help=help),))


OF_RUN = StageSizes()
"""No sizes of a stage's own."""

"""The size of the images of a stage, where it has one of its own: the towers are those of the run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vlmdsl.diagnostics import DiagnosticError
from vlmdsl.diagnostics.catalog.configuration import BadSetting
from vlmdsl.runtime.modules.towers import Encoder
from vlmdsl.source import Span

__all__ = ["StageImages"]


@dataclass(frozen=True)
class StageImages:
    """To what `size` the images of the stage called `stage` are resized, in pixels."""

    size: int
    stage: str

    @property
    def setting(self) -> str:
        """The setting that says so."""
        return f"stages.{self.stage}.model.image_size"

    def check_any(self, encoders: Iterable[Encoder]) -> None:
        """V0812 if no encoder of the stage takes images, so that the setting would change nothing."""
        if all(encoder.image_format is None for encoder in encoders):
            place, help = Span("the settings", 0, 0), "leave it out"
            problem = f"resizes no images: the stage `{self.stage}` encodes none"
            raise DiagnosticError((BadSetting.at(place, name=self.setting, problem=problem, help=(help,)),))

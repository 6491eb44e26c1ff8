"""What the sections of a run configuration have in common: closed, strict and frozen; and the types of their settings."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

__all__ = ["Decay", "Listed", "NonNegative", "Positive", "Section", "Texts"]


def _listed(value: object) -> object:
    """A list of one, where that one stands alone: `data.train: shapes`."""
    return (value,) if isinstance(value, str) else value


Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Listed = BeforeValidator(_listed)
Texts: TypeAlias = Annotated[tuple[str, ...], Listed]


class Section(BaseModel):
    """A section: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True)

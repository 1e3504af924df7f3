"""What all parameter models share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Section(BaseModel):
    """A frozen section of params.yaml: unknown keys are refused, nothing is converted from another type but int to float."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class MaxFailed(Section):
    """Sections of stages that loop over molecules."""

    max_failed_fraction: Fraction = Field(0.05, description="Stop when a larger fraction of the molecules fails in this stage.")

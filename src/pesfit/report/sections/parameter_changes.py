"""Trained parameters before and after the fit, as values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pesfit.params import fit_smirnoff
from pesfit.report.reading import read_json, read_rows
from pesfit.smirnoff.parameters import FILE_COLUMNS, bounds_of

_SECTIONS = {"Bonds": "bonds", "Angles": "angles", "ProperTorsions": "proper_torsions", "ImproperTorsions": "improper_torsions"}
_UNITS = {"angstrom": "Å", "radian": "rad", "kcal/mol/angstrom**2": "kcal/mol/Å²", "kcal/mol/radian**2": "kcal/mol/rad²"}


@dataclass(frozen=True)
class Change:
    """One trained parameter.

    Attributes:
        handler: such as `Bonds`.
        id: of the force field's parameter.
        smirks: its pattern.
        name: what of it: `k`, `length`, `angle`, `k2`.
        unit: of the values.
        before: at the start.
        after: at the optimum.
        standard_error: of the posterior; None where there is none.
        prior_deviation: standard deviation of the prior, at the strength that was chosen; None where it is not trained by itself.
        uses: how many terms of the training molecules have it.
        determined: whether the data say more about it than the prior.
        at_bound: whether the optimum lies on a bound that params.yaml sets.
    """

    handler: str
    id: str
    smirks: str
    name: str
    unit: str
    before: float
    after: float
    standard_error: float | None
    prior_deviation: float | None
    uses: int
    determined: bool
    at_bound: bool

    @property
    def label(self) -> str:
        """The parameter in short: `b1 length`."""
        return f"{self.id} {self.name}"

    @property
    def in_prior_deviations(self) -> float | None:
        """The change in standard deviations of the prior."""
        return None if self.prior_deviation is None else (self.after - self.before) / self.prior_deviation

    @property
    def prior_left(self) -> float | None:
        """The standard error beside the prior's deviation: 1 where the data say nothing."""
        return (
            None if self.standard_error is None or self.prior_deviation is None else self.standard_error / self.prior_deviation
        )


@dataclass(frozen=True)
class Fit:
    """The fit of SMIRNOFF parameters.

    Attributes:
        changes: of every trained parameter.
        n_effective: how many parameters the data determine (MacKay's γ); None where the method does not say.
        prior_strength: chosen for the optimum; None likewise.
    """

    changes: Sequence[Change]
    n_effective: float | None
    prior_strength: float | None

    @classmethod
    def read(cls, folder: Path, metrics: Path, params: fit_smirnoff.FitSmirnoff) -> Fit:
        """Read what stage 06 left.

        Args:
            folder: such as `outputs/smirnoff`.
            metrics: such as `outputs/metrics/fit_smirnoff.json`.
            params: section `fit_smirnoff`, for bounds and prior widths.

        Raises:
            DataError: if a file is missing or lacks a column.
        """
        values = read_json(metrics)
        strength, variance = values.get("prior_strength"), values.get("noise_variance")
        factor = math.sqrt(variance / strength) if strength and variance else 1.0
        rows = read_rows(folder / "parameters.csv", FILE_COLUMNS)
        force_constants = {_term(row): row for row in rows if row["column"] == "k"}
        changes = [_change(row, params, factor, force_constants.get(_term(row))) for row in rows]
        return cls(changes, values.get("parameters", {}).get("effective"), strength)


def _term(row: dict[str, str]) -> tuple[str, ...]:
    return row["handler"], row["id"], row["smirks"], row["periodicity"]


def _change(row: dict[str, str], params: fit_smirnoff.FitSmirnoff, factor: float, of_k: dict[str, str] | None) -> Change:
    """Read a row; the prior of a length or an angle is one of k times its change, so a weaker spring leaves it more room."""
    column = _column(row, params)
    if row["column"] != "k" and of_k is not None and float(of_k["after"]) > 0.0:
        factor *= float(of_k["before"]) / float(of_k["after"])
    before, after = float(row["before"]), float(row["after"])
    error = float(row["standard_error"]) if row["standard_error"] else None
    low, high = (-math.inf, math.inf) if column is None else bounds_of(column, before)
    return Change(
        handler=row["handler"],
        id=row["id"],
        smirks=row["smirks"],
        name=f"{row['column']}{row['periodicity']}",
        unit=_UNITS.get(row["unit"], row["unit"]),
        before=before,
        after=after,
        standard_error=error,
        prior_deviation=None if column is None else factor * column.prior_width,
        uses=int(row["uses"]),
        determined=row["determined"] == "yes",
        at_bound=any(math.isfinite(bound) and math.isclose(after, bound, rel_tol=1e-8, abs_tol=1e-8) for bound in (low, high)),
    )


def _column(row: dict[str, str], params: fit_smirnoff.FitSmirnoff) -> fit_smirnoff.TrainedColumn | None:
    chosen = getattr(params.train, _SECTIONS.get(row["handler"], ""), None)
    name = "k" if row["column"].startswith("k") else row["column"]
    column = getattr(chosen, name, None)
    return column if isinstance(column, fit_smirnoff.TrainedColumn) else None

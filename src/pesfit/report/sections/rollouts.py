"""The section on simulations: energy drift in NVE, temperature and sampling in NVT, stability, errors along the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pesfit.data.rollouts import DYNAMICS, ENERGIES_FILE, MEASURES_FILE, read_energies
from pesfit.report.page.blocks import Block, Cell, PageSection, Table, TableColumn, Text
from pesfit.report.page.figures import in_order, label_of
from pesfit.report.reading import read_json
from pesfit.report.sections.rollout_traces import (
    EnergyTrace,
    ErrorTrace,
    UncertaintyTrace,
    force_error_figure,
    total_energy_figure,
    uncertainty_figure,
)

Measured: TypeAlias = Mapping[str, Any]
"""Result of `simulate.measures.summarize` for one molecule or for all."""

NVE, NVT = DYNAMICS

_DRIFT = "drift_kcal_per_mol_per_ps_per_atom"
_DRIFT_ERROR = "drift_standard_error_kcal_per_mol_per_ps_per_atom"
_DRIFT_MAGNITUDE = "drift_magnitude_kcal_per_mol_per_ps_per_atom"
_FLUCTUATION = "fluctuation_kcal_per_mol_per_atom"
_FORCE = "force_mae_kcal_per_mol_per_angstrom"
_KEYS = (
    "n_replicas", _DRIFT, _DRIFT_ERROR, _DRIFT_MAGNITUDE, _FLUCTUATION, "temperature_kelvin", "temperature_standard_error_kelvin",
    "distances_mae", "stable_time_ps", _FORCE,
)  # fmt: skip
_COMPARED = ("conservative", "direct")
_N_SHOWN = 3
"""Molecules with figures and lines of their own; further ones are in a table that is closed."""

_STABLE = (
    " Stable: replicas in which no bond is further from its reference mean than `rollout.max_stretch_angstrom` allows, and the total "
    "energy does not diverge. Stable time: mean over replicas. OOD (out of distribution): replicas with a frame more uncertain than "
    "nearly all training conformers. Force MAE: against the labels' method along the trajectory."
)


@dataclass(frozen=True)
class MoleculeDrift:
    """Drift of the total energy of a molecule in NVE simulations.

    Attributes:
        potential: of the simulations.
        molecule: its name.
        magnitude: [kcal/mol/ps/atom], mean of the replicas' absolute slopes.
    """

    potential: str
    molecule: str
    magnitude: float


@dataclass(frozen=True)
class Rollouts:
    """Measures of stage 08.

    Attributes:
        summaries: for each kind of dynamics and potential over all molecules.
        molecules: the same for each molecule alone, with `potential`, `dynamics`, `molecule`, `source`, `smiles`, `n_atoms`.
        energies: total energy of every NVE replica.
        n_failures: pairs of molecule and potential that could not be simulated.
        uncertainties: of every replica with a potential that has a posterior.
    """

    summaries: Mapping[str, Mapping[str, Measured]]
    molecules: Sequence[Measured]
    energies: Sequence[EnergyTrace]
    n_failures: int
    uncertainties: Sequence[UncertaintyTrace] = ()

    @classmethod
    def read(cls, folder: Path, metrics: Path) -> Rollouts:
        """Read the output of stage 08.

        Args:
            folder: `outputs/rollouts`.
            metrics: `outputs/metrics/rollout.json`.

        Raises:
            DataError: if a file is missing.
        """
        values = read_json(metrics)
        molecules: list[Measured] = read_json(folder / MEASURES_FILE)
        n_atoms = {row["molecule"]: row["n_atoms"] for row in molecules}
        of = values["potentials"]
        replicas = read_energies(folder / ENERGIES_FILE)
        nve = [row for row in replicas if row["dynamics"] == NVE and row["time_fs"]]
        return cls(
            summaries={kind: {name: of[name][kind] for name in in_order(of)} for kind in DYNAMICS},
            molecules=molecules,
            energies=[EnergyTrace.of(row, n_atoms[row["molecule"]]) for row in nve],
            n_failures=values["n_failures"],
            uncertainties=[UncertaintyTrace.of(row) for row in replicas if row.get("force_std")],
        )

    @property
    def names(self) -> list[str]:
        """The molecules: first those with the most stable replicas of both networks, else as they come."""
        names = dict.fromkeys(row["molecule"] for row in self.molecules)
        return sorted(names, key=lambda name: -self._stable_fraction(name))

    def of(self, molecule: str, dynamics: str) -> dict[str, Measured]:
        """Return the measures of one molecule, by potential, in order."""
        found = {row["potential"]: row for row in self.molecules if row["molecule"] == molecule and row["dynamics"] == dynamics}
        return {name: found[name] for name in in_order(found)}

    def drifts(self) -> list[MoleculeDrift]:
        """Return the drift of each potential, for one molecule: the first of `names`, since broken replicas have no meaningful drift."""
        for molecule in self.names:
            measured = {name: each for name, each in self.of(molecule, NVE).items() if _DRIFT in each}
            if measured:
                return [MoleculeDrift(name, molecule, each[_DRIFT_MAGNITUDE]) for name, each in measured.items()]
        return []

    def stable(self) -> dict[str, float]:
        """Return the fraction of stable replicas in all simulations of each potential, 0 to 1."""
        shares = {}
        for name in in_order(row["potential"] for row in self.molecules):
            rows = [row for row in self.molecules if row["potential"] == name]
            if n_replicas := sum(row["n_replicas"] for row in rows):
                shares[name] = 1.0 - sum(sum(row["n_stopped"].values()) for row in rows) / n_replicas
        return shares

    def _stable_fraction(self, molecule: str) -> float:
        measured = self.of(molecule, NVE)
        return min((each["stable_fraction"] or 0.0 for name, each in measured.items() if name in _COMPARED), default=0.0)


def section(rollouts: Rollouts) -> PageSection:
    """Return the section of simulations."""
    shown = rollouts.names[:_N_SHOWN]
    blocks: list[Block] = [
        Text(
            "Every potential starts from the same test conformers with the same velocities. In NVE simulations (velocity Verlet) only "
            "the potential can change the total energy; NVT ones (Langevin, BAOAB) show whether a potential stays "
            "where its forces are accurate."
        )
    ]
    if energies := [each for molecule in shown for each in rollouts.energies if each.molecule == molecule]:
        blocks.append(total_energy_figure(energies))
    blocks += [_nve(rollouts, shown), _nvt(rollouts, shown)]
    errors = [
        ErrorTrace(row["potential"], row["dynamics"], row["molecule"], row["force_mae_over_time_ps"])
        for molecule in shown
        for row in rollouts.molecules
        if row.get("force_mae_over_time_ps") and row["molecule"] == molecule
    ]
    if errors:
        blocks.append(force_error_figure(errors))
    if uncertainties := [each for molecule in shown for each in rollouts.uncertainties if each.molecule == molecule]:
        blocks.append(uncertainty_figure(uncertainties))
    if len(rollouts.names) > _N_SHOWN:
        blocks.append(_molecules(rollouts))
    if rollouts.n_failures:
        words = f"{rollouts.n_failures} simulations could not be started: see the failures at the end of this page."
        blocks.append(Text(words, tone="warning"))
    blocks.append(
        Text(
            "Steps per second and ns/day are in `outputs/runs/rollout/timing.json`: they depend on the machine, and this page does not."
        )
    )
    return PageSection("rollouts", "Simulations: NVE and NVT", blocks)


_LEADING = (TableColumn("potential_label", "potential"), TableColumn("n_replicas", "replicas"))


def _nve(rollouts: Rollouts, shown: Sequence[str]) -> Table:
    rows = _rows(rollouts, NVE, shown)
    columns = (
        *_LEADING,
        TableColumn(_DRIFT, "drift", "kcal/mol/ps/atom", digits=2, error=_DRIFT_ERROR),
        TableColumn(_DRIFT_MAGNITUDE, "|drift|", "kcal/mol/ps/atom", digits=2, best="lowest"),
        TableColumn(_FLUCTUATION, "fluctuation", "kcal/mol/atom", digits=2),
        *_common_columns(rows),
    )
    note = (
        "Drift: slope of the total energy, ± its standard error over replicas; |drift|: mean of the replicas' absolute slopes. "
        "Fluctuation: RMS about the line, which is proportional to the square of the time step for conservative forces."
    )
    return Table("rollouts-nve", "NVE simulations (velocity Verlet)", columns, rows, note=note + _STABLE, group="group")


def _nvt(rollouts: Rollouts, shown: Sequence[str]) -> Table:
    rows = _rows(rollouts, NVT, shown)
    columns = (
        *_LEADING,
        TableColumn("temperature_kelvin", "temperature", "K", error="temperature_standard_error_kelvin"),
        TableColumn("distances_mae", "error of h(r)", best="lowest"),
        *_common_columns(rows),
    )
    note = "Error of h(r), the distribution of interatomic distances: ∫ |h(r) − h(r) of the reference data| dr." + _STABLE
    return Table("rollouts-nvt", "NVT simulations (Langevin)", columns, rows, note=note, group="group")


def _molecules(rollouts: Rollouts) -> Table:
    rows: list[dict[str, Cell]] = [
        _row(name, f"{molecule}, {dynamics.upper()}", each)
        | {key: each[key] for key in ("molecule", "dynamics", "smiles", "n_atoms")}
        for dynamics in DYNAMICS
        for molecule in rollouts.names
        for name, each in rollouts.of(molecule, dynamics).items()
    ]
    columns = (
        *_LEADING,
        TableColumn(_DRIFT, "drift", "kcal/mol/ps/atom", digits=2, error=_DRIFT_ERROR),
        TableColumn(_FLUCTUATION, "fluctuation", "kcal/mol/atom", digits=2),
        TableColumn("temperature_kelvin", "temperature", "K"),
        TableColumn("distances_mae", "error of h(r)"),
        *_common_columns(rows),
    )
    return Table("rollouts-molecules", "Simulations of every molecule", columns, rows, folded=True, group="group")


def _common_columns(rows: Sequence[Mapping[str, Cell]]) -> list[TableColumn]:
    columns = [
        TableColumn("stable_percent", "stable", "%", best="highest"),
        TableColumn("stable_time_ps", "stable time", "ps"),
        TableColumn(_FORCE, "force MAE", "kcal/mol/Å", best="lowest"),
    ]
    if any(row["left_domain_percent"] is not None for row in rows):
        columns.append(TableColumn("left_domain_percent", "OOD", "%"))
    return columns


def _rows(rollouts: Rollouts, dynamics: str, shown: Sequence[str]) -> list[dict[str, Cell]]:
    names = rollouts.names
    rows = [_row(name, molecule, each) for molecule in shown for name, each in rollouts.of(molecule, dynamics).items()]
    if len(names) > 1:
        rows += [_row(name, f"all {len(names)} molecules", each) for name, each in rollouts.summaries[dynamics].items()]
    return rows


def _row(potential: str, group: str, measured: Measured) -> dict[str, Cell]:
    row: dict[str, Cell] = {"group": group, "potential": potential, "potential_label": label_of(potential)}
    row |= {key: measured.get(key) for key in _KEYS}
    for name in ("stable", "left_domain"):
        share = measured.get(f"{name}_fraction")
        row[f"{name}_percent"] = None if share is None else 100.0 * share
    row |= {f"stopped_by_{reason}": times for reason, times in measured.get("n_stopped", {}).items()}
    return row

"""What simulations say of the potentials: drift at constant energy, stability, temperature, forces along the way."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from pesfit.analyse.blocks import Block, Cell, Column, Section, Table, Text
from pesfit.analyse.names import in_order, label_of
from pesfit.analyse.reading import read_json
from pesfit.analyse.sections.rollout_figures import ErrorCurve, Trace, force_errors, total_energy
from pesfit.errors import DataError

Measured: TypeAlias = Mapping[str, Any]
"""What `simulate.measures.summarize` says."""

_DRIFT = "drift_kcal_per_mol_per_ps_per_atom"
_DRIFT_ERROR = "drift_standard_error_kcal_per_mol_per_ps_per_atom"
_MAGNITUDE = "drift_magnitude_kcal_per_mol_per_ps_per_atom"
_FLUCTUATION = "fluctuation_kcal_per_mol_per_atom"
_FORCE = "force_mae_kcal_per_mol_per_angstrom"


@dataclass(frozen=True)
class Drift:
    """How the total energy of a potential drifts at constant energy.

    Attributes:
        potential: its name.
        slope: [kcal/mol/ps/atom], mean of replicas.
        standard_error: of the slope; None for a single replica.
        magnitude: [kcal/mol/ps/atom], mean of the replicas' absolute slopes.
    """

    potential: str
    slope: float
    standard_error: float | None
    magnitude: float


@dataclass(frozen=True)
class Rollouts:
    """What stage 08 measured.

    Attributes:
        summaries: for each ensemble (`constant_energy`, `bath`) and potential what holds for all molecules together.
        molecules: the same for each molecule alone, with `potential`, `ensemble`, `molecule`.
        traces: total energy of every replica at constant energy.
        n_failures: of molecules with potentials that cannot be asked about them.
    """

    summaries: Mapping[str, Mapping[str, Measured]]
    molecules: Sequence[Measured]
    traces: Sequence[Trace]
    n_failures: int

    @classmethod
    def read(cls, folder: Path, metrics: Path) -> Rollouts:
        """Read what stage 08 left.

        Args:
            folder: `outputs/rollouts`.
            metrics: `outputs/metrics/rollout.json`.

        Raises:
            DataError: if a file is missing.
        """
        values = read_json(metrics)
        molecules: list[Measured] = read_json(folder / "measures.json")
        n_atoms = {row["molecule"]: row["n_atoms"] for row in molecules}
        potentials = in_order(values["potentials"])
        return cls(
            summaries={
                kind: {name: values["potentials"][name][kind] for name in potentials} for kind in ("constant_energy", "bath")
            },
            molecules=molecules,
            traces=list(_traces(folder / "energies.arrow", n_atoms)),
            n_failures=values["n_failures"],
        )

    def drifts(self) -> list[Drift]:
        """Return the drift of each potential that has one."""
        return [
            Drift(name, measured[_DRIFT], measured[_DRIFT_ERROR], measured[_MAGNITUDE])
            for name, measured in self.summaries["constant_energy"].items()
            if _DRIFT in measured
        ]


def section(rollouts: Rollouts) -> Section:
    """Return the section of simulations."""
    curves = [
        ErrorCurve(row["potential"], row["ensemble"], row["molecule"], row["force_mae_over_time_ps"])
        for row in rollouts.molecules
        if row.get("force_mae_over_time_ps")
    ]
    blocks: list[Block] = [
        Text(
            "Every potential starts from the same test conformers with the same velocities. At constant energy (velocity Verlet) nothing "
            "but the potential can change the total energy; the bath (Langevin, BAOAB) shows whether a potential stays where its forces "
            "are right."
        )
    ]
    if rollouts.traces:
        blocks.append(total_energy(rollouts.traces))
    blocks += [_constant_energy(rollouts.summaries["constant_energy"]), _bath(rollouts.summaries["bath"])]
    if curves:
        blocks.append(force_errors(curves))
    blocks.append(_molecules(rollouts.molecules))
    if rollouts.n_failures:
        blocks.append(
            Text(
                f"{rollouts.n_failures} simulations could not be started: see the failures at the end of this page.",
                tone="warning",
            )
        )
    blocks.append(
        Text(
            "Steps a second and ns a day are in `outputs/runs/rollout/timing.json`: they differ from run to run, and this page does not."
        )
    )
    return Section("rollouts", "Simulations", blocks)


def _traces(path: Path, n_atoms: Mapping[str, int]) -> Iterator[Trace]:
    if not path.is_file():
        raise DataError(f"{path} is missing; `dvc repro` runs 08_rollout, which writes it")
    with pa.OSFile(str(path)) as file:
        rows = pa.ipc.open_file(file).read_all().to_pylist()
    for row in rows:
        if row["ensemble"] == "constant_energy" and row["time_fs"]:
            total = np.array(row["potential_energy"]) + np.array(row["kinetic_energy"])
            yield Trace(
                potential=row["potential"],
                time_ps=np.array(row["time_fs"]) * 1e-3,
                change=(total - total[0]) / n_atoms[row["molecule"]],
                stopped=row["stopped"] is not None,
            )


def _constant_energy(summaries: Mapping[str, Measured]) -> Table:
    columns = (
        Column("potential_label", "potential"),
        Column("n_replicas", "replicas"),
        Column(_DRIFT, "drift", "kcal/mol/ps/atom", error=_DRIFT_ERROR),
        Column(_MAGNITUDE, "|drift|, mean of replicas", "kcal/mol/ps/atom", best="lowest"),
        Column(_FLUCTUATION, "fluctuation", "kcal/mol/atom"),
        *_common_columns(),
    )
    return Table(
        "rollouts-constant-energy",
        "At constant energy",
        columns,
        [_row(name, measured) for name, measured in summaries.items()],
        note="Drift: slope of the total energy, ± its standard error over replicas. Fluctuation: rms about the line, which shrinks "
        "with the square of the time step where forces derive from an energy." + _STABLE,
    )


def _bath(summaries: Mapping[str, Measured]) -> Table:
    columns = [
        Column("potential_label", "potential"),
        Column("n_replicas", "replicas"),
        Column("temperature_kelvin", "temperature", "K", digits=4, error="temperature_standard_error_kelvin"),
        Column("distances_mae", "distances h(r), error", best="lowest"),
        *_common_columns(),
    ]
    if any("left_domain_fraction" in measured for measured in summaries.values()):
        columns.append(Column("left_domain_percent", "left the domain", "% of replicas"))
    return Table(
        "rollouts-bath",
        "In a bath",
        columns,
        [_row(name, measured) for name, measured in summaries.items()],
        note="Distances: ∫ |h(r) − h(r) of the reference data| dr of all interatomic distances." + _STABLE,
    )


_STABLE = (
    " Stable: until a bond is further from its reference mean than `rollout.max_stretch_angstrom` allows, or the energy runs away. "
    "Force MAE: against the labels' method along the trajectory."
)


def _common_columns() -> list[Column]:
    return [
        Column("stable_percent", "stable", "% of replicas", best="highest"),
        Column("stable_time_ps", "time until break", "ps"),
        Column(_FORCE, "force MAE on the way", "kcal/mol/Å", best="lowest"),
    ]


def _row(potential: str, measured: Measured) -> dict[str, Cell]:
    row: dict[str, Cell] = {"potential": potential, "potential_label": label_of(potential)}
    keys = (
        "n_replicas",
        _DRIFT,
        _DRIFT_ERROR,
        _MAGNITUDE,
        _FLUCTUATION,
        "temperature_kelvin",
        "temperature_standard_error_kelvin",
        "distances_mae",
        "stable_time_ps",
        _FORCE,
    )
    row |= {key: measured.get(key) for key in keys}
    for name in ("stable", "left_domain"):
        share = measured.get(f"{name}_fraction")
        row[f"{name}_percent"] = None if share is None else 100.0 * share
    row |= {f"stopped_by_{reason}": times for reason, times in measured.get("n_stopped", {}).items()}
    return row


def _molecules(molecules: Sequence[Measured]) -> Table:
    order = in_order(row["potential"] for row in molecules)
    ranked = sorted(
        molecules, key=lambda row: (row["ensemble"] != "constant_energy", row["molecule"], order.index(row["potential"]))
    )
    rows: list[dict[str, Cell]] = [
        {
            "group": f"{row['molecule']}, {'constant energy' if row['ensemble'] == 'constant_energy' else 'bath'}",
            "molecule": row["molecule"],
            "smiles": row["smiles"],
            "ensemble": row["ensemble"],
            "n_atoms": row["n_atoms"],
            **_row(row["potential"], row),
        }
        for row in ranked
    ]
    columns = (
        Column("potential_label", "potential"),
        Column("n_replicas", "replicas"),
        Column(_DRIFT, "drift", "kcal/mol/ps/atom", error=_DRIFT_ERROR),
        Column(_FLUCTUATION, "fluctuation", "kcal/mol/atom"),
        Column("temperature_kelvin", "temperature", "K", digits=4),
        Column("distances_mae", "distances h(r), error"),
        *_common_columns(),
    )
    return Table("rollouts-molecules", "Every molecule by itself", columns, rows, folded=True, group="group")

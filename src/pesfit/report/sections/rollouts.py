"""What simulations say of the potentials: drift at constant energy, stability, temperature, forces along the way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pesfit.evaluate.names import label_of
from pesfit.report.page.blocks import Block, Cell, Column, Section, Table, Text
from pesfit.report.sections.rollout_figures import ErrorCurve, certainty, force_errors, total_energy
from pesfit.report.sections.rollout_measures import (
    DRIFT,
    DRIFT_ERROR,
    DRIFT_MAGNITUDE,
    NVE,
    NVT,
    Measured,
    Rollouts,
)

_FLUCTUATION = "fluctuation_kcal_per_mol_per_atom"
_FORCE = "force_mae_kcal_per_mol_per_angstrom"
_KEYS = (
    "n_replicas",
    DRIFT,
    DRIFT_ERROR,
    DRIFT_MAGNITUDE,
    _FLUCTUATION,
    "temperature_kelvin",
    "temperature_standard_error_kelvin",
    "distances_mae",
    "stable_time_ps",
    _FORCE,
)
_N_SHOWN = 3
"""Molecules with figures and lines of their own; further ones are in a table that is closed."""

_STABLE = (
    " Stable: until a bond is further from its reference mean than `rollout.max_stretch_angstrom` allows, or the energy runs away; "
    "until break: mean over replicas, the length of the run where there was none. "
    "Force MAE: against the labels' method along the trajectory."
)


def section(rollouts: Rollouts) -> Section:
    """Return the section of simulations."""
    shown = rollouts.names[:_N_SHOWN]
    blocks: list[Block] = [
        Text(
            "Every potential starts from the same test conformers with the same velocities. In NVE simulations (velocity Verlet) nothing "
            "but the potential can change the total energy; NVT ones (Langevin, BAOAB) show whether a potential stays where its forces "
            "are right."
        )
    ]
    traces = [trace for molecule in shown for trace in rollouts.traces if trace.molecule == molecule]
    if traces:
        blocks.append(total_energy(traces))
    blocks += [_nve(rollouts, shown), _nvt(rollouts, shown)]
    curves = [
        ErrorCurve(row["potential"], row["dynamics"], row["molecule"], row["force_mae_over_time_ps"])
        for molecule in shown
        for row in rollouts.molecules
        if row.get("force_mae_over_time_ps") and row["molecule"] == molecule
    ]
    if curves:
        blocks.append(force_errors(curves))
    certainties = [each for molecule in shown for each in rollouts.certainties if each.molecule == molecule]
    if certainties:
        blocks.append(certainty(certainties))
    if len(rollouts.names) > _N_SHOWN:
        blocks.append(_molecules(rollouts))
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


def _nve(rollouts: Rollouts, shown: Sequence[str]) -> Table:
    rows = _rows(rollouts, NVE, shown)
    columns = (
        Column("potential_label", "potential"),
        Column("n_replicas", "replicas"),
        Column(DRIFT, "drift", "kcal/mol/ps/atom", digits=2, error=DRIFT_ERROR),
        Column(DRIFT_MAGNITUDE, "|drift|", "kcal/mol/ps/atom", digits=2, best="lowest"),
        Column(_FLUCTUATION, "fluctuation", "kcal/mol/atom", digits=2),
        *_common_columns(rows),
    )
    return Table(
        "rollouts-nve",
        "NVE simulations (velocity Verlet)",
        columns,
        rows,
        note="Drift: slope of the total energy, ± its standard error over replicas; |drift|: mean of the replicas' absolute slopes. "
        "Fluctuation: rms about the line, which shrinks with the square of the time step where forces derive from an energy."
        + _STABLE,
        group="group",
    )


def _nvt(rollouts: Rollouts, shown: Sequence[str]) -> Table:
    rows = _rows(rollouts, NVT, shown)
    columns = (
        Column("potential_label", "potential"),
        Column("n_replicas", "replicas"),
        Column("temperature_kelvin", "temperature", "K", error="temperature_standard_error_kelvin"),
        Column("distances_mae", "error of h(r)", best="lowest"),
        *_common_columns(rows),
    )
    return Table(
        "rollouts-nvt",
        "NVT simulations (Langevin)",
        columns,
        rows,
        note="Error of h(r): ∫ |h(r) − h(r) of the reference data| dr over all interatomic distances." + _STABLE,
        group="group",
    )


def _common_columns(rows: Sequence[Mapping[str, Cell]]) -> list[Column]:
    columns = [
        Column("stable_percent", "stable", "% of replicas", best="highest"),
        Column("stable_time_ps", "until break", "ps"),
        Column(_FORCE, "force MAE", "kcal/mol/Å", best="lowest"),
    ]
    if any(row["left_domain_percent"] is not None for row in rows):
        columns.append(Column("left_domain_percent", "left the domain", "% of replicas"))
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


def _molecules(rollouts: Rollouts) -> Table:
    words = {NVE: "NVE", NVT: "NVT"}
    rows: list[dict[str, Cell]] = [
        _row(name, f"{molecule}, {words[dynamics]}", each)
        | {key: each[key] for key in ("molecule", "dynamics", "smiles", "n_atoms")}
        for dynamics in words
        for molecule in rollouts.names
        for name, each in rollouts.of(molecule, dynamics).items()
    ]
    columns = (
        Column("potential_label", "potential"),
        Column("n_replicas", "replicas"),
        Column(DRIFT, "drift", "kcal/mol/ps/atom", digits=2, error=DRIFT_ERROR),
        Column(_FLUCTUATION, "fluctuation", "kcal/mol/atom", digits=2),
        Column("temperature_kelvin", "temperature", "K"),
        Column("distances_mae", "error of h(r)"),
        *_common_columns(rows),
    )
    return Table("rollouts-molecules", "Simulations of every molecule", columns, rows, folded=True, group="group")

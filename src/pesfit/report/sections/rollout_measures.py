"""What stage 08 measured, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.data.rollouts import DYNAMICS, ENERGIES_FILE, MEASURES_FILE, read_energies
from pesfit.evaluate.names import in_order
from pesfit.report.reading import read_json

Measured: TypeAlias = Mapping[str, Any]
"""What `simulate.measures.summarize` says of one molecule or of all."""

NVE, NVT = DYNAMICS

DRIFT = "drift_kcal_per_mol_per_ps_per_atom"
DRIFT_ERROR = "drift_standard_error_kcal_per_mol_per_ps_per_atom"
DRIFT_MAGNITUDE = "drift_magnitude_kcal_per_mol_per_ps_per_atom"
_COMPARED = ("conservative", "direct")


@dataclass(frozen=True, eq=False)
class Trace:
    """One replica at constant energy.

    Attributes:
        potential: that it ran with.
        molecule: its name.
        time_ps: [ps], shape (n,).
        change: [kcal/mol/atom], total energy less its first value, shape (n,).
        stopped: whether it was stopped at the end of the trace.
    """

    potential: str
    molecule: str
    time_ps: FloatArray
    change: FloatArray
    stopped: bool


@dataclass(frozen=True, eq=False)
class Certainty:
    """How sure a potential was along one replica of its own.

    Attributes:
        potential: that the replica ran with.
        dynamics: `nve` or `nvt`.
        molecule: its name.
        time_ps: [ps], of the stored frames, shape (n,).
        deviation: [kcal/mol/Å], of the least certain atom's force, shape (n,).
        left_ps: [ps], when the replica left the domain of training; None where it did not.
    """

    potential: str
    dynamics: str
    molecule: str
    time_ps: FloatArray
    deviation: FloatArray
    left_ps: float | None


@dataclass(frozen=True)
class Drift:
    """How the total energy of a molecule drifts at constant energy.

    Attributes:
        potential: its name.
        molecule: likewise.
        magnitude: [kcal/mol/ps/atom], mean of the replicas' absolute slopes.
    """

    potential: str
    molecule: str
    magnitude: float


@dataclass(frozen=True)
class Rollouts:
    """What stage 08 measured.

    Attributes:
        summaries: for each kind of dynamics and potential what holds for all molecules together.
        molecules: the same for each molecule alone, with `potential`, `dynamics`, `molecule`, `source`, `smiles`, `n_atoms`.
        traces: total energy of every replica at constant energy.
        n_failures: of molecules with potentials that cannot be asked about them.
        certainties: of every replica with a potential that has a posterior.
    """

    summaries: Mapping[str, Mapping[str, Measured]]
    molecules: Sequence[Measured]
    traces: Sequence[Trace]
    n_failures: int
    certainties: Sequence[Certainty] = ()

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
        molecules: list[Measured] = read_json(folder / MEASURES_FILE)
        n_atoms = {row["molecule"]: row["n_atoms"] for row in molecules}
        of = values["potentials"]
        replicas = read_energies(folder / ENERGIES_FILE)
        return cls(
            summaries={kind: {name: of[name][kind] for name in in_order(of)} for kind in DYNAMICS},
            molecules=molecules,
            traces=[_trace(row, n_atoms) for row in replicas if row["dynamics"] == NVE and row["time_fs"]],
            n_failures=values["n_failures"],
            certainties=[_certainty(row) for row in replicas if row.get("force_std")],
        )

    @property
    def names(self) -> list[str]:
        """The molecules: those first that most replicas of both networks survived, else as they come."""
        names = dict.fromkeys(row["molecule"] for row in self.molecules)
        return sorted(names, key=lambda name: -self._survived(name))

    def of(self, molecule: str, dynamics: str) -> dict[str, Measured]:
        """Return what is measured of one molecule, by potential, in order."""
        found = {row["potential"]: row for row in self.molecules if row["molecule"] == molecule and row["dynamics"] == dynamics}
        return {name: found[name] for name in in_order(found)}

    def drifts(self) -> list[Drift]:
        """Return the drift of each potential, for one molecule.

        It is the first of `names`: a replica that comes apart says nothing of how well forces keep the energy.
        """
        for molecule in self.names:
            measured = self.of(molecule, NVE)
            drifts = [Drift(name, molecule, each[DRIFT_MAGNITUDE]) for name, each in measured.items() if DRIFT in each]
            if drifts:
                return drifts
        return []

    def stable(self) -> dict[str, float]:
        """Return the share of stable replicas in all simulations of each potential, 0 to 1."""
        shares = {}
        for name in in_order(row["potential"] for row in self.molecules):
            rows = [row for row in self.molecules if row["potential"] == name]
            n_replicas = sum(row["n_replicas"] for row in rows)
            if n_replicas:
                shares[name] = 1.0 - sum(sum(row["n_stopped"].values()) for row in rows) / n_replicas
        return shares

    def _survived(self, molecule: str) -> float:
        measured = self.of(molecule, NVE)
        return min((each["stable_fraction"] or 0.0 for name, each in measured.items() if name in _COMPARED), default=0.0)


def _trace(row: Mapping[str, Any], n_atoms: Mapping[str, int]) -> Trace:
    total = np.array(row["potential_energy"]) + np.array(row["kinetic_energy"])
    return Trace(
        potential=row["potential"],
        molecule=row["molecule"],
        time_ps=np.array(row["time_fs"]) * 1e-3,
        change=(total - total[0]) / n_atoms[row["molecule"]],
        stopped=row["stopped"] is not None,
    )


def _certainty(row: Mapping[str, Any]) -> Certainty:
    left = row["left_domain_fs"]
    return Certainty(
        potential=row["potential"],
        dynamics=row["dynamics"],
        molecule=row["molecule"],
        time_ps=np.array(row["frame_fs"]) * 1e-3,
        deviation=np.array(row["force_std"]),
        left_ps=None if left is None else left * 1e-3,
    )

"""Measures of simulations: stability, drift, temperature, distances, force errors and uncertainty along the trajectories."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.core.units import BOLTZMANN
from pesfit.potentials.gfn2_model import Gfn2Model
from pesfit.potentials.model import PreparedMolecule
from pesfit.simulate.loop import STOPS, Protocol, Stop, Trajectories
from pesfit.simulate.observables import DistanceHistogram, Line, fit_line, mean_drift
from pesfit.simulate.replicas import Replicas
from pesfit.uncertainty.standard_deviations import Uncertainty


@dataclass(frozen=True)
class MeasureSettings:
    """Settings of the measures of one molecule.

    Attributes:
        equilibration_fs: [fs], time that temperature and distances leave out at the start.
        reference: distances in the reference data; None where these are too few, or distances are not asked for.
        label_frames: number of frames that are labeled with GFN2-xTB; 0 where labels are of another method.
        domain_threshold: [kcal/mol/Å], score that hardly any training conformer exceeds; None where it is not known.
    """

    equilibration_fs: float = 0.0
    reference: DistanceHistogram | None = None
    label_frames: int = 0
    domain_threshold: float | None = None


@dataclass(frozen=True)
class Measures:
    """Measures of one molecule; of a replica that was stopped, the time until then counts.

    Attributes:
        stops: the reason why each replica was stopped, or None.
        stable_fs: [fs], time until it was stopped, or the length of the simulation.
        lines: through the total energy [kcal/mol/atom] over time [ps] of each replica that lasted long enough; empty for NVT.
        temperatures: [K], mean over time of each replica that lasted beyond the equilibration; empty for NVE.
        distances_mae: ∫ |h(r) - h_reference(r)| dr; None without a reference or without frames.
        label_times_fs: [fs], of the labeled frames.
        force_errors: [kcal/mol/Å], mean absolute difference of force components from the labels, of each of these frames.
        left_fs: [fs], time at which each replica left the training domain, None where it did not; empty without a threshold.
    """

    stops: tuple[Stop | None, ...]
    stable_fs: tuple[float, ...]
    lines: tuple[Line, ...]
    temperatures: tuple[float, ...]
    distances_mae: float | None
    label_times_fs: tuple[float, ...]
    force_errors: tuple[float, ...]
    left_fs: tuple[float | None, ...] = ()


@dataclass(frozen=True, eq=False)
class UncertaintyAlong:
    """Standard deviations along the trajectories of one molecule, NaN from where a replica was stopped.

    Attributes:
        score: [kcal/mol/Å], largest standard deviation of the force on an atom (`StandardDeviations.score`), shape (n_replicas, n_frames).
        relative_energy: [kcal/mol], of the energy minus that of the replica's first frame, shape (n_replicas, n_frames).
        left_fs: [fs], time of the first frame whose score is above the threshold, for each replica; None where there is none.
    """

    score: FloatArray
    relative_energy: FloatArray
    left_fs: tuple[float | None, ...]


def uncertainty_along(
    run: Trajectories, uncertainty: Uncertainty, threshold: float | None, timestep_fs: float
) -> UncertaintyAlong:
    """Evaluate standard deviations at the stored frames; `threshold` is that of `MeasureSettings`."""
    shape = run.coords.shape[:2]
    score, relative_energy = np.full(shape, np.nan), np.full(shape, np.nan)
    left: list[float | None] = []
    for replica, coords in enumerate(run.coords):
        n_frames = run.n_frames(replica)
        outside = np.zeros(0, dtype=np.int64)
        if n_frames:
            found = uncertainty(coords[:n_frames], coords[0])
            score[replica, :n_frames] = scores = found.score
            relative_energy[replica, :n_frames] = found.relative_energy
            if threshold is not None:
                outside = np.flatnonzero(scores > threshold)
        left.append(float(run.frame_step[outside[0]]) * timestep_fs if len(outside) else None)
    return UncertaintyAlong(score, relative_energy, tuple(left))


def measure(
    run: Trajectories, molecule: Replicas, protocol: Protocol, wanted: MeasureSettings, along: UncertaintyAlong | None = None
) -> Measures:
    """Measure the trajectories of a molecule.

    A replica is stable until the first observation at which it was stopped. NVT: all 3 n_atoms degrees of freedom have the temperature
    2 E_kinetic / (3 n_atoms k). At whole steps the kinetic energy of a vibration of frequency ω is low by (ωΔt/2)²: 3 % for O-H at
    0.5 fs, 1 % of a molecule's temperature; coordinates do not have this error.
    """
    step_fs = protocol.timestep_fs
    has_thermostat = protocol.friction_per_ps is not None
    after_last_good = np.minimum(run.n_observed, len(run.step) - 1)
    times, errors = _force_errors(run, molecule, step_fs, wanted.label_frames)
    return Measures(
        stops=run.stops,
        stable_fs=tuple((run.step[after_last_good] * step_fs).tolist()),
        lines=() if has_thermostat else _lines(run, molecule.n_atoms, step_fs),
        temperatures=_temperatures(run, molecule.n_atoms, wanted.equilibration_fs / step_fs) if has_thermostat else (),
        distances_mae=_distances(run, wanted.equilibration_fs / step_fs, wanted.reference),
        label_times_fs=times,
        force_errors=errors,
        left_fs=() if along is None or wanted.domain_threshold is None else along.left_fs,
    )


def summarize(measures: Sequence[Measures]) -> dict[str, Any]:
    """Average the measures of molecules with one potential into numbers with units in their names; null where there is none."""
    stops = [stop for measure in measures for stop in measure.stops]
    stable = [time for measure in measures for time in measure.stable_fs]
    summary: dict[str, Any] = {
        "n_replicas": len(stops),
        "n_stopped": {reason: stops.count(reason) for reason in STOPS},
        "stable_fraction": stops.count(None) / len(stops) if stops else None,
        "stable_time_ps": float(np.mean(stable)) * 1e-3 if stable else None,
    }
    drift = mean_drift([line for measure in measures for line in measure.lines])
    if drift is not None:
        summary |= {
            "drift_kcal_per_mol_per_ps_per_atom": drift.slope,
            "drift_standard_error_kcal_per_mol_per_ps_per_atom": drift.standard_error,
            "drift_magnitude_kcal_per_mol_per_ps_per_atom": drift.magnitude,
            "fluctuation_kcal_per_mol_per_atom": drift.fluctuation,
            "n_replicas_with_drift": drift.n_replicas,
        }
    temperatures = [temperature for measure in measures for temperature in measure.temperatures]
    if temperatures:
        n = len(temperatures)
        summary["temperature_kelvin"] = float(np.mean(temperatures))
        summary["temperature_standard_error_kelvin"] = float(np.std(temperatures, ddof=1)) / math.sqrt(n) if n > 1 else None
    distances = [measure.distances_mae for measure in measures if measure.distances_mae is not None]
    summary["distances_mae"] = float(np.mean(distances)) if distances else None
    left = [time for measure in measures for time in measure.left_fs]
    if left:
        times = [time for time in left if time is not None]
        summary["left_domain_fraction"] = len(times) / len(left)
        summary["left_domain_first_ps"] = min(times) * 1e-3 if times else None
    errors = [np.mean(measure.force_errors) for measure in measures if measure.force_errors]
    summary["force_mae_kcal_per_mol_per_angstrom"] = float(np.mean(errors)) if errors else None
    return summary


def force_error_over_time(measures: Measures) -> list[tuple[float, float]]:
    """Return times [ps] and mean absolute errors of force components [kcal/mol/Å], averaged over replicas."""
    times = np.array(measures.label_times_fs)
    errors = np.array(measures.force_errors)
    return [(float(time) * 1e-3, float(errors[times == time].mean())) for time in np.unique(times)]


def _lines(run: Trajectories, n_atoms: int, step_fs: float) -> tuple[Line, ...]:
    time: FloatArray = run.step.astype(np.float64) * step_fs * 1e-3
    lines = (
        fit_line(time[:n_observed], total[:n_observed] / n_atoms)
        for total, n_observed in zip(run.total_energy, run.n_observed, strict=True)
    )
    return tuple(line for line in lines if line is not None)


def _temperatures(run: Trajectories, n_atoms: int, first_step: float) -> tuple[float, ...]:
    kept = run.step >= first_step
    temperatures = []
    for kinetic, n_observed in zip(run.kinetic_energy, run.n_observed, strict=True):
        energies = kinetic[:n_observed][kept[:n_observed]]
        if len(energies):
            temperatures.append(2.0 * float(energies.mean()) / (3 * n_atoms * BOLTZMANN))
    return tuple(temperatures)


def _distances(run: Trajectories, first_step: float, reference: DistanceHistogram | None) -> float | None:
    if reference is None:
        return None
    found = DistanceHistogram(reference.bin_width)
    kept = run.frame_step >= first_step
    for replica, coords in enumerate(run.coords):
        n_frames = run.n_frames(replica)
        found.add(coords[:n_frames][kept[:n_frames]])
    return found.difference(reference)


def _force_errors(
    run: Trajectories, molecule: Replicas, step_fs: float, n_labels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Label frames spread over replicas and time; return their times [fs] and mean absolute force errors [kcal/mol/Å]."""
    chosen = spread_frames([run.n_frames(replica) for replica in range(len(run.coords))], n_labels)
    if not chosen:
        return (), ()
    replicas, frames = np.array(chosen).T
    labels = gfn2_forces(molecule, run.coords[replicas, frames])
    errors: FloatArray = np.abs(run.forces[replicas, frames] - labels).mean(axis=(1, 2))
    labeled = np.isfinite(errors)
    times = run.frame_step[frames] * step_fs
    return tuple(times[labeled].tolist()), tuple(errors[labeled].tolist())


def gfn2_forces(molecule: Replicas, coords: FloatArray) -> FloatArray:
    """Return the forces of GFN2-xTB [kcal/mol/Å], NaN where it has none.

    Args:
        molecule: for its elements and charge.
        coords: [Å], shape (n_frames, n_atoms, 3), like the result.

    Raises:
        MoleculeError: if the method does not cover the molecule.
    """
    prepared = PreparedMolecule(molecule.atomic_numbers, None, molecule.total_charge)
    return Gfn2Model().evaluate(prepared, coords)[1]


def spread_frames(n_frames: Sequence[int], n_wanted: int) -> list[tuple[int, int]]:
    """Choose frames evenly in time, the same number of each replica.

    Args:
        n_frames: of each replica.
        n_wanted: largest number in all; the first replicas have one more where it does not divide.

    Returns:
        Replica and frame of each.
    """
    n_replicas = len(n_frames)
    chosen = []
    for replica, n_available in enumerate(n_frames):
        n_chosen = min(n_available, (n_wanted + n_replicas - 1 - replica) // n_replicas)
        chosen += [(replica, (2 * k + 1) * n_available // (2 * n_chosen)) for k in range(n_chosen)]
    return chosen

"""Rows of minima and scans against evaluations that know nothing of them: finite differences, minimizations, energies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import PesfitError
from pesfit.data.dataset import Record
from pesfit.data.minima import MoleculeMinima, TorsionScan
from pesfit.params.fit_smirnoff import FitSmirnoff, Objective, Train
from pesfit.potentials.bond_graph import BondGraphCoordinates
from pesfit.potentials.interface import Conformers
from pesfit.potentials.minimize import Restraint, minimize
from pesfit.potentials.terms import Terms
from pesfit.potentials.vibrations import hessians, normal_modes
from pesfit.smirnoff.exact.accumulate import FitEquations
from pesfit.smirnoff.exact.landscapes import KINDS, Compared, Landscape, LandscapeRows, LandscapeSet, PlacedLandscape
from pesfit.smirnoff.exact.solve import ExactFit, fit_exactly
from pesfit.smirnoff.exact.training_set import TrainingSet
from pesfit.smirnoff.features import MoleculeFeatures
from pesfit.smirnoff.parameters import Layout, without_linear_torsions
from pesfit.smirnoff.potential import SmirnoffPotential
from pesfit.statistics.normal_equations import NormalEquations
from tests.smirnoff.samples import Sample, evaluate, perturbation, sample

SMILES = ("CCO", "CC(=O)NC", "CC#N", "C=CC=O")
SPLITS = ("train", "validation", "test")


class Made:
    """Molecules whose minima and scans are those of a force field that is known."""

    def __init__(self, molecules: Sample, seed: int = 3) -> None:
        self.force_field, self.topologies = molecules.force_field, molecules.topologies
        train = without_linear_torsions(Train(), self.force_field, self.topologies)
        self.layout = Layout.of(self.force_field, train)
        self.truth = perturbation(self.layout, seed, size=0.3)
        self.molecules, self.landscapes = [], []
        for i, (topology, coords) in enumerate(zip(self.topologies, molecules.coords, strict=True)):
            start = Conformers(numbers(topology), torch.tensor(coords[:3]), Terms.from_topology(topology))
            self.molecules.append(start)
            self.landscapes.append(self.landscape(f"{i}", start))

    def potential(self, x: FloatArray) -> SmirnoffPotential:
        return SmirnoffPotential(self.layout.apply(self.force_field, x))

    def landscape(self, name: str, start: Conformers, *, with_minima: bool = True, with_hessians: bool = True) -> Landscape:
        truth, topology = self.potential(self.truth), self.topologies[int(name)]
        ended = minimize(truth, [start], max_force=1e-5, max_steps=3000)[0]
        assert ended.converged.all()
        labels = record(name, ended.coords, ended.energy, ended.forces)
        curvatures = hessians(truth, start.at(ended.coords), 2e-4)
        coordinates = BondGraphCoordinates.of(topology.connectivity.tolist(), ended.coords[0])
        scans = []
        if len(coordinates.dihedrals):
            points = start.at(np.repeat(ended.coords[:1], 4, axis=0))
            atoms = np.array([min(coordinates.dihedrals.tolist())])  # of heavy atoms, which are the first
            angles = np.linspace(0.4, 1.6, 4)[:, None]
            held = minimize(truth, [points], max_force=1e-2, max_steps=3000, restraints=[Restraint(atoms, angles)])[0]
            scans = [TorsionScan(record(name, held.coords, held.energy, held.forces), "made", name, atoms, angles)]
        features = MoleculeFeatures(topology, self.force_field, self.layout)
        molecule = Compared(start, np.where(start.atomic_numbers.numpy() > 1, 13.0, 1.0), coordinates)
        kept = labels if with_minima else labels.select([])
        minima = MoleculeMinima(kept, "made", curvatures if with_minima and with_hessians else None)
        return Landscape(minima, scans, features, molecule)

    def set_of(self, landscapes: list[Landscape] | None = None) -> LandscapeSet:
        members = [PlacedLandscape(f"{i}", "train", each) for i, each in enumerate(landscapes or self.landscapes)]
        return LandscapeSet(members, len(self.layout), self.potential)

    def linearized(self, number: int, x: FloatArray) -> LandscapeRows:
        return self.set_of([self.landscapes[number]]).linearized(x)


def numbers(topology: object) -> torch.Tensor:
    names = {"C": 6, "O": 8, "N": 7, "H": 1}
    from pesfit.chemistry.smiles import mapped_molecule

    molecule = mapped_molecule(topology.smiles)  # type: ignore[attr-defined]
    return torch.tensor([names[atom.GetSymbol()] for atom in molecule.GetAtoms()])


def record(name: str, coords: FloatArray, energy: FloatArray, forces: FloatArray) -> Record:
    n = len(energy)
    return Record(
        name, None, np.ones(coords.shape[1], dtype=np.int32), coords, energy, forces, None, 0, name, "made", np.arange(n)
    )


@pytest.fixture(scope="module")
def made() -> Made:
    return Made(sample(SMILES, n_conformers=3))


def fit(made: Made, params: FitSmirnoff, landscapes: LandscapeSet | None) -> ExactFit:
    nothing = FitEquations({split: NormalEquations.zeros(len(made.layout)) for split in SPLITS}, made.layout)
    groups = [str(i) for i in range(len(made.landscapes))]
    training = TrainingSet(list, params.objective, {}, len(made.layout), groups)
    return fit_exactly(nothing, training, params, landscapes)


@pytest.mark.parametrize("number", range(len(SMILES)))
def test_curvatures_are_those_of_hessians_at_two_parameter_values(made: Made, number: int) -> None:
    """lᵀ H(x) l along the force field's own modes, at its own minima, changes with x as the rows say."""
    landscape, x, change = (
        made.landscapes[number],
        perturbation(made.layout, 8, size=0.1),
        perturbation(made.layout, 9, size=0.1),
    )
    masses = np.where(made.molecules[number].atomic_numbers.numpy() > 1, 13.0, 1.0)
    rows = made.linearized(number, x).rows[0]["frequencies"]
    labels = hessians(made.potential(made.truth), landscape.start, 2e-4)
    here = minimize(made.potential(x), [landscape.start], max_force=0.02, max_steps=1000)[0].coords
    two = [hessians(made.potential(at), landscape.start.at(here)) for at in (x, x + change)]
    residuals, slopes = [], []
    for i, coords in enumerate(here):
        own = normal_modes(two[0][i], coords, masses)
        label = normal_modes(labels[i], landscape.start.coords.numpy()[i], masses).wavenumbers
        flat = own.directions.reshape(len(label), -1)
        mine, then = (np.einsum("mi,ij,mj->m", flat, h[i], flat) for h in two)
        unit = np.sign(own.wavenumbers) * own.wavenumbers**2 / mine
        factor = (2.0 * np.maximum(label, 150.0) * 50.0)[label > 20.0]
        residuals.append((np.sign(label) * label**2 - unit * mine)[label > 20.0] / factor)
        slopes.append((unit * (then - mine))[label > 20.0] / factor)
    scale = np.sqrt(len(rows.targets))
    for found, wanted in (
        (rows.residuals(x[landscape.columns]), np.concatenate(residuals) / scale),
        (rows.features @ change[landscape.columns], np.concatenate(slopes) / scale),
    ):
        np.testing.assert_allclose(found, wanted, rtol=5e-3, atol=5e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("number", range(len(SMILES)))
def test_displacements_and_energies_follow_minimizations_at_other_parameters(made: Made, number: int) -> None:
    """Residuals at x + dx after relaxing there, against the rows that were linearized at x."""
    landscape = made.landscapes[number]
    x = perturbation(made.layout, 5, size=0.1)
    change = 0.1 * perturbation(made.layout, 6, size=1.0)
    here, there = (made.linearized(number, at).rows[0] for at in (x, x + change))
    for kind in ("displacements", "conformers"):
        linear = here[kind].residuals((x + change)[landscape.columns])
        actual = there[kind].residuals((x + change)[landscape.columns])
        moved = np.abs(here[kind].residuals(x[landscape.columns]) - actual).max()
        assert moved > 0.0
        assert np.abs(linear - actual).max() < 0.15 * moved + 3e-3, kind


@pytest.mark.parametrize("number", [0, 1, 3])
def test_scan_residuals_are_differences_of_energies(made: Made, number: int) -> None:
    landscape, x = made.landscapes[number], perturbation(made.layout, 11)
    found = made.linearized(number, x).rows[0]
    rows = found["scans"]
    assert len(rows.targets) == 4
    np.testing.assert_allclose(rows.residuals(made.truth[landscape.columns]), 0.0, atol=1e-8)
    here = minimize(made.potential(x), [landscape.start], max_force=0.02, max_steps=1000)[0].coords
    labels, _ = evaluate(
        made.layout.apply(made.force_field, made.truth), made.topologies[number], landscape.start.coords.numpy()
    )
    mine, _ = evaluate(made.layout.apply(made.force_field, x), made.topologies[number], here)
    expected = labels - mine
    np.testing.assert_allclose(found["conformers"].residuals(x[landscape.columns]), expected - expected.mean(), atol=1e-7)


def test_at_the_truth_nothing_is_left(made: Made) -> None:
    rows = made.set_of().linearized(made.truth)
    assert not rows.lost.any()
    for kinds, landscape in zip(rows.rows, made.landscapes, strict=True):
        for kind in KINDS:
            np.testing.assert_allclose(kinds[kind].residuals(made.truth[landscape.columns]), 0.0, atol=5e-2, err_msg=kind)


def test_known_parameters_are_recovered_and_rounds_lower_the_objective(made: Made) -> None:
    params = FitSmirnoff(objective=Objective(rounds=6), prior_strength=1e-4, molecule_strength=None)
    found = fit(made, params, made.set_of())
    values = [each.objective for each in found.rounds]
    assert values == sorted(values, reverse=True)
    errors = made.set_of().linearized(found.posterior.x).errors(found.posterior.x)["train"]
    before = made.set_of().linearized(np.zeros(len(made.layout))).errors(np.zeros(len(made.layout)))["train"]
    assert errors["frequency_rms_per_cm"] < 0.1 * before["frequency_rms_per_cm"]
    assert errors["bond_rms_angstrom"] < 0.1 * before["bond_rms_angstrom"]
    np.testing.assert_allclose(found.posterior.optimum.kkt.worst, 0.0, atol=1e-7)


def test_a_step_that_loses_a_minimum_is_shortened(made: Made) -> None:
    class Narrow(LandscapeSet):
        """Loses the first minimum farther than half way to the first step's end."""

        def linearized(self, x: FloatArray) -> LandscapeRows:
            rows = super().linearized(x)
            if np.linalg.norm(x / made.layout.prior().widths) > limit:
                rows.kept[0][0] = False
            return rows

    params = FitSmirnoff(objective=Objective(rounds=1))
    free = fit(made, params, made.set_of())
    limit = 0.5 * float(np.linalg.norm(free.posterior.x / made.layout.prior().widths))
    narrow = made.set_of()
    held = fit(made, params, Narrow(narrow.members, len(made.layout), made.potential))
    assert (free.rounds[-1].step, held.rounds[-1].step, held.rounds[-1].lost) == (1.0, 0.4, 0)
    np.testing.assert_allclose(held.posterior.x, 0.4 * free.posterior.x, rtol=1e-6, atol=1e-9)


def test_the_same_landscapes_give_the_same_bytes(made: Made) -> None:
    x = perturbation(made.layout, 2, size=0.1)
    one, other = (made.set_of().linearized(x).equations()["train"] for _ in range(2))
    for kind in KINDS:
        assert one[kind].gram.tobytes() == other[kind].gram.tobytes()


def test_weights_of_zero_leave_landscapes_out(made: Made) -> None:
    without = Objective(frequency_weight=0.0, displacement_weight=0.0, conformer_energy_weight=0.0, scan_weight=0.0)
    with pytest.raises(PesfitError, match="nothing to fit to"):
        fit(made, FitSmirnoff(objective=without), made.set_of())


def test_a_molecule_with_scans_alone_has_their_rows_and_no_others(made: Made) -> None:
    landscape = made.landscape("0", made.molecules[0], with_minima=False)
    rows = made.set_of([landscape]).linearized(made.truth)
    assert {kind: len(each.targets) for kind, each in rows.rows[0].items()} == {
        "frequencies": 0, "displacements": 0, "conformers": 0, "scans": 4,
    }  # fmt: skip
    assert rows.errors(made.truth)["train"]["scan_rms_kcal_per_mol"] == pytest.approx(0.0, abs=1e-8)
    assert not rows.lost.any()


def test_minima_without_hessians_have_displacements_and_no_frequencies(made: Made) -> None:
    x = perturbation(made.layout, 5, size=0.1)
    without = made.landscape("0", made.molecules[0], with_hessians=False)
    rows, expected = made.set_of([without]).linearized(x).rows[0], made.linearized(0, x).rows[0]
    assert len(rows["frequencies"].targets) == 0
    np.testing.assert_array_equal(rows["displacements"].features, expected["displacements"].features)
    np.testing.assert_array_equal(rows["displacements"].targets, expected["displacements"].targets)

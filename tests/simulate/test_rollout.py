"""The whole of stage 08 on two molecules, with potentials that are good, bad and picky."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import DataError, MoleculeError, TooManyFailuresError
from pesfit.data.dataset import ConformerDataset, Record, read_failures
from pesfit.params.evaluation import Nve, Nvt, Probes, Rollout
from pesfit.potentials.interface import Batch, Potential, Prediction
from pesfit.potentials.model import Model, PreparedMolecule
from pesfit.potentials.terms import Terms
from pesfit.simulate.loop import Protocol, simulate
from pesfit.simulate.molecules import SimulatedMolecule
from pesfit.simulate.rollout import run_rollouts
from pesfit.uncertainty.calibration import Calibration
from pesfit.uncertainty.standard_deviations import StandardDeviations
from tests.simulate import samples

SMILES = ("CCO", "CC(=O)N")

THRESHOLD = 0.6

PARAMS = Rollout(
    replicas=3,
    timestep_fs=0.5,
    temperature_kelvin=300.0,
    nve=Nve(length_fs=60.0),
    nvt=Nvt(length_fs=80.0, equilibration_fs=20.0),
    observe_fs=2.0,
    frame_fs=10.0,
    min_reference_frames=10,
    label_frames=4,
    probes=Probes(temperatures_kelvin=(), stretch_angstrom=(0.3,), conformers=2),
    shards=2,
    max_failed_fraction=0.3,
)


class Leaky(Potential):
    """Forces that are not the gradient of the energy: what pushes an atom pulls it a little less."""

    conservative = False

    def __init__(self, inner: Potential) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, batch: Batch) -> Prediction:
        prediction = self.inner(batch)
        turned = torch.roll(prediction.forces, 1, dims=1)
        return Prediction(prediction.energy, prediction.forces + 0.2 * turned)


class Picky(Potential):
    """Knows no nitrogen."""

    def __init__(self, inner: Potential) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, batch: Batch) -> Prediction:
        if bool((batch.atomic_numbers == 7).any()):
            raise MoleculeError("no nitrogen here")
        prediction: Prediction = self.inner(batch)
        return prediction


class Growing:
    """Deviations that grow with the distance from where the molecule was first asked about."""

    def __call__(self, coords: FloatArray, reference: FloatArray | None = None) -> StandardDeviations:
        away = coords - (coords[0] if reference is None else reference)
        distance = np.sqrt((away**2).sum(axis=(1, 2)))
        return StandardDeviations(distance, distance, np.abs(away))


class Simple(Model):
    """A potential with the terms of its molecules, and, where it is asked for, deviations and a domain."""

    needs_bonds = True

    def __init__(self, potential: Potential, *, with_domain: bool = False) -> None:
        super().__init__("simple", potential)
        self.calibration = Calibration(domain_threshold=THRESHOLD) if with_domain else None

    def prepare(
        self, atomic_numbers: IntArray, smiles: str | None, where: str, charges: FloatArray | None = None
    ) -> PreparedMolecule:
        del where
        (topology,) = (one for one in samples.topologies(*SMILES) if one.smiles == smiles)
        np.testing.assert_array_equal(charges, topology.charges)
        uncertainty = None if self.calibration is None else Growing()
        return PreparedMolecule(atomic_numbers, smiles, 0, Terms.from_topology(topology), "dataset", uncertainty)


@pytest.fixture(scope="module")
def molecules() -> list[SimulatedMolecule]:
    """Ethanol with a reference trajectory in two rows, by the force field itself, and acetamide with three conformers."""
    potential, molecules = samples.smirnoff(*SMILES), samples.molecules(*SMILES, n_replicas=3)
    (run, _) = simulate(potential, molecules, Protocol(0.5, 400, 20, 1, 300.0, 10.0, seed=77))
    made = []
    for i, (molecule, topology) in enumerate(zip(molecules, samples.topologies(*SMILES), strict=True)):
        coords = run.coords[:, 5:].reshape(-1, molecule.n_atoms, 3) if i == 0 else molecule.coords
        rows = [
            Record(
                id=f"{SMILES[i]}/{number:05d}",
                smiles=topology.smiles,
                atomic_numbers=molecule.atomic_numbers,
                coords=part,
                energy=np.zeros(len(part)),
                forces=None,
                charges=None,
                total_charge=0,
                group=SMILES[i],
                source="test/trajectory",
                frame=np.arange(len(part)),
            )
            for number, part in enumerate(np.array_split(coords, 2) if i == 0 else [coords])
        ]
        made.append(SimulatedMolecule(f"test/{SMILES[i]}", tuple(rows), coords[-3:], topology, "GFN2-xTB" if i == 0 else "MP2"))
    return made


@pytest.fixture(scope="module")
def models() -> dict[str, Model]:
    good = samples.smirnoff(*SMILES)
    return {"good": Simple(good, with_domain=True), "leaky": Simple(Leaky(good)), "picky": Simple(Picky(good))}


@pytest.fixture(scope="module")
def output(molecules, models, tmp_path_factory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("rollout")
    metrics = run_rollouts(models, molecules, PARAMS, folder / "rollouts", folder / "timing.json")
    return folder, metrics


def test_metrics_say_what_is_good_and_what_leaks(output) -> None:
    metrics = output[1]
    good, leaky = (metrics["potentials"][name]["nve"] for name in ("good", "leaky"))
    assert metrics["n_molecules"] == 2
    assert good["n_replicas"] == good["n_replicas_with_drift"] == 6
    assert good["stable_fraction"] == 1.0
    assert good["stable_time_ps"] == pytest.approx(0.06)
    assert good["drift_magnitude_kcal_per_mol_per_ps_per_atom"] < 0.1
    assert leaky["drift_magnitude_kcal_per_mol_per_ps_per_atom"] > 10 * good["drift_magnitude_kcal_per_mol_per_ps_per_atom"]
    nvt = metrics["potentials"]["good"]["nvt"]
    assert 150.0 < nvt["temperature_kelvin"] < 450.0
    assert 0.0 < nvt["distances_mae"] < metrics["potentials"]["leaky"]["nvt"]["distances_mae"] + 0.5
    assert 0.5 < nvt["force_mae_kcal_per_mol_per_angstrom"] < 20.0
    json.dumps(metrics, allow_nan=False)


def test_a_molecule_that_a_potential_refuses_is_a_failure_and_the_other_goes_on(output) -> None:
    folder, metrics = output
    (failure,) = read_failures(folder / "rollouts" / "failures.csv")
    assert failure.id == "picky/test/CC(=O)N"
    assert failure.message == "no nitrogen here"
    assert metrics["n_failures"] == 1
    assert metrics["potentials"]["picky"]["nvt"]["n_replicas"] == 3


def test_measures_are_there_for_every_molecule(output) -> None:
    rows = json.loads((output[0] / "rollouts" / "measures.json").read_text())
    assert [(row["potential"], row["dynamics"], row["molecule"]) for row in rows if row["potential"] == "good"] == [
        ("good", dynamics, molecule) for dynamics in ("nve", "nvt") for molecule in ("test/CCO", "test/CC(=O)N")
    ]
    ethanol, acetamide = (row for row in rows if row["potential"] == "good" and row["dynamics"] == "nvt")
    assert acetamide["distances_mae"] is None, "three conformers are no distribution"
    assert acetamide["force_mae_kcal_per_mol_per_angstrom"] is None, "its labels are of another method"
    times = [time for time, _ in ethanol["force_mae_over_time_ps"]]
    assert times == sorted(times)
    assert len(times) > 1
    assert 0.0 <= min(times) < max(times) <= 0.08


def test_trajectories_are_data_sets_with_the_potential_s_own_labels(output, models, molecules) -> None:
    dataset = ConformerDataset(output[0] / "rollouts" / "trajectories" / "good")
    assert dataset.level_of_theory == {"rollout/good": "pesfit good"}
    rows = list(dataset)
    assert len(rows) == 2 * 2 * 3
    assert rows[0].id == "nve/test/CCO/0000/00000"
    assert rows[0].frame.tolist() == [0, 20, 40, 60, 80, 100, 120]
    assert rows[0].smiles == molecules[0].first.smiles
    np.testing.assert_array_equal(rows[0].coords[0], molecules[0].starts[0])
    molecule = replace(samples.molecules(*SMILES)[0], coords=rows[0].coords)
    still = Protocol(1e-9, 1, temperature_kelvin=0.0, max_energy_change=1e6)
    (run,) = simulate(models["good"].potential, [molecule], still)
    np.testing.assert_allclose(rows[0].energy, run.potential_energy[:, 0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(rows[0].forces, run.forces[:, 0], rtol=0, atol=1e-8)


def test_energies_of_all_observations_are_kept(output) -> None:
    table = pa.ipc.open_file(output[0] / "rollouts" / "energies.arrow").read_all().to_pylist()
    row = next(row for row in table if (row["potential"], row["dynamics"], row["replica"]) == ("good", "nve", 1))
    assert row["stopped"] is None
    assert row["time_fs"] == [2.0 * i for i in range(31)]
    total = np.array(row["potential_energy"]) + np.array(row["kinetic_energy"])
    assert np.ptp(total) < 0.3 < np.ptp(row["kinetic_energy"])


def test_a_rollout_carries_its_uncertainty_and_says_when_it_left_the_domain(output) -> None:
    table = pa.ipc.open_file(output[0] / "rollouts" / "energies.arrow").read_all().to_pylist()
    dataset = ConformerDataset(output[0] / "rollouts" / "trajectories" / "good")
    n_left = 0
    for row, record in zip((row for row in table if row["potential"] == "good"), dataset, strict=True):
        away = np.linalg.norm(record.coords - record.coords[0], axis=-1).max(axis=-1)
        np.testing.assert_allclose(row["force_std"], away, rtol=1e-12)
        assert row["frame_fs"] == (0.5 * record.frame).tolist()
        expected = next((0.5 * frame for frame, far in zip(record.frame, away, strict=True) if far > THRESHOLD), None)
        assert row["left_domain_fs"] == expected
        n_left += expected is not None
    assert 0 < n_left < 12
    summaries = output[1]["potentials"]["good"]
    assert sum(6 * summaries[dynamics]["left_domain_fraction"] for dynamics in summaries) == pytest.approx(n_left)
    assert "left_domain_fraction" not in output[1]["potentials"]["leaky"]["nvt"]
    assert all(row["force_std"] is None for row in table if row["potential"] == "leaky")


def test_probes_are_beside_the_trajectories(output) -> None:
    probes = ConformerDataset(output[0] / "rollouts" / "probes")
    assert probes.level_of_theory == {"probe/stretched-0.3A": "GFN2-xTB"}
    assert [record.n_conformers for record in probes] == [2, 2]
    assert output[1]["n_probe_failures"] == 0


@pytest.mark.usefixtures("worker_pool")
def test_bytes_do_not_depend_on_the_number_of_workers(output, models, molecules, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PESFIT_WORKERS", "2")
    metrics = run_rollouts(models, molecules, PARAMS, tmp_path / "rollouts")
    assert metrics == output[1]
    before = {path.relative_to(output[0] / "rollouts"): path for path in (output[0] / "rollouts").rglob("*") if path.is_file()}
    assert len(before) == 3 * 3 + 3 + 4
    for name, path in before.items():
        assert (tmp_path / "rollouts" / name).read_bytes() == path.read_bytes(), name


def test_timing_is_apart_from_what_is_declared(output) -> None:
    timing = json.loads((output[0] / "timing.json").read_text())
    assert timing["good"]["nvt"]["replica_steps_per_second"] > 100
    assert timing["good"]["nvt"]["ns_per_day"] > 0.0


def test_nothing_to_simulate_or_too_many_failures_stop_the_stage(molecules, models, tmp_path) -> None:
    with pytest.raises(DataError, match="no molecule of xtb, rmd17, md17, espaloma has test conformers"):
        run_rollouts(models, [], PARAMS, tmp_path)
    strict = PARAMS.model_copy(update={"max_failed_fraction": 0.1})
    with pytest.raises(TooManyFailuresError, match="1 of 2 molecules failed"):
        run_rollouts({"picky": models["picky"]}, molecules, strict, tmp_path)

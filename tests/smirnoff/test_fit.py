"""The whole fit on stored data: recovery of known parameters, files, independence of workers, continuation."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pesfit.core.exceptions import DataError, ParamsError, TooManyFailuresError
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from pesfit.data.minima import Landscapes, MoleculeMinima
from pesfit.data.splits import SplitRow, Splits
from pesfit.data.topology import ForceField, ParameterizedSet
from pesfit.parameterize.force_field import read_force_field
from pesfit.parameterize.stage import parameterize_datasets
from pesfit.params.fit_smirnoff import FitSmirnoff, Objective, Train, TrainProperTorsions
from pesfit.params.preparation import AssignCharges, Parameterize
from pesfit.potentials.interface import Conformers
from pesfit.potentials.minimize import minimize
from pesfit.potentials.terms import Terms
from pesfit.potentials.vibrations import hessians
from pesfit.smirnoff.exact import accumulate as accumulate_module
from pesfit.smirnoff.exact.landscapes import KINDS
from pesfit.smirnoff.fit import fit_smirnoff
from pesfit.smirnoff.parameters import Layout, without_linear_torsions
from pesfit.smirnoff.potential import SmirnoffPotential
from pesfit.statistics.normal_equations import load
from tests import openff_oracle
from tests.smirnoff.samples import evaluate, perturbation

SMILES = ("CCO", "CC(=O)NC", "CC#N", "CSC", "C=CC=O", "c1cnoc1")
N_CONFORMERS = 20


@dataclass(frozen=True)
class Data:
    """What stages 02 to 05 leave, with labels from a force field that is known."""

    datasets: dict[str, ConformerDataset]
    parameterized: ParameterizedSet
    splits: Splits
    truth: ForceField


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return make(tmp_path_factory.mktemp("data"))


def make(folder: Path, noise: float = 0.0, names: tuple[str, ...] = SMILES) -> Data:
    records = []
    for i, smiles in enumerate(names):
        molecule = openff_oracle.molecule(smiles, N_CONFORMERS, 0.08, seed=i)
        charges = molecule.charges - molecule.charges.mean()
        zeros = np.zeros(N_CONFORMERS)
        records.append(
            Record(
                f"m/{i}", molecule.smiles, molecule.atomic_numbers.astype(np.int32), molecule.coords, zeros,
                np.zeros_like(molecule.coords), charges, 0, molecule.smiles, "made/one" if i % 2 else "made/two", np.arange(N_CONFORMERS),
            )
        )  # fmt: skip
    write(folder / "unlabelled", records)
    source = {"made": ConformerDataset(folder / "unlabelled")}
    (folder / "parameterized").mkdir()
    parameterize_datasets(source, Parameterize(charges=AssignCharges(methods=("dataset",))), folder / "parameterized")
    parameterized = ParameterizedSet.open(folder / "parameterized")
    topologies = [parameterized[number] for number in range(len(parameterized))]
    layout = Layout.of(parameterized.force_field, without_linear_torsions(Train(), parameterized.force_field, topologies))
    truth = layout.apply(parameterized.force_field, perturbation(layout, seed=9))
    rng = np.random.default_rng(0)
    labeled, rows = [], []
    for i, record in enumerate(records):
        topology = parameterized.topology("made", record.id)
        assert topology is not None
        energy, forces = evaluate(truth, topology, record.coords)
        energy = energy + noise * rng.normal(size=energy.shape)
        forces = forces + noise * rng.normal(size=forces.shape)
        split = np.repeat(np.array([0, 1, 2], dtype=np.uint8), [14, 3, 3]) if i < 5 else np.full(20, 2, dtype=np.uint8)
        rows.append(SplitRow("made", record.id, record.group, split))
        labeled.append(replace(record, energy=energy, forces=forces))
    write(folder / "made", labeled)
    return Data({"made": ConformerDataset(folder / "made")}, parameterized, Splits(rows), truth)


def write(path: Path, records: list[Record]) -> None:
    with DatasetWriter(path, {"made/one": "MM", "made/two": "MM"}) as writer:
        for record in records:
            writer.write(record)


PARAMS = FitSmirnoff(shards=4, prior_strength="evidence")  # which trusts labels without noise


def fit(data: Data, folder: Path, params: FitSmirnoff = PARAMS) -> dict[str, Any]:
    return fit_smirnoff(
        data.datasets, data.parameterized, data.splits, params, folder / "out", scratch=folder / "scratch", runs=folder / "runs"
    )


@pytest.fixture(scope="module")
def fitted(data: Data, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("fitted")
    return folder, fit(data, folder)


def rows_of(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="") as stream:
        yield from csv.DictReader(stream)


def test_perturbed_parameters_are_recovered_and_errors_vanish(data: Data, fitted: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = fitted
    rows = list(rows_of(folder / "out" / "parameters.csv"))
    determined = [row for row in rows if row["determined"] == "yes"]
    assert len(determined) > 0.6 * len(rows)
    compared = 0
    for row in determined:
        table = data.truth.tables[row["handler"]]
        index = next(
            i for i, smirks in enumerate(table.smirks)
            if smirks == row["smirks"] and row["periodicity"] in ("", str(round(table.values[i, 1])))
        )  # fmt: skip
        expected = table.values[index, table.columns.index(row["column"])]
        assert float(row["after"]) == pytest.approx(expected, rel=1e-6, abs=1e-8), row
        compared += float(row["before"]) != pytest.approx(expected, rel=1e-3)
    assert compared > 20
    assert metrics["errors"]["train"]["all"]["after"]["force_rmse_kcal_per_mol_per_angstrom"] < 1e-5
    assert metrics["errors"]["validation"]["all"]["after"]["energy_rmse_kcal_per_mol"] < 1e-5
    assert metrics["errors"]["train"]["all"]["before"]["force_rmse_kcal_per_mol_per_angstrom"] > 1.0
    assert max(metrics["kkt"].values()) < 1e-8
    json.dumps(metrics, allow_nan=False)
    assert list((folder / "runs").glob("events.out.tfevents.*"))
    assert all((folder / "out" / name).read_bytes()[:4] == b"\x89PNG" for name in ("changes.png", "path.png"))


def test_parameters_that_no_training_molecule_uses_are_not_trained(data: Data, fitted: tuple[Path, dict[str, Any]]) -> None:
    """The last molecule is only tested on: what it alone uses stays as it is."""
    *training, tested = (data.parameterized[number] for number in range(len(SMILES)))
    table = data.parameterized.force_field.tables["Bonds"]
    alone = set(tested.bond_parameters.tolist()) - {row for t in training for row in t.bond_parameters.tolist()}
    trained = {row["smirks"] for row in rows_of(fitted[0] / "out" / "parameters.csv")}
    assert alone
    assert not trained & {table.smirks[row] for row in alone}
    assert {table.smirks[row] for row in training[0].bond_parameters} <= trained


def test_written_force_field_holds_the_fit_and_nothing_else_changed(data: Data, fitted: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = fitted
    assert metrics["exported_energy_difference_to_openmm_kcal_per_mol"] < 1e-6
    assert metrics["openmm_check"]["molecules"] == 5  # nitrile, sulfide, amide, aldehyde, alcohol
    assert metrics["openmm_check"]["not_minimized"] == 0
    assert metrics["openmm_check"]["largest_drift_kcal_per_mol_per_atom"] <= 0.1
    assert metrics["exported_charges"]["library_molecules"] == len(SMILES)
    head = (folder / "out" / "force-field.offxml").read_text()[:2000]
    assert "starting from openff_unconstrained-2.1.0.offxml" in head
    assert "made/two (MM): 3/42, 3/9, 3/9" in head
    assert 'smirks="[#1:1]-[*:2]"' in (folder / "out" / "force-field-constrained.offxml").read_text()
    found, _ = read_force_field(str(folder / "out" / "force-field.offxml"))
    start = data.parameterized.force_field
    after = {(row["handler"], row["smirks"], row["periodicity"], row["column"]): float(row["after"])
             for row in rows_of(folder / "out" / "parameters.csv")}  # fmt: skip
    n_changed = 0
    for handler, table in start.tables.items():
        assert found.tables[handler].smirks == table.smirks
        for i, smirks in enumerate(table.smirks):
            periodicity = str(round(table.values[i, 1])) if handler.endswith("Torsions") else ""
            for column, name in enumerate(table.columns):
                expected = after.get((handler, smirks, periodicity, name), table.values[i, column])
                assert found.tables[handler].values[i, column] == pytest.approx(expected, rel=1e-9, abs=1e-12)
                n_changed += expected != table.values[i, column]
    assert n_changed > 50
    assert found.tables["vdW"].values.tobytes() == start.tables["vdW"].values.tobytes()


@pytest.mark.usefixtures("worker_pool")
@pytest.mark.slow
def test_bytes_do_not_depend_on_workers(
    data: Data, fitted: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accumulate_module, "WORTH_WORKERS", 0)
    monkeypatch.setenv("PESFIT_WORKERS", "2")
    metrics = fit(data, tmp_path)
    assert json.dumps(metrics) == json.dumps(fitted[1])
    assert contents(tmp_path / "out") == contents(fitted[0] / "out")
    assert not (tmp_path / "scratch").exists()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_goes_on_from_finished_shards_and_ends_in_the_same_bytes(
    data: Data, fitted: tuple[Path, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Path] = []
    save = accumulate_module.save_shard

    def killed_at_third(path: Path, shard: Any) -> None:
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(path)
        save(path, shard)

    monkeypatch.setattr(accumulate_module, "save_shard", killed_at_third)
    with pytest.raises(KeyboardInterrupt):
        fit(data, tmp_path)
    times = [path.stat().st_mtime_ns for path in done]
    again: list[Path] = []
    monkeypatch.setattr(accumulate_module, "save_shard", lambda path, shard: (again.append(path), save(path, shard)))
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)
    fit(data, tmp_path)
    assert [path.stat().st_mtime_ns for path in done] == times
    assert len(again) == 2
    assert contents(tmp_path / "out") == contents(fitted[0] / "out")


def test_added_periodicities_are_fitted_and_written(data: Data, tmp_path: Path) -> None:
    train = Train(proper_torsions=TrainProperTorsions(add_periodicities=(1, 2, 3, 4)))
    metrics = fit(data, tmp_path, FitSmirnoff(train=train, prior_strength=0.01))
    found, _ = read_force_field(str(tmp_path / "out" / "force-field.offxml"))
    table, start = found.tables["ProperTorsions"], data.parameterized.force_field.tables["ProperTorsions"]
    assert len(table.smirks) > len(start.smirks)
    assert tuple(dict.fromkeys(table.smirks)) == tuple(dict.fromkeys(start.smirks))
    assert metrics["exported_energy_difference_to_openmm_kcal_per_mol"] < 1e-6


@pytest.mark.parametrize("zero", ["min", "none"])
@pytest.mark.slow
def test_other_energy_zeros_recover_too(data: Data, tmp_path: Path, zero: str) -> None:
    metrics = fit(
        data, tmp_path, FitSmirnoff(objective=Objective(energy_zero=zero), prior_strength="evidence", molecule_strength=None)
    )  # type: ignore[arg-type]
    assert metrics["errors"]["train"]["all"]["after"]["energy_rmse_kcal_per_mol"] < 1e-4


def test_molecules_that_fail_are_listed_and_counted(data: Data, tmp_path: Path) -> None:
    records = list(data.datasets["made"])
    coords = records[1].coords.copy()
    coords[4, 1] = coords[4, 0]
    records[1] = replace(records[1], coords=coords)
    write(tmp_path / "made", records)
    broken = replace(data, datasets={"made": ConformerDataset(tmp_path / "made")})
    metrics = fit(broken, tmp_path, FitSmirnoff(max_failed_fraction=0.2))
    assert metrics["molecules_failed"] == 1
    text = (tmp_path / "out" / "failures.csv").read_text()
    assert "made/m/1,fit_smirnoff,CoincidentAtomsError" in text
    assert "conformer 4" in text
    with pytest.raises(TooManyFailuresError):
        fit(broken, tmp_path, FitSmirnoff())


def test_what_cannot_be_fitted_is_refused(data: Data, tmp_path: Path) -> None:
    nothing = replace(data, splits=Splits(replace(row, split=np.full(20, 2, dtype=np.uint8)) for row in data.splits))
    with pytest.raises(DataError, match="training set is empty"):
        fit(nothing, tmp_path)
    with pytest.raises(ParamsError, match="is no source"):
        fit(data, tmp_path, FitSmirnoff(objective=Objective(source_weights={"mude": 2.0})))
    unknown = Train(proper_torsions=TrainProperTorsions(include=("t999",)))
    with pytest.raises(ParamsError, match="'t999' is neither id nor SMIRKS"):
        fit(data, tmp_path, FitSmirnoff(train=unknown))


def minima_of(data: Data) -> Landscapes:
    """Two minima of each molecule by the force field that is known, with Hessians; and molecules that the fit cannot use."""
    truth, found = SmirnoffPotential(data.truth), []
    for record in data.datasets["made"]:
        topology = data.parameterized.topology("made", record.id)
        assert topology is not None
        numbers = torch.tensor(record.atomic_numbers, dtype=torch.int64)
        start = Conformers(numbers, torch.tensor(record.coords[:2]), Terms.from_topology(topology))
        ended = minimize(truth, [start], max_force=1e-4, max_steps=3000)[0]
        labels = replace(record.select([0, 1]), coords=ended.coords, energy=ended.energy, forces=ended.forces)
        curvatures = hessians(truth, start.at(ended.coords))
        found.append(MoleculeMinima(labels, "made", curvatures))
    first = found[0]
    broken = np.full_like(first.record.coords, 1.0)
    unknown = replace(first, record=replace(first.record, id="m/unknown"))
    return Landscapes((replace(first, record=replace(first.record, coords=broken)), *found[1:], unknown), (), {})


@pytest.mark.slow
def test_minima_are_fitted_and_those_that_fail_are_listed(data: Data, tmp_path: Path) -> None:
    metrics = fit_smirnoff(
        data.datasets, data.parameterized, data.splits, PARAMS.model_copy(update={"max_failed_fraction": 0.5}), tmp_path / "out",
        scratch=tmp_path / "scratch", minima=minima_of(data),
    )  # fmt: skip
    found = metrics["landscapes"]
    assert (found["molecules"], found["training"]) == (5, 4)
    assert (
        found["errors"]["train"]["after"]["bond_rms_angstrom"] < 0.1 * found["errors"]["train"]["before"]["bond_rms_angstrom"]
    )
    assert set(found["errors"]) == {"train", "test"}
    failures = (tmp_path / "out" / "failures.csv").read_text()
    assert "made/m/0" in failures
    assert set(load(tmp_path / "out" / "normal-equations.npz")["train"]) == {"energies", "forces", *KINDS}
    assert "## Minima and torsion scans" in (tmp_path / "out" / "summary.md").read_text()


def test_without_minima_it_is_a_fit_to_energies_and_forces(
    data: Data, fitted: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    fit_smirnoff(
        data.datasets, data.parameterized, data.splits, PARAMS, tmp_path / "out", scratch=tmp_path / "scratch",
        minima=Landscapes((), (), {}),
    )  # fmt: skip
    names = ("force-field.offxml", "normal-equations.npz", "posterior.npz")
    assert all((tmp_path / "out" / name).read_bytes() == (fitted[0] / "out" / name).read_bytes() for name in names)
    assert fitted[1]["landscapes"] == {"molecules": 0, "training": 0}

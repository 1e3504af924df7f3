"""A model's calibration against labels drawn with a known inflation, and what of it reaches a folder that is opened again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pesfit.application.geometries import embedded
from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import MoleculeError
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from pesfit.data.splits import SplitRow, Splits
from pesfit.evaluate import calibrate as module
from pesfit.evaluate.calibrate import Labels, calibrate
from pesfit.painn.last_layer import LastLayerPosterior, last_layer
from pesfit.painn.model import open_network
from pesfit.painn.potential import load_painn
from pesfit.potentials.interface import Batch, Potential, Prediction
from pesfit.potentials.model import Model, PreparedMolecule
from pesfit.smirnoff.model import open_smirnoff
from pesfit.uncertainty.calibration import CALIBRATION_FILE, Calibration
from pesfit.uncertainty.standard_deviations import StandardDeviations

FACTORS = {"energy": 4.0, "relative_energy": 2.0, "forces": 3.0}
DOMAIN_QUANTILE = 0.999


class Flat(Potential):
    """No energy, no force."""

    def forward(self, batch: Batch) -> Prediction:
        return Prediction(torch.zeros(batch.n_conformers, dtype=torch.float64), torch.zeros_like(batch.coords))


class Sure:
    """Standard deviations made of the coordinates."""

    def __call__(self, coords: FloatArray, reference: FloatArray | None = None) -> StandardDeviations:
        assert reference is not None
        along = np.linalg.norm(coords, axis=(1, 2))
        shift = np.abs(coords - reference).max(axis=(1, 2))
        return StandardDeviations(along, shift, np.abs(coords))


class Made(Model):
    """Knows no element but carbon."""

    needs_bonds = False

    def __init__(self) -> None:
        super().__init__("made", Flat())
        self.has_posterior = True

    def prepare(
        self, atomic_numbers: IntArray, smiles: str | None, where: str, charges: FloatArray | None = None
    ) -> PreparedMolecule:
        del charges
        if (atomic_numbers != 6).any():
            raise MoleculeError(f"{where}: not carbon")
        return PreparedMolecule(atomic_numbers, smiles, uncertainty=self.calibrated(Sure()))


def record(name: str, n_conformers: int, element: int = 6, source: str = "made/a") -> Record:
    rng = np.random.default_rng(len(name) + n_conformers)
    coords = rng.normal(size=(n_conformers, 4, 3)) * np.exp(rng.normal(size=(n_conformers, 1, 1)))
    forces = FACTORS["forces"] * np.abs(coords) * rng.normal(size=coords.shape)
    relative = FACTORS["relative_energy"] * np.abs(coords - coords[0]).max(axis=(1, 2)) * rng.normal(size=n_conformers)
    return Record(
        name, None, np.full(4, element, dtype=np.int32), coords, relative, forces, None, 0, name, source, np.arange(n_conformers)
    )  # fmt: skip


def labels(folder: Path, records: list[tuple[Record, int]], sources: tuple[str, ...] = ()) -> Labels:
    with DatasetWriter(folder / "data", {"made/a": "made", "made/b": "made"}) as writer:
        for one, _ in records:
            writer.write(one)
    rows = [SplitRow("data", one.id, one.group, np.full(one.n_conformers, split, dtype=np.uint8)) for one, split in records]
    return Labels({"data": ConformerDataset(folder / "data")}, Splits(rows), sources=sources)


def test_known_inflations_are_found_on_validation_and_the_domain_on_training(tmp_path: Path) -> None:
    one, other, training = record("one", 900), record("other", 300), record("training", 700)
    metrics = calibrate(Made(), tmp_path, labels(tmp_path, [(one, 1), (training, 0), (other, 1)]))
    found = Calibration.read(tmp_path)
    assert metrics is not None
    assert found is not None
    assert (metrics["validation_conformers"], metrics["training_conformers"], metrics["rows_left_out"]) == (1200, 700, 0)
    assert found.forces.factor == pytest.approx(FACTORS["forces"], rel=4 / np.sqrt(2 * 1200 * 12))
    assert found.relative_energy.factor == pytest.approx(FACTORS["relative_energy"], rel=4 / np.sqrt(2 * 1198))
    assert (found.relative_energy.n_values, found.energy.n_values) == (1198, 1200)
    assert 1200 * 12 - 5 <= found.forces.n_values <= 1200 * 12  # but for deviations that are 0 beside the others
    z = np.concatenate([of.energy / np.linalg.norm(of.coords, axis=(1, 2)) for of in (one, other)])
    assert found.energy.factor == pytest.approx(np.sqrt(np.mean(z[z != 0.0] ** 2)), rel=0.01)
    scores = found.forces.factor * np.linalg.norm(training.coords, axis=-1).max(axis=1)
    assert found.domain_threshold == pytest.approx(np.quantile(scores, DOMAIN_QUANTILE), rel=1e-12)
    assert metrics["forces_factor"] == found.forces.factor


@pytest.mark.usefixtures("worker_pool")
def test_neither_the_number_of_workers_nor_the_cutting_changes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = labels(tmp_path, [(record("one", 40), 1), (record("other", 11), 1), (record("training", 30), 0)])
    written = []
    for atoms, workers in ((50_000, "1"), (20, "1"), (20, "2")):
        monkeypatch.setitem(module.ATOMS_A_PIECE, False, atoms)
        monkeypatch.setenv("PESFIT_WORKERS", workers)
        calibrate(Made(), tmp_path, data)
        written.append((tmp_path / CALIBRATION_FILE).read_bytes())
    assert written[0] == written[1] == written[2]


def test_what_the_model_does_not_know_is_passed_over_and_counted(tmp_path: Path) -> None:
    rows = [(record("one", 40), 1), (record("silicon", 9, element=14), 1), (record("b", 50, source="made/b"), 1)]
    data = labels(tmp_path, [*rows, (record("training", 30), 0)])
    metrics = calibrate(Made(), tmp_path, data)
    assert metrics is not None
    assert (metrics["validation_conformers"], metrics["rows_left_out"]) == (90, 1)
    metrics = calibrate(Made(), tmp_path, replace(data, sources=("made/a",)))
    assert metrics is not None
    assert (metrics["validation_conformers"], metrics["rows_left_out"]) == (40, 1)


def test_large_sets_are_thinned_evenly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_VALIDATION", 10)
    monkeypatch.setattr(module, "MAX_TRAINING", 7)
    data = labels(tmp_path, [(record("one", 60), 1), (record("other", 40), 1), (record("training", 30), 0)])
    metrics = calibrate(Made(), tmp_path, data)
    assert metrics is not None
    assert (metrics["validation_conformers"], metrics["training_conformers"]) == (10, 7)
    assert metrics["relative_energy_values"] == 8  # six conformers of one row and four of the other, without the first of each


def test_without_validation_nothing_is_corrected_and_without_labels_of_forces_not_these(tmp_path: Path) -> None:
    metrics = calibrate(Made(), tmp_path, labels(tmp_path, [(record("training", 30), 0)]))
    found = Calibration.read(tmp_path)
    assert metrics is not None
    assert found is not None
    assert (found.forces.factor, found.energy.factor, metrics["forces_values"], metrics["energy_values"]) == (1.0, 1.0, 0, 0)
    assert found.domain_threshold is not None
    bare = replace(record("one", 40), forces=None)
    metrics = calibrate(Made(), tmp_path, labels(tmp_path / "bare", [(bare, 1)]))
    assert metrics is not None
    assert (metrics["forces_values"], metrics["relative_energy_values"]) == (0, 39)
    assert metrics["domain_threshold_kcal_per_mol_per_angstrom"] is None


def test_a_model_without_posterior_is_left_alone(tmp_path: Path) -> None:
    model = Made()
    model.has_posterior = False
    assert calibrate(model, tmp_path, Labels({}, Splits([]))) is None
    assert not (tmp_path / CALIBRATION_FILE).exists()


def test_a_calibrated_model_is_calibrated_again_from_its_raw_deviations(tmp_path: Path) -> None:
    data = labels(tmp_path, [(record("one", 40), 1), (record("training", 30), 0)])
    first = calibrate(Made(), tmp_path, data)
    model = Made()
    model.calibration = Calibration.read(tmp_path)
    assert calibrate(model, tmp_path, data) == first
    assert model.calibration is not None


def test_opened_models_correct_their_deviations(smirnoff: Path, network: Path, tmp_path: Path) -> None:
    made = embedded("CCO", "CCO", 0)
    for family, source in (("smirnoff", smirnoff), ("network", network)):
        folder = tmp_path / family
        folder.mkdir()
        for file in source.iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        if family == "network":
            n = len(last_layer(load_painn(folder)))
            LastLayerPosterior(np.zeros(n), np.eye(n), 1.0, 1.0, 1.0, 1.0).write(folder)
        found = []
        for calibration in (None, Calibration()):
            if calibration is not None:
                replace(calibration, forces=replace(calibration.forces, factor=3.0)).write(folder)
            model = open_smirnoff("it", folder / "force-field.offxml") if family == "smirnoff" else open_network("it", folder)
            assert (model.calibration is None) == (calibration is None)
            prepared = model.prepare(made.atomic_numbers, made.smiles, "ethanol")
            assert prepared.uncertainty is not None
            found.append(prepared.uncertainty(made.coords[None]))
        np.testing.assert_allclose(found[1].forces, 3.0 * found[0].forces, rtol=1e-12)
        np.testing.assert_allclose(found[1].energy, found[0].energy, rtol=1e-12)
        assert found[0].forces.max() > 0.0

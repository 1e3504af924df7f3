"""On real data: forces of molecules that a network was not trained on are the less certain ones."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu, spearmanr

from pesfit.application.geometries import embedded
from pesfit.chemistry.smiles import standard_masses
from pesfit.core.arrays import FloatArray, IntArray
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from pesfit.data.splits import SplitRow, Splits
from pesfit.models.open import open_model
from pesfit.painn.train.train_network import Folders, train_network
from pesfit.params.train_learned import Batching, LearningRate, Network, Optimizer, TrainLearned
from pesfit.potentials.gfn2 import Gfn2
from pesfit.potentials.gfn2_model import Gfn2Potential
from pesfit.potentials.interface import Conformers, collate
from pesfit.potentials.minimize import minimize
from pesfit.sources.xtb_dynamics import Langevin
from pesfit.uncertainty.standard_deviations import StandardDeviations

PARAMS = TrainLearned(
    network=Network(n_features=32, n_interactions=2, n_rbf=16),
    batching=Batching(size=10, n_shards=1),
    learning_rate=LearningRate(peak=4e-3),
    optimizer=Optimizer(ema_decay=0.99),
    num_epochs=15,
    early_stopping_patience=None,
    compile="never",
)
N_TRAINED, N_FRAMES = 200, 100


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of one molecule; labels are in kcal/mol and Å."""

    atomic_numbers: IntArray
    coords: FloatArray
    energy: FloatArray
    forces: FloatArray


def spread(rmd17: Path, molecule: str, n: int) -> Frames:
    """Read frames that are spread over a trajectory of revised MD17."""
    stored = np.load(rmd17 / f"npz_data/rmd17_{molecule}.npz", allow_pickle=False)
    which = np.linspace(0, len(stored["energies"]) - 1, n).astype(int)
    numbers = stored["nuclear_charges"].astype(np.int32)
    return Frames(numbers, *(stored[name][which].astype(np.float64) for name in ("coords", "energies", "forces")))


def made(smiles: str) -> Frames:
    """Run 300 fs of GFN2-xTB at 500 K."""
    molecule = embedded(smiles, smiles, 0)
    gfn2 = Gfn2(molecule.atomic_numbers, 0).energy_and_forces
    at_first = Conformers(torch.from_numpy(molecule.atomic_numbers.astype(np.int64)), torch.from_numpy(molecule.coords[None]))
    (start,) = minimize(Gfn2Potential(), [at_first], max_force=1.0, max_steps=500)
    dynamics = Langevin(standard_masses(molecule.atomic_numbers), 500.0, 10.0, 1.0)
    run = dynamics.run(gfn2, start.coords[0], np.random.default_rng(1))
    frames = list(itertools.islice(run, 60, 300, 6))
    return Frames(
        molecule.atomic_numbers,
        np.array([frame.coords for frame in frames]),
        np.array([frame.energy for frame in frames]),
        np.array([frame.forces for frame in frames]),
    )


def trained(folder: Path, frames: Frames) -> Path:
    """Train on three of five frames, validate on one, and return the folder of the network."""
    n = len(frames.energy)
    record = Record(
        "ethanol/0", None, frames.atomic_numbers, frames.coords, frames.energy, frames.forces, None, 0, "CCO", "rmd17", np.arange(n)
    )  # fmt: skip
    with DatasetWriter(folder / "data", {"rmd17": "PBE"}) as writer:
        writer.write(record)
    splits = Splits([SplitRow("data", record.id, record.group, np.resize(np.array([0, 0, 0, 1, 2], dtype=np.uint8), n))])
    folders = Folders(scratch=folder / "scratch", runs=folder / "runs")
    train_network("conservative", {"data": ConformerDataset(folder / "data")}, splits, PARAMS, folder / "net", folders=folders)
    return folder / "net"


@pytest.mark.slow
def test_another_molecule_is_told_from_the_one_that_was_trained_on(rmd17: Path, tmp_path: Path) -> None:
    ethanol = spread(rmd17, "ethanol", N_TRAINED * 5 // 3)
    model = open_model(trained(tmp_path, ethanol))

    def deviations(frames: Frames) -> StandardDeviations:
        uncertainty = model.prepare(frames.atomic_numbers, None, "frames").uncertainty
        assert uncertainty is not None
        return uncertainty(frames.coords)

    test = Frames(ethanol.atomic_numbers, ethanol.coords[4::5], ethanol.energy[4::5], ethanol.forces[4::5])
    inside = deviations(test)

    def auroc(frames: Frames) -> float:
        outside = deviations(frames).score
        return float(mannwhitneyu(outside, inside.score).statistic) / (len(outside) * len(inside.score))

    assert auroc(spread(rmd17, "aspirin", N_FRAMES)) > 0.99
    # Of ethanol's atoms, and labeled by another method than the frames of ethanol that nothing finds odd.
    assert auroc(made("COC")) > 0.95
    assert auroc(made("CCO")) < 0.7

    conformers = model.prepare(test.atomic_numbers, None, "test").conformers(test.coords)
    error = model.potential(collate([conformers])).forces.detach().numpy().reshape(test.coords.shape) - test.forces
    of_atoms = [np.linalg.norm(values, axis=2).ravel() for values in (inside.forces, error)]
    assert spearmanr(*of_atoms).statistic > 0.3

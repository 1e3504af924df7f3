"""Models as the pipeline leaves them: the output of a real fit, and networks with random weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from pesfit.data.splits import SplitRow, Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.painn.potential import PaiNNConfig, build_painn
from pesfit.parameterize.stage import parameterize_datasets
from pesfit.params.fit_smirnoff import FitSmirnoff
from pesfit.params.preparation import AssignCharges, Parameterize
from pesfit.params.train_learned import Network
from pesfit.smirnoff.fit import fit_smirnoff
from tests import openff_oracle
from tests.smirnoff.samples import evaluate

FITTED = ("CCO", "CO", "CC")
N_CONFORMERS = 12


@pytest.fixture(scope="session")
def smirnoff(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stage 06 writes for a few alcohols, with labels that the force field cannot reach."""
    folder = tmp_path_factory.mktemp("fitted")
    records = []
    rng = np.random.default_rng(0)
    for smiles in FITTED:
        molecule = openff_oracle.molecule(smiles, N_CONFORMERS, 0.06)
        zeros = np.zeros(N_CONFORMERS)
        records.append(
            Record(
                smiles, molecule.smiles, molecule.atomic_numbers.astype(np.int32), molecule.coords, zeros,
                np.zeros_like(molecule.coords), None, 0, molecule.smiles, "made", np.arange(N_CONFORMERS),
            )
        )  # fmt: skip
    _write(folder / "bare", records)
    data = {"made": ConformerDataset(folder / "bare")}
    parameterize_datasets(data, Parameterize(charges=AssignCharges(methods=("nagl",))), folder / "parameterized")
    parameterized = ParameterizedSet.open(folder / "parameterized")
    labeled, rows = [], []
    for record in records:
        topology = parameterized.topology("made", record.id)
        assert topology is not None
        energy, forces = evaluate(parameterized.force_field, topology, record.coords)
        energy, forces = (values * 1.05 + 0.5 * rng.normal(size=values.shape) for values in (energy, forces))
        labeled.append(replace(record, energy=energy, forces=forces))
        rows.append(SplitRow("made", record.id, record.group, np.repeat(np.array([0, 1, 2], dtype=np.uint8), [8, 2, 2])))
    _write(folder / "labeled", labeled)
    fit_smirnoff(
        {"made": ConformerDataset(folder / "labeled")},
        parameterized,
        Splits(rows),
        FitSmirnoff(molecule_strength=None),
        folder / "smirnoff",
        scratch=folder / "scratch",
    )
    return folder / "smirnoff"


def _write(path: Path, records: list[Record]) -> None:
    with DatasetWriter(path, {"made": "MM"}) as writer:
        for record in records:
            writer.write(record)


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What stage 07 writes, untrained: it knows H, C and O."""
    folder = tmp_path_factory.mktemp("learned") / "conservative"
    shape = Network(n_features=16, n_interactions=2, precision="float64")
    build_painn(PaiNNConfig("conservative", (1, 6, 8), shape), scale=5.0, seed=3).save(folder)
    return folder

"""A key of the metrics has one value and one interval, whichever stage prints it."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pesfit.core.process_group import ProcessGroup
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from pesfit.data.splits import SplitRow, Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.evaluate.predictions import predict_test, summaries
from pesfit.models.open import open_model
from pesfit.painn.potential import PaiNNConfig, build_painn
from pesfit.painn.train.datasets import load_training_data
from pesfit.painn.train.evaluate import evaluate_split
from pesfit.painn.train.train_network import fit_atomrefs
from pesfit.parameterize.stage import parameterize_datasets
from pesfit.params.fit_smirnoff import FitSmirnoff
from pesfit.params.preparation import AssignCharges, Parameterize
from pesfit.params.train_learned import LearnedObjective, Network
from pesfit.smirnoff.fit import fit_smirnoff
from pesfit.statistics.errors import summarize
from tests import openff_oracle
from tests.smirnoff.samples import evaluate

METRICS = Path(__file__).parents[2] / "outputs/metrics"
SMILES = ("C", "CC", "CO", "CN", "CF", "CCl", "C=C", "C#N", "C=O", "CS", "N#N", "CC#N")
TRAJECTORY = "made/trajectory"
CUTOFF = 4.0


@dataclass(frozen=True)
class Made:
    """Twelve molecules with test conformers, of which one has two rows apart, one a single conformer, and one a trajectory."""

    datasets: dict[str, ConformerDataset]
    parameterized: ParameterizedSet
    splits: Splits


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("shared-keys")
    records = [record(smiles, smiles, "made/conformers", 12, seed) for seed, smiles in enumerate(SMILES)]
    records += [record("again", "CO", "made/conformers", 12, 50), record("frames", "CO", TRAJECTORY, 240, 51)]
    write(folder / "bare", records)
    charges = Parameterize(charges=AssignCharges(methods=("gasteiger",)))
    parameterize_datasets({"made": ConformerDataset(folder / "bare")}, charges, folder / "parameterized")
    parameterized = ParameterizedSet.open(folder / "parameterized")
    write(folder / "made", [labeled(one, parameterized, seed) for seed, one in enumerate(records)])
    rows = []
    for one in records:
        split = np.resize(np.repeat(np.array([0, 2, 1], dtype=np.uint8), [6, 4, 2]), one.n_conformers)
        if one.id == "CC":
            split[7:10] = 0
        rows.append(SplitRow("made", one.id, one.group, split))
    return Made({"made": ConformerDataset(folder / "made")}, parameterized, Splits(rows))


def record(name: str, smiles: str, source: str, n_conformers: int, seed: int) -> Record:
    molecule = openff_oracle.molecule(smiles, n_conformers, 0.05, seed=seed)
    zeros, numbers = np.zeros(n_conformers), molecule.atomic_numbers.astype(np.int32)
    return Record(
        name, molecule.smiles, numbers, molecule.coords, zeros, np.zeros_like(molecule.coords), None, 0, smiles, source,
        np.arange(n_conformers),
    )  # fmt: skip


def labeled(one: Record, parameterized: ParameterizedSet, seed: int) -> Record:
    """Label by the force field, with errors that grow with the number of the molecule."""
    topology, rng = parameterized.topology("made", one.id), np.random.default_rng(seed)
    assert topology is not None
    energy, forces = evaluate(parameterized.force_field, topology, one.coords)
    return replace(
        one,
        energy=energy + (1.0 + seed) * rng.normal(size=energy.shape) + 10.0 * seed,
        forces=forces + (1.0 + seed) * rng.normal(size=forces.shape),
    )


def write(path: Path, records: list[Record]) -> None:
    with DatasetWriter(path, {"made/conformers": "MM", TRAJECTORY: "MM"}) as writer:
        for one in records:
            writer.write(one)


def compare(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Compare the keys that two summaries share, and return them."""
    shared = set(one) & set(other)
    for key in shared:
        first, second = one[key], other[key]
        if first is None or second is None:
            assert first == second, key
        else:
            assert first == pytest.approx(second, rel=1e-6, abs=1e-9), key
    return shared


@pytest.mark.slow
def test_06_and_09_print_the_same(made: Made, tmp_path: Path) -> None:
    """Errors of the gradient fit are compared with those of the exact one in `tests/smirnoff/gradient`."""
    metrics = fit_smirnoff(
        made.datasets,
        made.parameterized,
        made.splits,
        FitSmirnoff(prior_strength="evidence"),
        tmp_path / "out",
        scratch=tmp_path / "scratch",
    )
    models = {
        "smirnoff-initial": open_model(openff_oracle.FORCE_FIELD),
        "smirnoff": open_model(tmp_path / "out"),
    }
    found = summaries(predict_test(models, made.datasets, made.splits, made.parameterized))
    of_fit = metrics["errors"]["test"]
    assert set(of_fit) == set(found["smirnoff"]) == {"all", "made/conformers", TRAJECTORY}
    for source, group in of_fit.items():
        for label, potential in (("before", "smirnoff-initial"), ("after", "smirnoff")):
            counts = {key: value for key, value in group.items() if not isinstance(value, dict)}
            shared = compare(counts | group[label], found[potential][source])
            assert len(shared) == 4 + 8
            has_intervals = group[label]["energy_rmse_kcal_per_mol_interval_95"] is not None
            assert has_intervals == (source != TRAJECTORY)
    assert of_fit["all"]["molecules"] == 12
    assert of_fit["all"]["conformers"] == of_fit["all"]["energies"] + 1
    initial = found["smirnoff-initial"][TRAJECTORY]  # whose errors are white noise: frames are independent
    within = initial["force_rmse_kcal_per_mol_per_angstrom_interval_95_within_molecule"]
    assert within[0] < initial["force_rmse_kcal_per_mol_per_angstrom"] < within[1]


def test_07_and_09_print_the_same(made: Made, tmp_path: Path) -> None:
    train = load_training_data(made.datasets, made.splits, "train", CUTOFF)
    shape = Network(n_features=8, n_interactions=1, n_rbf=6, cutoff_angstrom=CUTOFF, precision="float64")
    atomrefs = fit_atomrefs(train)
    config = PaiNNConfig("conservative", atomrefs.elements, shape)
    potential = build_painn(config, atomrefs=torch.from_numpy(atomrefs.values), scale=atomrefs.scale, seed=1)
    potential.save(tmp_path / "conservative")
    test = load_training_data(made.datasets, made.splits, "test", CUTOFF)
    of_training = summarize(evaluate_split(potential, test, LearnedObjective(), ProcessGroup()).errors)
    models = {"conservative": open_model(tmp_path / "conservative")}
    of_report = summaries(predict_test(models, made.datasets, made.splits))["conservative"]
    assert list(of_training) == list(of_report)
    for source, summary in of_training.items():
        assert compare(summary, of_report[source]) == set(summary) == set(of_report[source])
    assert len(of_training[TRAJECTORY]) == 4 + 10 + 10 + 8


def test_the_committed_metrics_agree() -> None:
    fit, report = (json.loads((METRICS / f"{name}.json").read_text()) for name in ("fit_smirnoff", "analyse"))
    for source, group in fit["errors"]["test"].items():
        counts = {key: value for key, value in group.items() if not isinstance(value, dict)}
        for label, potential in (("before", "smirnoff-initial"), ("after", "smirnoff")):
            assert len(compare(counts | group[label], report["errors"][potential][source])) >= 8
    for variant in ("conservative", "direct"):
        of_training = json.loads((METRICS / f"train_learned-{variant}.json").read_text())["errors"]["test"]
        for source, group in of_training.items():
            assert len(compare(group, report["errors"][variant][source])) >= 8

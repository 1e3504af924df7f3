"""Data of one's own and labeled trajectories through stages 01 to 05, and from there into a fit's view of the data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from pesfit.application.label_dataset import label_dataset
from pesfit.application.labeler import Labeler
from pesfit.chemistry.smiles import mapped_smiles, standard_masses
from pesfit.cluster.stage import cluster_datasets
from pesfit.core.exceptions import ParamsError
from pesfit.data.dataset import ConformerDataset, DatasetWriter, open_datasets, read_failures
from pesfit.data.splits import TEST, TRAIN, Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.parameterize.stage import parameterize_datasets
from pesfit.params.preparation import (
    AssignCharges,
    Cluster,
    Convert,
    Download,
    OwnData,
    Parameterize,
    Sources,
    Split,
    SplitRule,
)
from pesfit.potentials.gfn2_model import Gfn2Potential
from pesfit.simulate.loop import Protocol, simulate
from pesfit.simulate.replicas import Replicas
from pesfit.simulate.rollout import frames
from pesfit.sources.convert import convert_sources
from pesfit.sources.download.stage import download_sources
from pesfit.split.stage import SPLITS_FILE, split_datasets
from tests.application.label_samples import row
from tests.sources.synthetic import make_frames

SMILES = ("CCO", "CO", "CC", "CCC", "COC", "CC=O")
BY_MOLECULE = SplitRule(source="mine", by="molecule", train=4, validation=1, test=1)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> OwnData:
    """What descent would have written of a few molecules."""
    made = [make_frames(smiles, 8) for smiles in SMILES]
    columns = {
        "smiles": [mapped_smiles(of.mol) for of in made],
        "coords": [of.coords.ravel().tolist() for of in made],
        "energy": [of.energy.tolist() for of in made],
        "forces": [of.forces.ravel().tolist() for of in made],
    }
    folder = tmp_path_factory.mktemp("mine") / "set"
    datasets.Dataset.from_dict(columns).save_to_disk(folder)
    return OwnData(name="mine", path=str(folder), level_of_theory="springs")


def run_stages(own: tuple[OwnData, ...], rules: tuple[SplitRule, ...], folder: Path, **cluster: Any) -> dict[str, Any]:
    """Stages 01 to 05, one folder each; returns the metrics of the last."""
    for name in ("raw", "arrow", "parameterized", "clustered", "splits"):
        (folder / name).mkdir(parents=True)
    sources = Sources(xtb=False, own=own)
    download_sources(sources, Download(), folder / "raw")
    convert_sources(folder / "raw", sources, Convert(max_failed_fraction=0.0), folder / "arrow")
    arrow = open_datasets(folder / "arrow")
    parameterize_datasets(arrow, Parameterize(charges=AssignCharges(methods=("nagl",))), folder / "parameterized")
    failed = {failure.id for failure in read_failures(folder / "parameterized" / "failures.csv")}
    cluster_datasets(arrow, Cluster(**cluster), folder / "clustered", excluded=failed, plot=folder / "sizes.png")
    return split_datasets(open_datasets(folder / "clustered"), Split(rules=rules), folder / "splits")


def molecules_in(folder: Path, name: str, code: int) -> set[str]:
    splits = Splits.open(folder / "splits" / SPLITS_FILE)
    data = ConformerDataset(folder / "clustered" / name)
    return {record.group for record in data if (splits.of(name, record.id) == code).any()}


def test_descents_data_go_through_all_stages(mine: OwnData, tmp_path: Path) -> None:
    metrics = run_stages((mine,), (BY_MOLECULE,), tmp_path, sources=("mine",), cutoff_angstrom=0.01, heavy_atoms=False)
    assert metrics["sources"]["mine"]["train"]["molecules"] == 4
    (test,) = molecules_in(tmp_path, "mine", TEST)
    assert test in {"CCO", "CO", "CC", "CCC", "COC", "CC=O"}
    parameterized = ParameterizedSet.open(tmp_path / "parameterized")
    assert all(parameterized.topology("mine", str(i)) is not None for i in range(6))
    clustered = ConformerDataset(tmp_path / "clustered" / "mine")
    assert [len(record.energy) for record in clustered] == [8] * 6
    assert clustered.level_of_theory == {"mine": "springs"}


def test_a_source_without_a_rule_is_refused_by_name(mine: OwnData, tmp_path: Path) -> None:
    rules = (SplitRule(source="xtb", by="molecule"),)
    with pytest.raises(ParamsError, match=r"no rule for source 'mine'.*add one such as \{source: mine, by: molecule\}"):
        run_stages((mine,), rules, tmp_path)


@pytest.fixture(scope="module")
def labeled(mine: OwnData, tmp_path_factory: pytest.TempPathFactory) -> OwnData:
    """Frames of dynamics of the one test molecule, labeled with GFN2-xTB."""
    folder = tmp_path_factory.mktemp("loop")
    run_stages((mine,), (BY_MOLECULE,), folder / "before")
    (group,) = molecules_in(folder / "before", "mine", TEST)
    like = row(group)
    numbers = like.atomic_numbers
    molecule = Replicas(f"mine/{group}", numbers, standard_masses(numbers), like.coords[:2])
    protocol = Protocol(0.5, 20, observe_every=2, frame_every=1, temperature_kelvin=500.0, seed=3)
    (run,) = simulate(Gfn2Potential(), [molecule], protocol)
    with DatasetWriter(folder / "trajectory", {"rollout/gfn2": "rollout"}) as writer:
        for record in frames(run, "gfn2", "nve", like):
            assert record.forces is not None
            writer.write(replace(record, energy=0.0 * record.energy, forces=0.0 * record.forces))
    label_dataset(Labeler("gfn2"), ConformerDataset(folder / "trajectory"), folder / "labeled")
    label_energy = np.concatenate([record.energy for record in ConformerDataset(folder / "labeled")])
    np.testing.assert_allclose(label_energy, run.potential_energy.ravel(), rtol=0, atol=1e-6)
    return OwnData(name="round-1", path=str(folder / "labeled"))


def test_a_labeled_trajectory_comes_back_as_a_source(labeled: OwnData, mine: OwnData, tmp_path: Path) -> None:
    rules = (BY_MOLECULE, SplitRule(source="round-1", by="frame", train=1.0, validation=0.0, test=0.0))
    metrics = run_stages((mine, labeled), rules, tmp_path)
    found, given = ConformerDataset(tmp_path / "arrow" / "round-1"), ConformerDataset(Path(labeled.path))
    assert found.level_of_theory == {"round-1": "GFN2-xTB"}
    trajectory = ConformerDataset(Path(labeled.path).parent / "trajectory")
    for one, label, frame in zip(found, given, trajectory, strict=True):
        np.testing.assert_array_equal(one.coords, frame.coords)
        np.testing.assert_array_equal(one.energy, label.energy)
        np.testing.assert_array_equal(one.forces, label.forces)
        assert (one.id, one.group, one.smiles, one.frame.tolist()) == (
            frame.id,
            frame.group,
            frame.smiles,
            frame.frame.tolist(),
        )
    # All its frames are trained on, so that its molecule is no test molecule of any source any more.
    (group,) = {record.group for record in given}
    assert metrics["sources"]["round-1"]["train"]["conformers"] == sum(record.n_conformers for record in given) == 22
    assert group in molecules_in(tmp_path, "mine", TRAIN)
    assert group not in molecules_in(tmp_path, "mine", TEST)
    assert metrics["test_molecules_in_training"] == 0


def test_by_molecule_its_frames_go_where_their_molecule_is(labeled: OwnData, mine: OwnData, tmp_path: Path) -> None:
    metrics = run_stages((mine, labeled), (BY_MOLECULE, SplitRule(source="round-1", by="molecule")), tmp_path)
    assert molecules_in(tmp_path, "round-1", TEST) == molecules_in(tmp_path, "mine", TEST)
    assert metrics["sources"]["round-1"]["train"]["conformers"] == 0

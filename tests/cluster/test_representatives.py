"""Which conformer stands for those like it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pesfit.cluster.representatives import choose_representatives
from pesfit.cluster.rmsd import all_pairs_rmsd
from pesfit.data.dataset import Record
from pesfit.params.preparation import Cluster

ETHER = "[C:1]([O:2][C:3]([H:7])([H:8])[H:9])([H:4])([H:5])[H:6]"


def make_record(coords: np.ndarray, energy: list[float]) -> Record:
    return Record(
        id="ether",
        smiles=ETHER,
        atomic_numbers=np.array([6, 8, 6, 1, 1, 1, 1, 1, 1], dtype=np.int32),
        coords=coords,
        energy=np.array(energy),
        forces=None,
        charges=None,
        total_charge=0,
        group="COC",
        source="xtb/conformers",
        frame=np.arange(len(coords)),
    )


@pytest.fixture(name="row_of_nine")
def _row_of_nine() -> tuple[Record, float]:
    """Nine conformers along a line, and a cutoff that only the middle one has all others within."""
    coords = np.repeat(np.random.default_rng(0).normal(scale=3.0, size=(1, 9, 3)), 9, axis=0)
    coords[:, 0, 0] += np.linspace(-0.5, 0.5, 9)
    distances = all_pairs_rmsd(coords[:, :3])
    cutoff = 1.0001 * distances[4].max()
    assert (distances.max(axis=1) > cutoff).sum() == 8
    return make_record(coords, [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, -1.0]), cutoff


@pytest.mark.parametrize(("representative", "expected"), [("centroid", 4), ("lowest_energy", 8)])
def test_which_member_is_kept(row_of_nine: tuple[Record, float], representative: str, expected: int) -> None:
    record, cutoff = row_of_nine
    kept = choose_representatives(record, Cluster(representative=representative, cutoff_angstrom=cutoff))
    assert kept.conformers.tolist() == [expected]
    assert kept.sizes.tolist() == [9]


def test_of_equal_energies_the_first_is_kept(row_of_nine: tuple[Record, float]) -> None:
    record, cutoff = row_of_nine
    record = dataclasses.replace(record, energy=np.zeros(9))
    assert choose_representatives(record, Cluster(cutoff_angstrom=cutoff)).conformers.tolist() == [0]


def test_symmetry_merges_what_only_numbering_tells_apart() -> None:
    conformer = np.random.default_rng(0).normal(scale=3.0, size=(9, 3))
    # Turned end to end: the methyl groups change places, with their hydrogens.
    record = make_record(np.stack([conformer, conformer[[2, 1, 0, 6, 7, 8, 3, 4, 5]]]), [0.0, 0.0])
    params = Cluster(heavy_atoms=False)
    assert len(choose_representatives(record, params).conformers) == 2
    kept = choose_representatives(record, params.model_copy(update={"symmetry": True}))
    assert len(kept.conformers) == 1
    assert kept.all_orders


def test_without_a_smiles_atoms_are_compared_as_numbered() -> None:
    conformer = np.random.default_rng(0).normal(scale=3.0, size=(9, 3))
    record = make_record(np.stack([conformer, conformer[[2, 1, 0, 6, 7, 8, 3, 4, 5]]]), [0.0, 0.0])
    record = dataclasses.replace(record, smiles=None)
    assert len(choose_representatives(record, Cluster(symmetry=True, heavy_atoms=False)).conformers) == 2

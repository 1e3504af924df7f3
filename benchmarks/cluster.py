"""Clustering one molecule of many conformers: here, and pair by pair with RDKit as it is commonly scripted.

    python benchmarks/cluster.py [n_conformers]

RDKit's way grows with the square of the number of conformers, too slowly to be waited for: it is timed on a subset and
extrapolated by the number of pairs, which the table says. One thread: set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from rdkit import Chem
from rdkit.Chem import AllChem, rdMolAlign
from rdkit.Geometry import Point3D
from rdkit.ML.Cluster import Butina

from pesfit.cluster.representatives import butina
from pesfit.cluster.rmsd import all_pairs_rmsd, pairs_within
from pesfit.core.arrays import FloatArray

SMILES = "CC(C)C[C@H](NC(=O)[C@H](Cc1ccccc1)NC(C)=O)C(=O)N[C@@H](C)C(=O)N"  # 28 heavy atoms
CUTOFF_ANGSTROM = 0.25
N_BASINS = 60
NOISE_ANGSTROM = 0.1
SUBSET_WITH_COPIES, SUBSET_WITHOUT = 12, 150


def conformers(n_conformers: int) -> Chem.Mol:
    """Return heavy atoms with conformers scattered around a few dozen that RDKit embeds, as dynamics would."""
    molecule = Chem.AddHs(Chem.MolFromSmiles(SMILES))
    AllChem.EmbedMultipleConfs(molecule, N_BASINS, randomSeed=7)
    molecule = Chem.RemoveHs(molecule)
    basins = np.stack([conformer.GetPositions() for conformer in molecule.GetConformers()])
    rng = np.random.default_rng(2666)
    coords = basins[rng.integers(len(basins), size=n_conformers)]
    coords = coords + rng.normal(scale=NOISE_ANGSTROM, size=coords.shape)
    molecule.RemoveAllConformers()
    for positions in coords:
        conformer = Chem.Conformer(molecule.GetNumAtoms())
        for i, position in enumerate(positions):
            conformer.SetAtomPosition(i, Point3D(*position))
        molecule.AddConformer(conformer, assignId=True)
    return molecule


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


def rdkit_pairs(molecule: Chem.Mol, n_conformers: int, *, copies: bool) -> FloatArray:
    """Superimpose each pair of the first conformers; with copies, both molecules are copied whole for each."""
    moving = Chem.Mol(molecule)
    distances = []
    for i in range(n_conformers):
        for j in range(i):
            probe, reference = (Chem.Mol(molecule), Chem.Mol(molecule)) if copies else (moving, molecule)
            distances.append(rdMolAlign.AlignMol(probe, reference, i, j))
    return np.asarray(distances)


def main() -> None:
    n_conformers = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
    n_pairs = n_conformers * (n_conformers - 1) // 2
    molecule = conformers(n_conformers)
    coords = np.stack([conformer.GetPositions() for conformer in molecule.GetConformers()])
    print(f"{n_conformers} conformers of {coords.shape[1]} heavy atoms, {n_pairs} pairs")

    matrix_seconds, matrix = timed(lambda: all_pairs_rmsd(coords))
    within_seconds, within = timed(lambda: pairs_within(coords, CUTOFF_ANGSTROM))
    butina_seconds, clusters = timed(lambda: butina(within))
    lower = np.tril_indices(n_conformers, -1)
    rdkit_butina_seconds, expected = timed(
        lambda: Butina.ClusterData(matrix[lower], n_conformers, CUTOFF_ANGSTROM, isDistData=True)
    )
    print(f"all-pairs RMSD, pesfit                          {matrix_seconds:10.2f} s")
    print(f"neighbors within the cutoff, pesfit             {within_seconds:10.2f} s")
    print(f"Butina, pesfit                                  {butina_seconds:10.3f} s")
    print(f"Butina, RDKit                                   {rdkit_butina_seconds:10.2f} s")
    same = [tuple(cluster.tolist()) for cluster in clusters] == list(expected)
    print(f"{len(clusters)} clusters; RDKit's Butina finds {'the same' if same else 'OTHERS'}")
    for copies, subset in ((True, SUBSET_WITH_COPIES), (False, SUBSET_WITHOUT)):
        seconds, distances = timed(lambda: rdkit_pairs(molecule, subset, copies=copies))  # noqa: B023
        subset_pairs = subset * (subset - 1) // 2
        largest = np.abs(matrix[:subset, :subset][np.tril_indices(subset, -1)] - distances).max()
        what = "both molecules copied" if copies else "nothing copied"
        print(
            f"all-pairs RMSD, RDKit, {what:24} {seconds / subset_pairs * n_pairs:10.0f} s, extrapolated from "
            f"{subset_pairs} pairs in {seconds:.2f} s; largest difference {largest:.1e} Å"
        )


if __name__ == "__main__":
    main()

"""Time a conformer to build normal equations, beside an epoch of automatic differentiation over the flat graph; same loss.

    python benchmarks/normal_equations.py

Times are of the processor, one thread, so that what else runs on the machine counts little. Set OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rdkit import Chem
from rdkit.Chem import AllChem

from pesfit.chemistry.smiles import mapped_smiles
from pesfit.core.arrays import FloatArray
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from pesfit.data.topology import ForceField, ParameterizedSet, Topology
from pesfit.parameterize.stage import parameterize_datasets
from pesfit.params.fit_smirnoff import Train
from pesfit.params.preparation import AssignCharges, Parameterize
from pesfit.potentials.interface import Conformers, collate
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.exact.molecule_statistics import MoleculeStatistics
from pesfit.smirnoff.features import MoleculeFeatures
from pesfit.smirnoff.parameters import Layout
from pesfit.smirnoff.potential import SmirnoffPotential

SMILES = (
    "CC(=O)Nc1ccc(O)cc1C",
    "CC(=O)Oc1ccccc1C(N)=O",
    "CCCOC(=O)CCN",
    "CC(C)Cc1ccncc1",
    "COc1ccc(CN)cc1",
    "O=C(O)CCSCC(N)=O",
)
"""Molecules of 19 to 25 atoms."""
N_CONFORMERS = 400
REPEATS = 5


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        parameterized, records = make(Path(folder))
        force_field = parameterized.force_field
        topologies = [parameterized.topology("made", record.id) for record in records]
    layout = Layout.of(force_field, Train())
    x = 0.05 * layout.prior().widths * np.random.default_rng(0).normal(size=len(layout))
    prepared = [MoleculeFeatures(topology, force_field, layout) for topology in topologies if topology is not None]
    found = [MoleculeStatistics.of(f, r.coords, r.energy, r.forces) for f, r in zip(prepared, records, strict=True)]
    loss = sum(sum(statistics.error_sums(x)[1:]) for statistics in found)
    conformers, n_atoms = sum(r.n_conformers for r in records), sum(r.n_conformers * r.n_atoms for r in records)
    print(
        f"{len(records)} molecules, {conformers} conformers of {n_atoms / conformers:.1f} atoms, {len(layout)} parameters, one thread"
    )

    prepare = best(lambda: [MoleculeFeatures(topology, force_field, layout) for topology in topologies if topology is not None])
    build = best(
        lambda: [MoleculeStatistics.of(f, r.coords, r.energy, r.forces) for f, r in zip(prepared, records, strict=True)]
    )
    epoch = Epoch(layout.apply(force_field, x), [t for t in topologies if t is not None], records)
    value = epoch()
    print(f"prepare a molecule, once                    {prepare / len(records) * 1e3:9.2f} ms a molecule")
    print(f"normal equations, energies and forces       {build / conformers * 1e6:9.1f} µs a conformer (bar: 60)")
    print(f"loss and gradient by autograd, flat graph   {best(epoch) / conformers * 1e6:9.1f} µs a conformer and epoch")
    print(
        f"loss {loss:.6f} from normal equations, {value:.6f} from the potential: relative difference {abs(loss / value - 1):.1e}"
    )


class Epoch:
    """Loss and gradient by one backward pass over a batch that is one graph."""

    def __init__(self, force_field: ForceField, topologies: list[Topology], records: list[Record]) -> None:
        self.potential = SmirnoffPotential(force_field)
        for handler in ("Bonds", "Angles", "ProperTorsions"):
            self.potential.tables[handler].requires_grad_()
        self.batch = collate(
            [
                Conformers(torch.tensor(r.atomic_numbers, dtype=torch.int64), torch.tensor(r.coords), Terms.from_topology(t))
                for t, r in zip(topologies, records, strict=True)
            ]
        )
        self.energy = [torch.tensor(r.energy) for r in records]
        self.forces = torch.cat([torch.tensor(r.forces).reshape(-1, 3) for r in records])

    def __call__(self) -> float:
        """Return the loss."""
        prediction = self.potential(self.batch)
        loss = ((prediction.forces - self.forces) ** 2).sum()
        for energy, label in zip(self.batch.split_conformers(prediction.energy), self.energy, strict=True):
            error = energy - label
            loss = loss + ((error - error.mean()) ** 2).sum()
        self.potential.zero_grad()
        loss.backward()
        return float(loss.detach())


def best(function: Callable[[], object]) -> float:
    """Return the shortest of several times, in seconds."""
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return min(times)


def make(folder: Path) -> tuple[ParameterizedSet, list[Record]]:
    """Make conformers with labels that are near those of the force field, and parameterize them."""
    rng, records = np.random.default_rng(1), []
    for i, smiles in enumerate(SMILES):
        mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
        AllChem.EmbedMolecule(mol, randomSeed=7)
        AllChem.ComputeGasteigerCharges(mol)
        charges = np.array([atom.GetDoubleProp("_GasteigerCharge") for atom in mol.GetAtoms()])
        coords = mol.GetConformer().GetPositions() + 0.03 * rng.normal(size=(N_CONFORMERS, mol.GetNumAtoms(), 3))
        elements = np.array([atom.GetAtomicNum() for atom in mol.GetAtoms()], dtype=np.int32)
        zeros: FloatArray = np.zeros(N_CONFORMERS)
        frames = np.arange(N_CONFORMERS)
        forces = 10.0 * rng.normal(size=coords.shape)
        charges -= charges.mean()
        records.append(
            Record(f"m/{i}", mapped_smiles(mol), elements, coords, zeros, forces, charges, 0, smiles, "made", frames)
        )
    with DatasetWriter(folder / "made", {"made": "none"}) as writer:
        for record in records:
            writer.write(record)
    (folder / "parameterized").mkdir()
    params = Parameterize(charges=AssignCharges(methods=("dataset",)))
    parameterize_datasets({"made": ConformerDataset(folder / "made")}, params, folder / "parameterized")
    return ParameterizedSet.open(folder / "parameterized"), records


if __name__ == "__main__":
    main()

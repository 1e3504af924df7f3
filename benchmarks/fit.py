"""One epoch of a fit (loss and gradient by all parameters), a conformer: here, by autograd, and by smee and descent.

    python benchmarks/fit.py

All take the same molecules, the same labels, and the same loss (squares of energies about the molecule's mean and of forces, each
divided by their number), and train k and length or angle of bonds and angles, and k of torsions. Values of loss and gradient are
compared. The molecules are those of the golden file where PESFIT_REAL_DATA says where it is, otherwise those of the small profile after
`dvc repro`. smee and descent take part where they can be imported: checkouts on PYTHONPATH are enough. One process, one thread;
times are of the processor.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rdkit import Chem

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import Failure
from pesfit.data.dataset import Record, open_datasets
from pesfit.data.topology import BONDED_HANDLERS, ForceField, ParameterizedSet, Topology
from pesfit.parameterize.engine import Request, Setup, parameterize
from pesfit.parameterize.force_field import read_force_field
from pesfit.params.fit_smirnoff import Gradient, ImproperK, Loss, Objective, Train, TrainImproperTorsions
from pesfit.potentials.interface import Batch, Conformers, collate
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.exact.molecule_statistics import MoleculeStatistics
from pesfit.smirnoff.features import MoleculeFeatures
from pesfit.smirnoff.fit_data import MoleculeRows
from pesfit.smirnoff.gradient.coefficients import Coefficients, TrainedCharges
from pesfit.smirnoff.gradient.objective import LossTerms as Weighing
from pesfit.smirnoff.gradient.objective import MoleculeResiduals, ResidualBlock, losses
from pesfit.smirnoff.gradient.preparation import MoleculePreparation, PreparationSettings
from pesfit.smirnoff.parameters import Layout
from pesfit.smirnoff.potential import SmirnoffPotential

TRAIN = Train(improper_torsions=TrainImproperTorsions(k=ImproperK(train=True)))
ATOMS_OF_LARGE, CONFORMERS_OF_LARGE = 22, 1000


@dataclass(frozen=True)
class Molecule:
    """A molecule with labeled conformers."""

    topology: Topology
    numbers: IntArray
    coords: FloatArray
    energy: FloatArray
    forces: FloatArray


def golden(folder: Path) -> tuple[ForceField, list[Molecule]]:
    """Read the molecules of the golden file; labels are smee's energies and forces with noise, so that there is something to fit."""
    with np.load(folder / "golden" / "smee-openff-2.1.0.npz") as file:
        arrays = {name: file[name] for name in file.files}
    force_field, patterns = read_force_field(str(arrays["force_field"]))
    rng = np.random.default_rng(0)
    molecules, n_failed, atoms, numbers, conformers = [], 0, 0, 0, 0
    for smiles, n_atoms, n in zip(
        arrays["smiles"].tolist(), arrays["n_atoms"].tolist(), arrays["n_confs"].tolist(), strict=True
    ):
        elements = np.zeros(n_atoms, dtype=np.int32)
        for atom in Chem.MolFromSmiles(smiles, sanitize=False).GetAtoms():
            elements[atom.GetAtomMapNum() - 1] = atom.GetAtomicNum()
        charges = arrays["charges"][atoms : atoms + n_atoms]
        place = slice(numbers, numbers + 3 * n * n_atoms)
        coords, forces = (arrays[name][place].reshape(n, n_atoms, 3) for name in ("coords", "forces"))
        energy = arrays["energy"][conformers : conformers + n].astype(np.float64)
        atoms, numbers, conformers = atoms + n_atoms, place.stop, conformers + n
        request = Request(smiles, elements.tobytes(), charges.tobytes(), round(float(charges.sum())))
        topology = parameterize(Setup(patterns, ("dataset",)), request)
        if isinstance(topology, Failure):  # a SMILES without its stereochemistry
            n_failed += 1
            continue
        energy, forces = energy + rng.normal(size=energy.shape), forces + 5.0 * rng.normal(size=forces.shape)
        molecules.append(Molecule(topology, elements, coords, energy, forces))
    print(f"molecules of the golden file; {n_failed} that lack stereochemistry are left out")
    return force_field, molecules


def small_profile() -> tuple[ForceField, list[Molecule]]:
    """Read what the stages before the fit have left here."""
    parameterized = ParameterizedSet.open("data/parameterized")
    molecules = []
    for name, dataset in open_datasets("data/clustered").items():
        for record in dataset:
            topology = parameterized.topology(name, record.id)
            if topology is not None and record.forces is not None:
                molecules.append(Molecule(topology, record.atomic_numbers, record.coords, record.energy, record.forces))
    print("molecules of the small profile")
    return parameterized.force_field, molecules


def with_uses(force_field: ForceField, molecules: list[Molecule]) -> ForceField:
    """Count how many terms use each parameter."""
    tables = dict(force_field.tables)
    for handler, table in tables.items():
        used = np.concatenate([molecule.topology.parameters(handler) for molecule in molecules])
        tables[handler] = replace(table, uses=np.bincount(used, minlength=len(table.smirks)))
    return replace(force_field, tables=tables)


@dataclass(frozen=True)
class Epoch:
    """A way of doing an epoch: loss, and its gradients by the tables' columns."""

    name: str
    run: Callable[[], tuple[float, dict[str, FloatArray]]]


def ours(setting: PreparationSettings, parts: list[MoleculeResiduals]) -> Epoch:
    """Sparse products, as in `method: gradient`."""
    blocks, weighing = [ResidualBlock(parts)], Weighing(*losses(Loss()), "mean")
    coefficients, layout = setting.coefficients, setting.layout
    z = np.zeros(coefficients.n_parameters)

    def run() -> tuple[float, dict[str, FloatArray]]:
        point, loss, gradient = coefficients.at(z), 0.0, np.zeros(coefficients.n_coefficients)
        for block in blocks:
            numbers, local = block.evaluate(point.values, weighing)
            loss += float(numbers[0] + numbers[1])
            gradient[block.columns] += local
        coefficients.pulled(point, gradient)
        tables = {}
        for index, handler in enumerate(BONDED_HANDLERS):
            tables[handler] = np.zeros((len(setting.force_field.tables[handler].smirks), 2))
            for shift in (False, True):
                mine = np.flatnonzero((layout.handler == index) & (layout.is_shift == shift))
                tables[handler][layout.row[mine], int(shift)] = gradient[mine] * (layout.k[mine] if shift else 1.0)
        return loss, tables

    return Epoch("pesfit, method gradient", run)


def flat_graph(force_field: ForceField, molecules: list[Molecule]) -> Epoch:
    """All conformers as one graph, evaluated from coordinates, and a backward pass of torch."""
    batch: Batch = collate(
        [
            Conformers(torch.tensor(m.numbers, dtype=torch.int64), torch.tensor(m.coords), Terms.from_topology(m.topology))
            for m in molecules
        ]
    )
    potential = SmirnoffPotential(force_field)
    potential.tables.requires_grad_(True)
    sizes = torch.tensor([len(m.energy) for m in molecules])
    owner = torch.repeat_interleave(torch.arange(len(molecules)), sizes)
    counts = sizes.double()
    components = torch.cat([torch.full((m.forces.size // 3,), float(m.forces.size), dtype=torch.float64) for m in molecules])
    energy = torch.cat([torch.tensor(m.energy) for m in molecules])
    forces = torch.cat([torch.tensor(m.forces.reshape(-1, 3)) for m in molecules])

    def run() -> tuple[float, dict[str, FloatArray]]:
        potential.zero_grad()
        prediction = potential(batch)
        error = energy - prediction.energy
        mean = torch.zeros(len(molecules), dtype=torch.float64).index_add(0, owner, error) / counts
        loss = ((error - mean[owner]) ** 2 / counts[owner]).sum()
        loss = loss + (((forces - prediction.forces) ** 2).sum(-1) / components).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach()), {handler: _gradient(potential.tables[handler]) for handler in BONDED_HANDLERS}

    return Epoch("autograd over the flat graph", run)


def smee_and_descent(force_field: ForceField, molecules: list[Molecule]) -> Epoch | None:
    """Take the loss of descent, over a data set of its own, and the backward pass; None where they are not here."""
    try:
        from descent.targets import energy as target  # type: ignore[import-not-found]

        from pesfit.smirnoff.smee import to_smee

        tensors, topologies = to_smee(force_field, [m.topology for m in molecules])
    except ImportError as error:
        print(f"without smee and descent ({error})")
        return None
    tensors = tensors.to(precision="double")
    dataset = target.create_dataset(
        [
            {
                "id": None,
                "smiles": m.topology.smiles,
                "coords": m.coords,
                "energy": m.energy,
                "forces": m.forces,
                "box_vectors": None,
            }
            for m in molecules
        ]
    )
    by_smiles = {m.topology.smiles: topology.to(precision="double") for m, topology in zip(molecules, topologies, strict=True)}
    tables = {handler: tensors.potentials_by_type[handler].parameters for handler in BONDED_HANDLERS}
    for table in tables.values():
        table.requires_grad_(True)

    def run() -> tuple[float, dict[str, FloatArray]]:
        for table in tables.values():
            table.grad = None
        energy, energy_predicted, forces, forces_predicted = target.predict(dataset, tensors, by_smiles, "mean", normalize=True)
        loss = ((energy - energy_predicted) ** 2).sum() + ((forces - forces_predicted) ** 2).sum()
        loss.backward()
        return float(loss.detach()), {handler: _gradient(table) for handler, table in tables.items()}

    return Epoch("smee and descent", run)


def _gradient(parameter: Any) -> FloatArray:
    """Return the gradient by the trained columns, which come first."""
    return np.asarray(parameter.grad.numpy()[:, :2], dtype=np.float64)


def normal_equations(force_field: ForceField, layout: Layout, molecules: list[Molecule]) -> Callable[[], object]:
    """Build the statistics of which the exact fit is made; features are prepared anew each time."""

    def run() -> object:
        return [
            MoleculeStatistics.of(MoleculeFeatures(m.topology, force_field, layout), m.coords, m.energy, m.forces)
            for m in molecules
        ]

    return run


def seconds(run: Callable[[], object], at_least: float = 2.0) -> float:
    """Return the median processor time of a call, of at least three: other work on the machine does not count in it."""
    run()
    times: list[float] = []
    while len(times) < 3 or (sum(times) < at_least and len(times) < 300):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return float(np.median(times))


def large(molecules: list[Molecule]) -> Molecule:
    """Return the molecule nearest in size to what the bar for normal equations is given for, with many conformers."""
    nearest = min(molecules, key=lambda m: abs(m.topology.n_atoms - ATOMS_OF_LARGE))
    chosen = np.random.default_rng(0).integers(len(nearest.energy), size=CONFORMERS_OF_LARGE)
    coords = nearest.coords[chosen] + np.random.default_rng(1).normal(scale=0.01, size=nearest.coords[chosen].shape)
    return replace(nearest, coords=coords, energy=nearest.energy[chosen], forces=nearest.forces[chosen])


def main() -> int:
    torch.set_num_threads(1)
    folder = os.environ.get("PESFIT_REAL_DATA")
    force_field, molecules = golden(Path(folder)) if folder else small_profile()
    force_field = with_uses(force_field, molecules)
    layout = Layout.of(force_field, TRAIN)
    coefficients = Coefficients(layout, force_field, Gradient(), TrainedCharges(), with_constants=False)
    setting = PreparationSettings(force_field, layout, coefficients, Objective(), (1.0, 1.0))
    n = sum(len(m.energy) for m in molecules)
    atoms = sum(m.forces.size // 3 for m in molecules) / n
    print(f"{len(molecules)} molecules, {n} conformers of {atoms:.1f} atoms on average, {len(layout)} trained parameters\n")

    start = time.process_time()
    parts = [part for i, m in enumerate(molecules) for part in _prepared(m, i, setting)]
    prepared = time.process_time() - start
    epochs = [
        epoch
        for epoch in (ours(setting, parts), flat_graph(force_field, molecules), smee_and_descent(force_field, molecules))
        if epoch
    ]
    results = [epoch.run() for epoch in epochs]
    times = [seconds(epoch.run) for epoch in epochs]
    print(f"{'one epoch':44s} {'ms':>9s} {'µs a conformer':>15s} {'loss':>14s} {'gradient differs by':>20s}")
    for epoch, took, (loss, gradient) in zip(epochs, times, results, strict=True):
        print(
            f"{epoch.name:44s} {1e3 * took:9.3f} {1e6 * took / n:15.2f} {loss:14.6f} {difference(gradient, results[0][1]):20.1e}"
        )
    print(f"{'  once, before the first epoch':44s} {1e3 * prepared:9.3f} {1e6 * prepared / n:15.2f}")
    statistics = seconds(normal_equations(force_field, layout, molecules))
    print(f"{'normal equations, once':44s} {1e3 * statistics:9.3f} {1e6 * statistics / n:15.2f}")
    many = large(molecules)
    statistics = seconds(normal_equations(force_field, layout, [many]))
    name = f"normal equations, {many.topology.n_atoms} atoms, {len(many.energy)} conformers"
    print(f"{name:44s} {1e3 * statistics:9.3f} {1e6 * statistics / len(many.energy):15.2f}")
    for epoch, took in list(zip(epochs, times, strict=True))[1:]:
        print(f"\n{epochs[0].name} is {took / times[0]:.0f} times as fast as {epoch.name}")
    return 0


def _prepared(molecule: Molecule, number: int, setting: PreparationSettings) -> list[MoleculeResiduals]:
    n = len(molecule.energy)
    record = Record(
        str(number), None, molecule.numbers.astype(np.int32), molecule.coords, molecule.energy, molecule.forces, None, 0, "", "made",
        np.arange(n),
    )  # fmt: skip
    rows = MoleculeRows("made", (number,), (str(number),), "made", str(number), number, n)
    return list(MoleculePreparation(molecule.topology, number, setting).parts(rows, [record], [np.zeros(n, dtype=np.uint8)]))


def difference(one: dict[str, FloatArray], other: dict[str, FloatArray]) -> float:
    """Return the largest difference of gradients, relative to the largest of the column."""
    worst = 0.0
    for handler, expected in other.items():
        scale = np.abs(expected).max(axis=0)
        columns = np.flatnonzero(scale > 0.0)
        found = one[handler]
        if len(found) == len(expected):
            worst = max(worst, float((np.abs(found - expected)[:, columns] / scale[columns]).max(initial=0.0)))
    return worst


if __name__ == "__main__":
    sys.exit(main())

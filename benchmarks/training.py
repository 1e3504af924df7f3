"""Training steps of PaiNN (forward, backward through forces, update): here, and by schnetpack's own trainer, loader and ASE database.

    python benchmarks/training.py

The same network (128 features, 3 interactions, 20 radial functions, 5 Å, float32) on the same conformers of ethanol and aspirin, embedded
by RDKit and displaced by 0.08 Å, with labels from a random number generator, on which time does not depend. Where PESFIT_REAL_DATA names
a folder with rMD17, frames and labels are real. schnetpack is run as its tutorials do: AtomsDataModule on an ASE database, ASENeighborList
and CastTo32 for each sample, AtomisticTask, lightning's Trainer, with the loader in this process.

Times are of the processor with one thread, and of the clock with two, which only a quiet machine gives fairly: the lower quartile of the
batches after the first, and the better of two rounds, so that what else runs on the machine counts as little as can be. The exit status
is 1 where training on one thread is less than three times as fast as schnetpack's at batch 10 (ethanol), or compiled gradients differ
from eager ones by more than 1e-5.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import subprocess
import sys
import tempfile
import time
import typing
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.utils.data.dataloader
from ase import Atoms
from rdkit import Chem
from rdkit.Chem import AllChem

from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from pesfit.data.splits import SplitRow, Splits
from pesfit.painn.potential import PaiNNConfig, build_painn
from pesfit.painn.train.datasets import TrainingData, load_training_data
from pesfit.painn.train.optimizer import FlatParameters
from pesfit.painn.train.step import GradientStep, Totals, epoch_batches
from pesfit.painn.train.train_network import fit_atomrefs
from pesfit.params.preparation import ConvertMD17
from pesfit.params.train_learned import Batching, LearnedObjective, Network
from pesfit.sources.md17 import RMD17Archive

SMILES = {"ethanol": "CCO", "aspirin": "CC(=O)Oc1ccccc1C(=O)O"}
N_FRAMES = {"ethanol": 800, "aspirin": 400}
BATCHES = {("ethanol", 10): 25, ("ethanol", 100): 4, ("aspirin", 10): 8, ("aspirin", 100): 2}
N_ROUNDS = 2
NETWORK = Network()
OBJECTIVE = LearnedObjective(energy_weight=0.01, force_weight=0.99)
LEAST_TIMES_SCHNETPACK = 3.0
TOLERANCE = 1e-5


def now() -> float:
    return time.process_time() if torch.get_num_threads() == 1 else time.perf_counter()


def synthetic(name: str) -> Record:
    molecule = Chem.AddHs(Chem.MolFromSmiles(SMILES[name]))
    AllChem.EmbedMolecule(molecule, randomSeed=7)
    rng = np.random.default_rng(2666)
    n_atoms, n_frames = molecule.GetNumAtoms(), N_FRAMES[name]
    coords = molecule.GetConformer().GetPositions() + rng.normal(scale=0.08, size=(n_frames, n_atoms, 3))
    return Record(
        id=name,
        smiles=None,
        atomic_numbers=np.array([atom.GetAtomicNum() for atom in molecule.GetAtoms()], dtype=np.int32),
        coords=coords,
        energy=rng.normal(scale=5.0, size=n_frames) - 1e5,
        forces=rng.normal(scale=25.0, size=coords.shape),
        charges=None,
        total_charge=0,
        group=name,
        source="benchmark",
        frame=np.arange(n_frames),
    )


def frames(name: str) -> Record:
    """Return frames of a molecule: of rMD17 where it is at hand."""
    folder = os.environ.get("PESFIT_REAL_DATA")
    if not folder:
        return synthetic(name)
    archive = RMD17Archive(Path(folder) / "mirror/rmd17/rmd17.tar.bz2", [name], ConvertMD17(max_frames=N_FRAMES[name]))
    return next(archive.records())


def load(record: Record, folder: Path) -> TrainingData:
    with DatasetWriter(folder / record.id, {record.source: "benchmark"}) as writer:
        writer.write(record)
    splits = Splits([SplitRow(record.id, record.id, record.group, np.zeros(record.n_conformers, dtype=np.uint8))])
    return load_training_data({record.id: ConformerDataset(folder / record.id)}, splits, "train", NETWORK.cutoff_angstrom)


def ours(data: TrainingData, batch_size: int, n_batches: int, *, compiled: bool) -> tuple[float, GradientStep]:
    """Train for some batches.

    Returns:
        Seconds a batch, and the step.
    """
    atomrefs = fit_atomrefs(data)
    potential = build_painn(
        PaiNNConfig("conservative", atomrefs.elements, NETWORK),
        atomrefs=torch.from_numpy(atomrefs.values),
        scale=atomrefs.scale,
    )
    flat = FlatParameters(potential)
    step = GradientStep(potential, OBJECTIVE, data, compile_step="always" if compiled else "never")
    optimizer = torch.optim.AdamW([flat.vector], lr=5e-4, fused=True)
    times: list[float] = []
    epoch = 0
    while len(times) <= n_batches:
        for batch in epoch_batches(data.n_atoms, Batching(size=batch_size), 2666, epoch):
            start = now()
            result = step(batch, Totals.of(data, batch))
            flat.vector.grad = result.gradient
            torch.nn.utils.clip_grad_norm_([flat.vector], 1e4)
            optimizer.step()
            times.append(now() - start)
        epoch += 1
    return float(np.quantile(times[1 : n_batches + 1], 0.25)), step


def import_all_of_schnetpack() -> Any:
    vars(torch.utils.data.dataloader).setdefault(
        "T_co", typing.TypeVar("T_co", covariant=True)
    )  # gone from torch, not from 2.1.1
    import schnetpack

    return schnetpack


def schnetpacks(record: Record, batch_size: int, n_batches: int, folder: Path) -> float:
    """Train for some batches with schnetpack's trainer and return seconds a batch."""
    import pytorch_lightning
    import torchmetrics

    spk = import_all_of_schnetpack()

    class Clock(pytorch_lightning.Callback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_train_batch_end(self, *_: Any) -> None:
            self.ends.append(now())

    module = spk.data.AtomsDataModule(
        str(database(spk, record, folder)),
        batch_size=batch_size,
        num_train=record.n_conformers - 10,
        num_val=10,
        split_file=None,
        transforms=[spk.transform.ASENeighborList(cutoff=NETWORK.cutoff_angstrom), spk.transform.CastTo32()],
        num_workers=0,
    )
    outputs = [
        spk.task.ModelOutput(name, torch.nn.MSELoss(), weight, metrics={"MAE": torchmetrics.MeanAbsoluteError()})
        for name, weight in (("energy", OBJECTIVE.energy_weight), ("forces", OBJECTIVE.force_weight))
    ]
    task = spk.task.AtomisticTask(model(spk), outputs, torch.optim.AdamW, optimizer_args={"lr": 5e-4})
    clock = Clock()
    trainer = pytorch_lightning.Trainer(
        max_steps=n_batches + 1,
        accelerator="cpu",
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    trainer.fit(task, datamodule=module)
    return float(np.quantile(np.diff(clock.ends), 0.25))


def database(spk: Any, record: Record, folder: Path) -> Path:
    path = folder / f"{record.id}.db"
    if not path.exists():
        units = {"energy": "kcal/mol", "forces": "kcal/mol/Ang"}
        target = spk.data.ASEAtomsData.create(str(path), distance_unit="Ang", property_unit_dict=units)
        energy = record.energy - record.energy.mean()  # its RemoveOffsets fails beside a current torch
        target.add_systems(
            [{"energy": energy[i : i + 1], "forces": record.forces[i]} for i in range(record.n_conformers)],
            [Atoms(record.atomic_numbers, positions) for positions in record.coords],
        )
    return path


def model(spk: Any) -> Any:
    return spk.model.NeuralNetworkPotential(
        representation=spk.representation.PaiNN(
            NETWORK.n_features,
            NETWORK.n_interactions,
            spk.nn.GaussianRBF(NETWORK.n_rbf, NETWORK.cutoff_angstrom),
            spk.nn.CosineCutoff(NETWORK.cutoff_angstrom),
        ),
        input_modules=[spk.atomistic.PairwiseDistances()],
        output_modules=[spk.atomistic.Atomwise(NETWORK.n_features, output_key="energy"), spk.atomistic.Forces()],
    )


def difference(compiled: GradientStep, eager: GradientStep, data: TrainingData) -> float:
    """Return the largest difference of gradients, as a fraction of the largest component."""
    batch = np.arange(25)
    first, second = (step(batch, Totals.of(data, batch)).gradient for step in (compiled, eager))
    return float((first - second).abs().max() / second.abs().max())


def main() -> int:
    parser = argparse.ArgumentParser(description="Training steps of PaiNN here and in schnetpack.")
    parser.add_argument("--threads", type=int, help="of each step; without it one and then two, each in a process of its own")
    threads = parser.parse_args().threads
    if threads is not None:
        return measure(threads)
    statuses = []
    for number in (1, 2):
        environment = os.environ | {"OMP_NUM_THREADS": str(number)}
        command = [sys.executable, __file__, "--threads", str(number)]
        statuses.append(subprocess.run(command, env=environment, check=False).returncode)
    return max(statuses)


def measure(threads: int) -> int:
    warnings.simplefilter("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(threads)
    passed = True
    print(f"{threads} thread{'s' if threads > 1 else ''}, {'wall' if threads > 1 else 'processor'} time")
    print(f"{'structures/s (ms a batch)':30}{'schnetpack':>16}{'eager':>16}{'compiled':>16}{'times schnetpack':>18}")
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):  # schnetpack leaves a lock in the working directory
        folder = Path(name)
        for molecule in SMILES:
            record = frames(molecule)
            data = load(record, folder)
            for batch_size in (10, 100):
                n_batches = BATCHES[molecule, batch_size]
                rounds = []
                for _ in range(N_ROUNDS):
                    reference = schnetpacks(record, batch_size, n_batches, folder)
                    eager, _ = ours(data, batch_size, n_batches, compiled=False)
                    compiled, step = ours(data, batch_size, n_batches, compiled=True)
                    rounds.append((reference, eager, compiled))
                reference, eager, compiled = np.min(rounds, axis=0)
                cells = "".join(f"{f'{batch_size / t:.0f} ({1e3 * t:.0f})':>16}" for t in (reference, eager, compiled))
                print(f"{f'{molecule}, batch {batch_size}':30}{cells}{reference / compiled:18.2f}", flush=True)
                if (molecule, batch_size, threads) == ("ethanol", 10, 1):
                    passed = reference / compiled >= LEAST_TIMES_SCHNETPACK
            error = difference(step, GradientStep(step.potential, OBJECTIVE, data, compile_step="never"), data)
            print(
                f"{molecule}: compiled gradients differ from eager ones by {error:.1e}; {data.n_pairs.mean():.0f} pairs a frame"
            )
            passed = passed and error < TOLERANCE
    print(
        "passed"
        if passed
        else f"FAILED: at least {LEAST_TIMES_SCHNETPACK} times schnetpack's speed, and {TOLERANCE} are asked for"
    )
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())

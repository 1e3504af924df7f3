"""Errors of a fitted force field on frames of its own dynamics, by round of fit, simulation and labels: docs/experiments/on-policy.md.

    python docs/experiments/on_policy.py [FOLDER [SEED ...]]

Reads `params.yaml` and `data/`, as `dvc repro` leaves it, and makes FOLDER (outputs/on-policy): data sets and fits of each seed and
round, `errors.csv` with a row for each molecule, and the benchmark's tables. Arm `on-policy` adds frames of the fit's own dynamics to the
training set, arm `gfn2` as many of GFN2-xTB's. With OMP_NUM_THREADS=1 and PESFIT_WORKERS=1 it takes 6 minutes of a core.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pesfit.application.label_dataset import label_dataset
from pesfit.application.labeler import Labeler
from pesfit.benchmark.build import BenchmarkData, run_benchmark
from pesfit.core.files import write_json
from pesfit.data.dataset import ConformerDataset, DatasetWriter, open_datasets
from pesfit.data.minima import Landscapes
from pesfit.data.splits import TRAIN, Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.models.open import open_gfn2, open_model
from pesfit.parameterize.stage import parameterize_datasets
from pesfit.params.load import Params, load_params
from pesfit.params.preparation import SplitRule
from pesfit.potentials.model import Model
from pesfit.simulate.loop import simulate
from pesfit.simulate.molecules import SimulatedMolecule
from pesfit.simulate.rollout import frames, protocol_of, source_of
from pesfit.smirnoff.fit import fit_smirnoff
from pesfit.split.stage import SPLITS_FILE, split_datasets

DATA, OWN, GFN2, N_ROUNDS = Path("data"), "on-policy", "gfn2", 2


class Experiment:
    """The data of the pipeline, and the molecules in it with conformers to start from."""

    def __init__(self, params: Params) -> None:
        self.params, self.minima = params, Landscapes.open(DATA / "minima")
        self.stored, splits = ParameterizedSet.open(DATA / "parameterized"), Splits.open(DATA / "splits" / SPLITS_FILE)
        self.molecules: dict[str, SimulatedMolecule] = {}
        self.trained: set[str] = set()
        for name, dataset in open_datasets(DATA / "clustered").items():
            for row in dataset:
                topology = self.stored.topology(name, row.id)
                if topology is not None:
                    self.molecules.setdefault(row.group, SimulatedMolecule(row.group, (row,), row.coords, topology, "GFN2-xTB"))
                if (splits.of(name, row.id) == TRAIN).any():
                    self.trained.add(row.group)

    def fit(self, folder: Path, added: Mapping[str, Path]) -> Model:
        """Stages 03, 05 and 06 with further data sets; those of a molecule weigh 1 together, so that kinds of rows keep their balance."""
        datasets = open_datasets(DATA / "clustered") | {name: ConformerDataset(path) for name, path in added.items()}
        rules = (*self.params.split.rules, *(SplitRule(source=name, by="molecule") for name in added))
        parameterize_datasets(datasets, self.params.parameterize, folder / "parameterized")
        split_datasets(datasets, self.params.split.model_copy(update={"rules": rules}), folder)
        weights = dict.fromkeys(("xtb", *added), 1.0 / (1 + len(added)))
        objective = self.params.fit_smirnoff.objective.model_copy(update={"source_weights": weights})
        params = self.params.fit_smirnoff.model_copy(update={"objective": objective})
        stored, splits = ParameterizedSet.open(folder / "parameterized"), Splits.open(folder / SPLITS_FILE)
        fit_smirnoff(datasets, stored, splits, params, folder / "fit", scratch=folder / "scratch", minima=self.minima)
        return open_model(folder / "fit", stored=stored)

    def run(self, model: Model, seed: int, folder: Path) -> Path:
        """Simulate and label: 4 replicas of 1 ps of all molecules; with GFN2-xTB, which is slow, 2 of 0.3 ps of the trained ones."""
        protocol, replicas, every_fs, n_frames = replace(protocol_of("nvt", self.params.rollout), seed=seed), 4, 250.0, 4
        molecules = list(self.molecules.values())
        if model.name == GFN2:
            protocol, replicas, every_fs = replace(protocol, timestep_fs=1.0, n_steps=300, observe_every=5), 2, 30.0
            molecules, n_frames = [each for each in molecules if each.name in self.trained], 4 * N_ROUNDS
        protocol = replace(protocol, frame_every=round(every_fs / protocol.timestep_fs / protocol.observe_every))
        starts = []
        for each in molecules:
            order = np.random.default_rng(seed).permutation(len(each.starts))
            shuffled = replace(each, starts=each.starts[order]).replicas(replicas)
            starts.append(replace(shuffled, terms=prepare(model, each).terms))
        runs = simulate(model.potential, starts, protocol)
        with DatasetWriter(folder / "trajectory", {source_of(OWN): "the model's own"}) as writer:
            for one, molecule in zip(runs, molecules, strict=True):
                for record in frames(one, OWN, "nvt", molecule.first):
                    writer.write(record.select(np.arange(1, record.n_conformers)[-n_frames:]))
        print(f"{folder}: {sum(stop is not None for one in runs for stop in one.stops)} replicas stopped", flush=True)
        label_dataset(Labeler(GFN2), ConformerDataset(folder / "trajectory"), folder / "labeled")
        return folder / "labeled"

    def errors(self, model: Model, labeled: Path) -> list[dict[str, Any]]:
        """Measure errors of forces, and of energies relative to the mean over a molecule's frames."""
        found: dict[str, list[Any]] = {}
        for row in ConformerDataset(labeled):
            energy, forces = model.evaluate(prepare(model, self.molecules[row.group]), row.coords)
            found.setdefault(row.group, []).append((energy - row.energy, (forces - row.forces).ravel()))
        rows = []
        for group, pairs in found.items():
            e, f = (np.concatenate(each) for each in zip(*pairs, strict=True))
            about = {"molecule": group, "trained": int(group in self.trained)}
            rows.append(about | {"force_mae": abs(f).mean(), "force_mse": (f**2).mean(), "energy_mse": e.var()})
        return rows


def prepare(model: Model, molecule: SimulatedMolecule) -> Any:
    """Prepare a molecule with the charges of stage 03."""
    charges = None if molecule.topology is None else molecule.topology.charges
    return model.prepare(molecule.first.atomic_numbers, molecule.first.smiles, molecule.name, charges)


def part(labeled: Path, chosen: slice, output: Path) -> Path:
    """Write some frames of each replica as a data set, named as its source is."""
    with DatasetWriter(output, {output.name: "GFN2-xTB"}) as writer:
        for row in ConformerDataset(labeled):
            writer.write(replace(row.select(np.arange(row.n_conformers)[chosen]), source=output.name))
    return output


def main() -> None:
    """Run all rounds of both arms and all seeds, then the benchmark of the last fits."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "outputs/on-policy")
    experiment = Experiment(load_params(Path("params.yaml")))
    rows: list[dict[str, Any]] = []

    def measure(model: Model, arm: str, seed: int, number: int) -> Path:
        own = experiment.run(model, seed + 100 * number, folder / f"{arm}-{seed}-{number}" / "own")
        rows.extend({"arm": arm, "seed": seed, "round": number} | row for row in experiment.errors(model, own))
        return own

    start = open_model(DATA / "parameterized" / "force-field.offxml", stored=experiment.stored)
    models = {"smirnoff-initial": start, "round-0": experiment.fit(folder / "round-0", {})}
    for seed in [int(seed) for seed in sys.argv[2:]] or [1, 2]:
        measure(start, "start", seed, 0)
        of_gfn2 = experiment.run(open_gfn2(), seed, folder / f"gfn2-{seed}")
        # The first fit with the random numbers of every round: what others are compared with, frame noise aside.
        own, *_ = (measure(models["round-0"], "round-0", seed, number) for number in range(N_ROUNDS + 1))
        for arm in (OWN, GFN2):
            added: dict[str, Path] = {}
            for number in range(1, N_ROUNDS + 1):
                here, name = folder / f"{arm}-{seed}-{number}", f"round-{number}"
                added[name] = part(
                    *((own, slice(1, None, 2)) if arm == OWN else (of_gfn2, slice(number - 1, None, N_ROUNDS))), here / name
                )
                models[f"{arm}-{seed}"] = experiment.fit(here, added)
                following = measure(models[f"{arm}-{seed}"], arm, seed, number)
                own = following if arm == OWN else own
    with (folder / "errors.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    data = BenchmarkData(experiment.minima, experiment.stored, experiment.trained)
    write_json(folder / "benchmark.json", run_benchmark(models, data, experiment.params.benchmark, folder), indent=1)


if __name__ == "__main__":
    main()

"""Train one variant of the network: the whole of stage 07."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import ParamsError
from pesfit.core.launch import is_helper, run_together
from pesfit.core.process_group import ProcessGroup
from pesfit.core.runtime import RUNS, SCRATCH
from pesfit.data.dataset import ConformerDataset
from pesfit.data.sources import check_source_names
from pesfit.data.splits import SPLITS, Splits
from pesfit.painn.potential import CONFIG_FILE, PaiNNConfig, PaiNNPotential, Variant, build_painn, load_painn, transfer_weights
from pesfit.painn.train.datasets import TrainingData, load_sets
from pesfit.painn.train.evaluate import Evaluation, evaluate_split
from pesfit.painn.train.fit_last_layer import fit_last_layer
from pesfit.painn.train.loop import CHECKPOINT_FORMAT_VERSION, SECONDS_BETWEEN_CHECKPOINTS, Trained, TrainingInputs, TrainingRun
from pesfit.painn.train.optimizer import FlatParameters
from pesfit.painn.train.results import Outcome
from pesfit.painn.train.step import GradientStep, epoch_batches
from pesfit.painn.train.tracking import Tracker, plot_learning_curve
from pesfit.params.train_learned import TrainLearned

STAGE = "train_learned"
LEARNED = Path("outputs/learned")

_AFTERWARDS = {"ensemble", "last_layer_conformers"}
"""Parameters that no training depends on: an interrupted run resumes when they change."""


@dataclass(frozen=True)
class Folders:
    """Folders of a run besides its output.

    Attributes:
        scratch: for checkpoints.
        runs: for TensorBoard and times.
    """

    scratch: Path = SCRATCH / STAGE
    runs: Path = RUNS


def train_network(  # noqa: PLR0913 - the inputs and outputs of a stage
    variant: Variant,
    clustered: Mapping[str, ConformerDataset],
    splits: Splits,
    params: TrainLearned,
    output: Path,
    *,
    start: Path | None = None,
    plot: Path | None = None,
    folders: Folders = Folders(),
    seconds_between_checkpoints: float = SECONDS_BETWEEN_CHECKPOINTS,
) -> dict[str, Any]:
    """Train a variant of the network and measure its errors on every split.

    Writes `config.json` and `model.safetensors` (the moving average of the weights when the validation loss was lowest), the same under
    `last/` (at the end of the run), `history.csv` (the learning curve) and `failures.csv`; the conservative variant also
    `last-layer.npz` (posterior of the last layer), and the networks of the ensemble under `ensemble/<number>/`. The bytes depend on data,
    parameters and the kind of processor alone, not on the number of processes, nor on interruptions.

    Args:
        variant: forces as -dE/dx (`conservative`), or from a head of their own (`direct`).
        clustered: data sets by name.
        splits: of all conformers.
        params: section `train_learned`.
        output: folder to write to.
        start: folder of a trained network whose weights training starts from, of this variant or the other; None for random weights.
        plot: PNG of the learning curve.
        folders: for checkpoints and logs.
        seconds_between_checkpoints: of work that an interrupted run loses at most, besides a step.

    Returns:
        Metrics; empty in a process that `torchrun` started to help another, which writes nothing.

    Raises:
        ParamsError: where sources do not exist, or there is no trained network to start from.
        DataError: where a split is empty, or the network to start from has another shape.
        PesfitError: when the loss is no longer a finite number, or another process dies.
    """
    sources = {source for dataset in clustered.values() for source in dataset.table.column("source").unique().to_pylist()}
    check_source_names("train_learned.sources", params.sources, sources)
    if start is not None and not (start / CONFIG_FILE).is_file():
        raise ParamsError(f"initial_weights.{variant} = {str(start)!r}: holds no trained network ({CONFIG_FILE} is missing)")
    paths = {name: dataset.path.resolve() for name, dataset in clustered.items()}
    job = TrainingJob(variant, paths, splits, params, start, folders, seconds_between_checkpoints)
    outcome = run_together(train_together, job, params.batching.n_shards)
    if is_helper():
        return {}
    outcome.write(output)
    if plot is not None:
        plot.parent.mkdir(parents=True, exist_ok=True)
        plot_learning_curve(plot, outcome.trained.history, f"Training of the {variant} network")
    metrics = {
        "variant": variant,
        "started_from": None if start is None else str(start),
        **outcome.metrics(params),
    }
    shutil.rmtree(folders.scratch / variant, ignore_errors=True)
    return metrics


@dataclass(frozen=True)
class TrainingJob:
    """The arguments of a training, as sent to each process.

    Attributes:
        start: folder of the network to start from; None for random weights.
        companion: number; 0 for the network itself, from 1 for those trained beside it.
    """

    variant: Variant
    datasets: Mapping[str, Path]
    splits: Splits
    params: TrainLearned
    start: Path | None
    folders: Folders
    seconds_between_checkpoints: float
    companion: int = 0

    @property
    def companions(self) -> list[TrainingJob]:
        """The trainings that differ from this one by their seed alone."""
        n = self.params.ensemble if self.variant == "conservative" else 0
        return [
            replace(self, params=self.params.model_copy(update={"seed": self.params.seed + i}), companion=i)
            for i in range(1, n + 1)
        ]

    @property
    def run_name(self) -> str:
        """Name of the folder for TensorBoard."""
        return f"{STAGE}-{self.variant}" + (f"-ensemble-{self.companion}" if self.companion else "")

    @property
    def label(self) -> str:
        """Label of the progress bar."""
        return f"train {self.variant}" + (f", ensemble {self.companion}/{self.params.ensemble}" if self.companion else "")


def train_together(group: ProcessGroup, job: TrainingJob) -> Outcome:
    """Train in one of the processes of a group."""
    params = job.params
    datasets = {name: ConformerDataset(path) for name, path in job.datasets.items()}
    sets = load_sets(datasets, job.splits, params, STAGE, group.device)
    data = sets.data
    potential = _build(job, data["train"]).to(group.device)
    flat = FlatParameters(potential)
    n_batches = len(epoch_batches(data["train"].n_atoms, params.batching, params.seed, epoch=0))
    with group.first_before_others():  # what the first compiles, the others find in its cache
        step = GradientStep(
            potential,
            params.objective,
            data["train"],
            compile_step=params.compile,
            n_steps=params.num_epochs * n_batches,
            batch_size=len(data["train"]) / n_batches,
        )
    inputs = TrainingInputs(potential, flat, step, data["train"], data["validation"], params)
    trained, evaluations = _train_one(group, job, inputs, data)
    last_layer = None
    if potential.conservative:
        last_layer = fit_last_layer(potential, data, params.objective, params.last_layer_conformers, group)
    companions = []
    for companion in job.companions:
        # The same module and step with other weights, so that nothing is compiled again.
        flat.set(FlatParameters(_build(companion, data["train"])).vector)
        companions.append(_train_one(group, companion, replace(inputs, params=companion.params), {})[0])
    flat.set(trained.best)
    return Outcome(potential, flat, trained, evaluations, sets, last_layer, companions)


def _train_one(
    group: ProcessGroup, job: TrainingJob, inputs: TrainingInputs, evaluated: Mapping[str, TrainingData]
) -> tuple[Trained, dict[str, Evaluation]]:
    """Train from the weights of the inputs, which become the best ones, and evaluate these."""
    potential, flat, step = inputs.potential, inputs.flat, inputs.step
    checkpoint = job.folders.scratch / job.variant / f"{_digest(job, inputs)}.safetensors"
    logs = job.folders.runs / job.run_name if group.is_first else None
    with closing(Tracker(logs, job.label, job.params.num_epochs)) as tracker:
        trained = TrainingRun(inputs, group, tracker, checkpoint, job.seconds_between_checkpoints).train()
        flat.set(trained.best)
        evaluations, times = {}, {}
        for split in [split for split in SPLITS if split in evaluated]:
            started = time.perf_counter()
            evaluations[split] = evaluate_split(potential, evaluated[split], job.params.objective, group)
            times[split] = 1e6 * (time.perf_counter() - started) * group.size / int(evaluated[split].n_atoms.sum())
        tracker.write_times(
            {
                "processes": group.size,
                "device": str(group.device),
                "compiled": step.compiled,
                "compiled_why": step.why,
                "step_median_ms": trained.step_ms,
                "inference_us_per_atom_and_process": times,
            }
        )
    return trained, evaluations


@dataclass(frozen=True)
class Atomrefs:
    """Energies of the elements, so that the network learns the small residual, and the scale of that residual.

    Attributes:
        elements: atomic numbers, ascending.
        values: [kcal/mol], the contribution of each element, shape (n_elements,).
        scale: [kcal/mol], the energy that an output of 1 of the network stands for.
    """

    elements: tuple[int, ...]
    values: FloatArray
    scale: float


def fit_atomrefs(data: TrainingData) -> Atomrefs:
    """Fit one energy for each element by least squares in float64, and take the root mean square of forces as the scale.

    ::

        min_e Σ_c (E_c - Σ_elements n_c,element e_element)²

    Conformers of a row have the same composition, so that rows with the mean energy and the number of their conformers as weight give
    the same optimum. Where compositions do not fix every element (one molecule alone, say) it is the solution of least norm.

    A network whose energies are of order 1 per atom and Å then has forces of about the right size from the start. Without forces, the
    scale is the root mean square residual of the energies, and 1 where that is 0.

    Args:
        data: the training set.
    """
    elements = data.elements
    n_conformers = np.bincount(data.row, minlength=len(data.rows))
    energy = data.energy.cpu().numpy()
    mean = np.bincount(data.row, weights=energy) / n_conformers
    counts = np.zeros((len(data.rows), len(elements)))
    np.add.at(counts, (data.row_of_atom, np.searchsorted(elements, data.atomic_numbers.cpu().numpy())), 1.0)
    weight = np.sqrt(n_conformers)
    values, *_ = np.linalg.lstsq(weight[:, None] * counts, weight * mean, rcond=None)
    n_components = 3 * int((data.n_atoms * data.has_forces).sum())
    residual = energy - (counts @ values)[data.row]
    square = float((data.forces**2).sum()) / n_components if n_components else float(np.mean(residual**2))
    return Atomrefs(elements, values.astype(np.float64), float(np.sqrt(square)) if square > 0.0 else 1.0)


def _build(job: TrainingJob, train: TrainingData) -> PaiNNPotential:
    atomrefs = fit_atomrefs(train)
    config = PaiNNConfig(job.variant, atomrefs.elements, job.params.network)
    potential = build_painn(config, atomrefs=torch.from_numpy(atomrefs.values), scale=atomrefs.scale, seed=job.params.seed)
    if job.start is not None:
        transfer_weights(load_painn(job.start), potential)
    return potential


def _digest(job: TrainingJob, inputs: TrainingInputs) -> str:
    """Return the name of a checkpoint, a digest of everything the run depends on."""
    settings = [
        CHECKPOINT_FORMAT_VERSION,
        torch.__version__,
        job.variant,
        job.params.model_dump(mode="json", exclude=_AFTERWARDS),
    ]
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for data in (inputs.train, inputs.validation):
        for value in vars(data).values():
            array = value.cpu().numpy() if isinstance(value, Tensor) else value
            if isinstance(array, np.ndarray):
                digest.update(np.ascontiguousarray(array).data)
    digest.update(inputs.flat.vector.detach().cpu().numpy().data)
    return digest.hexdigest()[:32]

"""A thousand epochs of Adam against the exact optimum: objective and time, on every data set at hand.

    python benchmarks/fit_curve.py

Both minimize the same: squares of energies and forces of the training set, and the prior at the strength that the evidence chooses.
Adam starts at the starting force field; each of several rates falls to a thousandth of itself in the course, and the best of them is shown.
The small profile takes part after `dvc repro`; Espaloma entries and rMD17 ethanol and aspirin where PESFIT_REAL_DATA says where they are.
One process, one thread.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import torch

from pesfit.core.arrays import FloatArray
from pesfit.data.dataset import open_datasets
from pesfit.data.splits import SPLITS, Splits
from pesfit.data.topology import ParameterizedSet
from pesfit.parameterize.stage import parameterize_datasets
from pesfit.params.fit_smirnoff import FitSmirnoff, Gradient, StepLength
from pesfit.params.preparation import AssignCharges, Convert, ConvertMD17, EspalomaSubset, Parameterize, Sources, Split
from pesfit.smirnoff.exact.accumulate import PassSettings, accumulate, assemble, read
from pesfit.smirnoff.exact.solve import fit_exactly
from pesfit.smirnoff.exact.training_set import TrainingSet
from pesfit.smirnoff.fit_data import FitInputs, cut, list_molecules
from pesfit.smirnoff.gradient.epochs import RunFiles
from pesfit.smirnoff.gradient.run import GradientData, GradientFit, GradientStart, fit_by_gradient
from pesfit.smirnoff.parameters import AddedPeriodicities, Layout
from pesfit.sources.convert import convert_sources
from pesfit.split.stage import split_datasets
from pesfit.statistics.normal_equations import ENERGIES, FORCES

EPOCHS = 1000
SHOWN = (0, 10, 30, 100, 300, 1000)
RATES = (0.01, 0.03, 0.1)
FRAMES = 1500


def prepared(mirror: Path, sources: Sources, folder: Path) -> FitInputs:
    """Take real data through stages 02, 03 and 05."""
    for name in ("arrow", "parameterized", "splits"):
        (folder / name).mkdir(parents=True)
    convert_sources(mirror, sources, Convert(rmd17=ConvertMD17(max_frames=None)), folder / "arrow")
    datasets = open_datasets(folder / "arrow")
    parameterize_datasets(
        datasets, Parameterize(charges=AssignCharges(methods=("dataset", "nagl", "sqm"))), folder / "parameterized"
    )
    split_datasets(datasets, Split(), folder / "splits")
    return FitInputs(datasets, ParameterizedSet.open(folder / "parameterized"), Splits.open(folder / "splits" / "splits.arrow"))


def small_profile() -> FitInputs:
    """Read what the stages before the fit have left here."""
    return FitInputs(
        open_datasets("data/clustered"), ParameterizedSet.open("data/parameterized"), Splits.open("data/splits/splits.arrow")
    )


@dataclass(frozen=True)
class Exact:
    """The exact fit, and how long it took."""

    data: GradientData
    start: GradientStart
    params: FitSmirnoff
    seconds: float


def exactly(inputs: FitInputs, folder: Path) -> Exact:
    """Fit exactly, all of it: statistics, prior strength by evidence, bounded optimum."""
    begin, params = time.perf_counter(), FitSmirnoff(molecule_strength=None)  # as the gradient fit, which knows no other
    molecules, _ = list_molecules(inputs.datasets, inputs.parameterized)
    force_field = inputs.parameterized.force_field
    layout, extension = Layout.of(force_field, params.train), AddedPeriodicities(force_field, {})
    setup = PassSettings(force_field, layout, params.objective.conformer_weight, inputs.paths())
    paths = accumulate(inputs, cut(molecules, params.shards), setup, extension, folder)
    problem = assemble(read(paths), layout, params.objective, SPLITS)
    fit = fit_exactly(problem, TrainingSet(lambda: read(paths), params.objective, {}, len(layout)), params)
    start = GradientStart(
        force_field, layout, fit.posterior.x, (fit.weights[ENERGIES], fit.weights[FORCES]), fit.posterior.strength
    )
    return Exact(GradientData(inputs, molecules, extension), start, params, time.perf_counter() - begin)


def descended(exact: Exact, gradient: Gradient, folder: Path) -> tuple[GradientFit, float]:
    """Run the gradient fit, and time it."""
    begin = time.perf_counter()
    found = fit_by_gradient(
        exact.data, exact.start, gradient, exact.params.objective, RunFiles(folder / "gradient.npz", None, "benchmark", 1e9)
    )
    return found, time.perf_counter() - begin


def objective(found: GradientFit) -> FloatArray:
    """Return loss and prior at each epoch."""
    return np.asarray(found.course.history[:, 2] + found.course.history[:, 3])


def compare(name: str, inputs: FitInputs, folder: Path) -> bool:
    """Print the curve; returns whether the exact optimum is at or below all of it."""
    exact = exactly(inputs, folder / "statistics")
    best = float(objective(descended(exact, Gradient(patience=None, epochs=1), folder / "one")[0])[0])
    curves = []
    for rate in RATES:
        params = Gradient(
            optimizer="adam", start="force_field", patience=None, epochs=EPOCHS,
            learning_rate=StepLength(initial=rate, final=1e-3 * rate),
        )  # fmt: skip
        found, seconds = descended(exact, params, folder / f"adam-{rate}")
        curves.append((float(objective(found).min()), rate, seconds, objective(found), found))
    _, rate, seconds, curve, found = min(curves, key=lambda entry: entry[0])
    lm, lm_seconds = descended(exact, Gradient(start="force_field", patience=None, tolerance=1e-14), folder / "lm")
    n = sum(row.n_conformers for row in found.errors if row.split == "train")
    print(f"\n{name}: {n} training conformers, {len(exact.start.layout)} parameters, prior strength {exact.start.strength:.3g}")
    print(f"  {'':34s} {'objective':>16s} {'above the optimum':>18s} {'seconds':>9s}")
    for epoch in SHOWN:
        value = float(curve[min(epoch, len(curve) - 1)])
        label = f"Adam, rate {rate:g}, epoch {epoch}"
        print(f"  {label:34s} {value:16.6f} {(value - best) / best:18.2e} {seconds * epoch / EPOCHS:9.2f}")
    value = float(objective(lm)[-1])
    label = f"Levenberg-Marquardt, {lm.course.n_epochs} epochs"
    print(f"  {label:34s} {value:16.6f} {(value - best) / best:18.2e} {lm_seconds:9.2f}")
    print(f"  {'exact, data to optimum':34s} {best:16.6f} {0.0:18.2e} {exact.seconds:9.2f}", flush=True)
    return all(best <= float(entry[3].min()) * (1.0 + 1e-9) for entry in curves)


def main() -> int:
    torch.set_num_threads(1)
    os.environ["PESFIT_WORKERS"] = "1"
    held = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if Path("data/splits/splits.arrow").is_file():
            held.append(compare("small profile", small_profile(), folder / "small"))
        real = os.environ.get("PESFIT_REAL_DATA")
        if real:
            mirror = Path(real) / "mirror"
            present = {path.name.removesuffix(".tar.gz") for path in (mirror / "espaloma").glob("*.tar.gz")}
            subsets = tuple(subset for subset in get_args(EspalomaSubset) if subset in present)
            for name, sources in {
                "Espaloma": Sources(espaloma=subsets, xtb=False),
                "rMD17 ethanol and aspirin": Sources(rmd17=("ethanol", "aspirin"), xtb=False),
            }.items():
                part = folder / name
                held.append(compare(name, prepared(mirror, sources, part), part))
    if not held:
        print("no data here: run `dvc repro`, or set PESFIT_REAL_DATA")
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())

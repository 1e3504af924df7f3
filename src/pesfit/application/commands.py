"""`python -m pesfit predict`, `md` and `label`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from pesfit.params.preparation import ChargeMethod

_MODEL = "an output folder, such as outputs/smirnoff or outputs/learned/conservative, or an .offxml (path or installed name)"
_SMILES = (
    "bonds of the atoms in xyz files, which SMIRNOFF needs: with map numbers 1 to n on all atoms, or none to match it with the atoms "
    "that are neighbors"
)
_CHARGE_METHODS = tuple(method for method in get_args(ChargeMethod) if method != "dataset")


def add_commands(commands: Any) -> None:
    """Add the commands to the subparsers of the command line; nothing heavy is imported before one runs."""
    predict = commands.add_parser(
        "predict",
        help="print or write energies and forces, with standard deviations where the model has a posterior",
        description="Evaluate geometries. All of them can be evaluated, or nothing is written.",
    )
    predict.add_argument("model", metavar="MODEL", help=_MODEL)
    predict.add_argument(
        "files",
        metavar="FILE",
        nargs="+",
        help="xyz, extxyz, SDF or .smi file, or a SMILES; conformers of SMILES are made by ETKDG and not relaxed",
    )
    predict.add_argument(
        "--output", metavar="FILE", type=Path, help="write extxyz (eV, eV/Å) here instead of a table (kcal/mol) to the terminal"
    )
    _add_common(predict, seed="of ETKDG", run=_predict)

    md = commands.add_parser(
        "md",
        help="run dynamics of one molecule and write frames",
        description="Run Langevin dynamics (BAOAB), or velocity Verlet with --nve, and write extxyz: energy, forces, momenta, time, "
        "temperature, and standard deviations where the model has a posterior. The file appears when the run ends; Ctrl-C ends it early "
        "and keeps the frames so far.",
    )
    md.add_argument("model", metavar="MODEL", help=_MODEL)
    md.add_argument("file", metavar="FILE", help="what `predict` takes; the first molecule and frame is where it starts")
    md.add_argument("--steps", type=int, required=True, help="how many")
    md.add_argument("--timestep", metavar="FS", type=float, default=0.5, help="time step, fs (%(default)s)")
    md.add_argument(
        "--temperature", metavar="K", type=float, default=300.0, help="of the first velocities and of the bath, K (%(default)s)"
    )
    md.add_argument("--friction", metavar="1/PS", type=float, default=1.0, help="of Langevin dynamics, 1/ps (%(default)s)")
    md.add_argument("--nve", action="store_true", help="constant energy: no bath")
    md.add_argument("--every", metavar="N", type=int, default=10, help="steps between frames (%(default)s)")
    md.add_argument("--output", metavar="FILE", type=Path, default=Path("traj.extxyz"), help="where frames go (%(default)s)")
    _add_common(md, seed="of velocities, noise and ETKDG", run=_md)
    _add_label(commands)


def _add_common(parser: argparse.ArgumentParser, seed: str, run: Callable[[argparse.Namespace], None]) -> None:
    parser.add_argument("--smiles", help=_SMILES)
    parser.add_argument("--seed", type=int, default=0, help=f"{seed} (%(default)s)")
    _add_charges(parser)
    parser.set_defaults(run=run)


def _add_label(commands: Any) -> None:
    label = commands.add_parser(
        "label",
        help="write a data set with a model's energies and forces: a trajectory becomes training data",
        description="Evaluate conformers of a data set with GFN2-xTB or a model, and write a data set with these energies and forces; all "
        "else is kept. What cannot be evaluated is left out and listed in failures.csv of the new folder. Work is spread over all cores; "
        "PESFIT_WORKERS sets another number of processes. The folder appears when it is whole.",
    )
    label.add_argument("model", metavar="MODEL", help=f"`gfn2` for GFN2-xTB, or {_MODEL}")
    label.add_argument(
        "dataset", metavar="DATASET", type=Path, help="a data set, such as outputs/rollouts/trajectories/conservative"
    )
    label.add_argument("output", metavar="OUTPUT", type=Path, help="folder to be made")
    label.add_argument("--source", metavar="NAME", help="`source` of the new rows (labelled/<what it was>)")
    label.add_argument(
        "--every",
        metavar="N",
        type=int,
        default=1,
        help="take the first conformer of each row and every N-th after it (%(default)s)",
    )
    label.add_argument(
        "--max-conformers", metavar="N", type=int, help="of these, take at most N in all, evenly spread over the data set"
    )
    label.add_argument(
        "--most-uncertain",
        metavar="N",
        type=int,
        help="of these, take the N with the largest deviation of the force on an atom",
    )
    label.add_argument(
        "--by",
        metavar="MODEL",
        help="the model with a posterior that says how unsure it is, for --most-uncertain (MODEL itself)",
    )
    _add_charges(label)
    label.set_defaults(run=_label)


def _add_charges(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--charges",
        metavar="METHOD",
        nargs="+",
        choices=_CHARGE_METHODS,
        default=["nagl", "sqm"],
        help=f"where SMIRNOFF takes partial charges from, tried in this order, of {', '.join(_CHARGE_METHODS)} (nagl sqm)",
    )


def _predict(options: argparse.Namespace) -> None:
    from pesfit.application.extxyz import Frame, write_frame
    from pesfit.application.geometries import read_geometries
    from pesfit.application.predict import predict
    from pesfit.application.table import table
    from pesfit.application.whole_file import check_output, whole_file
    from pesfit.core.units import EV
    from pesfit.models.open import open_model

    if options.output is not None:
        check_output(options.output, tuple(options.files))
    model = open_model(options.model, options.charges)
    geometries = read_geometries(options.files, options.smiles, options.seed)
    predicted = predict(model, geometries)
    for geometry in geometries:
        _say(geometry.note)
    if options.output is None:
        for line in table(model.name, predicted):
            print(line)
        return
    with whole_file(options.output) as stream:
        for of in predicted:
            info = {
                "model": model.name,
                "relative_energy": of.relative_energy / EV,
                "smiles": of.geometry.smiles,
                "charges_from": of.charge_method,
            }
            geometry = of.geometry
            frame = Frame(geometry.atomic_numbers, geometry.coords, of.energy, of.forces, of.deviations, of.charges, info=info)
            write_frame(stream, frame)
    _say(f"{options.output}: {len(predicted)} frames, in eV and Å")


def _md(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from pesfit.application.extxyz import write_frame
    from pesfit.application.geometries import read_geometries
    from pesfit.application.md import ExplodedError, Run, Simulation
    from pesfit.application.table import OUTSIDE
    from pesfit.application.whole_file import check_output, whole_file
    from pesfit.models.open import open_model

    run = Run(
        options.steps,
        options.timestep,
        options.temperature,
        None if options.nve else options.friction,
        options.every,
        options.seed,
    )
    check_output(options.output, (options.file,))
    model = open_model(options.model, options.charges)
    geometries = read_geometries([options.file], options.smiles, options.seed)
    start = geometries[0]
    simulation = Simulation(model, start, run)
    _say(start.note)
    if len(geometries) > 1:
        _say(f"{start.where}: starts here; {options.file} holds {len(geometries)} geometries")
    n_frames, outside = 0, None
    ended: KeyboardInterrupt | ExplodedError | None = None
    with whole_file(options.output) as stream:
        bar = tqdm(total=run.n_steps, desc="md", unit="step", dynamic_ncols=True, mininterval=0.5)
        try:
            for frame in simulation.frames(bar.update):
                write_frame(stream, frame)
                n_frames += 1
                if outside is None and frame.deviations is not None and frame.deviations.outside_domain:
                    outside = frame.info["time_fs"]
        except (KeyboardInterrupt, ExplodedError) as error:
            ended = error
        finally:
            bar.close()
    _say(f"{options.output}: {n_frames} frames, in eV and Å")
    if outside is not None:
        _say(f"at {outside:g} fs first {OUTSIDE}")
    if ended is not None:
        _say("the frames so far are kept")
        raise ended


def _label(options: argparse.Namespace) -> None:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # processes use the cores; these read it when they start

    from pesfit.application.choice import Choice
    from pesfit.application.label import label_dataset
    from pesfit.application.teacher import Teacher
    from pesfit.core.files import FAILURES_FILE
    from pesfit.data.dataset import ConformerDataset

    by = None if options.by is None else Teacher(options.by, tuple(options.charges))
    choice = Choice(options.every, options.max_conformers, options.most_uncertain, by)
    teacher = Teacher(options.model, tuple(options.charges))
    summary = label_dataset(teacher, ConformerDataset(options.dataset), options.output, choice, options.source)
    _say(
        f"{options.output}: {summary.n_conformers} conformers in {summary.n_rows} rows, labelled with {teacher.level_of_theory}"
    )
    if summary.failures:
        _say(
            f"{summary.n_left_out} conformers are left out; {len(summary.failures)} rows are in {options.output / FAILURES_FILE}, the "
            f"first: {summary.failures[0].id}: {summary.failures[0].message}"
        )


def _say(line: str) -> None:
    """Tell what is not a result, apart from the results."""
    if line:
        print(line, file=sys.stderr)

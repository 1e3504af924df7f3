"""The commands `predict`, `md`, `label` and `export`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

from pesfit.core.exceptions import ParamsError
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
    files = "xyz, extxyz, SDF or .smi file, or a SMILES; conformers of SMILES are made by ETKDG and not relaxed"
    predict.add_argument("files", metavar="FILE", nargs="+", help=files)
    output = "write extxyz (eV, eV/Å) here instead of a table (kcal/mol) to the terminal"
    predict.add_argument("--output", metavar="FILE", type=Path, help=output)
    by_term = "the energy of each kind of SMIRNOFF term too: bonds, angles, ..."
    predict.add_argument("--by-term", action="store_true", help=by_term)
    _add_common(predict, seed="of ETKDG", run=_predict)

    md = commands.add_parser(
        "md",
        help="run dynamics of one molecule and write frames",
        description="Run Langevin dynamics (BAOAB), or velocity Verlet with --nve, and write extxyz: energy, forces, momenta, time, "
        "temperature, and standard deviations where the model has a posterior. The file appears when the simulation ends; Ctrl-C ends it "
        "early and keeps the frames so far.",
    )
    md.add_argument("model", metavar="MODEL", help=_MODEL)
    md.add_argument("file", metavar="FILE", help="as for `predict`; the first geometry is the start")
    md.add_argument("--steps", type=int, required=True, help="number of steps")
    md.add_argument("--timestep", metavar="FS", type=float, default=0.5, help="time step, fs (%(default)s)")
    temperature = "of the initial velocities and of the thermostat, K (%(default)s)"
    md.add_argument("--temperature", metavar="K", type=float, default=300.0, help=temperature)
    md.add_argument("--friction", metavar="1/PS", type=float, default=1.0, help="of Langevin dynamics, 1/ps (%(default)s)")
    md.add_argument("--nve", action="store_true", help="velocity Verlet, without a thermostat")
    md.add_argument("--every", metavar="N", type=int, default=10, help="steps between frames (%(default)s)")
    md.add_argument(
        "--output", metavar="FILE", type=Path, default=Path("traj.extxyz"), help="extxyz file of the frames (%(default)s)"
    )
    _add_common(md, seed="of velocities, noise and ETKDG", run=_md)
    _add_label(commands)
    _add_export(commands)


def _add_common(parser: argparse.ArgumentParser, seed: str, run: Callable[[argparse.Namespace], None]) -> None:
    parser.add_argument("--smiles", help=_SMILES)
    parser.add_argument("--seed", type=int, default=0, help=f"{seed} (%(default)s)")
    _add_charges(parser)
    parser.set_defaults(run=run)


def _add_label(commands: Any) -> None:
    label = commands.add_parser(
        "label",
        help="write a data set with a model's energies and forces: a trajectory becomes training data",
        description="Evaluate conformers of a data set, or frames of a file, with GFN2-xTB or a model, and write a data set with these "
        "energies and forces; all else is kept. What cannot be evaluated is left out and listed in failures.csv of the new folder. "
        "Work is spread over all cores; "
        "PESFIT_WORKERS sets another number of processes. The folder appears when it is whole.",
    )
    label.add_argument("model", metavar="MODEL", help=f"`gfn2` for GFN2-xTB, or {_MODEL}")
    dataset = (
        "a data set, such as outputs/rollouts/trajectories/conservative, or a file of geometries, such as `pesfit md` writes"
    )
    label.add_argument("dataset", metavar="DATASET", type=Path, help=dataset)
    label.add_argument("output", metavar="OUTPUT", type=Path, help="folder to be made")
    label.add_argument("--source", metavar="NAME", help="`source` of the new rows (labeled/<the old source>)")
    every = "take the first conformer of each row and every N-th after it (%(default)s)"
    label.add_argument("--every", metavar="N", type=int, default=1, help=every)
    label.add_argument(
        "--max-conformers", metavar="N", type=int, help="of these, take at most N, evenly spread over the data set"
    )
    most_uncertain = "of these, take the N with the largest standard deviation of the force on an atom"
    label.add_argument("--most-uncertain", metavar="N", type=int, help=most_uncertain)
    by = "the model with a posterior that gives the standard deviations, for --most-uncertain (MODEL itself)"
    label.add_argument("--by", metavar="MODEL", help=by)
    _add_charges(label)
    label.set_defaults(run=_label)


def _add_export(commands: Any) -> None:
    export = commands.add_parser("export", help="write a force field for another program: smee and descent")
    smee = export.add_subparsers(metavar="FORMAT", required=True).add_parser(
        "smee",
        help="a file of a smee.TensorForceField and smee.TensorTopology objects, as descent trains them",
        description="Write what `force_field, topologies = torch.load(FILE, weights_only=False)` reads: a smee.TensorForceField, and a "
        "dictionary of a smee.TensorTopology for each mapped SMILES, as the data sets have it in their column `smiles`. smee must be "
        "installed.",
    )
    smee.add_argument("model", metavar="MODEL", help="an output folder of stage 06, or an .offxml (path or installed name)")
    smee.add_argument("file", metavar="FILE", type=Path, help="file to write, such as force-field.pt")
    smee.add_argument(
        "smiles", metavar="SMILES", nargs="*", help="molecules, with or without map numbers (those of --molecules)"
    )
    smee.add_argument(
        "--molecules", metavar="FOLDER", type=Path, default=Path("data/parameterized"), help="output of stage 03 (%(default)s)"
    )
    _add_charges(smee)
    smee.set_defaults(run=_export_smee)


def _add_charges(parser: argparse.ArgumentParser) -> None:
    charges = f"where SMIRNOFF takes partial charges from, tried in this order, of {', '.join(_CHARGE_METHODS)} (nagl sqm)"
    parser.add_argument(
        "--charges", metavar="METHOD", nargs="+", choices=_CHARGE_METHODS, default=["nagl", "sqm"], help=charges
    )


def _predict(options: argparse.Namespace) -> None:
    from pesfit.application.frames import table, write_frame
    from pesfit.application.geometries import read_geometries
    from pesfit.application.predict import predict
    from pesfit.core.files import atomic_write
    from pesfit.models.open import open_model

    if options.output is not None:
        _check_output(options.output, options.files)
    model = open_model(options.model, options.charges)
    geometries = read_geometries(options.files, options.smiles, options.seed)
    evaluated = predict(model, geometries, by_term=options.by_term)
    for geometry in geometries:
        _report(geometry.note)
    if options.output is None:
        for line in table(model.name, evaluated):
            print(line)
        return
    with atomic_write(options.output) as new, new.open("w", encoding="utf-8") as stream:
        for of in evaluated:
            write_frame(stream, model.name, of)
    _report(f"{options.output}: {len(evaluated)} frames, in eV and Å")


def _md(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    from pesfit.application.frames import OUTSIDE, write_frame
    from pesfit.application.geometries import read_geometries
    from pesfit.application.md import ExplodedError, run_md
    from pesfit.core.files import atomic_write
    from pesfit.models.open import open_model
    from pesfit.simulate.loop import Protocol

    if options.every < 1:
        raise ParamsError(f"--every {options.every}: at least 1 is needed")
    protocol = Protocol(
        timestep_fs=options.timestep,
        n_steps=options.steps,
        observe_every=options.every,
        temperature_kelvin=options.temperature,
        friction_per_ps=None if options.nve else options.friction,
        seed=options.seed,
    )
    _check_output(options.output, [options.file])
    model = open_model(options.model, options.charges)
    geometries = read_geometries([options.file], options.smiles, options.seed)
    start = geometries[0]
    _report(start.note)
    if len(geometries) > 1:
        _report(f"{start.where}: starts here; {options.file} holds {len(geometries)} geometries")
    n_frames, outside = 0, None
    ended: KeyboardInterrupt | ExplodedError | None = None
    with atomic_write(options.output) as new, new.open("w", encoding="utf-8") as stream:
        bar = tqdm(total=protocol.n_steps, desc="md", unit="step", dynamic_ncols=True, mininterval=0.5)
        try:
            for frame in run_md(model, start, protocol, bar.update):
                state = frame.state
                info = {"step": frame.step, "time_fs": frame.time_fs, "temperature_kelvin": frame.temperature_kelvin}
                write_frame(stream, model.name, state, frame.masses, frame.velocities, **info)
                n_frames += 1
                if outside is None and state.std is not None and state.std.outside_domain:
                    outside = frame.time_fs
        except (KeyboardInterrupt, ExplodedError) as error:
            ended = error
        finally:
            bar.close()
    _report(f"{options.output}: {n_frames} frames, in eV and Å")
    if outside is not None:
        _report(f"at {outside:g} fs first {OUTSIDE}")
    if ended is not None:
        _report("the frames so far are kept")
        raise ended


def _export_smee(options: argparse.Namespace) -> None:
    from rdkit import Chem

    from pesfit.chemistry.smiles import elements_of, is_mapped, mapped_molecule, mapped_smiles, read_smiles
    from pesfit.data.topology import ParameterizedSet
    from pesfit.models.open import open_model
    from pesfit.smirnoff.model import SmirnoffModel
    from pesfit.smirnoff.smee import import_smee, write_smee

    import_smee()
    stored = None if options.smiles else ParameterizedSet.open(options.molecules)
    model = open_model(options.model, options.charges, stored=stored)
    if not isinstance(model, SmirnoffModel):
        raise ParamsError(f"export smee {options.model}: a network cannot be exported; expected a SMIRNOFF force field")
    known = [] if stored is None else [stored[number] for number in range(len(stored))]
    topologies = [model.topology(elements_of(mapped_molecule(of.smiles)), of.smiles, of.smiles, of.charges) for of in known]
    for given in options.smiles:
        mol = read_smiles(given)
        smiles = given if is_mapped(mol) else mapped_smiles(Chem.AddHs(mol))
        topologies.append(model.topology(elements_of(mapped_molecule(smiles)), smiles, given))
    print(
        f"{options.file}: a force field, and topologies of {write_smee(options.file, model.force_field, topologies)} molecules"
    )


def _label(options: argparse.Namespace) -> None:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # processes use the cores; these read it when they start

    from pesfit.application.geometries import read_geometries
    from pesfit.application.geometry_dataset import write_geometries
    from pesfit.application.label_dataset import Selection, label_dataset
    from pesfit.application.labeler import Labeler
    from pesfit.core.files import FAILURES_FILE
    from pesfit.data.dataset import ConformerDataset

    charges = tuple(options.charges)
    by = None if options.by is None else Labeler(options.by, charges)
    selection = Selection(options.every, options.max_conformers, options.most_uncertain, by)
    labeler = Labeler(options.model, charges)
    given: Path = options.dataset
    with tempfile.TemporaryDirectory() as folder:
        if given.is_file():
            dataset = write_geometries(Path(folder) / "frames", read_geometries([str(given)]), given.stem)
        else:
            dataset = ConformerDataset(given)
        summary = label_dataset(labeler, dataset, options.output, selection, options.source)
    _report(
        f"{options.output}: {summary.n_conformers} conformers in {summary.n_rows} rows, labeled with {labeler.level_of_theory}"
    )
    if summary.failures:
        _report(
            f"{summary.n_left_out} conformers are left out; {len(summary.failures)} rows are in {options.output / FAILURES_FILE}, the "
            f"first: {summary.failures[0].id}: {summary.failures[0].message}"
        )


def _check_output(path: Path, inputs: Sequence[str]) -> None:
    """Check, before work starts, that a geometry file can be written.

    Raises:
        ParamsError: where it has another suffix than .xyz or .extxyz, its folder is missing or cannot be written to, or it is an input.
    """
    from pesfit.application.geometries import XYZ

    if path.suffix.lower() not in XYZ:
        raise ParamsError(f"--output {path}: expected a name that ends in {' or '.join(XYZ)}")
    if not path.parent.is_dir():
        raise ParamsError(f"--output {path}: the folder {path.parent} does not exist")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise ParamsError(f"--output {path} cannot be written")
    for given in inputs:
        if path.exists() and Path(given).exists() and path.samefile(given):
            raise ParamsError(f"--output {path} is an input; expected another file")


def _report(line: str) -> None:
    """Print a message to stderr, apart from the results; an empty one is none."""
    if line:
        print(line, file=sys.stderr)

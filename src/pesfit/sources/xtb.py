"""The data set that is built on the machine itself: small molecules and one trajectory, labeled with GFN2-xTB.

Each molecule is embedded (ETKDG), relaxed, and sampled by short Langevin dynamics that start at the minima found. Ethanol gets one
long trajectory, which plays MD17's role. Every random number comes from a generator seeded by (seed, molecule, walker), so that
the rows do not depend on the number of workers or on how many molecules are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
from rdkit import Chem

from pesfit.chemistry.bonds import Connectivity
from pesfit.chemistry.smiles import elements_of, group_of, mapped_smiles, standard_masses
from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import Failure, MoleculeError, PesfitError
from pesfit.core.parallel import ordered_map
from pesfit.data.dataset import MAX_FRAMES_PER_ROW, Record
from pesfit.params.preparation import ConvertXtb
from pesfit.potentials.gfn2 import LEVEL_OF_THEORY, Gfn2
from pesfit.sources.xtb_dynamics import LabeledFrame, Langevin, find_minima

XTB_LEVELS = {"xtb/conformers": LEVEL_OF_THEORY, "xtb/trajectory": LEVEL_OF_THEORY}
"""Level of theory of each value of the `source` column."""
_MAX_FORCE = 0.5
"""kcal/mol/Å, at which a conformer counts as relaxed: its energy is then within some 0.01 kcal/mol of the minimum's."""
_MIN_KEPT = 0.8
"""A molecule fails if a smaller fraction of its frames has the bonds it should have."""
_TRAJECTORY_KEY = 1_000_000
"""Key of the trajectory, where molecules have their index."""


class NamedMolecule(NamedTuple):
    """A molecule of the built-in list.

    Attributes:
        name: unique, in small letters; part of the `id` of the rows.
        smiles: isomeric, hydrogens implicit, RDKit's canonical form.
    """

    name: str
    smiles: str


MOLECULES: tuple[NamedMolecule, ...] = (
    NamedMolecule("acetamide", "CC(N)=O"),
    NamedMolecule("1-chloro-2-fluoroethane", "FCCCl"),
    NamedMolecule("propanoate", "CCC(=O)[O-]"),
    NamedMolecule("dimethyl-sulfoxide", "CS(C)=O"),
    NamedMolecule("propylammonium", "CCC[NH3+]"),
    NamedMolecule("dimethyl-phosphate", "COP(=O)([O-])OC"),
    NamedMolecule("4-methylimidazole", "Cc1c[nH]cn1"),
    NamedMolecule("bromobenzene", "Brc1ccccc1"),
    NamedMolecule("methyl-acetate", "COC(C)=O"),
    NamedMolecule("3-chloroaniline", "Nc1cccc(Cl)c1"),
    NamedMolecule("trans-pent-2-ene", "C/C=C/CC"),
    NamedMolecule("2-methylsulfanylethanethiol", "CSCCS"),
    NamedMolecule("l-lactic-acid", "C[C@H](O)C(=O)O"),
    NamedMolecule("propanenitrile", "CCC#N"),
    NamedMolecule("nitroethane", "CC[N+](=O)[O-]"),
    NamedMolecule("methylguanidinium", "CNC(N)=[NH2+]"),
    NamedMolecule("2-methoxypyridine", "COc1ccccn1"),
    NamedMolecule("1,2-dimethoxyethane", "COCCOC"),
    NamedMolecule("n-methylmethanesulfonamide", "CNS(C)(=O)=O"),
    NamedMolecule("alanine-dipeptide", "CNC(=O)[C@H](C)NC(C)=O"),
    NamedMolecule("but-3-yn-1-ol", "C#CCCO"),
    NamedMolecule("2-methylthiophene", "Cc1cccs1"),
    NamedMolecule("furfural", "O=Cc1ccco1"),
    NamedMolecule("2-dimethylaminoethanol", "CN(C)CCO"),
    NamedMolecule("1,3-dimethylurea", "CNC(=O)NC"),
    NamedMolecule("trimethyl-phosphate", "COP(=O)(OC)OC"),
    NamedMolecule("paracetamol", "CC(=O)Nc1ccc(O)cc1"),
    NamedMolecule("methyl-n-methylcarbamate", "CNC(=O)OC"),
    NamedMolecule("dimethyl-disulfide", "CSSC"),
    NamedMolecule("morpholine", "C1COCCN1"),
    NamedMolecule("2,2,2-trifluoroethanol", "OCC(F)(F)F"),
    NamedMolecule("cyclopropyl-methyl-ketone", "CC(=O)C1CC1"),
    NamedMolecule("betaine", "C[N+](C)(C)CC(=O)[O-]"),
    NamedMolecule("2-phenoxyethylammonium", "[NH3+]CCOc1ccccc1"),
    NamedMolecule("uracil", "O=c1cc[nH]c(=O)[nH]1"),
    NamedMolecule("acetamidinium", "CC(N)=[NH2+]"),
    NamedMolecule("ethyl-methyl-sulfone", "CCS(C)(=O)=O"),
    NamedMolecule("methanesulfonate", "CS(=O)(=O)[O-]"),
    NamedMolecule("butane", "CCCC"),
    NamedMolecule("2-phenylpyridine", "c1ccc(-c2ccccn2)cc1"),
)
TRAJECTORY_MOLECULE = NamedMolecule("ethanol", "CCO")
"""The molecule of the one long trajectory."""


@dataclass(frozen=True)
class _SamplingTask:
    """One item of work: the conformers of a molecule, or the trajectory (`index` = `_TRAJECTORY_KEY`)."""

    index: int
    molecule: NamedMolecule

    @property
    def is_trajectory(self) -> bool:
        return self.index == _TRAJECTORY_KEY

    @property
    def id(self) -> str:
        return f"{'trajectory' if self.is_trajectory else 'conformers'}/{self.molecule.name}"


class _System:
    """Shared by all steps of a task: the molecule, its potential, its dynamics and its seeds."""

    def __init__(self, task: _SamplingTask, params: ConvertXtb) -> None:
        self.task = task
        self.params = params
        self.mol = Chem.AddHs(Chem.MolFromSmiles(task.molecule.smiles))
        self.atomic_numbers = elements_of(self.mol)
        self.total_charge = int(Chem.GetFormalCharge(self.mol))
        self.connectivity = Connectivity(self.mol)
        self.gfn2 = Gfn2(self.atomic_numbers, self.total_charge)
        self.masses = standard_masses(self.atomic_numbers)
        self.langevin = Langevin(self.masses, params.temperature_kelvin, params.friction_per_ps, params.timestep_fs)

    @property
    def embedding_seed(self) -> int:
        """Seed of ETKDG."""
        return int(self._seeds(0).generate_state(1)[0]) & 0x7FFFFFFF

    def _seeds(self, walker: int) -> np.random.SeedSequence:
        return np.random.SeedSequence(self.params.seed, spawn_key=(self.task.index, walker))

    def sample(
        self, start: FloatArray, walker: int, equilibration_fs: float, interval_fs: float, n_frames: int
    ) -> list[LabeledFrame]:
        """Run Langevin dynamics; keep frames up to the first one in which a bond has broken or formed.

        Args:
            start: [Å], shape (n_atoms, 3).
            walker: 1 and up; seeds the noise.
            equilibration_fs: what is thrown away before the first interval.
            interval_fs: between kept frames, and before the first.
            n_frames: how many to keep.
        """
        step = self.params.timestep_fs
        skip, every = round(equilibration_fs / step), round(interval_fs / step)
        steps = self.langevin.run(self.gfn2.energy_and_forces, start, np.random.Generator(np.random.PCG64(self._seeds(walker))))
        kept: list[LabeledFrame] = []
        for frame in islice(steps, skip + every - 1, skip + every * n_frames, every):
            if not self.connectivity.holds(frame.coords[None])[0]:
                break
            kept.append(frame)
        return kept

    def record(self, row_id: str, source: str, frames: list[LabeledFrame], numbers: list[int]) -> Record:
        """Make a row of frames; `numbers` are their places in the source's own order."""
        return Record(
            id=row_id,
            smiles=mapped_smiles(self.mol),
            atomic_numbers=self.atomic_numbers,
            coords=np.stack([frame.coords for frame in frames]),
            energy=np.array([frame.energy for frame in frames]),
            forces=np.stack([frame.forces for frame in frames]),
            charges=None,
            total_charge=self.total_charge,
            group=group_of(self.mol),
            source=source,
            frame=np.array(numbers, dtype=np.int64),
        )


def build_xtb(params: ConvertXtb) -> Iterator[Record | Failure]:
    """Build the set in worker processes: first one row a molecule, in the order of the list, then the rows of the trajectory.

    Conformers have the source `xtb/conformers`; their `frame` is walker * n_samples + sample, where walkers share out the minima
    from the lowest up. The trajectory has the source `xtb/trajectory`, rows of at most `MAX_FRAMES_PER_ROW` frames, and `frame` is
    the index along it. Frames from the first broken or formed bond of a walker on are left out; where they are more than a fifth of
    a molecule's, or the trajectory has any, there is a failure in its place.

    Args:
        params: section `convert.xtb`.

    Yields:
        The rows, and a failure for each molecule that has none.
    """
    trajectory = _SamplingTask(_TRAJECTORY_KEY, TRAJECTORY_MOLECULE)
    molecules = [_SamplingTask(index, molecule) for index, molecule in enumerate(MOLECULES[: params.n_molecules])]
    # What takes longest starts first, so that the last worker to finish finishes soon after the others.
    queue = [trajectory, *sorted(molecules, key=_cost, reverse=True)]
    results = ordered_map(partial(_run_task, params), queue, label="xtb", n_items=len(queue))
    by_task = dict(zip(queue, results, strict=True))
    for task in (*molecules, trajectory):
        yield from by_task[task]


def _cost(task: _SamplingTask) -> float:
    """Estimate the time of one energy: it grows with some 2.5th power of the number of orbitals."""
    mol = Chem.AddHs(Chem.MolFromSmiles(task.molecule.smiles))
    return float(sum(1 if atom.GetAtomicNum() == 1 else 4 if atom.GetAtomicNum() < 10 else 9 for atom in mol.GetAtoms()))


def _run_task(params: ConvertXtb, task: _SamplingTask) -> list[Record] | list[Failure]:
    build: Callable[[_System], list[Record]] = _trajectory if task.is_trajectory else _conformers
    try:
        return build(_System(task, params))
    except MoleculeError as error:
        return [Failure.from_exception(task.id, "convert", error)]
    except PesfitError:  # a broken installation is nothing that one molecule is to blame for
        raise
    except Exception as error:  # noqa: BLE001  one molecule never stops the others
        return [Failure.from_exception(task.id, "convert", error)]


def _conformers(system: _System) -> list[Record]:
    params = system.params
    minima = find_minima(system.mol, params.n_conformers, system.embedding_seed, _MAX_FORCE)
    frames: list[LabeledFrame] = []
    numbers: list[int] = []
    for walker in range(params.n_conformers):
        start = minima[walker % len(minima)].coords
        kept = system.sample(start, walker + 1, params.equilibration_fs, params.sample_interval_fs, params.n_samples)
        frames += kept
        numbers += range(walker * params.n_samples, walker * params.n_samples + len(kept))
    n_asked = params.n_conformers * params.n_samples
    if len(frames) < _MIN_KEPT * n_asked:
        raise MoleculeError(
            f"bonds broke or formed at {params.temperature_kelvin:g} K: {len(frames)} of {n_asked} frames are left, "
            f"at least {_MIN_KEPT:.0%} are needed"
        )
    return [system.record(system.task.id, "xtb/conformers", frames, numbers)]


def _trajectory(system: _System) -> list[Record]:
    params = system.params
    frames = system.sample(
        find_minima(system.mol, 1, system.embedding_seed, _MAX_FORCE)[0].coords,
        1,
        params.trajectory_equilibration_fs,
        params.trajectory_interval_fs,
        params.n_trajectory_frames,
    )
    if len(frames) < params.n_trajectory_frames:
        raise MoleculeError(
            f"a bond broke or formed at {params.temperature_kelvin:g} K after {len(frames)} of {params.n_trajectory_frames} frames"
        )
    return [
        system.record(
            f"{system.task.id}/{row:05d}",
            "xtb/trajectory",
            frames[start : start + MAX_FRAMES_PER_ROW],
            list(range(start, min(start + MAX_FRAMES_PER_ROW, len(frames)))),
        )
        for row, start in enumerate(range(0, len(frames), MAX_FRAMES_PER_ROW))
    ]

"""MD17 and revised MD17: one file of frames a molecule.

MD17 (Chmiela et al., Sci. Adv. 3, e1603015, 2017): `.npz` with `E` (n, 1), `F` and `R` (n, n_atoms, 3), `z` (n_atoms,); PBE+vdW-TS.
rMD17 (Christensen and von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018, 2020): `rmd17/npz_data/rmd17_<molecule>.npz` in one
`.tar.bz2`, with `energies` (n,), `forces` and `coords` (n, n_atoms, 3), `nuclear_charges` (n_atoms,), and the five published splits
as `rmd17/splits/index_{train,test}_0{1..5}.csv`; PBE/def2-SVP. Both are in kcal/mol and Å already, and hold forces.

Frames become rows of at most `MAX_FRAMES_PER_ROW`, with `id` = `<molecule>/<number of the row>` and `frame` = index in the file.
"""

from __future__ import annotations

import io
import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from pesfit.chemistry.bonds import bond_atoms
from pesfit.chemistry.smiles import group_of, mapped_smiles
from pesfit.core.arrays import IntArray
from pesfit.core.exceptions import ArchiveError, DataError
from pesfit.data.dataset import MAX_FRAMES_PER_ROW, Record
from pesfit.params.preparation import ConvertMD17
from pesfit.sources.archives import Member, read_members
from pesfit.sources.download.catalog import md17_name

_SUFFIX = ".npy"
MD17_MOLECULES = {
    "aspirin": "CC(=O)Oc1ccccc1C(=O)O",
    "azobenzene": "c1ccc(cc1)N=Nc1ccccc1",
    "benzene": "c1ccccc1",
    "ethanol": "CCO",
    "malonaldehyde": "O=CCC=O",
    "naphthalene": "c1ccc2ccccc2c1",
    "paracetamol": "CC(=O)Nc1ccc(O)cc1",
    "salicylic": "OC(=O)c1ccccc1O",
    "toluene": "Cc1ccccc1",
    "uracil": "O=c1cc[nH]c(=O)[nH]1",
}
"""SMILES of each molecule of MD17 and rMD17; stereo (azobenzene's) is taken from the geometry."""
MD17_LEVELS = {"md17": "PBE+vdW-TS"}
RMD17_LEVELS = {"rmd17": "PBE/def2-SVP"}
Splits = dict[str, dict[str, list[int]]]
"""Published splits: `splits["1"]["train"]` are indices of frames, the same for every molecule."""
_MAX_MEMBER_BYTES = 2**29
_NPZ = re.compile(r"(?:.*/)?rmd17_([a-z0-9]+)\.npz")
_SPLIT = re.compile(r"(?:.*/)?index_(train|test)_0([1-5])\.csv")
_SPLIT_NAMES = [f"index_{part}_0{number}.csv" for number in range(1, 6) for part in ("train", "test")]


@dataclass(frozen=True)
class _ArrayNames:
    """Keys of a source's files, and the value of its `source` column."""

    source: str
    atomic_numbers: str
    coords: str
    energy: str
    forces: str


_MD17_KEYS = _ArrayNames("md17", "z", "R", "E", "F")
_RMD17_KEYS = _ArrayNames("rmd17", "nuclear_charges", "coords", "energies", "forces")


def read_md17(folder: Path, molecules: Sequence[str], params: ConvertMD17) -> Iterator[Record]:
    """Read the `.npz` files of original MD17.

    Args:
        folder: holds the files under their published names.
        molecules: which, by their names in the parameters.
        params: how many frames to keep.

    Yields:
        Rows, in the order of the molecules and frames.

    Raises:
        DataError: if a file is missing, or does not hold its molecule.
        ArchiveError: if a file is damaged or lacks a key.
    """
    for molecule in molecules:
        path = folder / md17_name(molecule)
        if not path.is_file():
            raise DataError(f"{path} is missing; stage 01_download fetches it")
        with path.open("rb") as stream:
            yield from _read_frames(stream, str(path), molecule, _MD17_KEYS, params)


class RMD17Archive:
    """The archive of revised MD17, read once from beginning to end.

    Args:
        path: of `rmd17.tar.bz2`.
        molecules: which, by their names in the parameters.
        params: how many frames to keep.

    Attributes:
        splits: the published splits, complete when `records` has come to its end.
    """

    def __init__(self, path: Path, molecules: Sequence[str], params: ConvertMD17) -> None:
        self._path = path
        self._molecules = molecules
        self._params = params
        self.splits: Splits = {}

    def records(self) -> Iterator[Record]:
        """Yield rows, molecules in the order of the archive.

        Raises:
            DataError: if the archive is missing, or lacks a molecule or a split.
            ArchiveError: if it is damaged, or a file in it lacks a key.
        """
        if not self._path.is_file():
            raise DataError(f"{self._path} is missing; stage 01_download fetches it")
        found: list[str] = []
        n_frames = 0
        for member in read_members(self._path, self._is_wanted, _MAX_MEMBER_BYTES):
            name = f"{self._path}: {member.name}"
            if match := _NPZ.fullmatch(member.name):
                found.append(match[1])
                for record in _read_frames(io.BytesIO(member.content), name, match[1], _RMD17_KEYS, self._params):
                    n_frames = max(n_frames, int(record.frame[-1]) + 1)
                    yield record
            elif match := _SPLIT.fullmatch(member.name):
                self.splits.setdefault(match[2], {})[match[1]] = _read_indices(member, name)
            del member  # so that no two molecules are in memory at a time
        self._check_molecules(found)
        self._check_splits()

    def _is_wanted(self, name: str) -> bool:
        match = _NPZ.fullmatch(name)
        return match[1] in self._molecules if match else bool(_SPLIT.fullmatch(name))

    def _check_molecules(self, found: list[str]) -> None:
        missing = [molecule for molecule in self._molecules if molecule not in found]
        if missing:
            raise DataError(
                f"{self._path} does not hold {', '.join(missing)}; of the molecules asked for it holds {found or 'none'}"
            )

    def _check_splits(self) -> None:
        self.splits = {number: dict(sorted(parts.items(), reverse=True)) for number, parts in sorted(self.splits.items())}
        missing = [
            name for name in _SPLIT_NAMES if name[-5] not in self.splits or name.split("_")[1] not in self.splits[name[-5]]
        ]
        if missing:
            raise ArchiveError(f"{self._path} lacks {', '.join(missing)} of the published splits")
        for number, parts in self.splits.items():
            shared = set(parts["train"]) & set(parts["test"])
            if shared:
                raise ArchiveError(f"{self._path}: split {number} has frame {min(shared)} both in train and in test")


def _read_indices(member: Member, name: str) -> list[int]:
    text = member.content.decode("ascii", errors="replace").split()
    wrong = [word for word in text if not (word.isascii() and word.isdigit())]
    if wrong or not text:
        raise ArchiveError(f"{name}: {wrong[0]!r} is not the index of a frame" if wrong else f"{name} is empty")
    indices = [int(word) for word in text]
    if len(set(indices)) != len(indices):
        raise ArchiveError(f"{name}: an index is there twice")
    return indices


def _read_frames(stream: IO[bytes], name: str, molecule: str, keys: _ArrayNames, params: ConvertMD17) -> Iterator[Record]:
    kinds = {keys.atomic_numbers: "iuf", keys.coords: "f", keys.energy: "f", keys.forces: "f"}
    stored = read_npz(stream, name, kinds)
    atomic_numbers = _check_shapes(stored, name, keys)
    n_frames = min(len(stored[keys.coords]), params.max_frames or len(stored[keys.coords]))
    first = np.asarray(stored[keys.coords][0], dtype=np.float64)
    mol = bond_atoms(MD17_MOLECULES[molecule], atomic_numbers, first, f"{name}: frame 0")
    smiles, group = mapped_smiles(mol), group_of(mol)
    for number, start in enumerate(range(0, n_frames, MAX_FRAMES_PER_ROW)):
        rows = slice(start, min(start + MAX_FRAMES_PER_ROW, n_frames))
        yield Record(
            id=f"{molecule}/{number:05d}",
            smiles=smiles,
            atomic_numbers=atomic_numbers,
            coords=np.array(stored[keys.coords][rows], dtype=np.float64),
            energy=np.array(stored[keys.energy][rows], dtype=np.float64).reshape(-1),
            forces=np.array(stored[keys.forces][rows], dtype=np.float64),
            charges=None,
            total_charge=0,
            group=group,
            source=keys.source,
            frame=np.arange(rows.start, rows.stop, dtype=np.int64),
        )


def _check_shapes(stored: dict[str, npt.NDArray[Any]], name: str, keys: _ArrayNames) -> IntArray:
    """Check that shapes agree and return the atomic numbers."""
    numbers, coords = stored[keys.atomic_numbers], stored[keys.coords]
    if numbers.ndim != 1 or not ((numbers >= 1) & (numbers <= 118) & (numbers == np.floor(numbers))).all():
        raise ArchiveError(
            f"{name}: {keys.atomic_numbers} of shape {numbers.shape} does not hold atomic numbers of one molecule"
        )
    if coords.ndim != 3 or len(coords) == 0 or coords.shape[1:] != (len(numbers), 3):
        raise ArchiveError(f"{name}: {keys.coords} has shape {coords.shape}; expected (frames, {len(numbers)}, 3)")
    n_frames = len(coords)
    if stored[keys.forces].shape != coords.shape:
        raise ArchiveError(f"{name}: {keys.forces} has shape {stored[keys.forces].shape}; expected {coords.shape}")
    if stored[keys.energy].shape not in ((n_frames,), (n_frames, 1)):
        raise ArchiveError(
            f"{name}: {keys.energy} has shape {stored[keys.energy].shape}; expected ({n_frames},) or ({n_frames}, 1)"
        )
    return numbers.astype(np.int32)


def read_npz(stream: IO[bytes], name: str, wanted: Mapping[str, str]) -> dict[str, npt.NDArray[Any]]:
    """Read some arrays of an `.npz` file, in the types they are stored in.

    Pickled objects are never loaded, and no memory is allocated by what a header announces.

    Args:
        stream: the file, open for reading and seekable.
        name: of the file in messages.
        wanted: for each key the kinds of number it may hold, as in numpy's `dtype.kind` (`f` float, `i` int, `u` unsigned int).

    Raises:
        ArchiveError: naming the file, and the key that is missing or damaged or holds something else.
    """
    try:
        with zipfile.ZipFile(stream) as archive:
            members = _members(archive, name, wanted)
            return {key: _read_array(archive, members[key], f"{name}: {key}", kinds) for key, kinds in wanted.items()}
    except ArchiveError:
        raise
    except Exception as error:  # zipfile answers damage with some ten kinds of exception
        raise ArchiveError(f"{name}: truncated or corrupted: {type(error).__name__}: {error}") from error


def _members(archive: zipfile.ZipFile, name: str, wanted: Mapping[str, str]) -> dict[str, zipfile.ZipInfo]:
    members = {info.filename.removesuffix(_SUFFIX): info for info in archive.infolist() if info.filename.endswith(_SUFFIX)}
    missing = [key for key in wanted if key not in members]
    if missing:
        raise ArchiveError(f"{name}: has no {', '.join(missing)}; its keys are {', '.join(sorted(members)) or 'none'}")
    return members


def _read_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo, what: str, kinds: str) -> npt.NDArray[Any]:
    with cast("zipfile.ZipExtFile", archive.open(info)) as member:
        version = np.lib.format.read_magic(member)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ArchiveError(f"{what}: has npy version {version}; 1.0 and 2.0 are read")
        shape, is_fortran, dtype = readers[version](member)
        if dtype.kind not in kinds or dtype.hasobject:
            raise ArchiveError(f"{what}: has type {dtype}; expected one of the kinds {', '.join(kinds)} (float, int, uint)")
        content = member.read()  # to its end, where zipfile compares its checksum
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != len(content):
        raise ArchiveError(f"{what}: shape {shape} and type {dtype} do not go with {len(content)} bytes; the file is corrupted")
    return np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")

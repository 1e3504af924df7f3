"""Espaloma 0.3.0 (Takaba et al., Chem. Sci. 15, 12861, 2024; Zenodo record 8150601): quantum chemistry as archives of DGL graphs.

Each subset is an archive `<subset>.tar.gz` of entries, one a molecule, with three files:

    <subset>/<number>/{heterograph.bin, homograph.bin, mol.json}
    duplicated-isomeric-smiles-merge/<number>/<subset>/<number[-number...]>/{...}

The second kind holds molecules that occur in more than one subset, or more than once in one: one <number> a molecule, below it one entry a
subset, where the conformers of entries of the same molecule are joined.

With N atoms and C conformers, these are read:

    file        key             shape       unit            quantity
    heterograph g/u_qm          (1, C)      hartree         energy, B3LYP-D3BJ/DZVP
    heterograph n1/u_qm_prime   (N, C, 3)   hartree/bohr    gradient +dE/dx, NOT the force
    heterograph n1/xyz          (N, C, 3)   bohr            coordinates
    heterograph n1/q_ref        (N, 1)      e               AM1-BCC-ELF10 charges
    heterograph n2/idxs         (bonds, 2)                  bonded pairs, each both ways
    homograph   _N/type         (N, 1)                      atomic numbers
    mol.json                                                bonds, formal charges, stereo

Columns: `id` is the place in the archive, `<subset>/<number>` or `duplicated-isomeric-smiles-merge/<number>/<subset>/<numbers>`.
`source` is `espaloma/<subset>` for both, so that one value of it selects all that the published tables count as that subset. `group` is
the canonical SMILES, and therefore the same wherever the molecule occurs; all entries of one <number> of the merged archive share
that of the first, also where stereo is perceived differently.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from rdkit import Chem, rdBase

from pesfit.chemistry.smiles import elements_of, group_of, mapped_smiles
from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import ArchiveError, DataError, MoleculeError
from pesfit.core.parallel import ordered_map
from pesfit.core.units import BOHR, HARTREE
from pesfit.data.dataset import Record
from pesfit.data.sources import MERGED_SUBSET
from pesfit.params.preparation import ConvertEspaloma, EspalomaSubset
from pesfit.sources.archives import read_members
from pesfit.sources.checks import Converted, examined, failed
from pesfit.sources.dgl import Heterograph, read_graphs

_ORDERS = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}
_STEREO = {"E": Chem.BondStereo.STEREOE, "Z": Chem.BondStereo.STEREOZ}
_OPPOSITE = {
    Chem.BondStereo.STEREOTRANS: Chem.BondStereo.STEREOCIS,
    Chem.BondStereo.STEREOCIS: Chem.BondStereo.STEREOTRANS,
}
SUBSETS: tuple[str, ...] = get_args(EspalomaSubset)
ESPALOMA_LEVELS = {f"espaloma/{subset}": "B3LYP-D3BJ/DZVP" for subset in SUBSETS if subset != MERGED_SUBSET}
PUBLISHED_MOLECULES = {
    "espaloma/gen2-opt": 1024,
    "espaloma/gen2-torsion": 940,
    "espaloma/pepconf-opt": 557,
    "espaloma/protein-torsion": 106,
    "espaloma/spice-dipeptide": 677,
    "espaloma/spice-pubchem": 14110,
    "espaloma/spice-des-monomers": 369,
    "espaloma/rna-trinucleotide": 64,
    "espaloma/rna-nucleoside": 4,
}
"""Molecules that the authors count in a subset after their filter, its share of the merged archive included."""
_FOLDERS = {"gen2": "gen2-opt", "pepconf": "pepconf-opt", "pepconf-dlc": "pepconf-opt"}
"""Other names of subsets that users of the record have seen in it."""
_FILES = ("heterograph.bin", "homograph.bin", "mol.json")
_MAX_MEMBER_BYTES = 2**28
_MAX_WAITING_BYTES = 2**28
_CHARGE_TOLERANCE = 0.1


@dataclass(frozen=True)
class ArchiveEntry:
    """One entry as it lies in an archive.

    Attributes:
        id: its place, with the names of subsets that the parameters use.
        subset: which it counts as.
        archive: path of the archive, for messages.
        files: content of its files by name.
    """

    id: str
    subset: str
    archive: str
    files: dict[str, bytes]

    @property
    def source(self) -> str:
        """Value of the `source` column."""
        return f"espaloma/{self.subset}"

    def name_of(self, file: str) -> str:
        """Name of one of its files in messages."""
        return f"{self.archive}: {self.id}/{file}"


def convert_espaloma(folder: Path, subsets: Sequence[str], params: ConvertEspaloma) -> Iterator[Converted]:
    """Convert the archives of some subsets in worker processes.

    Args:
        folder: holds `<subset>.tar.gz`.
        subsets: which, by their names in the parameters.
        params: section `convert.espaloma`.

    Yields:
        One for each entry, in the order of the subsets and of their archives. Molecules RDKit cannot build are failures.

    Raises:
        DataError: if an archive is missing or yields no entry, or a label is not finite.
        ArchiveError: if an archive is damaged or an entry in it lacks a key.
    """
    paths = {subset: folder / f"{subset}.tar.gz" for subset in subsets}
    for path in paths.values():
        if not path.is_file():
            raise DataError(f"{path} is missing; stage 01_download fetches it")
    entries = (entry for subset, path in paths.items() for entry in read_entries(path, subset))
    groups: dict[str, str] = {}
    for converted in ordered_map(partial(convert_entry, params=params), entries, label="espaloma", unit="entry"):
        yield _with_shared_group(converted, groups)


def read_entries(path: Path, subset: str) -> Iterator[ArchiveEntry]:
    """Yield the entries of an archive, each as soon as all its files have been read.

    The files of an entry lie together in the published archives; where they do not, what waits is bounded.

    Args:
        path: of the archive.
        subset: whose entries it holds.

    Raises:
        DataError: if there is no entry.
        ArchiveError: if the archive is damaged, or an entry is incomplete or there twice.
    """
    waiting: dict[str, dict[str, bytes]] = {}
    n_waiting_bytes = 0
    seen: set[str] = set()
    for member in read_members(path, lambda name: _entry_of(name, subset) is not None, _MAX_MEMBER_BYTES):
        place, entry_subset = _entry_of(member.name, subset) or ("", "")
        file = member.name.rpartition("/")[2]
        files = waiting.setdefault(place, {})
        if place in seen or file in files:
            raise ArchiveError(f"{path}: {place}/{file} is there twice")
        files[file] = member.content
        n_waiting_bytes += len(member.content)
        if len(files) == len(_FILES):
            seen.add(place)
            n_waiting_bytes -= sum(map(len, waiting.pop(place).values()))
            yield ArchiveEntry(place, entry_subset, str(path), files)
        elif n_waiting_bytes > _MAX_WAITING_BYTES:
            raise ArchiveError(
                f"{path}: the files of {len(waiting)} entries, {next(iter(waiting))} first, lie too far apart to be joined"
            )
    for place, files in waiting.items():
        raise ArchiveError(f"{path}: {place} lacks {', '.join(name for name in _FILES if name not in files)}")
    if not seen:
        raise DataError(f"{path} holds no entry: no {subset}/<number>/ with {', '.join(_FILES)}")


def _entry_of(name: str, subset: str) -> tuple[str, str] | None:
    """Return id and subset of the entry a file belongs to; None for other files."""
    *folders, file = name.split("/")
    if file not in _FILES or not folders or _FOLDERS.get(folders[0], folders[0]) != subset:
        return None
    if subset == MERGED_SUBSET:
        if len(folders) != 4:
            return None
        part = _FOLDERS.get(folders[2], folders[2])
        return f"{MERGED_SUBSET}/{folders[1]}/{part}/{folders[3]}", part
    return (f"{subset}/{folders[1]}", subset) if len(folders) == 2 else None


def _with_shared_group(converted: Converted, groups: dict[str, str]) -> Converted:
    record = converted.record
    if record is None or not record.id.startswith(f"{MERGED_SUBSET}/"):
        return converted
    group = groups.setdefault(record.id.split("/")[1], record.group)
    return converted if group == record.group else replace(converted, record=replace(record, group=group))


def convert_entry(entry: ArchiveEntry, params: ConvertEspaloma) -> Converted:
    """Convert one entry and keep the conformers the parameters ask for.

    Raises:
        DataError: if a label is not finite, or the entry belongs to a subset that is not known.
        ArchiveError: if the entry is damaged or lacks a key, naming the entry and the key.
    """
    if entry.source not in ESPALOMA_LEVELS:
        raise DataError(f"{entry.archive}: {entry.id} is of no known subset; known are {', '.join(SUBSETS)}")
    graph = _only_graph(entry, "heterograph.bin")
    bonds = read_openff_json(entry.files["mol.json"], entry.name_of("mol.json"))
    labels = _Labels(graph, entry)
    _check_graph(entry, graph, bonds)
    try:
        mol = build_molecule(bonds)
        record = _record(entry, mol, labels)
    except (MoleculeError, RuntimeError, ValueError) as error:  # what RDKit raises
        return failed(entry.id, entry.source, error, labels.n_conformers)
    record.validate()
    kept = np.flatnonzero(record.energy <= record.energy.min() + params.energy_window_hartree * HARTREE)
    if len(kept) < params.min_conformers:
        return Converted(None, entry.source, None, record.n_conformers)
    return examined(record.select(kept), record.n_conformers)


def _record(entry: ArchiveEntry, mol: Chem.Mol, labels: _Labels) -> Record:
    total_charge = Chem.GetFormalCharge(mol)
    if labels.charges is not None and abs(labels.charges.sum() - total_charge) > _CHARGE_TOLERANCE:
        raise MoleculeError(f"its charges add up to {labels.charges.sum():.3f} e, its formal charges to {total_charge}")
    return Record(
        id=entry.id,
        smiles=mapped_smiles(mol),
        atomic_numbers=elements_of(mol),
        coords=labels.coords,
        energy=labels.energy,
        forces=labels.forces,
        charges=labels.charges,
        total_charge=total_charge,
        group=group_of(mol),
        source=entry.source,
        frame=np.arange(labels.n_conformers, dtype=np.int64),
    )


class _Labels:
    """The labels of an entry in our units and axis order; see the table at the top."""

    def __init__(self, graph: Heterograph, entry: ArchiveEntry) -> None:
        self._graph = graph
        self._name = entry.name_of("heterograph.bin")
        energy = self._feature("g", "u_qm")
        if energy.ndim != 2 or energy.shape[0] != 1 or energy.shape[1] == 0:
            raise ArchiveError(f"{self._name}: g/u_qm has shape {energy.shape}; expected (1, conformers)")
        self.n_conformers = energy.shape[1]
        self.energy: FloatArray = energy[0].astype(np.float64) * HARTREE
        self.coords = self._vectors("xyz") * BOHR
        self.forces = -self._vectors("u_qm_prime") * (HARTREE / BOHR)
        self.charges = self._charges()

    def _vectors(self, key: str) -> FloatArray:
        """Return a vector for each atom and conformer, conformers first."""
        array = self._feature("n1", key)
        expected = (self._graph.node_counts["n1"], self.n_conformers, 3)
        if array.shape != expected:
            raise ArchiveError(f"{self._name}: n1/{key} has shape {array.shape}; expected (atoms, conformers, 3) = {expected}")
        return np.ascontiguousarray(np.swapaxes(array, 0, 1), dtype=np.float64)

    def _charges(self) -> FloatArray | None:
        if "q_ref" not in self._graph.node_data["n1"]:
            return None
        charges = self._feature("n1", "q_ref")
        if charges.size != self._graph.node_counts["n1"]:
            raise ArchiveError(f"{self._name}: n1/q_ref has shape {charges.shape}; expected one charge an atom")
        return charges.reshape(-1).astype(np.float64)

    def _feature(self, nodes: str, key: str) -> npt.NDArray[Any]:
        features = self._graph.node_data.get(nodes, {})
        if key not in features:
            has = ", ".join(sorted(features)) or "nothing"
            raise ArchiveError(f"{self._name}: the entry has no {key} among the features of its {nodes!r} nodes; it has {has}")
        array = features[key]
        if array.dtype.kind != "f":
            raise ArchiveError(f"{self._name}: {nodes}/{key} has type {array.dtype}; expected floating-point numbers")
        return array


def _only_graph(entry: ArchiveEntry, file: str) -> Heterograph:
    graphs = read_graphs(entry.files[file], entry.name_of(file))
    if len(graphs) != 1:
        raise ArchiveError(f"{entry.name_of(file)}: holds {len(graphs)} graphs; expected 1")
    return graphs[0]


def _check_graph(entry: ArchiveEntry, graph: Heterograph, molecule: Any) -> None:
    """Compare elements and bonds of the graphs with those of `mol.json`: they must be in the same order."""
    elements = [atom["atomic_number"] for atom in molecule["atoms"]]
    types = _only_graph(entry, "homograph.bin").node_data.get("_N", {}).get("type", np.zeros(0))
    if types.reshape(-1).tolist() != elements or graph.node_counts.get("n1") != len(elements):
        raise ArchiveError(
            f"{entry.name_of('mol.json')}: has the elements {elements}; the graphs have {types.reshape(-1).tolist()} and "
            f"{graph.node_counts.get('n1')} atoms"
        )
    indices = graph.node_data.get("n2", {}).get("idxs", np.zeros((0, 2)))
    if indices.ndim != 2 or indices.shape[1] != 2:
        raise ArchiveError(f"{entry.name_of('heterograph.bin')}: n2/idxs has shape {indices.shape}; expected (bonds, 2)")
    pairs = _undirected(indices.tolist())
    bonds = _undirected((bond["atom1"], bond["atom2"]) for bond in molecule["bonds"])
    if pairs != bonds:
        where = sorted(tuple(sorted(pair)) for pair in pairs ^ bonds)
        raise ArchiveError(
            f"{entry.name_of('mol.json')}: its bonds are not those of heterograph.bin; they differ in {where[:5]}"
        )


def _undirected(pairs: Iterable[Sequence[Any]]) -> set[frozenset[Any]]:
    return {frozenset(pair) for pair in pairs}


def read_openff_json(content: bytes, name: str) -> Mapping[str, Any]:
    """Decode a `mol.json`.

    Args:
        content: of the file.
        name: of the file in messages.

    Raises:
        ArchiveError: if it is not the JSON of a molecule, once or doubly encoded.
    """
    try:
        molecule = json.loads(content)
        if isinstance(molecule, str):
            molecule = json.loads(molecule)
        for atom in molecule["atoms"]:
            _check_types(atom, {"atomic_number": int, "formal_charge": int, "stereochemistry": (str, type(None))})
        for bond in molecule["bonds"]:
            _check_types(bond, {"atom1": int, "atom2": int, "bond_order": int, "stereochemistry": (str, type(None))})
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ArchiveError(f"{name}: is not the JSON of an OpenFF molecule: {type(error).__name__}: {error}") from error
    return dict(molecule)


def build_molecule(molecule: Mapping[str, Any]) -> Chem.Mol:
    """Build the molecule: all hydrogens explicit, atoms in the order of the JSON, stereo by its CIP codes.

    A stereo center that RDKit does not take for one is left without stereo, as the toolkit leaves it in its SMILES.

    Args:
        molecule: from `read_openff_json`.

    Raises:
        MoleculeError: if RDKit cannot make sense of it.
    """
    mol = Chem.RWMol()
    for atom in molecule["atoms"]:
        if not (0 < atom["atomic_number"] <= 118 and abs(atom["formal_charge"]) < 100):
            raise MoleculeError(f"an atom has the atomic number {atom['atomic_number']} and the charge {atom['formal_charge']}")
        added = Chem.Atom(atom["atomic_number"])
        added.SetFormalCharge(atom["formal_charge"])
        added.SetNoImplicit(True)
        mol.AddAtom(added)
    for bond in molecule["bonds"]:
        ends = (bond["atom1"], bond["atom2"])
        if bond["bond_order"] not in _ORDERS or not all(0 <= end < mol.GetNumAtoms() for end in ends) or ends[0] == ends[1]:
            raise MoleculeError(
                f"a bond of order {bond['bond_order']} joins atoms {ends[0]} and {ends[1]} of {mol.GetNumAtoms()}"
            )
        if mol.GetBondBetweenAtoms(*ends) is not None:
            raise MoleculeError(f"two bonds join atoms {ends[0]} and {ends[1]}")
        mol.AddBond(*ends, _ORDERS[bond["bond_order"]])
    try:
        with rdBase.BlockLogs():  # the message is in the exception
            Chem.SanitizeMol(mol)
    except (ValueError, RuntimeError) as error:
        raise MoleculeError(f"RDKit refuses the molecule: {error}") from error
    atom_codes = [atom["stereochemistry"] for atom in molecule["atoms"]]
    return _with_stereo(mol, atom_codes, [bond["stereochemistry"] for bond in molecule["bonds"]])


def _with_stereo(mol: Chem.RWMol, atom_codes: Sequence[str | None], bond_codes: Sequence[str | None]) -> Chem.Mol:
    """Guess each center's handedness, look at the CIP codes that result, and turn over those that are wrong.

    The code of one center can hang on the handedness of another, so this goes on until nothing changes.
    """
    for atom, code in zip(mol.GetAtoms(), atom_codes, strict=True):
        if code is not None:
            atom.SetChiralTag(Chem.ChiralType.CHI_TETRAHEDRAL_CW)
    for bond, code in zip(mol.GetBonds(), bond_codes, strict=True):
        if code is not None:
            _guess_trans(bond)
    wrong: list[str] = []
    for _ in range(1 + sum(code is not None for code in (*atom_codes, *bond_codes))):
        perceived = _with_codes(mol)
        wrong = _turn_over_wrong(mol, perceived, atom_codes, bond_codes)
        if not wrong:
            return perceived
    raise MoleculeError(f"no handedness gives the stereo codes of {', '.join(wrong)}")


def _with_codes(mol: Chem.RWMol) -> Chem.Mol:
    """Return a copy with CIP codes; in it a center that only another, still missing one would make a center has lost its guess."""
    perceived = Chem.Mol(mol)
    Chem.SetDoubleBondNeighborDirections(perceived)  # what codes of double bonds are worked out from
    Chem.AssignStereochemistry(perceived, cleanIt=True, force=True)
    return perceived


def _turn_over_wrong(
    mol: Chem.RWMol, perceived: Chem.Mol, atom_codes: Sequence[str | None], bond_codes: Sequence[str | None]
) -> list[str]:
    wrong = []
    for atom, seen, code in zip(mol.GetAtoms(), perceived.GetAtoms(), atom_codes, strict=True):
        if code is not None and seen.HasProp("_CIPCode") and seen.GetProp("_CIPCode") != code:
            atom.InvertChirality()
            wrong.append(f"atom {atom.GetIdx()} ({code})")
    for bond, seen, code in zip(mol.GetBonds(), perceived.GetBonds(), bond_codes, strict=True):
        if code is not None and seen.GetStereo() in _STEREO.values() and seen.GetStereo() != _STEREO.get(code):
            bond.SetStereo(_OPPOSITE[bond.GetStereo()])
            wrong.append(f"bond {bond.GetIdx()} ({code})")
    return wrong


def _guess_trans(bond: Chem.Bond) -> None:
    """Say that some neighbors of a double bond are opposite to each other."""
    begin, end = bond.GetBeginAtom(), bond.GetEndAtom()
    sides = [
        [neighbor.GetIdx() for neighbor in atom.GetNeighbors() if neighbor.GetIdx() != other.GetIdx()]
        for atom, other in ((begin, end), (end, begin))
    ]
    if not all(sides) or bond.GetBondType() != Chem.BondType.DOUBLE:
        raise MoleculeError(f"bond {bond.GetIdx()} between atoms {begin.GetIdx()} and {end.GetIdx()} cannot have stereo")
    bond.SetStereoAtoms(sides[0][0], sides[1][0])
    bond.SetStereo(Chem.BondStereo.STEREOTRANS)


def _check_types(values: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    for key, kind in types.items():
        if not isinstance(values[key], kind):
            raise TypeError(f"{key} is {values[key]!r}")

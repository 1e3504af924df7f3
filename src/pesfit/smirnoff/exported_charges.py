"""Charges in a written force field: loaded by the OpenFF toolkit, it gives molecules the electrostatics that it was fitted with.

Valence parameters are fitted on top of a molecule's charges and make up for their errors, so that other charges give another force field.
What is written depends on where stage 03 had the charges from:

| charges of a molecule | in the file |
| --- | --- |
| NAGL | `NAGLCharges` with the model and its SHA-256, in place of `ToolkitAM1BCC`; it holds for all other molecules too |
| a data set, or Gasteiger | `LibraryCharges` of that molecule alone, named `data-<number>` |
| AM1-BCC by sqm | `ToolkitAM1BCC`, which the file has; `LibraryCharges` where it has not, or where `NAGLCharges` takes its place |
| the force field | as they are in the file |
| trained | `LibraryCharges`, named `fitted-<number>` |

Charge increments in the starting force field stay: molecules that had other charges become `LibraryCharges`, NAGL's too.

Library charges are patterns that match one molecule, all of which the toolkit tries on every molecule that it parameterizes: 500 molecules
of 13 atoms are 0.5 MB and take it 2 s to load, and 0.2 s more for each molecule that it then assigns. With more than
`MAX_LIBRARY_MOLECULES` molecules those that were not trained are left out, all of them, so that a molecule's charges do not depend on its
place in the data: then the toolkit has to be handed the charges of the data (`charge_from_molecules`).
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rdkit import Chem

from pesfit.chemistry.smiles import group_of
from pesfit.core.arrays import FloatArray, LongArray
from pesfit.data.topology import ForceField, Topology
from pesfit.parameterize.assign import FITTED_CHARGES
from pesfit.parameterize.molecule import read_mapped_smiles
from pesfit.parameterize.nagl_file import MODEL_NAME, MODEL_SHA256

MAX_LIBRARY_MOLECULES = 500
_DATA_CHARGES = "data-"
_SMILES_ATOM = re.compile(r"\[[A-Za-z]+(@*)[^]]*?:(\d+)\]")


@dataclass(frozen=True, eq=False)
class ExportedCharges:
    """Charges that a written force field gives.

    Attributes:
        trained: mapped SMILES of molecules whose charges were trained, and these charges [e], shape (n_atoms,); equal for atoms of one of
            `symmetry_classes`.
        library: the same of molecules with charges of another origin than the one for all molecules.
        nagl: whether `NAGLCharges` takes the place of `ToolkitAM1BCC`.
        n_left_out: molecules whose charges the file does not hold, since there are more than `MAX_LIBRARY_MOLECULES`.
        largest_change: [e] largest difference of a library charge from the one that was fitted with: charges of atoms that SMIRKS cannot
            distinguish, or of several rows of one molecule, become one.
    """

    trained: tuple[tuple[str, FloatArray], ...] = ()
    library: tuple[tuple[str, FloatArray], ...] = ()
    nagl: bool = False
    n_left_out: int = 0
    largest_change: float = 0.0


UNCHANGED_CHARGES = ExportedCharges()
"""The file keeps the sections that it has."""


def choose_charges(
    start: ForceField, topologies: Iterable[Topology], trained: Sequence[tuple[str, FloatArray]] = ()
) -> ExportedCharges:
    """Choose what a fitted force field says of charges.

    Args:
        start: the force field before the fit, with the text of its file.
        topologies: of the molecules of the fit, with the charges that they were fitted with.
        trained: see `ExportedCharges`.
    """
    sections = {element.tag for element in ET.fromstring(start.offxml)}  # noqa: S314
    done = {group_of(read_mapped_smiles(smiles)) for smiles, _ in trained}
    origins: dict[str, list[Topology]] = {}
    for topology in topologies:
        origins.setdefault(topology.charge_method, []).append(topology)
    nagl = "NAGLCharges" in sections or ("nagl" in origins and "ChargeIncrementModel" not in sections)
    by_default = {"force-field", "nagl" if nagl else "sqm" if "ToolkitAM1BCC" in sections else ""}
    of_group: dict[str, list[tuple[Chem.Mol, Topology]]] = {}
    for topology in (of for origin in sorted(origins.keys() - by_default) for of in origins[origin]):
        mol = read_mapped_smiles(topology.smiles)
        if (group := group_of(mol)) not in done:
            of_group.setdefault(group, []).append((mol, topology))
    if len(of_group) > MAX_LIBRARY_MOLECULES:
        return ExportedCharges(tuple(trained), (), nagl, len(of_group))
    library = []
    largest = 0.0
    for rows in of_group.values():
        (mol, first), *others = rows
        charges = averaged_charges(mol, first.charges)
        library.append((first.smiles, charges))
        largest = max(largest, float(np.abs(charges - first.charges).max()))
        for other, topology in others:
            place = np.argsort(other.GetSubstructMatch(mol, useChirality=True))
            largest = max(largest, float(np.abs(charges[place] - topology.charges).max()))
    return ExportedCharges(tuple(trained), tuple(library), nagl, 0, largest)


def write_charges(root: ET.Element, charges: ExportedCharges) -> None:
    """Write charges into a force field.

    Args:
        root: of the file; changed in place.
        charges: what it is to give.
    """
    if charges.nagl and root.find("NAGLCharges") is None:
        section = ET.Element("NAGLCharges", model_file=MODEL_NAME, model_file_hash=MODEL_SHA256, version="0.3")
        computed = root.find("ToolkitAM1BCC")
        place = len(root) if computed is None else list(root).index(computed)
        if computed is not None:
            section.tail = computed.tail
            root.remove(computed)
        root.insert(place, section)
    for prefix, of_molecules in ((_DATA_CHARGES, charges.library), (FITTED_CHARGES, charges.trained)):
        for number, (smiles, of_atoms) in enumerate(of_molecules, start=1):
            _write_library(root, f"{prefix}{number}", smiles, of_atoms)


def _write_library(root: ET.Element, name: str, smiles: str, charges: FloatArray) -> None:
    section = root.find("LibraryCharges")
    if section is None:
        section = ET.SubElement(root, "LibraryCharges", version="0.3")
    for smirks, tagged in library_charges(read_mapped_smiles(smiles), charges):
        values = {f"charge{tag}": f"{charge!r} * elementary_charge" for tag, charge in enumerate(tagged.tolist(), start=1)}
        ET.SubElement(section, "LibraryCharge", {"smirks": smirks, "id": name, **values})


def symmetry_classes(mol: Chem.Mol) -> LongArray:
    """Number the classes of atoms of a molecule that SMIRKS can tell apart, shape (n_atoms,); hydrogens on one atom are alike.

    Args:
        mol: as `read_mapped_smiles` builds it.
    """
    classes = np.array(list(Chem.CanonicalRankAtoms(mol, breakTies=False)), dtype=np.int64)
    for hydrogen, parent in _free_hydrogens(mol).items():
        classes[hydrogen] = len(classes) + classes[parent]
    return classes


def averaged_charges(mol: Chem.Mol, charges: FloatArray) -> FloatArray:
    """Return charges [e], shape (n_atoms,), that are equal on atoms that SMIRKS cannot distinguish; their sum is unchanged."""
    kinds = np.unique(symmetry_classes(mol), return_inverse=True)[1]
    return np.asarray((np.bincount(kinds, charges) / np.bincount(kinds))[kinds])


def library_charges(mol: Chem.Mol, charges: FloatArray) -> list[tuple[str, FloatArray]]:
    """Write the charges of one molecule as SMIRKS that match this molecule alone, with the charges of their tagged atoms.

    The first pattern is the skeleton: every atom with its numbers of neighbors and hydrogens and its charge, so that nothing can be
    attached to it. Hydrogens are left out of it unless they define stereochemistry, and each kind of them has a pattern of its own: a
    pattern with all hydrogens matches six times for each methyl group, and so a million times in a molecule of eight.

    Args:
        mol: as `read_mapped_smiles` builds it.
        charges: [e], equal for atoms of one of `symmetry_classes`, shape (n_atoms,).
    """
    hydrogens, classes = _free_hydrogens(mol), symmetry_classes(mol)
    kept = [atom for atom in range(mol.GetNumAtoms()) if atom not in hydrogens]
    numbered = Chem.Mol(mol)
    for atom in numbered.GetAtoms():
        atom.SetAtomMapNum(atom.GetIdx() + 1)
    skeleton = Chem.MolFragmentToSmiles(numbered, kept, allBondsExplicit=True, allHsExplicit=True, canonical=False)

    def pattern(tags: Mapping[int, int], parent: int | None = None) -> str:
        def query(match: re.Match[str]) -> str:
            atom = mol.GetAtomWithIdx(int(match[2]) - 1)
            n_hydrogens = sum(neighbor.GetAtomicNum() == 1 for neighbor in atom.GetNeighbors())
            tag = f":{tags[atom.GetIdx()]}" if atom.GetIdx() in tags else ""
            text = f"[#{atom.GetAtomicNum()}{match[1]}X{atom.GetDegree()}H{n_hydrogens}{atom.GetFormalCharge():+d}{tag}]"
            return text + "(-[#1:1])" * (atom.GetIdx() == parent)

        return _SMILES_ATOM.sub(query, skeleton)

    of_kind = {int(classes[hydrogen]): (hydrogen, parent) for hydrogen, parent in hydrogens.items()}
    return [
        (pattern({atom: tag for tag, atom in enumerate(kept, start=1)}), charges[kept]),
        *((pattern({}, parent), charges[[hydrogen]]) for hydrogen, parent in of_kind.values()),
    ]


def _free_hydrogens(mol: Chem.Mol) -> dict[int, int]:
    """Return the hydrogens whose bonded atom has no stereochemistry, by index, with that atom."""
    stereo = {atom.GetIdx() for atom in mol.GetAtoms() if atom.GetChiralTag() != Chem.ChiralType.CHI_UNSPECIFIED}
    for bond in mol.GetBonds():
        if bond.GetStereo() not in (Chem.BondStereo.STEREONONE, Chem.BondStereo.STEREOANY):
            stereo |= {bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()}
    found = {}
    for atom in mol.GetAtoms():
        parents = [other for other in atom.GetNeighbors() if other.GetAtomicNum() > 1 and other.GetIdx() not in stereo]
        if atom.GetAtomicNum() == 1 and atom.GetDegree() == 1 and parents:
            found[atom.GetIdx()] = parents[0].GetIdx()
    return found

"""Build an RDKit molecule from the JSON of an OpenFF molecule.

The `mol.json` of an Espaloma entry is the JSON of openff-toolkit 0.10, encoded as a JSON string once more. Atoms have an atomic number, a
formal charge and a CIP code, bonds have a Kekulé order and E or Z. The toolkit reads it after two repairs, but takes seconds and hundreds
of megabytes to import in each worker; what is needed here is little.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rdkit import Chem, rdBase

from pesfit.core.exceptions import ArchiveError, MoleculeError

_ORDERS = {1: Chem.BondType.SINGLE, 2: Chem.BondType.DOUBLE, 3: Chem.BondType.TRIPLE}
_STEREO = {"E": Chem.BondStereo.STEREOE, "Z": Chem.BondStereo.STEREOZ}
_OPPOSITE = {
    Chem.BondStereo.STEREOTRANS: Chem.BondStereo.STEREOCIS,
    Chem.BondStereo.STEREOCIS: Chem.BondStereo.STEREOTRANS,
}


def read_openff_json(content: bytes, name: str) -> Mapping[str, Any]:
    """Decode a `mol.json`.

    Args:
        content: of the file.
        name: what error messages call it.

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
    """Build the molecule: all hydrogens explicit, atoms in the order of the JSON, stereo as its CIP codes say.

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

"""From a mapped SMILES to the RDKit molecule that SMARTS patterns are matched on.

The OpenFF toolkit reads a SMILES, perceives aromaticity, reorders atoms by map number and builds a fresh RDKit molecule, on which it
perceives aromaticity (MDL model) and rings again. Parameters depend on all of it, so the same is done here: same order of
atoms and of bonds, same perception. A test compares every assignment with Interchange's.
"""

from __future__ import annotations

import copy

from rdkit import Chem, rdBase

from pesfit.parameterize import exceptions

_SANITIZE = Chem.SANITIZE_ALL ^ Chem.SANITIZE_ADJUSTHS ^ Chem.SANITIZE_SETAROMATICITY

_MAY_BE_RADICALS = frozenset((*range(21, 31), *range(39, 49), *range(57, 81), *range(89, 113)))
"""d and f block, where open shells are common and RDKit's count of unpaired electrons means little."""


def read_mapped_smiles(smiles: str) -> Chem.Mol:
    """Build the molecule of a mapped SMILES with explicit hydrogens.

    Args:
        smiles: map numbers 1 to n_atoms, each once; atom i of the result is the one with map number i + 1.

    Returns:
        Molecule with MDL aromaticity, stereochemistry, no map numbers, and bonds sorted by atom indices.

    Raises:
        EmptySmilesError, SMILESParseError, RemapIndexError, ImplicitHydrogensError, MultipleFragmentsError, AtomValenceError,
            KekulizeError, RadicalsNotSupportedError, UndefinedStereochemistryError: as their docstrings tell.
    """
    with rdBase.BlockLogs():
        parsed = _parse(smiles)
        order = _take_map_numbers(parsed, smiles)
        if len(Chem.GetMolFrags(parsed)) > 1:
            raise exceptions.MultipleFragmentsError(
                f"{len(Chem.GetMolFrags(parsed))} molecules where one is expected: {smiles}"
            )
        _perceive(parsed, smiles)
        Chem.AssignStereochemistry(parsed)
        _check_hydrogens(parsed, smiles)
        _check_stereo(parsed, order, smiles)
        _check_radicals(parsed, order, smiles)
        return _rebuild(parsed, order, smiles)


def _parse(smiles: str) -> Chem.Mol:
    if not smiles.strip():
        raise exceptions.EmptySmilesError("the SMILES is empty")
    parsed = Chem.MolFromSmiles(smiles, sanitize=False)
    if parsed is None:
        raise exceptions.SMILESParseError(f"RDKit cannot read the SMILES {smiles!r}")
    if parsed.GetNumAtoms() == 0:
        raise exceptions.EmptySmilesError(f"the SMILES {smiles!r} has no atoms")
    return parsed


def _take_map_numbers(parsed: Chem.Mol, smiles: str) -> list[int]:
    """Remove map numbers, which would count as a difference between stereocenter's neighbors; return the new index of each atom."""
    order = [atom.GetAtomMapNum() - 1 for atom in parsed.GetAtoms()]
    if sorted(order) != list(range(len(order))):
        missing = sorted(set(range(len(order))).difference(order))
        raise exceptions.RemapIndexError(
            f"map numbers 1 to {len(order)} are expected, each once, and {missing[0] + 1} is missing: {smiles}"
        )
    for atom in parsed.GetAtoms():
        atom.SetAtomMapNum(0)
    return order


def _perceive(molecule: Chem.Mol, smiles: str) -> None:
    try:
        Chem.SanitizeMol(molecule, _SANITIZE)
    except Chem.AtomValenceException as error:
        raise exceptions.AtomValenceError(f"{error}: {smiles}") from error
    except (Chem.KekulizeException, Chem.AtomKekulizeException) as error:
        raise exceptions.KekulizeError(f"{error}: {smiles}") from error
    Chem.SetAromaticity(molecule, Chem.AromaticityModel.AROMATICITY_MDL)


def _check_hydrogens(parsed: Chem.Mol, smiles: str) -> None:
    for atom in parsed.GetAtoms():
        if atom.GetNumImplicitHs() or atom.GetNumExplicitHs():
            raise exceptions.ImplicitHydrogensError(
                f"hydrogens of {atom.GetSymbol()} are implied, and each atom needs a map number: {smiles}"
            )


def _check_radicals(parsed: Chem.Mol, order: list[int], smiles: str) -> None:
    for atom in parsed.GetAtoms():
        if atom.GetNumRadicalElectrons() and atom.GetAtomicNum() not in _MAY_BE_RADICALS:
            raise exceptions.RadicalsNotSupportedError(
                f"{_name(atom, order)} has {atom.GetNumRadicalElectrons()} unpaired electrons: {smiles}"
            )


def _check_stereo(parsed: Chem.Mol, order: list[int], smiles: str) -> None:
    flagged = Chem.Mol(parsed)
    Chem.AssignStereochemistry(flagged, force=True, flagPossibleStereoCenters=True)
    unspecified = Chem.ChiralType.CHI_UNSPECIFIED
    for atom in flagged.GetAtoms():
        if atom.GetChiralTag() == unspecified and atom.HasProp("_ChiralityPossible") and not _has_equivalent_ends(atom):
            raise exceptions.UndefinedStereochemistryError(f"{_name(atom, order)} is a stereocenter without @ or @@: {smiles}")
    blank = copy.copy(parsed)
    for bond in blank.GetBonds():
        bond.SetStereo(Chem.BondStereo.STEREONONE)
    Chem.FindPotentialStereoBonds(blank, cleanIt=True)
    for possible, drawn in zip(blank.GetBonds(), parsed.GetBonds(), strict=True):
        undefined = drawn.GetStereo() in (Chem.BondStereo.STEREONONE, Chem.BondStereo.STEREOANY)
        if possible.GetStereo() == Chem.BondStereo.STEREOANY and undefined:
            ends = f"{_name(drawn.GetBeginAtom(), order)} and {_name(drawn.GetEndAtom(), order)}"
            raise exceptions.UndefinedStereochemistryError(f"the double bond of {ends} is drawn without / and \\: {smiles}")


def _has_equivalent_ends(atom: Chem.Atom) -> bool:
    """Tell whether two neighbors differ by resonance alone, as the oxygens of O=P-[O-] do; then there is nothing to draw.

    The toolkit refuses these, and with them all phosphates of nucleic acids whose phosphorus RDKit takes for a stereocenter.
    """
    ends = [neighbor.GetAtomicNum() for neighbor in atom.GetNeighbors() if neighbor.GetDegree() == 1]
    return len(set(ends)) < len(ends)


def _name(atom: Chem.Atom, order: list[int]) -> str:
    return f"{atom.GetSymbol()}:{order[atom.GetIdx()] + 1}"


def _rebuild(parsed: Chem.Mol, order: list[int], smiles: str) -> Chem.Mol:
    """Write the molecule anew: atoms by map number, bonds sorted. Which rings RDKit lists first depends on both orders."""
    built = Chem.RWMol()
    position = {new: old for old, new in enumerate(order)}
    for new in range(len(order)):
        source = parsed.GetAtomWithIdx(position[new])
        atom = Chem.Atom(source.GetAtomicNum())
        atom.SetFormalCharge(source.GetFormalCharge())
        atom.SetIsAromatic(source.GetIsAromatic())
        atom.SetNoImplicit(True)
        built.AddAtom(atom)
    bonds = {}
    for bond in parsed.GetBonds():
        i, j = order[bond.GetBeginAtomIdx()], order[bond.GetEndAtomIdx()]
        bonds[(i, j) if i < j else (j, i)] = bond
    for (i, j), bond in sorted(bonds.items()):
        built.AddBond(i, j, bond.GetBondType())
        if bond.GetIsAromatic():
            built.GetBondBetweenAtoms(i, j).SetIsAromatic(True)
    _perceive(built, smiles)
    _copy_stereo(parsed, built, order, bonds)
    # Sanitizing lists symmetry-equivalent rings too; the toolkit matches with a smallest set.
    Chem.GetSSSR(built)
    return Chem.Mol(built)


def _copy_stereo(parsed: Chem.Mol, built: Chem.RWMol, order: list[int], bonds: dict[tuple[int, int], Chem.Bond]) -> None:
    """Copy the configuration of stereocenters and double bonds.

    A chiral tag speaks of an atom's bonds in their order, so an odd permutation of them inverts it.
    """
    for source in parsed.GetAtoms():
        tag = source.GetChiralTag()
        if tag == Chem.ChiralType.CHI_UNSPECIFIED:
            continue
        atom = built.GetAtomWithIdx(order[source.GetIdx()])
        atom.SetChiralTag(tag)
        before = [order[bond.GetOtherAtomIdx(source.GetIdx())] for bond in source.GetBonds()]
        after = [bond.GetOtherAtomIdx(atom.GetIdx()) for bond in atom.GetBonds()]
        ranks = [after.index(neighbor) for neighbor in before]
        n_swaps = sum(ranks[i] > ranks[j] for j in range(len(ranks)) for i in range(j))
        if n_swaps % 2:
            atom.InvertChirality()
    for (i, j), source_bond in bonds.items():
        if source_bond.GetStereo() in (Chem.BondStereo.STEREONONE, Chem.BondStereo.STEREOANY):
            continue
        first, second = (order[k] for k in source_bond.GetStereoAtoms())
        bond = built.GetBondBetweenAtoms(i, j)
        if order[source_bond.GetBeginAtomIdx()] != bond.GetBeginAtomIdx():
            first, second = second, first
        bond.SetStereoAtoms(first, second)
        bond.SetStereo(source_bond.GetStereo())
    # Without cleanIt: it would clear the bonds, which have no neighbor drawn with / or \\.
    Chem.AssignStereochemistry(built, force=True)

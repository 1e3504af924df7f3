"""Twins: stereoisomers, protonation states and tautomers, which belong on one side of a split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pesfit.core.parallel import ordered_map

_SMILES_A_TASK = 500


def connectivity_key(smiles: str) -> str | None:
    """Return what stereoisomers, protonation states and tautomers of one molecule have in common.

    Stereo is removed, a carbanion gets its proton back (where no neighbor's positive charge makes it an ylide or an isocyanide), and
    what remains is hashed by heavy-atom graph, hydrogens on carbon, and number of hydrogens on all other atoms less the charge: the
    "heteroatom protomer" hash of N. M. O'Boyle and R. A. Sayle (NextMove Software, MolHash), as RDKit implements it. So acids and
    their anions are one, amines and their cations, and tautomers that move protons between heteroatoms; a keto and an enol form,
    which differ by a hydrogen on carbon, are two.

    Args:
        smiles: with or without map numbers and explicit hydrogens.

    Returns:
        None where the SMILES cannot be read.
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem import rdMolHash

    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
    if molecule is None:
        return None
    for atom in molecule.GetAtoms():
        atom.SetAtomMapNum(0)
    molecule = Chem.RemoveAllHs(molecule)
    Chem.RemoveStereochemistry(molecule)
    for atom in molecule.GetAtoms():
        is_carbanion = atom.GetAtomicNum() == 6 and atom.GetFormalCharge() == -1
        if is_carbanion and all(neighbor.GetFormalCharge() <= 0 for neighbor in atom.GetNeighbors()):
            atom.SetFormalCharge(0)
            atom.SetNumExplicitHs(atom.GetTotalNumHs() + 1)
            atom.SetNoImplicit(True)
    molecule.UpdatePropertyCache()
    return str(rdMolHash.MolHash(molecule, rdMolHash.HashFunction.HetAtomProtomer))


def connectivity_keys(smiles: Sequence[str]) -> dict[str, str | None]:
    """Return `connectivity_key` of each SMILES, computed in worker processes."""
    tasks = [smiles[start : start + _SMILES_A_TASK] for start in range(0, len(smiles), _SMILES_A_TASK)]
    results = ordered_map(_keys_of, tasks, label="find twins", n_items=len(tasks), unit="batch") if tasks else ()
    return dict(zip(smiles, (key for keys in results for key in keys), strict=True))


def _keys_of(smiles: Sequence[str]) -> list[str | None]:
    return [connectivity_key(one) for one in smiles]


def twin_groups(molecules: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Put together the molecules that must not be divided.

    Args:
        molecules: for each row the molecule's `group`, and its connectivity key (None where none is known or asked for).

    Returns:
        for each `group` the name of the set of twins it is in: the alphabetically first connectivity key among them, or the
        group where there is none. Adding a twin does not change the name.
    """
    parents: dict[str, str] = {}

    def root(node: str) -> str:
        while parents.setdefault(node, node) != node:
            parents[node] = parents[parents[node]]
            node = parents[node]
        return node

    groups: dict[str, None] = {}
    for group, key in molecules:
        groups[group] = None
        first = root(f"1 {group}")
        if key is not None:
            # Keys sort before groups, and the smaller name becomes the root.
            low, high = sorted((first, root(f"0 {key}")))
            parents[high] = low
    return {group: root(f"1 {group}")[2:] for group in groups}

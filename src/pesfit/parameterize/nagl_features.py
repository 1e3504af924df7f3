"""What the NAGL charge model sees of a molecule: 22 numbers for each atom, from RDKit.

========  ===============================================================================================
columns   feature
========  ===============================================================================================
0 to 9    element, one-hot: C O H N S F Br Cl I P
10 to 16  number of neighbors, one-hot: 0 to 6
17        [e], formal charge of the normalized molecule, averaged over its resonance forms
18 to 21  1 where the atom is in a ring of 3, 4, 5, 6 atoms
========  ===============================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from rdkit import Chem

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import MoleculeError
from pesfit.parameterize.resonance import average_formal_charges

ELEMENTS = ("C", "O", "H", "N", "S", "F", "Br", "Cl", "I", "P")
NEIGHBORS = (0, 1, 2, 3, 4, 5, 6)
RING_SIZES = (3, 4, 5, 6)
N_FEATURES = len(ELEMENTS) + len(NEIGHBORS) + 1 + len(RING_SIZES)

_ELEMENT_COLUMN = {Chem.GetPeriodicTable().GetAtomicNumber(symbol): column for column, symbol in enumerate(ELEMENTS)}
_SANITIZE = (
    Chem.SanitizeFlags.SANITIZE_ALL
    ^ Chem.SanitizeFlags.SANITIZE_SETAROMATICITY
    ^ Chem.SanitizeFlags.SANITIZE_ADJUSTHS
    ^ Chem.SanitizeFlags.SANITIZE_CLEANUPCHIRALITY
)


def with_mdl_aromaticity(mol: Chem.Mol) -> Chem.Mol:
    """Return a copy without map numbers whose rings are aromatic by the MDL model, the one OpenFF's SMARTS are meant for.

    Rings are a smallest set, as in the OpenFF toolkit. In a few cages it is not unique (bicyclo[2.1.1]hexane has two equivalent rings of 5
    atoms, and a smallest set holds one); which ring is taken then depends on the order of atoms and bonds.

    Raises:
        MoleculeError: if RDKit cannot make sense of the bonds.
    """
    copy = Chem.Mol(mol)
    for atom in copy.GetAtoms():
        atom.SetAtomMapNum(0)
    try:
        Chem.Kekulize(copy, clearAromaticFlags=True)
        Chem.SanitizeMol(copy, _SANITIZE)
    except (Chem.MolSanitizeException, ValueError) as error:
        raise MoleculeError(f"RDKit refuses the molecule: {error}") from error
    Chem.SetAromaticity(copy, Chem.AromaticityModel.AROMATICITY_MDL)
    Chem.AssignStereochemistry(copy, cleanIt=False)
    Chem.GetSSSR(copy)
    return copy


def atom_features(mol: Chem.Mol) -> FloatArray:
    """Return the features of each atom.

    Args:
        mol: hydrogens explicit, aromatic by the MDL model, only elements among `ELEMENTS`.

    Returns:
        shape (n_atoms, 22), columns as in the table above.

    Raises:
        MoleculeError: if an atom has more than 6 neighbors, or the molecule has too many resonance forms.
    """
    n_atoms = mol.GetNumAtoms()
    features = np.zeros((n_atoms, N_FEATURES))
    neighbors_column, charge_column, ring_column = 10, 17, 18
    rings = mol.GetRingInfo()
    for index, atom in enumerate(mol.GetAtoms()):
        degree = atom.GetDegree()
        if degree not in NEIGHBORS:
            raise MoleculeError(f"atom {index} ({atom.GetSymbol()}) has {degree} neighbors; nagl knows 0 to 6")
        features[index, _ELEMENT_COLUMN[atom.GetAtomicNum()]] = 1.0
        features[index, neighbors_column + degree] = 1.0
        for offset, size in enumerate(RING_SIZES):
            features[index, ring_column + offset] = rings.IsAtomInRingOfSize(index, size)
    features[:, charge_column] = _average_formal_charges(mol)
    return features


def _average_formal_charges(mol: Chem.Mol) -> FloatArray:
    normalized = _normalized(mol)
    return average_formal_charges(
        [atom.GetAtomicNum() for atom in normalized.GetAtoms()],
        [atom.GetFormalCharge() for atom in normalized.GetAtoms()],
        {
            (min(pair), max(pair)): int(bond.GetBondTypeAsDouble())
            for bond in normalized.GetBonds()
            for pair in [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx())]
        },
    )


@dataclass(frozen=True)
class _Rule:
    """One way of writing a group that is rewritten as another.

    Attributes:
        smarts: the group as it may be written.
        charges: [e], new formal charges, by position in the SMARTS.
        orders: new bond orders (1, 2, 3), by positions in the SMARTS.
    """

    smarts: str
    charges: dict[int, int]
    orders: dict[tuple[int, int], int]


# The normalizations of RDKit's MolStandardize, which openff-nagl applies one after the other, for elements in the model's domain
# (rdkit/Code/GraphMol/MolStandardize/TransformCatalog/normalizations.in, openff/nagl/toolkits/openff.py).
_RULES = (
    # two double-bonded oxygens on N or P with three neighbors: charge-separated
    _Rule("[N,P;X3](=[O,S])=[O,S]", {0: 1, 1: -1}, {(0, 1): 1, (0, 2): 2}),
    # sulfone: double bonds
    _Rule("[S+2]([O-])[O-]", {0: 0, 1: 0, 2: 0}, {(0, 1): 2, (0, 2): 2}),
    # pyridine oxide: charge-separated
    _Rule("[nH0+0]=[OH0+0]", {0: 1, 1: -1}, {(0, 1): 1}),
    # azide and diazo: charge-separated
    _Rule("*N=N#N", {2: 1, 3: -1}, {(1, 2): 2, (2, 3): 2}),
    _Rule("*=N#N", {1: 1, 2: -1}, {(0, 1): 2, (1, 2): 2}),
    # a sulfoxide is charge-separated
    _Rule("[!O][S+0;X3](=O)[!O]", {1: 1, 2: -1}, {(0, 1): 1, (1, 2): 1, (1, 3): 1}),
    # phosphate: a double bond
    _Rule("[O,S;-1][P+;D4][O,S;-1]", {0: 0, 1: 0, 2: -1}, {(0, 1): 2, (1, 2): 1}),
    # charge on carbon, sulfur or phosphorus next to N-H: on the nitrogen
    _Rule("[C,S&!$([S+]-[O-]);X3+1]([NX3])[NX3!H0]", {0: 0, 2: 1}, {(0, 1): 1, (0, 2): 2}),
    _Rule("[P;X4+1]([NX3])[NX3!H0]", {0: 0, 2: 1}, {(0, 1): 1, (0, 2): 2}),
    # hydrazine and diazonium: two azo groups
    _Rule(
        "[CX4][NX3H]-[NX3H][CX4][NX2+]#[NX1]",
        {2: 1, 4: 0},
        {(0, 1): 1, (1, 2): 2, (2, 3): 1, (3, 4): 1, (4, 5): 2},
    ),
    # opposite charges two or four bonds apart: recombined
    _Rule("[N,P,O,S;-1]-[A+0]=[N,P,O,S;+1]", {0: 0, 2: 0}, {(0, 1): 2, (1, 2): 1}),
    _Rule("[n,o,p,s;-1]:a=[N,O,P,S;+1]", {0: 0, 2: 0}, {(1, 2): 1}),
    _Rule("[N,O,P,S;-1]-a:[n,o,p,s;+1]", {0: 0, 2: 0}, {(0, 1): 2}),
    _Rule("[N,P,O,S;-1]-[A+0]=A-A=[N,P,O,S;+1]", {0: 0, 4: 0}, {(0, 1): 2, (1, 2): 1, (2, 3): 2, (3, 4): 1}),
    _Rule("[n,o,p,s;-1]:a:a:c=[N,O,P,S;+1]", {0: 0, 4: 0}, {(3, 4): 1}),
    _Rule("[N,O,P,S;-1]-c:a:a:[n,o,p,s;+1]", {0: 0, 4: 0}, {(0, 1): 2}),
    # conjugated cations: the charge on the atom with a hydrogen
    _Rule("[N,O;+0!H0]-A=[N!$(*[O-]),O;+1H0]", {0: 1, 2: 0}, {(0, 1): 2, (1, 2): 1}),
    _Rule("[n;+0!H0]:c=[N!$(*[O-]),O;+1H0]", {0: 1, 2: 0}, {(1, 2): 1}),
    _Rule("[N,O;+0!H0]-A=A-A=[N!$(*[O-]),O;+1H0]", {0: 1, 4: 0}, {(0, 1): 2, (1, 2): 1, (2, 3): 2, (3, 4): 1}),
    _Rule("[n;+0!H0]:a:a:c=[N!$(*[O-]),O;+1H0]", {0: 1, 4: 0}, {(3, 4): 1}),
    # halide doubly bonded to oxygen, and anion next to a carbocation
    _Rule("[F,Cl,Br,I;-1]=O", {0: 0, 1: -1}, {(0, 1): 1}),
    _Rule("[N,P;-1]=[C+;v3]", {0: 0, 1: 0}, {(0, 1): 3}),
)
_MAX_APPLICATIONS = 200


@cache
def _rule_queries() -> tuple[Chem.Mol, ...]:
    return tuple(Chem.MolFromSmarts(rule.smarts) for rule in _RULES)


def _normalized(mol: Chem.Mol) -> Chem.Mol:
    """Return a Kekulé structure of the molecule with its groups written in one way; atoms keep their order."""
    changed = Chem.RWMol(mol)
    for rule, query in zip(_RULES, _rule_queries(), strict=True):
        for _ in range(_MAX_APPLICATIONS):
            match = changed.GetSubstructMatch(query)
            if not match:
                break
            _apply(rule, changed, match)
    changed.UpdatePropertyCache(strict=False)
    try:
        Chem.Kekulize(changed, clearAromaticFlags=True)
    except Chem.KekulizeException as error:
        raise MoleculeError(f"RDKit finds no Kekulé structure of the normalized molecule: {error}") from error
    return changed


def _apply(rule: _Rule, mol: Chem.RWMol, match: tuple[int, ...]) -> None:
    for position, charge in rule.charges.items():
        mol.GetAtomWithIdx(match[position]).SetFormalCharge(charge)
    for (i, j), order in rule.orders.items():
        bond = mol.GetBondBetweenAtoms(match[i], match[j])
        bond.SetBondType(Chem.BondType.values[order])
        bond.SetIsAromatic(False)

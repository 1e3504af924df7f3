"""Atom features of the NAGL charge model, 22 numbers for each atom, and the resonance forms that one of them is averaged over.

========  ===============================================================================================
columns   feature
========  ===============================================================================================
0 to 9    element, one-hot: C O H N S F Br Cl I P
10 to 16  number of neighbors, one-hot: 0 to 6
17        [e], formal charge of the normalized molecule, averaged over its resonance forms
18 to 21  1 where the atom is in a ring of 3, 4, 5, 6 atoms
========  ===============================================================================================

In resonance forms electron pairs move from donor atoms to acceptor atoms along chains of alternating bonds, as in the vcharge method of
Gilson, Gilson and Potter, J. Chem. Inf. Comput. Sci. 43, 1982 (2003), https://doi.org/10.1021/ci034148o, with the atom types of
openff-nagl; the two oxygens of a carboxylate carry half a charge each:

=====================  ========================  ==========================
atom                   as an acceptor            as a donor
=====================  ========================  ==========================
oxygen, sulfur         neutral, bond order 2     charge -1, bond order 1
nitrogen, 3 neighbors  charge +1, orders 1 1 2   neutral, orders 1 1 1
nitrogen, 2 neighbors  neutral, orders 1 2       charge -1, orders 1 1
nitrogen, 1 neighbor   neutral, bond order 3     charge -1, bond order 2
=====================  ========================  ==========================

A form's energy is the number of such atoms that are charged (times 5, in the paper's units); the forms of least energy count.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TypeAlias

import numpy as np
from rdkit import Chem

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import MoleculeError

MAX_FORMS = 20_000
"""More resonance forms than this in one conjugated piece are refused rather than waited for (some seconds)."""
MAX_CHAINS = 200_000
"""The same for chains of alternating bonds from one donor; large graphene-like molecules have that many."""
BondOrders: TypeAlias = Mapping[tuple[int, int], int]
"""By pair of atom indices, the smaller first."""
_OrderKey: TypeAlias = tuple[int, int, tuple[int, ...]]

# (atomic number, charge, sorted bond orders) as an acceptor; a donor has one electron pair more, so its charge is one less.
_ACCEPTOR_CHARGES: dict[_OrderKey, int] = {
    (8, 0, (2,)): 0,
    (16, 0, (2,)): 0,
    (7, 1, (1, 1, 2)): 1,
    (7, 0, (1, 2)): 0,
    (7, 0, (3,)): 0,
}
_DONOR_CHARGES: dict[_OrderKey, int] = {
    (8, -1, (1,)): -1,
    (16, -1, (1,)): -1,
    (7, 0, (1, 1, 1)): 0,
    (7, -1, (1, 1)): -1,
    (7, -1, (2,)): -1,
}
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
_MAX_APPLICATIONS = 200


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


def average_formal_charges(atomic_numbers: Sequence[int], charges: Sequence[int], orders: BondOrders) -> FloatArray:
    """Return each atom's formal charge, averaged over the resonance forms of least energy.

    Args:
        atomic_numbers: shape (n_atoms,), hydrogens explicit.
        charges: [e], formal charges in one Kekulé structure, shape (n_atoms,).
        orders: bond orders in it.

    Returns:
        [e], shape (n_atoms,).

    Raises:
        MoleculeError: if there are more than `MAX_FORMS` forms or `MAX_CHAINS` chains.
    """
    neighbors: list[dict[int, int]] = [{} for _ in atomic_numbers]
    for (i, j), order in orders.items():
        neighbors[i][j] = neighbors[j][i] = order
    averages = np.array(charges, dtype=np.float64)
    for piece in _conjugated_pieces(atomic_numbers, charges, neighbors):
        enumerator = _Piece(piece, atomic_numbers, charges, neighbors)
        for atom, charge in enumerator.average_charges().items():
            averages[atom] = charge
    return averages


def _conjugated_pieces(
    atomic_numbers: Sequence[int], charges: Sequence[int], neighbors: Sequence[Mapping[int, int]]
) -> Iterator[list[int]]:
    """Yield the connected sets of atoms that are left when hydrogens and saturated carbons are taken out."""
    left = {
        atom
        for atom, number in enumerate(atomic_numbers)
        if number != 1 and not (number == 6 and charges[atom] == 0 and sorted(neighbors[atom].values()) == [1, 1, 1, 1])
    }
    while left:
        piece = []
        front = [min(left)]
        left.discard(front[0])
        while front:
            atom = front.pop()
            piece.append(atom)
            reached = sorted(left.intersection(neighbors[atom]))
            left.difference_update(reached)
            front.extend(reached)
        yield piece


class _Piece:
    """A conjugated piece of a molecule and the atoms in it that can give or take an electron pair.

    A form is the set of atoms that are acceptors in it, with bond orders that go with that. Which pairs can move next does not
    depend on which of several arrangements of single and double bonds a form has: two arrangements differ by closed alternating
    cycles, and those open or close no chain. So one arrangement is kept for each set.
    """

    def __init__(
        self,
        atoms: Sequence[int],
        atomic_numbers: Sequence[int],
        charges: Sequence[int],
        neighbors: Sequence[Mapping[int, int]],
    ) -> None:
        inside = set(atoms)
        self._orders = {atom: {other: order for other, order in neighbors[atom].items() if other in inside} for atom in atoms}
        self._acceptor_charge: dict[int, int] = {}
        acceptors = set()
        for atom in sorted(atoms):
            key = (atomic_numbers[atom], charges[atom], tuple(sorted(neighbors[atom].values())))
            if key in _ACCEPTOR_CHARGES:
                self._acceptor_charge[atom] = _ACCEPTOR_CHARGES[key]
                acceptors.add(atom)
            elif key in _DONOR_CHARGES:
                self._acceptor_charge[atom] = _DONOR_CHARGES[key] + 1
        self._start = frozenset(acceptors)

    def average_charges(self) -> dict[int, float]:
        """Return the mean formal charge of the donors and acceptors, by atom index."""
        typed = self._acceptor_charge
        # Without charges nothing can be lower, and whatever is as low has no charges either.
        if not self._start or len(self._start) == len(typed) or self._energy(self._start) == 0:
            return {}
        forms = self._forms()
        energies = [self._energy(form) for form in forms]
        lowest = [form for form, energy in zip(forms, energies, strict=True) if energy == min(energies)]
        return {atom: sum(self._charge(atom, form) for form in lowest) / len(lowest) for atom in typed}

    def _charge(self, atom: int, acceptors: frozenset[int]) -> int:
        return self._acceptor_charge[atom] - (atom not in acceptors)

    def _energy(self, acceptors: frozenset[int]) -> int:
        return sum(self._charge(atom, acceptors) != 0 for atom in self._acceptor_charge)

    def _forms(self) -> list[frozenset[int]]:
        """Return every form that can be reached by moving electron pairs, the given one first."""
        found = {self._start: self._orders}
        queue = [self._start]
        for acceptors in queue:
            orders = found[acceptors]
            for donor in self._acceptor_charge:
                if donor in acceptors:
                    continue
                for acceptor, path in self._chains(donor, acceptors, orders).items():
                    form = acceptors - {acceptor} | {donor}
                    if form not in found:
                        found[form] = _shifted(orders, path)
                        queue.append(form)
            if len(found) > MAX_FORMS:
                raise MoleculeError(f"more than {MAX_FORMS} resonance forms in a piece of {len(self._orders)} conjugated atoms")
        return queue

    def _chains(
        self, donor: int, acceptors: frozenset[int], orders: Mapping[int, Mapping[int, int]]
    ) -> dict[int, tuple[int, ...]]:
        """Return, for each acceptor that the donor's pair can move to, one chain of alternating bonds that leads there."""
        chains: dict[int, tuple[int, ...]] = {}
        stack: list[tuple[int, ...]] = [(donor,)]
        n_tried = 0
        while stack and len(chains) < len(acceptors):
            path = stack.pop()
            n_tried += 1
            if n_tried > MAX_CHAINS:
                raise MoleculeError(
                    f"more than {MAX_CHAINS} chains of alternating bonds in a piece of {len(self._orders)} conjugated atoms"
                )
            for middle, low in orders[path[-1]].items():
                if middle in path or (len(path) > 1 and low != orders[path[0]][path[1]]):
                    continue
                for end, high in orders[middle].items():
                    if high == low + 1 and end not in path:
                        longer = (*path, middle, end)
                        stack.append(longer)
                        if end in acceptors:
                            chains.setdefault(end, longer)
        return chains


def _shifted(orders: Mapping[int, Mapping[int, int]], path: Sequence[int]) -> dict[int, dict[int, int]]:
    """Return the bond orders after an electron pair has moved along a chain: up and down by one in turn."""
    changed = {atom: dict(bonds) for atom, bonds in orders.items()}
    step = 1
    for i, j in pairwise(path):
        changed[i][j] += step
        changed[j][i] += step
        step = -step
    return changed


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

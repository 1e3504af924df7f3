"""AM1-BCC charges from the published graph network of OpenFF NAGL, evaluated with numpy.

The network embeds atoms by six graph convolutions, reads a starting charge q0, an electronegativity e and a hardness s
off each atom's embedding, and equalizes: with Q the total charge,

    h_i <- relu(W_self h_i + W_neigh mean(h_j, j bonded to i) + b)
    (q0, e, s) = W_2 sigmoid(W_1 h + b_1) + b_2
    q = q0 - e / s - (1 / s) (sum(q0 - e / s) - Q) / sum(1 / s)

Model: openff-gnn-am1bcc-1.0.0 (CC-BY-4.0, https://github.com/openforcefield/openff-nagl-models). Convolution: GraphSAGE with the
mean, Hamilton, Ying, Leskovec, https://arxiv.org/abs/1706.02216. Equalization: Wang, Fass, Stern, Luo, Chodera,
https://arxiv.org/abs/1909.07903, eq. 15, after Gilson, Gilson, Potter, https://doi.org/10.1021/ci034148o.

The file also holds charges that OpenEye computed for 13,944 molecules of at most 11 atoms. As in openff-nagl these come first, and
whether the network was trained on such molecules is asked only where it is used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from rdkit import Chem, rdBase

from pesfit.chemistry.smiles import mapped_molecule
from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import MoleculeError
from pesfit.parameterize.exceptions import MultipleFragmentsError
from pesfit.parameterize.nagl_features import atom_features, with_mdl_aromaticity
from pesfit.parameterize.nagl_file import Float32Array, ModelFile, TableEntry, model_path, read_model

_INCHI_OPTIONS = "/LargeMolecules /FixedH"
_MAX_ISOMORPHISMS = 100_000


class OutsideDomainError(MoleculeError):
    """The network was not trained on an element or a bond of the molecule."""


def nagl_charges(mol: Chem.Mol, *, use_table: bool = True) -> FloatArray:
    """Return AM1-BCC charges of a molecule; the model is read once in each process.

    Args:
        mol: one connected molecule, all hydrogens explicit.
        use_table: whether charges that OpenEye computed for this molecule are taken where the model's file has them.

    Returns:
        [e], shape (n_atoms,), in the order of the molecule's atoms. Their sum is the total of the formal charges to within the
        rounding of 32-bit arithmetic (1e-6 e for 60 atoms).

    Raises:
        OutsideDomainError: naming the element or the bond.
        MultipleFragmentsError: if the molecule is not connected.
        MoleculeError: if RDKit refuses it.
        DataError: if the model's file is missing or is not the published one.
    """
    return nagl_model().charges(mol, use_table=use_table)


@cache
def nagl_model() -> NaglModel:
    """Return the published model, read from the installed package `openff-nagl-models` at the first call.

    Raises:
        DataError: if the file is missing or is not the published one.
    """
    return NaglModel(read_model(model_path()))


@dataclass(frozen=True)
class NaglModel:
    """The published network, its domain and its table, ready to be evaluated.

    Attributes:
        file: what the model's file holds.
    """

    file: ModelFile

    def charges(self, mol: Chem.Mol, *, use_table: bool = True) -> FloatArray:
        """Return AM1-BCC charges [e], shape (n_atoms,). See `nagl_charges`."""
        n_fragments = len(Chem.GetMolFrags(mol))
        if n_fragments != 1:
            raise MultipleFragmentsError(f"the molecule consists of {n_fragments} fragments, expected 1")
        self._check_elements(mol)
        mol = with_mdl_aromaticity(mol)
        charges = self._from_table(mol) if use_table else None
        if charges is None:
            self._check_bonds(mol)
            charges = self._from_network(mol)
        return charges

    def _check_elements(self, mol: Chem.Mol) -> None:
        for index, atom in enumerate(mol.GetAtoms()):
            if atom.GetAtomicNum() not in self.file.allowed_elements:
                raise OutsideDomainError(
                    f"element {atom.GetSymbol()} (atom {index}) is outside the domain of nagl: {self._elements}"
                )

    def _check_bonds(self, mol: Chem.Mol) -> None:
        for index, atom in enumerate(mol.GetAtoms()):
            if atom.GetNumRadicalElectrons():
                raise OutsideDomainError(
                    f"unpaired electrons ({atom.GetSymbol()}, atom {index}) are outside the domain of nagl"
                )
        for smarts, query in self._forbidden:
            match = mol.GetSubstructMatch(query)
            if match:
                bond = "-".join(f"{mol.GetAtomWithIdx(index).GetSymbol()}{index}" for index in match)
                raise OutsideDomainError(f"bond {bond} is outside the domain of nagl (pattern {smarts})")

    @cached_property
    def _elements(self) -> str:
        table = Chem.GetPeriodicTable()
        return " ".join(table.GetElementSymbol(number) for number in sorted(self.file.allowed_elements))

    @cached_property
    def _forbidden(self) -> tuple[tuple[str, Chem.Mol], ...]:
        return tuple((smarts, Chem.MolFromSmarts(smarts)) for smarts in self.file.forbidden_patterns)

    @cached_property
    def _largest_entry(self) -> int:
        return max(len(entry.charges) for entry in self.file.table.values())

    @cached_property
    def _convolutions(self) -> tuple[tuple[Float32Array, Float32Array], ...]:
        """Weights (2 n_in, n_out), those for the atom above those for its neighbors, and biases (n_out,)."""
        state = self.file.state
        names = [f"convolution_module.gcn_layers.{layer}" for layer in range(len(self.file.config["convolution"]["layers"]))]
        return tuple(
            (
                np.hstack([state[f"{name}.fc_self.weight"], state[f"{name}.fc_neigh.weight"]]).T.copy(),
                state[f"{name}.fc_self.bias"],
            )
            for name in names
        )

    def _from_network(self, mol: Chem.Mol) -> FloatArray:
        hidden = atom_features(mol).astype(np.float32)
        adjacency = np.array(Chem.GetAdjacencyMatrix(mol), dtype=np.float32)
        mean = adjacency / np.maximum(adjacency.sum(axis=1, keepdims=True), 1.0)
        for weight, bias in self._convolutions:
            hidden = np.maximum(np.hstack([hidden, mean @ hidden]) @ weight + bias, 0.0)
        first, second = (f"readout_modules.am1bcc_charges.readout_layers.{layer}" for layer in (0, 3))
        state = self.file.state
        # sigmoid(x) = (1 + tanh(x / 2)) / 2, which does not overflow
        hidden = 0.5 + 0.5 * np.tanh(0.5 * (hidden @ state[f"{first}.weight"].T + state[f"{first}.bias"]))
        readout = (hidden @ state[f"{second}.weight"].T + state[f"{second}.bias"]).astype(np.float64)
        prior, electronegativity, hardness = readout.T
        free = prior - electronegativity / hardness
        excess = free.sum() - Chem.GetFormalCharge(mol)
        charges: FloatArray = free - excess / hardness / (1.0 / hardness).sum()
        return charges

    def _from_table(self, mol: Chem.Mol) -> FloatArray | None:
        """Return the table's charges, or None where it has no such molecule."""
        if mol.GetNumAtoms() > self._largest_entry:
            return None
        with rdBase.BlockLogs():
            inchi = Chem.MolToInchi(mol, options=_INCHI_OPTIONS)  # type: ignore[no-untyped-call]
        entry = self.file.table.get(inchi)
        return None if entry is None else _mapped(entry, mol)


def _mapped(entry: TableEntry, mol: Chem.Mol) -> FloatArray | None:
    """Return the entry's charges in the order of the molecule's atoms, or None where RDKit does not see the same molecule in both.

    Where several assignments of atoms fit equally well the charges are averaged over them, so that equivalent atoms have equal charges
    and nothing depends on the order of the atoms.
    """
    try:
        known = with_mdl_aromaticity(mapped_molecule(entry.mapped_smiles))
    except MoleculeError:
        return None
    if known.GetNumAtoms() != mol.GetNumAtoms():
        return None
    matches = _skeleton(known).GetSubstructMatches(_skeleton(mol), uniquify=False, maxMatches=_MAX_ISOMORPHISMS)
    if not matches:
        return None
    differences = np.array([_n_differences(mol, known, match) for match in matches])
    best = [match for match, n_different in zip(matches, differences, strict=True) if n_different == differences.min()]
    charges: FloatArray = np.mean([entry.charges[list(match)] for match in best], axis=0)
    return charges


def _skeleton(mol: Chem.Mol) -> Chem.Mol:
    """Return elements and single bonds alone, in which forms of one InChI that are drawn differently are the same."""
    skeleton = Chem.RWMol()
    for atom in mol.GetAtoms():
        skeleton.AddAtom(Chem.Atom(atom.GetAtomicNum()))
    for bond in mol.GetBonds():
        skeleton.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), Chem.BondType.SINGLE)
    return skeleton.GetMol()


def _n_differences(mol: Chem.Mol, known: Chem.Mol, match: tuple[int, ...]) -> int:
    charges = sum(
        atom.GetFormalCharge() != known.GetAtomWithIdx(other).GetFormalCharge()
        for atom, other in zip(mol.GetAtoms(), match, strict=True)
    )
    orders = sum(
        bond.GetBondType()
        != known.GetBondBetweenAtoms(match[bond.GetBeginAtomIdx()], match[bond.GetEndAtomIdx()]).GetBondType()
        for bond in mol.GetBonds()
    )
    return int(charges + orders)

"""Molecules drawn as structures, their atoms tinted by error, and the choice of the worst ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from rdkit import Chem, rdBase
from rdkit.Chem import rdDepictor
from rdkit.Chem.Draw import rdMolDraw2D

from pesfit.chemistry.smiles import mapped_molecule
from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import MoleculeError
from pesfit.evaluate.names import label_of
from pesfit.evaluate.predictions import Predictions

SIZE = (220, 170)
"""Width and height of a drawing [pixel]."""
_FEW_HEAVY_ATOMS = 3
"""With fewer, hydrogens are drawn as atoms: there would be hardly anything to see."""
_TOO_MANY_ATOMS = 400
_TINT, _OPAQUE = "#d55e00", 0.55
_ELEMENT_COLORS = {
    7: "#3f7fe0", 8: "#e0443e", 9: "#2b9e5f", 15: "#d9822b", 16: "#b08a00", 17: "#2b9e5f", 35: "#b5603a", 53: "#9a5fd0",
}  # fmt: skip
"""Of middle lightness, to be read on light and on dark; all others are `currentColor`."""


@dataclass(frozen=True, eq=False)
class MoleculeForces:
    """How wrong potentials are about one molecule of the test set.

    Attributes:
        id: of its first row.
        source: data set and part of it.
        smiles: mapped; None where bonds are not known.
        atomic_numbers: shape (n_atoms,).
        n_conformers: test conformers with force labels.
        force_rmse: by potential, [kcal/mol/Å]; those that say nothing are not in it.
        of_atoms: by potential, root mean square of the force error's components on each atom [kcal/mol/Å], shape (n_atoms,).
    """

    id: str
    source: str
    smiles: str | None
    atomic_numbers: IntArray
    n_conformers: int
    force_rmse: dict[str, float]
    of_atoms: dict[str, FloatArray]


def molecule_errors(predictions: Predictions) -> list[MoleculeForces]:
    """Gather force errors by molecule, in the order of the data; rows of one molecule with other atom orders count by themselves."""
    gathered: dict[tuple[object, ...], list[int]] = {}
    for i, row in enumerate(predictions.rows):
        if row.forces is not None:
            gathered.setdefault((*row.molecule, row.smiles, row.atomic_numbers.tobytes()), []).append(i)
    found = []
    for indices in gathered.values():
        first = predictions.rows[indices[0]]
        n_conformers = sum(predictions.rows[i].n_conformers for i in indices)
        of_atoms: dict[str, FloatArray] = {}
        for potential, of_rows in predictions.predicted.items():
            squares = np.zeros(first.n_atoms)
            for i in indices:
                predicted, forces = of_rows[i], predictions.rows[i].forces
                if predicted is None or forces is None:
                    break
                squares += ((predicted.forces - forces) ** 2).sum(axis=(0, 2))
            else:
                of_atoms[potential] = np.sqrt(squares / (3 * n_conformers))
        rmse = {name: float(np.sqrt((errors**2).mean())) for name, errors in of_atoms.items()}
        found.append(MoleculeForces(first.id, first.source, first.smiles, first.atomic_numbers, n_conformers, rmse, of_atoms))
    return found


def worst(errors: Sequence[MoleculeForces], potential: str, n_molecules: int) -> list[MoleculeForces]:
    """Return the molecules with the largest force errors of a potential, worst first."""
    known = [error for error in errors if potential in error.force_rmse]
    return sorted(known, key=lambda error: (-error.force_rmse[potential], error.source, error.id))[:n_molecules]


def draw(molecule: MoleculeForces, potential: str, largest: float) -> str:
    """Return a molecule as SVG, its formula in letters where nothing says how it is bonded.

    Strokes are `currentColor`, the background is transparent. Behind each atom is a disc, the more opaque the larger the error of the
    force on it; a hydrogen that is not drawn counts for the atom it is bonded to.

    Args:
        molecule: what is drawn.
        potential: whose errors.
        largest: error of an opaque disc [kcal/mol/Å].
    """
    if molecule.smiles is None:
        return _letters(molecule.atomic_numbers, "no SMILES")
    try:
        return _structure(molecule.smiles, molecule.of_atoms[potential], largest)
    except MoleculeError as error:
        return _letters(molecule.atomic_numbers, str(error))


def caption(molecule: MoleculeForces) -> str:
    """Return what stands below a drawing: id, source, and what every potential is wrong by."""
    errors = " · ".join(f"{label_of(name)}: {value:.3g}" for name, value in molecule.force_rmse.items())
    many = "1 conformer" if molecule.n_conformers == 1 else f"{molecule.n_conformers:,} conformers"
    return f"{molecule.id} ({molecule.source}, {many}). {errors}"


def _structure(smiles: str, errors: FloatArray, largest: float) -> str:
    mol, atoms_of = _drawable(smiles, len(errors))
    drawer = rdMolDraw2D.MolDraw2DSVG(*SIZE)
    options: Any = drawer.drawOptions()
    options.clearBackground = False
    options.useBWAtomPalette()
    options.updateAtomPalette({number: _rgb(color) for number, color in _ELEMENT_COLORS.items()})
    options.fixedFontSize = 13
    options.bondLineWidth = 1.4
    options.padding = 0.1
    with rdBase.BlockLogs():
        drawer.DrawMolecule(mol)
    drawer.FinishDrawing()
    discs = []
    for index, atoms in enumerate(atoms_of):
        point = drawer.GetDrawCoords(index)
        share = min(1.0, float(np.sqrt((errors[atoms] ** 2).mean())) / largest) if largest > 0.0 else 0.0
        discs.append(
            f'<circle cx="{point.x:.1f}" cy="{point.y:.1f}" r="12" fill="{_TINT}" fill-opacity="{_OPAQUE * share:.2f}"/>'
        )
    text = drawer.GetDrawingText()
    start = text.index("<svg")
    after = text.index(">", start) + 1
    body = text[after:].replace("#000000", "currentColor")
    return f"{_open()}{''.join(discs)}{body.strip()}"


def _drawable(smiles: str, n_atoms: int) -> tuple[Chem.Mol, list[list[int]]]:
    """Return a molecule with coordinates to draw, and for each of its atoms those of the data that it stands for.

    Raises:
        MoleculeError: where RDKit cannot read or lay out the SMILES, or it is not of these atoms.
    """
    if n_atoms > _TOO_MANY_ATOMS:
        raise MoleculeError(f"{n_atoms} atoms")
    try:
        mol = mapped_molecule(smiles, sanitize=False)
    except MoleculeError as error:
        raise MoleculeError("SMILES that cannot be read") from error
    if mol.GetNumAtoms() != n_atoms:
        raise MoleculeError("SMILES of other atoms")
    try:
        with rdBase.BlockLogs():
            n_heavy = sum(atom.GetAtomicNum() > 1 for atom in mol.GetAtoms())
            for atom in mol.GetAtoms():
                atom.SetIntProp("index", atom.GetIdx())
            Chem.SanitizeMol(mol, catchErrors=True)
            drawn = mol if n_heavy < _FEW_HEAVY_ATOMS else Chem.RemoveHs(mol, sanitize=False)
            drawn.UpdatePropertyCache(strict=False)
            rdDepictor.Compute2DCoords(drawn)
            prepared = rdMolDraw2D.PrepareMolForDrawing(drawn, kekulize=False, addChiralHs=False, forceCoords=False)
    except Exception as error:
        raise MoleculeError("SMILES that cannot be drawn") from error
    home = {atom.GetIntProp("index"): [atom.GetIntProp("index")] for atom in drawn.GetAtoms()}
    for atom in mol.GetAtoms():
        index = atom.GetIntProp("index")
        if index not in home:
            home[next(other.GetIntProp("index") for other in atom.GetNeighbors())].append(index)
    return prepared, [home[atom.GetIntProp("index")] for atom in drawn.GetAtoms()]


def _letters(atomic_numbers: IntArray, why: str) -> str:
    """Return a drawing of the formula and one line below it."""
    width, height = SIZE
    formula = _formula(atomic_numbers)
    middle = f'x="{width // 2}" text-anchor="middle" fill="currentColor"'
    return (
        f'{_open()}<text {middle} y="{height // 2}" font-size="20">{escape(formula)}</text>'
        f'<text {middle} y="{height // 2 + 24}" font-size="11">{escape(why)}</text></svg>'
    )


def _formula(atomic_numbers: IntArray) -> str:
    """Write carbon, hydrogen, and then the others by letter (E. A. Hill, J. Am. Chem. Soc. 22, 478, 1900)."""
    counts = Counter(str(chemical_symbols[number]) for number in atomic_numbers.tolist())
    first = [symbol for symbol in ("C", "H") if "C" in counts and symbol in counts]
    order = [*first, *sorted(set(counts) - set(first))]
    return "".join(symbol + (str(counts[symbol]) if counts[symbol] > 1 else "") for symbol in order)


def _open() -> str:
    width, height = SIZE
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'


def _rgb(color: str) -> tuple[float, float, float]:
    return int(color[1:3], 16) / 255, int(color[3:5], 16) / 255, int(color[5:7], 16) / 255

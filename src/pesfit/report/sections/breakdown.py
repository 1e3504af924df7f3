"""The section on where errors are: by element, by energy, by size, and the molecules with the largest force errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from ase.symbols import Symbols
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import LogLocator
from rdkit import Chem, rdBase
from rdkit.Chem import rdDepictor
from rdkit.Chem.Draw import rdMolDraw2D

from pesfit.chemistry.smiles import mapped_molecule
from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import MoleculeError
from pesfit.evaluate.breakdown import (
    Kind,
    MoleculeForceErrors,
    Part,
    breakdown,
    by_element,
    by_energy,
    by_size,
    count_training,
    molecule_errors,
    worst,
)
from pesfit.evaluate.predictions import Predictions, gives_total_energies
from pesfit.params.evaluation import Analyse
from pesfit.report.page.blocks import Block, Cell, Drawing, Figure, Gallery, Layout, PageSection, Table, TableColumn
from pesfit.report.page.figures import label_of, label_rows, legend, log_axis, panels, series
from pesfit.report.sections.errors import Summaries
from pesfit.statistics.errors import ALL, ENERGY_UNIT, FORCE_UNIT

_MAX_PANELS, _MANY_CATEGORIES = 6, 6
_DECADE = 10.0
_AXIS = {
    "element": "element",
    "energy_above_lowest_kcal_per_mol": "energy above the lowest label (kcal/mol)",
    "n_atoms": "atoms",
}
_FORCE = "kcal/mol/Å"

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


def sections(
    predictions: Predictions, found: Summaries, params: Analyse, training_sizes: Mapping[int, int] | None = None
) -> list[PageSection]:
    """Return the section on the distribution of errors, and the one on the worst molecules where any are asked for.

    Args:
        predictions: on the test set.
        found: its errors, from `errors.summaries`.
        params: section `analyse`.
        training_sizes: number of training conformers by number of atoms, from `breakdown.count_training_sizes`.
    """
    kinds = {
        "element": ("by element", by_element()),
        "energy": ("by energy above the molecule's lowest label", by_energy(params.energy_window, params.energy_windows)),
        "size": ("by size of the molecule", by_size(params.size_bin_atoms)),
    }
    trained = None if training_sizes is None else count_training(training_sizes, params.size_bin_atoms)
    blocks: list[Block] = []
    for name, (words, kind) in kinds.items():
        parts = breakdown(predictions, kind)
        blocks += [
            _figure(parts, kind, f"errors-by-{name}", f"Force errors {words}"),
            _table(parts, kind, f"errors-by-{name}", f"Errors {words}", trained if name == "size" else None),
        ]
    result = [PageSection("where-errors-are", "Errors by element, energy and size", blocks)]
    galleries = _galleries(predictions, found, params.worst_molecules)
    return [*result, PageSection("worst-molecules", "Molecules with the largest errors", galleries)] if galleries else result


def _table(parts: Sequence[Part], kind: Kind, name: str, title: str, trained: Mapping[int, int] | None) -> Table:
    """Return a row for each source and category, with a column of force MAE for each potential."""
    rows: dict[tuple[str, int], dict[str, Cell]] = {}
    for part in parts:
        row = rows.setdefault((part.source, part.category), {"source": part.source, kind.name: part.label, "conformers": 0})
        row["conformers"] = max(part.n_conformers, int(row["conformers"] or 0))
        row["force_components"] = max(part.n_components, int(row.get("force_components") or 0))
        if trained is not None:
            row["training_conformers"] = trained.get(part.category, 0)
        for quantity, unit in (("force", FORCE_UNIT), ("energy", ENERGY_UNIT)):
            if quantity == "force" or not kind.of_atoms:
                for measure in ("mae", "rmse"):
                    row[f"{part.potential}_{quantity}_{measure}_{unit}"] = getattr(part, f"{quantity}_{measure}")
    columns = [
        TableColumn("source", "source"),
        TableColumn(kind.name, _AXIS[kind.name]),
        TableColumn("conformers", "conformers"),
    ]
    note = (
        "MAE of force components. The file has RMSE too, and errors of relative energies where a category has whole conformers."
    )
    if trained is not None:
        columns.append(TableColumn("training_conformers", "training conformers, all sources"))
        note += " Sizes without training conformers show how well a potential extrapolates to larger or smaller molecules."
    columns += [
        TableColumn(f"{potential}_force_mae_{FORCE_UNIT}", label_of(potential), _FORCE)
        for potential in dict.fromkeys(part.potential for part in parts)
    ]
    keys = dict.fromkeys(key for row in rows.values() for key in row)  # cells of potentials without predictions are empty
    return Table(name, title, columns, [{key: row.get(key) for key in keys} for row in rows.values()], note, folded=True)


def _figure(parts: Sequence[Part], kind: Kind, name: str, title: str) -> Figure:
    """Return the force MAE over the categories, a panel for each of the sources with most conformers."""
    parts = [part for part in parts if part.force_mae is not None]
    potentials = list(dict.fromkeys(part.potential for part in parts))
    sizes: Counter[str] = Counter()
    for part in parts:
        if part.source != ALL:
            sizes[part.source] += part.n_conformers
    sources = sorted(sorted(sizes, key=lambda source: (-sizes[source], source))[:_MAX_PANELS])
    values = [part.force_mae for part in parts if part.source in sources and part.force_mae]

    def draw(layout: Layout) -> Canvas:
        canvas, axes = panels(layout, max(1, len(sources)), columns=3 if len(sources) > 2 else 2, height=2.8)
        for panel, source in zip(axes, sources, strict=False):
            _panel(panel, [part for part in parts if part.source == source], potentials, connected=not kind.of_atoms)
            panel.set_title(source)
            panel.set_xlabel(_AXIS[kind.name])
            _same_height(panel, values)
        if sources:
            label_rows(axes, f"force MAE ({_FORCE})")
            legend(canvas)
        else:
            axes[0].text(0.5, 0.5, "no force labels", ha="center", va="center", transform=axes[0].transAxes)
        return canvas

    note = "The lower numbers under each axis are test conformers."
    if len(sizes) > len(sources):
        note += f" These are the {_MAX_PANELS} sources with most of them; the table has all {len(sizes)}."
    alt = (
        f"Mean absolute error of forces in {_FORCE}, {_AXIS[kind.name]}, every potential: {', '.join(sources) or 'no labels'}."
    )
    return Figure(name, title, alt, draw, note)


def _same_height(panel: Axes, values: Sequence[float]) -> None:
    """Give all panels one axis, logarithmic where errors differ by much, so that sources can be compared too."""
    if not values:
        return
    if max(values) > _DECADE * min(values):
        log_axis(panel, "y")
        panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        panel.set_ylim(min(values) / 1.3, max(values) * 1.3)
    else:
        panel.set_ylim(0.0, max(values) * 1.1)


def _panel(panel: Axes, parts: Sequence[Part], potentials: Sequence[str], *, connected: bool) -> None:
    categories = sorted({part.category for part in parts})
    place = {category: float(i) for i, category in enumerate(categories)}
    names = {part.category: part.label for part in parts}
    counts = {category: max(part.n_conformers for part in parts if part.category == category) for category in categories}
    offsets = np.linspace(-0.18, 0.18, len(potentials)) if not connected and len(potentials) > 1 else np.zeros(len(potentials))
    for potential, offset in zip(potentials, offsets, strict=True):
        mine = [part for part in parts if part.potential == potential]
        x, y = [place[part.category] + offset for part in mine], [part.force_mae or 0.0 for part in mine]
        panel.plot(x, y, **(series(potential, dashes=True) if connected else series(potential) | {"linestyle": "none"}))
    is_crowded = len(categories) > _MANY_CATEGORIES
    gap = " · " if is_crowded else "\n"
    panel.set_xticks(range(len(categories)), [f"{names[category]}{gap}{counts[category]:,}" for category in categories])
    panel.set_xlim(-0.5, len(categories) - 0.5)
    if is_crowded:
        panel.tick_params(axis="x", labelrotation=60, labelsize=7.5)


def _galleries(predictions: Predictions, found: Summaries, n_molecules: int) -> list[Block]:
    """Draw the molecules with the largest force errors: of the better one of the force fields, and of the networks."""
    errors = molecule_errors(predictions)
    blocks: list[Block] = []
    for total in (False, True):
        names = [name for name in predictions.potentials if gives_total_energies(name) == total and name != "gfn2"]
        rmse = {name: found[name].get(ALL, {}).get(f"force_rmse_{FORCE_UNIT}") for name in names}
        known = {name: value for name, value in rmse.items() if value is not None}
        if known:
            best = min(known, key=lambda name: (known[name], name))
            if molecules := worst(errors, best, n_molecules):
                blocks.append(_gallery(molecules, best, len(errors)))
    return blocks


def _gallery(molecules: Sequence[MoleculeForceErrors], potential: str, n_all: int) -> Gallery:
    largest = max(float(molecule.of_atoms[potential].max()) for molecule in molecules)
    which = f"all {n_all}" if len(molecules) == n_all else f"{len(molecules)} of {n_all}"
    return Gallery(
        title=f"{label_of(potential)}: largest force errors ({which} molecules)",
        drawings=[Drawing(draw(molecule, potential, largest), caption(molecule)) for molecule in molecules],
        note=f"Force RMSE of every potential in {_FORCE}. Discs: error of {label_of(potential)} on the atom and on its hydrogens that are "
        f"not drawn, from none to {largest:.3g} {_FORCE}.",
    )


def draw(molecule: MoleculeForceErrors, potential: str, largest: float) -> str:
    """Return a molecule as SVG, or its formula in letters where the bonds are unknown.

    Strokes are `currentColor`, the background is transparent. Behind each atom is a disc, the more opaque the larger the error of the
    force on it; a hydrogen that is not drawn counts for the atom it is bonded to.

    Args:
        molecule: to draw.
        potential: whose errors.
        largest: error of an opaque disc [kcal/mol/Å].
    """
    if molecule.smiles is None:
        return _letters(molecule.atomic_numbers, "no SMILES")
    try:
        return _structure(molecule.smiles, molecule.of_atoms[potential], largest)
    except MoleculeError as error:
        return _letters(molecule.atomic_numbers, str(error))


def caption(molecule: MoleculeForceErrors) -> str:
    """Return the text below a drawing: id, source, and the error of every potential."""
    errors = " · ".join(f"{label_of(name)}: {value:.3g}" for name, value in molecule.force_rmse.items())
    many = "1 conformer" if molecule.n_conformers == 1 else f"{molecule.n_conformers:,} conformers"
    return f"{molecule.id} ({molecule.source}, {many}). {errors}"


def _structure(smiles: str, errors: FloatArray, largest: float) -> str:
    mol, atoms_of = _drawable(smiles, len(errors))
    drawer = rdMolDraw2D.MolDraw2DSVG(*SIZE)
    options: Any = drawer.drawOptions()
    options.clearBackground = False
    options.useBWAtomPalette()
    options.updateAtomPalette({number: to_rgb(color) for number, color in _ELEMENT_COLORS.items()})
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
    formula = Symbols(atomic_numbers).get_chemical_formula(mode="hill")
    middle = f'x="{width // 2}" text-anchor="middle" fill="currentColor"'
    return (
        f'{_open()}<text {middle} y="{height // 2}" font-size="20">{escape(formula)}</text>'
        f'<text {middle} y="{height // 2 + 24}" font-size="11">{escape(why)}</text></svg>'
    )


def _open() -> str:
    width, height = SIZE
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">'

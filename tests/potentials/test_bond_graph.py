"""Coordinates of a molecule's bonds, against RDKit's values and finite differences; straight angles; other basins."""

from __future__ import annotations

import numpy as np
import pytest
from rdkit import Chem
from rdkit.Chem import rdDistGeom, rdMolTransforms

from pesfit.core.arrays import FloatArray
from pesfit.potentials.bond_graph import BondGraphCoordinates
from pesfit.potentials.internal_coordinates import STRAIGHT


def embedded(smiles: str) -> tuple[Chem.Mol, FloatArray]:
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=7) == 0
    return mol, np.array(mol.GetConformer().GetPositions())


def bonds_of(mol: Chem.Mol) -> list[tuple[int, int]]:
    return [(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx()) for bond in mol.GetBonds()]


@pytest.mark.parametrize("smiles", ["CCO", "C1CC1C=O", "CC#CCO", "c1ccccc1N", "[H][H]", "[Ne]"])
def test_all_paths_along_bonds_have_rdkits_values(smiles: str) -> None:
    mol, coords = embedded(smiles)
    coordinates = BondGraphCoordinates.of(bonds_of(mol), coords)
    conformer = mol.GetConformer()
    paths = {n: {tuple(path) for path in Chem.FindAllPathsOfLengthN(mol, n, useBonds=False, useHs=True)} for n in (2, 3, 4)}
    paths[4] = {path for path in paths[4] if path[0] != path[3]}  # around a ring of three
    bends = {path: rdMolTransforms.GetAngleRad(conformer, *path) for path in paths[3]}
    bends |= {path[::-1]: bend for path, bend in bends.items()}
    bent = {path for path in paths[4] if bends[path[:3]] < STRAIGHT and bends[path[1:]] < STRAIGHT}
    assert (len(bent) < len(paths[4])) == ("#" in smiles)
    functions = (rdMolTransforms.GetBondLength, rdMolTransforms.GetAngleRad, rdMolTransforms.GetDihedralRad)
    values, _ = coordinates.evaluate(coords)
    found = (coordinates.bonds, coordinates.angles, coordinates.dihedrals)
    for atoms, expected, function, kind in zip(found, (paths[2], paths[3], bent), functions, coordinates.kinds, strict=True):
        listed = [tuple(each) for each in atoms.tolist()]
        assert len(listed) == len(expected)
        assert {min(each, each[::-1]) for each in listed} == {min(each, each[::-1]) for each in expected}
        np.testing.assert_allclose(values[kind], [function(conformer, *each) for each in listed], rtol=0, atol=1e-6)


def test_bonds_may_come_in_any_order_and_direction() -> None:
    mol, coords = embedded("CCO")
    forth = BondGraphCoordinates.of(bonds_of(mol), coords)
    back = BondGraphCoordinates.of([(b, a) for a, b in reversed(bonds_of(mol))], coords)
    for name in ("bonds", "angles", "dihedrals"):
        np.testing.assert_array_equal(getattr(forth, name), getattr(back, name))


def test_wilson_rows_are_derivatives_at_each_conformer() -> None:
    mol, coords = embedded("CC=O")
    coordinates = BondGraphCoordinates.of(bonds_of(mol), coords)
    rng = np.random.default_rng(0)
    conformers = coords + 0.02 * rng.normal(size=(3, *coords.shape))
    values, rows = coordinates.evaluate(conformers)
    assert rows.shape == (*values.shape, coords.size)
    direction, step = rng.normal(size=coords.shape), 1e-5
    ends = (coordinates.evaluate(conformers + sign * step * direction)[0] for sign in (1.0, -1.0))
    np.testing.assert_allclose(rows @ direction.ravel(), coordinates.differences(*ends) / (2.0 * step), rtol=0, atol=1e-7)
    alone = coordinates.evaluate(conformers[1])
    np.testing.assert_allclose(alone[0], values[1], rtol=0, atol=1e-14)
    np.testing.assert_allclose(alone[1], rows[1], rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("kind", "change", "moved"),
    [
        ("bond", 0.5, False),
        ("angle", 24.0, False),
        ("angle", -26.0, True),
        ("dihedral", 59.0, False),
        ("dihedral", -61.0, True),
    ],
)
def test_another_basin_is_60_degrees_of_a_dihedral_or_25_of_an_angle_away(kind: str, change: float, moved: bool) -> None:
    chain = np.array([[1.5, 1.0, 0.0], [0.0, 1.4, 0.0], [0.0, 0.0, 0.0], [-1.0, -1.0, 1e-3]])
    coordinates = BondGraphCoordinates.of([(0, 1), (1, 2), (2, 3)], chain)
    mol = Chem.MolFromSmiles("CCCC")
    mol.AddConformer(Chem.Conformer(4))
    conformer = mol.GetConformer()
    conformer.SetPositions(chain)
    if kind == "bond":
        rdMolTransforms.SetBondLength(conformer, 2, 3, rdMolTransforms.GetBondLength(conformer, 2, 3) + change)
    elif kind == "angle":
        rdMolTransforms.SetAngleDeg(conformer, 1, 2, 3, rdMolTransforms.GetAngleDeg(conformer, 1, 2, 3) + change)
    else:  # from trans, so that one of both directions is across ±180°
        rdMolTransforms.SetDihedralDeg(conformer, 0, 1, 2, 3, rdMolTransforms.GetDihedralDeg(conformer, 0, 1, 2, 3) + change)
    there = np.stack([chain, np.array(conformer.GetPositions())])
    differences = coordinates.differences(coordinates.evaluate(there)[0], coordinates.evaluate(chain)[0])
    assert np.abs(differences[:, coordinates.kinds[2]]).max() <= np.pi
    assert coordinates.moved(differences).tolist() == [False, moved]

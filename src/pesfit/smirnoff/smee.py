"""Force fields and topologies in the form of smee and descent (https://github.com/openforcefield/smee).

smee is optional: it is not on PyPI, and comes from conda-forge or a git checkout. Its parameter tables have the columns and units
of `topology.COLUMNS`; one table of charges is shared by all molecules, one row for each atom; a sparse matrix maps terms to rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pesfit.chemistry.smiles import mapped_molecule
from pesfit.core.exceptions import MoleculeError, ParamsError
from pesfit.core.files import atomic_write
from pesfit.data.topology import COLUMNS, ForceField, Topology
from pesfit.potentials.terms import Terms

FUNCTIONS = {
    "Bonds": "k/2*(r-length)**2",
    "Angles": "k/2*(theta-angle)**2",
    "ProperTorsions": "k*(1+cos(periodicity*theta-phase))",
    "ImproperTorsions": "k*(1+cos(periodicity*theta-phase))",
    "vdW": "4*epsilon*((sigma/r)**12-(sigma/r)**6)",
    "Electrostatics": "coul",
}
"""Names of the handlers' energy functions in smee."""
KINDS = {"Bonds": "bond", "Angles": "angle", "ProperTorsions": "proper", "ImproperTorsions": "improper"}
"""Prefixes of the fields of `Terms` and `Topology`, by handler."""
_SCALES = ("scale_12", "scale_13", "scale_14", "scale_15")
_CUTOFF, _SWITCH_WIDTH = 9.0, 1.0
"""[Å], the defaults of SMIRNOFF, which smee requires and uses for periodic systems alone."""


def import_smee() -> Any:
    """Return the package smee.

    Raises:
        ParamsError: where it cannot be imported.
    """
    try:
        import smee
    except ImportError as error:
        raise ParamsError(
            f"smee cannot be imported ({error}); install it from conda-forge (environment.yml) or github.com/openforcefield/smee"
        ) from error
    return smee


def write_smee(path: Path, force_field: ForceField, topologies: Sequence[Topology]) -> int:
    """Write a file from which `force_field, topologies = torch.load(path, weights_only=False)` gives what descent trains.

    These are a `smee.TensorForceField` and a dictionary of a `smee.TensorTopology` for each mapped SMILES, in float64. Of topologies that
    share a SMILES, and differ in their charges, the first is taken.

    Args:
        path: the new file.
        force_field: whose tables the topologies index.
        topologies: at least one.

    Returns:
        The number of topologies written.

    Raises:
        ParamsError: where smee cannot be imported.
        MoleculeError: where a topology is malformed, or its SMILES has other atoms or bonds.
    """
    distinct: dict[str, Topology] = {}
    for topology in topologies:
        distinct.setdefault(topology.smiles, topology)
    tensors, converted = to_smee(force_field, list(distinct.values()))
    with atomic_write(path) as new:
        torch.save((tensors, dict(zip(distinct, converted, strict=True))), new)
    return len(distinct)


def to_smee(force_field: ForceField, topologies: Sequence[Topology]) -> tuple[Any, list[Any]]:
    """Convert to smee's classes. Rows of tables keep their indices; handlers without parameters are left out, as in smee.

    Args:
        force_field: whose tables the topologies index.
        topologies: at least one.

    Returns:
        A `smee.TensorForceField`, and a `smee.TensorTopology` for each topology.

    Raises:
        ParamsError: where smee cannot be imported.
        MoleculeError: where a topology is malformed, or its SMILES cannot be read or has other atoms or bonds.
    """
    smee = import_smee()
    terms = [Terms.from_topology(topology) for topology in topologies]
    names = [topology.smiles for topology in topologies]
    converted = []
    for i, topology in enumerate(topologies):
        atomic_numbers, formal_charges, bond_orders = _chemistry(topology)
        converted.append(
            smee.TensorTopology(
                atomic_nums=torch.tensor(atomic_numbers),
                formal_charges=torch.tensor(formal_charges),
                bond_idxs=torch.from_numpy(topology.connectivity.astype(np.int64)),
                bond_orders=torch.tensor(bond_orders),
                parameters=parameter_maps(force_field, terms, i),
            )
        )
    return tensor_force_field(force_field, names, [graph.charges for graph in terms]), converted


def tensor_force_field(force_field: ForceField, names: Sequence[str], charges: Sequence[Tensor]) -> Any:
    """Make a `smee.TensorForceField` for molecules with these charges.

    Args:
        force_field: with the parameters.
        names: of the molecules.
        charges: [e], for each molecule, shape (n_atoms,).
    """
    smee = import_smee()
    from openff.interchange.models import PotentialKey
    from openff.units import unit as registry

    def potential(
        handler: str, values: Tensor, keys: list[Any], units: Mapping[str, str], attributes: Mapping[str, float]
    ) -> Any:
        return smee.TensorPotential(
            type=handler,
            fn=FUNCTIONS[handler],
            parameters=values,
            parameter_keys=keys,
            parameter_cols=tuple(units),
            parameter_units=tuple(registry.Unit(unit) for unit in units.values()),
            attributes=torch.tensor(list(attributes.values()), dtype=torch.float64) if attributes else None,
            attribute_cols=tuple(attributes) if attributes else None,
            attribute_units=tuple(registry.Unit("" if name in _SCALES else "angstrom") for name in attributes)
            if attributes
            else None,
        )

    potentials = []
    for handler, units in COLUMNS.items():
        table = force_field.tables[handler]
        if not len(table.values):
            continue
        has_mult = handler.endswith("Torsions")
        keys = [
            PotentialKey(id=smirks, mult=int(mult) if has_mult else None, associated_handler=handler)
            for smirks, mult in zip(table.smirks, table.mult, strict=True)
        ]
        scales = dict(zip(_SCALES, (0.0, 0.0, force_field.vdw_scale_14, 1.0), strict=True))
        attributes = {**scales, "cutoff": _CUTOFF, "switch_width": _SWITCH_WIDTH} if handler == "vdW" else {}
        potentials.append(potential(handler, torch.tensor(table.values, dtype=torch.float64), keys, units, attributes))
    keys = [
        PotentialKey(id=name, mult=atom, associated_handler="Electrostatics")
        for name, of_atoms in zip(names, charges, strict=True)
        for atom in range(len(of_atoms))
    ]
    scales = dict(zip(_SCALES, (0.0, 0.0, force_field.electrostatics_scale_14, 1.0), strict=True))
    unit = {"charge": "elementary_charge"}
    potentials.append(potential("Electrostatics", torch.cat(list(charges))[:, None], keys, unit, {**scales, "cutoff": _CUTOFF}))
    return smee.TensorForceField(potentials)


def parameter_maps(force_field: ForceField, molecules: Sequence[Terms], which: int) -> dict[str, Any]:
    """Return the parameter of each term of a molecule, as smee maps them.

    Args:
        force_field: as given to `tensor_force_field`.
        molecules: all molecules that share the table of charges, in its order.
        which: position of the molecule.
    """
    smee = import_smee()
    terms = molecules[which]
    maps: dict[str, Any] = {}
    for handler, kind in KINDS.items():
        n_rows = len(force_field.tables[handler].values)
        if n_rows:
            rows = getattr(terms, f"{kind}_parameters")
            maps[handler] = smee.ValenceParameterMap(getattr(terms, f"{kind}s"), _assignment(rows, n_rows))
    pairs, scales = exclusions(terms)
    first_charge = sum(molecule.n_atoms for molecule in molecules[:which])
    n_charges = sum(molecule.n_atoms for molecule in molecules)
    own_charges = first_charge + torch.arange(terms.n_atoms)
    maps["vdW"] = smee.NonbondedParameterMap(
        _assignment(terms.vdw_parameters, len(force_field.tables["vdW"].values)), pairs, scales
    )
    maps["Electrostatics"] = smee.NonbondedParameterMap(_assignment(own_charges, n_charges), pairs, scales)
    return maps


def _assignment(rows: Tensor, n_rows: int) -> Tensor:
    """Put a 1 for each term in the column of its parameter, shape (n_terms, n_rows), sparse."""
    index = torch.stack((torch.arange(len(rows)), rows))
    ones = torch.ones(len(rows), dtype=torch.float64)
    return torch.sparse_coo_tensor(index, ones, (len(rows), n_rows), is_coalesced=True, check_invariants=False)


def exclusions(terms: Terms) -> tuple[Tensor, Tensor]:
    """Pairs that are scaled, shape (n_pairs, 2), and which of `_SCALES` applies, shape (n_pairs, 1)."""
    scale = torch.ones(terms.n_atoms, terms.n_atoms, dtype=torch.int64)  # 1-3, unless it is set below
    scale[terms.bonds[:, 0], terms.bonds[:, 1]] = scale[terms.bonds[:, 1], terms.bonds[:, 0]] = 0
    scale[terms.pairs[:, 0], terms.pairs[:, 1]] = torch.where(terms.pairs_14, 2, 3)
    pairs = torch.nonzero(torch.triu(scale < 3, diagonal=1))
    return pairs, scale[pairs[:, 0], pairs[:, 1]][:, None]


def _chemistry(topology: Topology) -> tuple[list[int], list[int], list[int]]:
    """Atomic numbers and formal charges by atom, and orders (Kekulé's) of the bonds, from the mapped SMILES."""
    from rdkit import Chem

    parsed = mapped_molecule(topology.smiles)
    if parsed.GetNumAtoms() != topology.n_atoms:
        raise MoleculeError(f"SMILES {topology.smiles!r} has {parsed.GetNumAtoms()} atoms; its topology has {topology.n_atoms}")
    Chem.Kekulize(parsed)
    orders = []
    for first, second in topology.connectivity.tolist():
        bond = parsed.GetBondBetweenAtoms(first, second)
        if bond is None:
            raise MoleculeError(
                f"{topology.smiles}: has no bond between the atoms {first} and {second} that its topology bonds"
            )
        orders.append(int(bond.GetBondTypeAsDouble()))
    atoms = parsed.GetAtoms()
    return [atom.GetAtomicNum() for atom in atoms], [atom.GetFormalCharge() for atom in atoms], orders

"""Read force fields and topologies that smee or descent made (https://github.com/openforcefield/smee)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import ForceFieldError, MoleculeError
from pesfit.data.topology import BONDED_HANDLERS, COLUMNS, ForceField, ParameterTable, Topology
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.smee import FUNCTIONS, KINDS, exclusions


def from_smee(force_field: Any, topologies: Mapping[str, Any]) -> tuple[ForceField, list[Topology]]:
    """Convert from smee's classes.

    Args:
        force_field: a `smee.TensorForceField` of non-periodic SMIRNOFF terms.
        topologies: a `smee.TensorTopology` for each mapped SMILES, as descent keeps them.

    Returns:
        A force field without the text of an offxml (smee has none) and without ids, and the topologies in the order given.

    Raises:
        ForceFieldError: naming what the force field has that is not supported.
        MoleculeError: naming what a topology has that is not supported.
    """
    potentials = {str(potential.type): potential for potential in force_field.potentials}
    _refuse_unsupported(force_field, potentials)
    converted = [_topology(potentials, smiles, topology) for smiles, topology in topologies.items()]
    tables = {
        handler: _table(
            handler,
            potentials.get(handler),
            [getattr(molecule, f"{KINDS.get(handler, 'vdw')}_parameters") for molecule in converted],
        )
        for handler in COLUMNS
    }
    scale_14 = {handler: _attribute(potentials[handler], "scale_14") for handler in ("vdW", "Electrostatics")}
    return ForceField("smee", "", tables, scale_14["vdW"], scale_14["Electrostatics"]), converted


def _table(handler: str, potential: Any, rows: list[IntArray]) -> ParameterTable:
    from openff.units import unit as registry

    columns = COLUMNS[handler]
    keys = [] if potential is None else potential.parameter_keys
    values = np.zeros((len(keys), len(columns)))
    for i, (name, unit) in enumerate(columns.items() if keys else ()):
        column = potential.parameter_cols.index(name)
        factor = (1.0 * potential.parameter_units[column]).m_as(registry.Unit(unit))
        values[:, i] = potential.parameters[:, column].detach().numpy().astype(np.float64) * factor
    return ParameterTable(
        handler=handler,
        ids=("",) * len(keys),
        smirks=tuple(key.id for key in keys),
        mult=np.array([key.mult or 0 for key in keys], dtype=np.int32),
        values=values,
        uses=np.bincount(np.concatenate([np.zeros(0, np.int32), *rows]), minlength=len(keys)).astype(np.int64),
    )


def _refuse_unsupported(force_field: Any, potentials: Mapping[str, Any]) -> None:
    if force_field.v_sites is not None:
        raise ForceFieldError("smee force field: VirtualSites are not supported")
    for handler, potential in potentials.items():
        if handler not in FUNCTIONS or str(potential.fn) != FUNCTIONS[handler]:
            allowed = ", ".join(f"{name} ({function})" for name, function in FUNCTIONS.items())
            raise ForceFieldError(f"smee force field: {handler} ({potential.fn}) is not supported; supported: {allowed}")
        if potential.exceptions:
            raise ForceFieldError(f"smee force field: exceptions from the mixing rules of {handler} are not supported")
    for handler in ("vdW", "Electrostatics"):
        if handler not in potentials:
            raise ForceFieldError(f"smee force field: {handler} is missing")
        for name, needed in (("scale_12", 0.0), ("scale_13", 0.0), ("scale_15", 1.0)):
            if (found := _attribute(potentials[handler], name)) != needed:
                raise ForceFieldError(
                    f"smee force field: {handler}: {name} = {found:g} is not supported; supported: {needed:g}"
                )


def _attribute(potential: Any, name: str) -> float:
    return float(potential.attributes[potential.attribute_cols.index(name)])


def _topology(potentials: Mapping[str, Any], smiles: str, topology: Any) -> Topology:
    if topology.n_v_sites:
        raise MoleculeError(f"{smiles}: {topology.n_v_sites} virtual sites are not supported")
    terms: dict[str, IntArray] = {}
    for handler, n_body in zip(BONDED_HANDLERS, (2, 3, 4, 4), strict=True):
        kind = KINDS[handler]
        terms[f"{kind}s"], terms[f"{kind}_parameters"] = np.zeros((0, n_body), np.int32), np.zeros(0, np.int32)
        if handler in topology.parameters:
            mapped = topology.parameters[handler]
            terms[f"{kind}s"] = mapped.particle_idxs.numpy().astype(np.int32).reshape(-1, n_body)
            terms[f"{kind}_parameters"] = _rows(smiles, handler, mapped.assignment_matrix)
    charge = potentials["Electrostatics"].parameters.detach().double()
    charges: FloatArray = (topology.parameters["Electrostatics"].assignment_matrix.double() @ charge)[:, 0].numpy()
    converted = Topology(
        smiles=smiles,
        connectivity=topology.bond_idxs.numpy().astype(np.int32).reshape(-1, 2),
        vdw_parameters=_rows(smiles, "vdW", topology.parameters["vdW"].assignment_matrix),
        charges=charges,
        charge_method="dataset",
        **terms,
    )
    graph = Terms.from_topology(converted)
    for handler in ("vdW", "Electrostatics"):
        _check_exclusions(smiles, handler, potentials[handler], topology.parameters[handler], graph)
    return converted


def _rows(smiles: str, handler: str, assignment: Tensor) -> IntArray:
    """Read the parameter of each term from a matrix with one 1 in each row."""
    dense = assignment.to_dense()
    if not bool(((dense == 0.0) | (dense == 1.0)).all() & (dense.sum(1) == 1.0).all()):
        raise MoleculeError(f"{smiles}: {handler}: a term that does not use exactly one parameter is not supported")
    rows: IntArray = dense.argmax(1).numpy().astype(np.int32) if dense.numel() else np.zeros(0, np.int32)
    return rows


def _check_exclusions(smiles: str, handler: str, potential: Any, mapped: Any, graph: Terms) -> None:
    """See to it that smee scales those pairs that the bonds say."""
    scale_of = {
        tuple(sorted(pair)): float(potential.attributes[index])
        for pair, index in zip(mapped.exclusions.tolist(), mapped.exclusion_scale_idxs.flatten().tolist(), strict=True)
    }
    scaled = {pair: scale for pair, scale in scale_of.items() if scale != 1.0}
    pairs, scales = exclusions(graph)
    of_index = (0.0, 0.0, _attribute(potential, "scale_14"))
    expected = {tuple(pair): of_index[index] for pair, index in zip(pairs.tolist(), scales.flatten().tolist(), strict=True)}
    expected = {pair: scale for pair, scale in expected.items() if scale != 1.0}
    if scaled != expected:
        pair = min(dict(scaled.items() ^ expected.items()))
        raise MoleculeError(
            f"{smiles}: {handler} of the atoms {pair[0]} and {pair[1]} is scaled by {scaled.get(pair, 1.0):g}; the bonds say "
            f"{expected.get(pair, 1.0):g}, and nothing else is supported"
        )

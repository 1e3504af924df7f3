"""Every implementation of `Potential`, with molecules it can be asked about. A new one is added to `CASES`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import pytest
import torch

from pesfit.data.topology import ForceField, Topology
from pesfit.painn.potential import PaiNNConfig, Variant, build_painn
from pesfit.params.train_learned import Network
from pesfit.potentials.gfn2_model import Gfn2Potential
from pesfit.potentials.interface import Potential
from pesfit.smirnoff.potential import SmirnoffPotential
from tests import openff_oracle
from tests.contract.samples import Sample


@dataclass(frozen=True)
class Case:
    """What the contract tests need to know of an implementation.

    Attributes:
        potential: to be tested.
        samples: at least three neutral molecules of different sizes, with two conformers each, not at a minimum.
        atom: a molecule of one atom at the origin.
        tolerance: [kcal/mol] and [kcal/mol/Å], rounding of energies and forces; 1e-9 in float64.
        far: [Å], a distance at which neutral molecules do not interact within `tolerance`.
        step: [Å], for numerical derivatives.
        step_tolerance: [kcal/mol/Å], error of numerical derivatives with this step.
    """

    potential: Potential
    samples: tuple[Sample, ...]
    atom: Sample
    tolerance: float
    far: float
    step: float
    step_tolerance: float


def smirnoff() -> Case:
    return _smirnoff(SmirnoffPotential, tolerance=1e-9, far=2e4, step=1e-4, step_tolerance=1e-4)


def smee() -> Case:
    pytest.importorskip("smee", reason="needs smee, which is optional and not on PyPI")
    from tests.oracles.smee import SmeePotential

    return _smirnoff(SmeePotential, tolerance=2e-3, far=200.0, step=2e-3, step_tolerance=0.1)  # in float32


def _smirnoff(
    make: Callable[[ForceField], Potential], tolerance: float, far: float, step: float, step_tolerance: float
) -> Case:
    molecules = [openff_oracle.molecule(smiles) for smiles in ("CCO", "CC(=O)NC", "CC#N", "c1c[nH]cn1")]
    force_field, topologies = openff_oracle.tables_and_topologies(molecules)
    neutral = [replace(topology, charges=topology.charges - topology.charges.mean()) for topology in topologies]
    return Case(
        potential=make(force_field),
        samples=tuple(
            Sample(molecule.atomic_numbers, molecule.coords, topology)
            for molecule, topology in zip(molecules, neutral, strict=True)
        ),
        atom=Sample(np.array([6]), np.zeros((1, 1, 3)), _atom_topology()),
        tolerance=tolerance,
        far=far,
        step=step,
        step_tolerance=step_tolerance,
    )


def gfn2() -> Case:
    samples = _smirnoff(SmirnoffPotential, 0.0, 0.0, 0.0, 0.0).samples
    return Case(
        potential=Gfn2Potential(),
        samples=tuple(replace(sample, topology=None) for sample in samples),
        atom=Sample(np.array([10]), np.zeros((1, 1, 3))),  # a closed shell
        tolerance=1e-4,  # to which the self-consistent field converges
        far=400.0,
        step=2e-3,
        step_tolerance=0.02,
    )


def _atom_topology() -> Topology:
    def none(*shape: int) -> np.ndarray:
        return np.zeros(shape, dtype=np.int32)

    return Topology(
        smiles="[C:1]",
        connectivity=none(0, 2),
        bonds=none(0, 2),
        bond_parameters=none(0),
        angles=none(0, 3),
        angle_parameters=none(0),
        propers=none(0, 4),
        proper_parameters=none(0),
        impropers=none(0, 4),
        improper_parameters=none(0),
        vdw_parameters=none(1),
        charges=np.zeros(1),
        charge_method="dataset",
    )


def painn() -> Case:
    return _painn("conservative", "float64", tolerance=1e-9, step=1e-4, step_tolerance=1e-4)


def painn_direct() -> Case:
    return _painn("direct", "float64", tolerance=1e-9, step=1e-4, step_tolerance=1e-4)


def painn_float32() -> Case:
    return _painn("conservative", "float32", tolerance=2e-3, step=1e-2, step_tolerance=0.1)


def _painn(
    variant: Variant, precision: Literal["float32", "float64"], tolerance: float, step: float, step_tolerance: float
) -> Case:
    molecules = [openff_oracle.molecule(smiles) for smiles in ("CCO", "CC(=O)NC", "CC#N", "c1c[nH]cn1")]
    network = Network(n_features=16, n_interactions=2, n_rbf=10, cutoff_angstrom=4.0, precision=precision)
    config = PaiNNConfig(variant, (1, 6, 7, 8), network)
    return Case(
        potential=build_painn(
            config, atomrefs=torch.tensor([-300.0, -2e4, -3e4, -5e4], dtype=torch.float64), scale=20.0, seed=3
        ),
        samples=tuple(Sample(molecule.atomic_numbers, molecule.coords) for molecule in molecules),
        atom=Sample(np.array([6]), np.zeros((1, 1, 3))),
        tolerance=tolerance,
        far=200.0,
        step=step,
        step_tolerance=step_tolerance,
    )


CASES: dict[str, Callable[[], Case]] = {
    "smirnoff": smirnoff,
    "smee": smee,
    "gfn2": gfn2,
    "painn": painn,
    "painn-direct": painn_direct,
    "painn-float32": painn_float32,
}
"""Name of an implementation -> its case."""

"""SMIRNOFF force fields of non-periodic molecules: energies and forces as functions of internal coordinates.

    E = Σ_bonds ½ k (r - r_0)² + Σ_angles ½ k (θ - θ_0)² + Σ_torsions (k / idivf) (1 + cos(n φ - φ_0))
        + Σ_pairs s_v 4 ε ((σ/r)¹² - (σ/r)⁶) + Σ_pairs s_q C q_i q_j / r
    F_a = -Σ f'(q) ∂q/∂r_a

with ε = √(ε_i ε_j), σ = (σ_i + σ_j)/2 (Lorentz, Berthelot), C Coulomb's constant, torsions both proper and improper, and pairs all
that are three bonds or more apart; s_v and s_q are the 1-4 scales for those exactly three apart and 1 for others
(https://openforcefield.github.io/standards/standards/smirnoff/).

    symbol        k, r_0, θ_0, n, φ_0, idivf, ε, σ                  q_i        s_v, s_q                              r, θ, φ
    variable      columns of the handlers' tables                   charges    vdw_scale_14, electrostatics_scale_14 values
                  (`topology.COLUMNS`)

Forces are explicit, so a loss of energies and forces has its gradient with respect to the tables, or to the charges of the
batch's terms, by one ordinary backward pass. ε of 0 has gradient 0, as its root has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pesfit.core import units
from pesfit.core.exceptions import DataError, ForceFieldError
from pesfit.data.topology import COLUMNS, ForceField
from pesfit.potentials.interface import Batch, Potential, Prediction
from pesfit.potentials.internal_coordinates import CoincidentAtomsError, InternalCoordinates, angles, dihedrals, distances
from pesfit.potentials.terms import Terms
from pesfit.smirnoff.replicas import SmirnoffReplicas

HANDLERS = (*COLUMNS, "Electrostatics")
"""Terms of the energy."""


@dataclass(frozen=True)
class _EvaluatedTerms:
    """Energies and slopes of all terms that share internal coordinates.

    Attributes:
        atoms: shape (n_terms, n_body).
        rows: ∂q/∂r, shape (n_terms, n_body, 3).
        energies: f(q) by handler, [kcal/mol], shape (n_terms,).
        slopes: f'(q) by handler, [kcal/mol/Å] or [kcal/mol/radian], shape (n_terms,).
    """

    atoms: Tensor
    rows: Tensor
    energies: dict[str, Tensor]
    slopes: dict[str, Tensor]


class _Total:
    """Energies and forces of a batch, summed over terms.

    Attributes:
        energy: [kcal/mol], shape (n_conformers,).
        forces: [kcal/mol/Å], shape (n_atoms, 3).
    """

    def __init__(self, batch: Batch) -> None:
        self._conformer = batch.conformer
        self.energy = batch.coords.new_zeros(batch.n_conformers)
        self.forces = batch.coords.new_zeros(batch.n_atoms, 3)

    def add(self, terms: _EvaluatedTerms, *handlers: str) -> None:
        """Add energies and forces of these handlers."""
        energies = sum((terms.energies[handler] for handler in handlers[1:]), terms.energies[handlers[0]])
        slopes = sum((terms.slopes[handler] for handler in handlers[1:]), terms.slopes[handlers[0]])
        # The sign is put into the slopes: index_add with alpha=-1 takes fifteen times as long.
        pushes = terms.rows * (-slopes)[:, None, None]
        self.energy = self.energy.index_add(0, self._conformer.index_select(0, terms.atoms[:, 0]), energies)
        self.forces = self.forces.index_add(0, terms.atoms.reshape(-1), pushes.reshape(-1, 3))


class SmirnoffPotential(Potential):
    """A SMIRNOFF force field; batches must come with terms.

    Args:
        force_field: whose tables the terms' parameters index.

    Attributes:
        tables: the parameters by handler, [units of `topology.COLUMNS`], float64, shape (n_parameters, n_columns). They do not
            require gradients until asked to (`requires_grad_`).

    Raises:
        ForceFieldError: if a table is missing, unknown or malformed, or has a value that has no energy.
    """

    def __init__(self, force_field: ForceField) -> None:
        super().__init__()
        check_force_field(force_field)
        self.tables = torch.nn.ParameterDict(
            {
                handler: torch.nn.Parameter(torch.tensor(table.values, dtype=torch.float64), requires_grad=False)
                for handler, table in force_field.tables.items()
            }
        )
        self.vdw_scale_14 = force_field.vdw_scale_14
        self.electrostatics_scale_14 = force_field.electrostatics_scale_14

    def forward(self, batch: Batch) -> Prediction:
        """Evaluate a batch.

        Raises:
            DataError: if the batch has no terms, or these index parameters that the force field does not have.
            CoincidentAtomsError: if two atoms that interact are at the same place; names molecule, conformer and atoms.
        """
        return self.evaluate(batch, dict(self.tables.items()))

    def evaluate(self, batch: Batch, tables: Mapping[str, Tensor]) -> Prediction:
        """Evaluate a batch with other parameters than the potential's own, such as functions of trained quantities.

        Args:
            batch: with terms.
            tables: as the attribute `tables`.
        """
        total = _Total(batch)
        for terms in self._terms(batch, tables):
            total.add(terms, *terms.energies)
        return Prediction(total.energy, total.forces)

    def bind(self, batch: Batch) -> Callable[[Tensor], Prediction]:
        """Return the potential as a function of positions, prepared for replicas where all molecules have as many.

        Where atoms that interact coincide, forces of their conformer are not finite in that form.

        Raises:
            DataError: as `forward` does.
        """
        if batch.terms is None or not SmirnoffReplicas.fits(batch):
            return super().bind(batch)
        try:
            return SmirnoffReplicas(dict(self.tables.items()), self.vdw_scale_14, self.electrostatics_scale_14, batch)
        except IndexError as error:
            raise _index_error(batch.terms, dict(self.tables.items())) from error

    def decompose(self, batch: Batch) -> dict[str, Prediction]:
        """Evaluate a batch, each handler of `HANDLERS` for itself; their sum is what `forward` gives, but for rounding."""
        totals = {handler: _Total(batch) for handler in HANDLERS}
        for terms in self._terms(batch, dict(self.tables.items())):
            for handler in terms.energies:
                totals[handler].add(terms, handler)
        return {handler: Prediction(total.energy, total.forces) for handler, total in totals.items()}

    def _terms(self, batch: Batch, tables: Mapping[str, Tensor]) -> Iterator[_EvaluatedTerms]:
        graph = batch.terms
        if graph is None:
            raise DataError("a SMIRNOFF potential needs a batch with terms; collate the molecules with theirs")
        try:
            yield _harmonic("Bonds", tables, distances(batch.coords, graph.bonds), graph.bonds, graph.bond_parameters)
            yield _harmonic("Angles", tables, angles(batch.coords, graph.angles), graph.angles, graph.angle_parameters)
            for handler, atoms, parameters in (
                ("ProperTorsions", graph.propers, graph.proper_parameters),
                ("ImproperTorsions", graph.impropers, graph.improper_parameters),
            ):
                yield _periodic(handler, tables, dihedrals(batch.coords, atoms), atoms, parameters)
            yield self._nonbonded(tables["vdW"], distances(batch.coords, graph.pairs), graph)
        except IndexError as error:
            raise _index_error(graph, tables) from error
        except CoincidentAtomsError as error:
            molecule, conformer, first = batch.locate(error.atoms[0])
            _, _, second = batch.locate(error.atoms[1])
            raise CoincidentAtomsError((first, second), conformer, molecule) from error

    def _nonbonded(self, vdw: Tensor, separation: InternalCoordinates, graph: Terms) -> _EvaluatedTerms:
        r, rows = separation
        first, second = graph.pairs[:, 0], graph.pairs[:, 1]

        def pairwise(of_atoms: Tensor) -> tuple[Tensor, Tensor]:
            return of_atoms.index_select(0, first), of_atoms.index_select(0, second)

        epsilon, sigma = vdw.unbind(-1)
        root_i, root_j = pairwise(_safe_root(epsilon).index_select(0, graph.vdw_parameters))
        sigma_i, sigma_j = pairwise(sigma.index_select(0, graph.vdw_parameters))
        charge_i, charge_j = pairwise(graph.charges)

        is_14 = graph.pairs_14.to(r.dtype)
        vdw_scale = 1.0 + (self.vdw_scale_14 - 1.0) * is_14
        electrostatics_scale = 1.0 + (self.electrostatics_scale_14 - 1.0) * is_14
        four_epsilon = 4.0 * root_i * root_j * vdw_scale
        attraction = (0.5 * (sigma_i + sigma_j) / r) ** 6
        repulsion = attraction * attraction
        coulomb = units.COULOMB * charge_i * charge_j * electrostatics_scale / r
        return _EvaluatedTerms(
            graph.pairs,
            rows,
            {"vdW": four_epsilon * (repulsion - attraction), "Electrostatics": coulomb},
            {"vdW": four_epsilon * (6.0 * attraction - 12.0 * repulsion) / r, "Electrostatics": -coulomb / r},
        )


def _harmonic(
    handler: str, tables: Mapping[str, Tensor], coordinate: InternalCoordinates, atoms: Tensor, parameters: Tensor
) -> _EvaluatedTerms:
    k, minimum = tables[handler].index_select(0, parameters).unbind(-1)
    stretch = coordinate.values - minimum
    slopes = k * stretch
    return _EvaluatedTerms(atoms, coordinate.rows, {handler: 0.5 * slopes * stretch}, {handler: slopes})


def _periodic(
    handler: str, tables: Mapping[str, Tensor], coordinate: InternalCoordinates, atoms: Tensor, parameters: Tensor
) -> _EvaluatedTerms:
    k, periodicity, phase, idivf = tables[handler].index_select(0, parameters).unbind(-1)
    height = k / idivf
    argument = periodicity * coordinate.values - phase
    energies, slopes = height * (1.0 + torch.cos(argument)), -height * periodicity * torch.sin(argument)
    return _EvaluatedTerms(atoms, coordinate.rows, {handler: energies}, {handler: slopes})


def _safe_root(value: Tensor) -> Tensor:
    """√value, and 0 with gradient 0 at 0."""
    positive = value > 0.0
    return torch.where(positive, torch.sqrt(torch.where(positive, value, 1.0)), 0.0)


def _index_error(graph: Terms, tables: Mapping[str, Tensor]) -> DataError:
    parameters = {
        "Bonds": graph.bond_parameters,
        "Angles": graph.angle_parameters,
        "ProperTorsions": graph.proper_parameters,
        "ImproperTorsions": graph.improper_parameters,
        "vdW": graph.vdw_parameters,
    }
    for handler, index in parameters.items():
        n_parameters = len(tables[handler])
        outside = index[(index < 0) | (index >= n_parameters)]
        if len(outside):
            return DataError(
                f"the batch's terms use {handler} parameter {int(outside[0])}; the force field has {n_parameters} "
                f"(0 to {n_parameters - 1}): they were assigned from another one"
            )
    return DataError(f"the batch's terms name atoms that it lacks; it has {graph.n_atoms}")


def check_force_field(force_field: ForceField) -> None:
    """Check that every value has an energy here.

    Raises:
        ForceFieldError: if a table is missing, unknown or malformed, or has a value that has no energy; names it.
    """
    unknown, missing = force_field.tables.keys() - COLUMNS.keys(), COLUMNS.keys() - force_field.tables.keys()
    for names, what in ((unknown, "is not supported"), (missing, "is missing (an empty table is allowed)")):
        if names:
            raise ForceFieldError(f"{force_field.name}: {min(names)} {what}; supported: {', '.join(COLUMNS)}")
    for handler, table in force_field.tables.items():
        values = torch.tensor(table.values, dtype=torch.float64)
        if values.ndim != 2 or values.shape[1] != len(COLUMNS[handler]):
            raise ForceFieldError(
                f"{force_field.name}: the table of {handler} has shape {tuple(values.shape)}; "
                f"expected (n, {len(COLUMNS[handler])}): {', '.join(COLUMNS[handler])}"
            )
        for column, name in enumerate(COLUMNS[handler]):
            allowed, what = _allowed(name, values[:, column])
            if not bool(allowed.all()):
                row = int(torch.nonzero(~allowed)[0])
                label = table.ids[row] or table.smirks[row]
                raise ForceFieldError(
                    f"{force_field.name}: {handler} {label}: {name} = {table.values[row, column]:g}; {what} is needed"
                )


def _allowed(column: str, values: Tensor) -> tuple[Tensor, str]:
    finite = torch.isfinite(values)
    if column == "idivf":
        return finite & (values > 0.0), "a number above 0"
    if column == "periodicity":
        return finite & (values >= 1.0) & (values == torch.round(values)), "a whole number of at least 1"
    if column in ("epsilon", "sigma"):
        return finite & (values >= 0.0), "a number of at least 0"
    return finite, "a finite number"

"""The trained vector: what is in it, its bounds, and the way back to a force field."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pesfit.core.exceptions import ParamsError
from pesfit.data.topology import ForceField
from pesfit.params.fit_smirnoff import (
    AngleAngle,
    AngleK,
    BondK,
    BondLength,
    TorsionK,
    Train,
    TrainAngles,
    TrainBonds,
    TrainProperTorsions,
)
from pesfit.smirnoff.parameters import Layout, add_periodicities, chosen, with_uses, without_linear_torsions
from tests.smirnoff.samples import Sample, evaluate, perturbation, sample

NO_BOND_K, NO_LENGTH = BondK(train=False), BondLength(train=False)
NO_ANGLES = TrainAngles(k=AngleK(train=False), angle=AngleAngle(train=False))
NO_TORSIONS = TrainProperTorsions(k=TorsionK(train=False))


@pytest.fixture(scope="module")
def amide() -> Sample:
    return sample(("CC(=O)NC", "CCO"), n_conformers=2)


def with_ids(force_field: ForceField) -> ForceField:
    bonds = force_field.tables["Bonds"]
    named = replace(bonds, ids=tuple(f"b{i + 1}" for i in range(len(bonds.smirks))))
    return replace(force_field, tables={**force_field.tables, "Bonds": named})


def test_include_and_exclude_by_id_pattern_and_smirks(amide: Sample) -> None:
    table = with_ids(amide.force_field).tables["Bonds"]
    assert chosen(table, TrainBonds()).all()
    assert chosen(table, TrainBonds(include=("b1", table.smirks[2]))).nonzero()[0].tolist() == [0, 2]
    assert not chosen(table, TrainBonds(exclude=("b*",))).any()
    with pytest.raises(ParamsError, match=r"bonds\.exclude: 'b77' is neither id nor SMIRKS.*b1, b2"):
        chosen(table, TrainBonds(exclude=("b77",)))


def test_parameters_that_no_molecule_uses_are_left_out(amide: Sample) -> None:
    bonds = amide.force_field.tables["Bonds"]
    uses = bonds.uses.copy()
    uses[1] = 0
    force_field = replace(amide.force_field, tables={**amide.force_field.tables, "Bonds": replace(bonds, uses=uses)})
    assert 1 not in Layout.of(force_field, Train()).row[Layout.of(force_field, Train()).handler == 0]


def test_applying_nothing_changes_nothing(amide: Sample) -> None:
    layout = Layout.of(amide.force_field, Train())
    same = layout.apply(amide.force_field, np.zeros(len(layout)))
    for handler, table in amide.force_field.tables.items():
        np.testing.assert_array_equal(same.tables[handler].values, table.values)


def test_bounds_are_those_of_the_columns(amide: Sample) -> None:
    """A vector meets the inequalities just where the parameters it stands for are within their bounds."""
    bonds = TrainBonds(k=BondK(lower=200.0, upper=1600.0), length=BondLength(lower=0.9, upper=1.6, prior_width=0.1))
    angles = TrainAngles(k=AngleK(lower=10.0), angle=AngleAngle(lower=1.5, upper=2.4, largest_change=None, prior_width=0.1))
    layout = Layout.of(amide.force_field, Train(bonds=bonds, angles=angles, proper_torsions=NO_TORSIONS))
    bounds, widths = layout.constraints(), layout.prior().widths
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(300):
        x = rng.normal(size=len(layout)) * widths * rng.choice([0.02, 0.1, 0.3])
        k = layout.k + np.where(layout.is_shift, x[layout.partners()], x)
        value = np.where(layout.is_shift, layout.minimum + x / k, k)
        columns = [layout.column(i) for i in range(len(layout))]
        inside = all(
            (c.lower is None or v >= c.lower) and (c.upper is None or v <= c.upper) for c, v in zip(columns, value, strict=True)
        )
        assert bool((bounds.matrix @ x >= bounds.lower).all()) == inside or (k <= 0).any()
        seen.add(inside)
    assert seen == {True, False}


def test_minimum_without_k_is_bounded_too(amide: Sample) -> None:
    train = Train(
        bonds=TrainBonds(k=NO_BOND_K, length=BondLength(lower=0.9, upper=1.6)), angles=NO_ANGLES, proper_torsions=NO_TORSIONS
    )
    layout = Layout.of(amide.force_field, train)
    assert layout.is_shift.all()
    bounds = layout.constraints()
    x = np.zeros(len(layout))
    x[0] = layout.k[0] * (1.6 - layout.minimum[0])
    assert (bounds.matrix @ x - bounds.lower).min() == pytest.approx(0.0, abs=1e-9)
    applied = layout.apply(amide.force_field, x)
    assert applied.tables["Bonds"].values[layout.row[0], 1] == pytest.approx(1.6, rel=1e-14)


def test_a_spring_without_strength_keeps_its_length(amide: Sample) -> None:
    layout = Layout.of(amide.force_field, Train())
    x = np.zeros(len(layout))
    x[0] = -layout.k[0]
    applied = layout.apply(amide.force_field, x)
    assert applied.tables["Bonds"].values[0].tolist() == [0.0, amide.force_field.tables["Bonds"].values[0, 1]]


def test_values_at_bounds_and_their_prior_widths(amide: Sample) -> None:
    layout = Layout.of(amide.force_field, Train())
    assert not layout.at_bounds(amide.force_field).any()
    columns = [layout.column(i) for i in range(len(layout))]
    np.testing.assert_allclose(layout.value_widths(amide.force_field), [column.prior_width for column in columns])
    x = np.zeros(len(layout))
    k, length = 0, int(np.flatnonzero(layout.is_shift & (layout.row == layout.row[0]) & (layout.handler == 0))[0])
    x[k] = -0.5 * layout.k[0]
    x[length] = 0.5 * layout.k[0] * 0.2  # the largest change of a length
    fitted = layout.apply(amide.force_field, x)
    assert np.flatnonzero(layout.at_bounds(fitted)).tolist() == [length]
    assert layout.value_widths(fitted)[[k, length]] == pytest.approx([200.0, 2.0 * 0.05])  # half the spring, twice the room


def test_starting_value_out_of_bounds_is_refused(amide: Sample) -> None:
    train = Train(bonds=TrainBonds(k=BondK(upper=100.0)))
    with pytest.raises(ParamsError, match="bounds 0 to 100 leave out the starting value"):
        Layout.of(amide.force_field, train)


def test_nothing_trained_is_refused(amide: Sample) -> None:
    off = Train(bonds=TrainBonds(k=NO_BOND_K, length=NO_LENGTH), angles=NO_ANGLES, proper_torsions=NO_TORSIONS)
    with pytest.raises(ParamsError, match="nothing is trained"):
        Layout.of(amide.force_field, off)


def test_standard_errors_agree_with_sampling(amide: Sample) -> None:
    layout = Layout.of(amide.force_field, Train())
    x = perturbation(layout, size=0.2)
    rng = np.random.default_rng(1)
    root = rng.normal(size=(len(layout), len(layout))) * 0.01 * layout.prior().widths[:, None] / np.sqrt(len(layout))
    errors = layout.standard_errors(amide.force_field, x, root @ root.T)
    drawn = [layout.apply(amide.force_field, x + root @ rng.normal(size=len(layout))) for _ in range(2000)]
    for handler in ("Bonds", "Angles"):
        spread = np.std([force_field.tables[handler].values for force_field in drawn], axis=0)
        np.testing.assert_allclose(errors[handler], spread, rtol=0.1)
    assert np.isnan(errors["ProperTorsions"][:, 1:]).all()


def test_added_periodicities_leave_energies_as_they_were_and_count(amide: Sample) -> None:
    table = amide.force_field.tables["ProperTorsions"]
    extension = add_periodicities(amide.force_field, np.ones(len(table.smirks), dtype=bool), (1, 2, 3, 4, 5, 6))
    longer = extension.force_field.tables["ProperTorsions"]
    for smirks in set(table.smirks):
        rows = [i for i, other in enumerate(longer.smirks) if other == smirks]
        assert sorted(longer.values[rows, 1]) == [1, 2, 3, 4, 5, 6]
        assert sorted(longer.mult[rows].tolist()) == [0, 1, 2, 3, 4, 5]
    topology, coords = amide.topologies[0], amide.coords[0]
    extended = extension.extend(topology)
    assert len(extended.propers) == 6 * len(np.unique(topology.propers, axis=0))
    np.testing.assert_allclose(
        evaluate(extension.force_field, extended, coords)[1], evaluate(amide.force_field, topology, coords)[1], atol=1e-10
    )
    used = np.bincount(
        np.concatenate([extension.extend(t).proper_parameters for t in amide.topologies]), minlength=len(longer.smirks)
    )
    np.testing.assert_array_equal(used, longer.uses)


def test_no_periodicity_to_add_is_no_change(amide: Sample) -> None:
    table = amide.force_field.tables["ProperTorsions"]
    extension = add_periodicities(amide.force_field, np.ones(len(table.smirks), dtype=bool), ())
    assert extension.force_field is amide.force_field
    assert extension.extend(amide.topologies[0]) is amide.topologies[0]


@pytest.mark.parametrize("smiles", ["CC#C", "C#CCCO", "CCC#N", "CC#CC", "C#CC#C"])
def test_torsions_about_straight_angles_are_never_trained(smiles: str) -> None:
    """t165 and t166 of OpenFF are 0 on purpose: the dihedral of a straight chain is undefined."""
    found = sample((smiles, "CCO"), n_conformers=2)
    train = Train(proper_torsions=TrainProperTorsions(add_periodicities=(1, 2, 3)))
    bent = without_linear_torsions(train, found.force_field, found.topologies)
    table = found.force_field.tables["ProperTorsions"]
    wanted = chosen(table, bent.proper_torsions)
    extension = add_periodicities(found.force_field, wanted, (1, 2, 3))
    layout = Layout.of(extension.force_field, bent)
    longer = extension.force_field.tables["ProperTorsions"]
    trained = {longer.smirks[row] for row in layout.row[layout.handler == 2]}
    straight = {smirks for smirks in table.smirks if "]#[" in smirks}
    assert straight
    assert not trained & straight
    assert trained
    assert all(longer.smirks.count(smirks) == table.smirks.count(smirks) for smirks in straight)


def test_a_torsion_with_a_straight_angle_is_excluded_whatever_its_smirks_says() -> None:
    found = sample(("CC#C", "CCO"), n_conformers=2)
    angles = found.force_field.tables["Angles"]
    bent = found.topologies[1]
    values = angles.values.copy()
    values[bent.angle_parameters, 1] = np.pi
    force_field = replace(found.force_field, tables={**found.force_field.tables, "Angles": replace(angles, values=values)})
    train = without_linear_torsions(Train(), force_field, found.topologies)
    wanted = chosen(force_field.tables["ProperTorsions"], train.proper_torsions)
    assert not wanted[bent.proper_parameters].any()


def test_uses_are_those_of_the_topologies_given(amide: Sample) -> None:
    alone = with_uses(amide.force_field, amide.topologies[1:])
    for handler, table in alone.tables.items():
        rows = amide.topologies[1].parameters(handler)
        np.testing.assert_array_equal(table.uses, np.bincount(rows, minlength=len(table.smirks)))
    assert len(Layout.of(alone, Train())) < len(Layout.of(amide.force_field, Train()))

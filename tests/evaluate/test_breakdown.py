"""Errors told apart by element, energy and size, against what they are in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from pesfit.evaluate.breakdown import breakdown, by_element, by_energy, by_size, count_training, molecule_errors, worst
from tests.report.samples import ETHANOL, ETHANOL_SMILES, predicted, predictions, row


def test_each_element_has_its_own_error() -> None:
    rows = [row("a/0"), row("b/0", ETHANOL, 2, smiles=ETHANOL_SMILES)]
    error = {1: 1.0, 6: 2.0, 8: -4.0}
    said = [predicted(r, 0.0, np.array([error[z] for z in r.atomic_numbers])[None, :, None]) for r in rows]
    parts = {part.label: part for part in breakdown(predictions(rows, {"direct": said}), by_element())}
    assert {label: part.force_mae for label, part in parts.items()} == {"H": 1.0, "C": 2.0, "O": 4.0}
    assert {label: part.force_rmse for label, part in parts.items()} == {"H": 1.0, "C": 2.0, "O": 4.0}
    assert {label: part.n_conformers for label, part in parts.items()} == {"H": 6, "C": 2, "O": 6}
    assert parts["O"].n_components == 3 * 6
    assert parts["O"].energy_mae is None


def test_windows_begin_at_the_lowest_label_and_the_last_has_no_end() -> None:
    labels = np.array([-100.0, -95.1, -95.0, -80.0, 900.0])
    rows = [row("a/0", n_conformers=5, energy=labels)]
    energy = np.array([0.0, 0.0, 5.0, 5.0, 5.0])  # mean 3
    said = [predicted(rows[0], energy, np.arange(5.0)[:, None, None])]
    parts = breakdown(predictions(rows, {"smirnoff": said}), by_energy(5.0, 3))
    assert [(part.label, part.n_conformers) for part in parts] == [("0–5", 2), ("5–10", 1), ("≥ 10", 2)]
    assert [part.force_mae for part in parts] == pytest.approx([0.5, 2.0, 3.5])
    assert [part.energy_mae for part in parts] == pytest.approx([3.0, 2.0, 2.0])
    assert [part.label for part in breakdown(predictions(rows, {"smirnoff": said}), by_energy(5.0, 1))] == ["≥ 0"]


def test_sizes_are_ranges_and_sources_stay_apart() -> None:
    rows = [row("a/0"), row("b/0", ETHANOL, 2, source="other", smiles=ETHANOL_SMILES), row("c/0", with_forces=False)]
    said = [predicted(rows[0], 0.0, 1.0), predicted(rows[1], 0.0, 3.0), predicted(rows[2])]
    parts = breakdown(predictions(rows, {"direct": said}), by_size(5))
    found = {(part.source, part.label): (part.force_mae, part.n_conformers) for part in parts}
    assert found == {("all", "1–5"): (1.0, 8), ("all", "6–10"): (3.0, 2), ("other", "6–10"): (3.0, 2), ("toy", "1–5"): (1.0, 8)}
    assert list(found) == [("all", "1–5"), ("all", "6–10"), ("other", "6–10"), ("toy", "1–5")]
    assert by_size(1).label(8) == "9"
    assert count_training({5: 1, 6: 2, 10: 4, 11: 8}, 5) == {0: 1, 1: 6, 2: 8}


def test_potentials_count_what_they_can_do() -> None:
    rows = [row("a/0"), row("b/0")]
    made = predictions(rows, {"smirnoff": [None, None], "direct": [predicted(rows[0], 0.0, 1.0), None]})
    assert [(part.potential, part.n_conformers) for part in breakdown(made, by_element())] == [("direct", 4), ("direct", 4)]


def test_errors_of_atoms_and_molecules_are_roots_of_mean_squares() -> None:
    rows = [row("a/0", n_conformers=3), row("a/1", n_conformers=1), row("b/0", ETHANOL, 2, smiles=ETHANOL_SMILES)]
    of_atoms = np.array([2.0, 0.0, -1.0])[None, :, None]
    said = [predicted(rows[0], 0.0, of_atoms), predicted(rows[1], 0.0, 3.0 * of_atoms), predicted(rows[2], 0.0, 5.0)]
    found = molecule_errors(predictions(rows, {"direct": said, "smirnoff": [said[0], None, said[2]]}))
    assert [(one.id, one.n_conformers) for one in found] == [("a/0", 4), ("b/0", 2)]
    # Three conformers with 2, 0, 1 and one with thrice that: squares 4 (3 + 9) / 4 = 12, 0 and 3.
    assert found[0].of_atoms["direct"] == pytest.approx(np.sqrt([12.0, 0.0, 3.0]))
    assert found[0].force_rmse == pytest.approx({"direct": np.sqrt(5.0)})
    assert found[1].force_rmse == pytest.approx({"direct": 5.0, "smirnoff": 5.0})
    assert [one.id for one in worst(found, "direct", 1)] == ["b/0"]
    assert [one.id for one in worst(found, "smirnoff", 9)] == ["b/0"]
    assert worst(found, "direct", 0) == []

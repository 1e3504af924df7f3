"""What is right passes, and each way of being wrong is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pesfit.core.exceptions import DataError
from pesfit.core.units import BOHR, HARTREE, KJ
from pesfit.data.dataset import Record
from pesfit.params.preparation import ConvertEspaloma
from pesfit.sources.checks import PhysicsCheck, measure_physics
from pesfit.sources.espaloma import convert_entry, read_entries
from tests.sources.synthetic import make_frames

FRAMES = make_frames("CCO", 30)
ORDER = np.random.default_rng(3).permutation(9)
WRONG = {
    "wrong sign": {"forces": -FRAMES.forces},
    "energies are in hartree": {"energy": FRAMES.energy / HARTREE},
    "forces are in hartree/bohr": {"forces": FRAMES.forces * (BOHR / HARTREE)},
    "forces are per bohr": {"forces": FRAMES.forces * BOHR},
    "energies are in kJ/mol": {"energy": FRAMES.energy / KJ},
    "atoms in another order": {"coords": FRAMES.coords[:, ORDER]},
    "conformers in another order": {"energy": np.roll(FRAMES.energy, 3)},
    "never change": {"energy": np.full(30, -50_000.0)},
    "axes exchanged": {"forces": FRAMES.forces[:, :, [1, 2, 0]]},
    "too large": {"energy": np.full(30, 1e200)},
}


def check_physics(record: Record) -> PhysicsCheck:
    check = measure_physics(record)
    if check.problem:
        raise DataError(f"{record.id}: {check.problem}")
    return check


def test_consistent_labels_pass() -> None:
    check = check_physics(FRAMES.record())
    assert check.is_conclusive
    assert check.n_pairs >= 15
    assert check.slope == pytest.approx(1.0, abs=0.03)
    assert check.correlation is not None
    assert check.correlation > 0.99
    assert check.net_force_rms < 1e-8
    assert check.torque_rms < 1e-8
    assert check.metrics()["energy_against_forces"] == "passed"


@pytest.mark.parametrize("what", WRONG)
def test_wrong_labels_are_named(what: str) -> None:
    with pytest.raises(DataError, match=f"^made/up: .*{what}"):
        check_physics(FRAMES.record(**WRONG[what]))


def test_midpoint_rule_is_exact_to_third_order() -> None:
    """Half the step, an eighth of the error at most."""
    errors = []
    for step in (0.02, 0.01):
        check = measure_physics(make_frames("CCO", 40, step=step).record())
        errors.append((check.rise2 - 2 * check.work_rise + check.work2) / check.n_pairs)
    assert np.sqrt(errors[1] / errors[0]) < 1 / 6


def test_no_near_conformers_no_verdict() -> None:
    check = check_physics(make_frames("CCO", 30, step=0.6).record())
    assert check.n_pairs == 0
    assert check.metrics()["energy_against_forces"] == "not checked: too few near conformers"
    assert check.slope is None
    assert check.correlation is None


@pytest.mark.parametrize("n", [1, 2])
def test_few_conformers_and_atoms(n: int) -> None:
    assert check_physics(make_frames("[Ne]", n).record()).n_pairs == n - 1
    assert check_physics(FRAMES.record(forces=None)) == PhysicsCheck()


def test_sums_of_parts_are_sums_of_the_whole() -> None:
    check = measure_physics(FRAMES.record())
    twice = check + check
    assert (twice.n_pairs, twice.n_conformers) == (2 * check.n_pairs, 60)
    assert twice.slope == pytest.approx(check.slope)
    assert twice.net_force_rms == pytest.approx(check.net_force_rms)


def real_records(real_data: Path, rmd17: Path) -> list[Record]:
    records = []
    for subset in ("gen2-torsion", "protein-torsion", "rna-diverse"):
        for entry in read_entries(real_data / "mirror" / "espaloma" / f"{subset}.tar.gz", subset):
            converted = convert_entry(entry, ConvertEspaloma())
            assert converted.record is not None, converted.failure
            records.append(converted.record)
    arrays = np.load(real_data / "mirror" / "md17" / "md17_ethanol.npz", allow_pickle=False)
    records.append(_frames("md17", arrays["z"], arrays["R"], arrays["E"][:, 0], arrays["F"]))
    for path in sorted((rmd17 / "npz_data").iterdir()):
        arrays = np.load(path, allow_pickle=False)
        old = _frames(path.name, *(arrays[key] for key in ("nuclear_charges", "coords", "old_energies", "old_forces")))
        new = _frames(path.name, *(arrays[key] for key in ("nuclear_charges", "coords", "energies", "forces")))
        records += [old, new]
    return records


def _frames(name: str, numbers: np.ndarray, coords: np.ndarray, energy: np.ndarray, forces: np.ndarray) -> Record:
    rows = slice(0, 1000)
    frame = np.arange(len(energy[rows]))
    return Record(name, None, numbers.astype(np.int32), coords[rows], energy[rows], forces[rows], None, 0, name, name, frame)


def test_real_data_pass_and_their_corruptions_do_not(real_data: Path, rmd17: Path) -> None:
    """Real labels with all their noise: DFT grids, and the loose convergence of original MD17."""
    records = real_records(real_data, rmd17)
    assert len(records) == 8 + 1 + 4
    n_conclusive = 0
    for record in records:
        check = check_physics(record)
        forces = record.forces
        assert forces is not None
        # A molecule at rest in all its conformers tells nothing: gen2-torsion/105 has forces of 0.06 kcal/mol/Å.
        if check.is_conclusive:
            n_conclusive += 1
            assert check.slope == pytest.approx(1.0, abs=0.1)
            changed = {
                "wrong sign": measure_physics(_with(record, forces=-forces)),
                "energies are in hartree": measure_physics(_with(record, energy=record.energy / HARTREE)),
                "forces are per bohr": measure_physics(_with(record, forces=forces * BOHR)),
            }
            for what, wrong in changed.items():
                assert wrong.problem is not None
                assert what in wrong.problem, record.id
        if record.id != "gen2-torsion/105":
            order = np.random.default_rng(0).permutation(record.n_atoms)
            assert "do not add up" in str(measure_physics(_with(record, forces=forces[:, order])).problem), record.id
    assert n_conclusive >= 9


def _with(record: Record, **changes: np.ndarray) -> Record:
    return Record(**{**vars(record), **changes})

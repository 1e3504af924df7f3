"""Labels by models: against other programs and finite differences, what is kept, what is left out, and the way back into the pipeline."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pesfit.application.label_dataset import Selection, label_dataset
from pesfit.application.labeler import Labeler
from pesfit.core.exceptions import DataError, ParamsError
from pesfit.data.dataset import ConformerDataset, read_failures
from pesfit.potentials.gfn2 import Gfn2
from tests import openff_oracle
from tests.application.label_samples import row, with_coords, write

GFN2 = Labeler("gfn2")


def test_forces_are_minus_the_slope_of_energies(tmp_path: Path) -> None:
    start = row("CO").coords[:1]
    step = 1e-3
    moves = step * np.eye(18).reshape(18, 6, 3)
    coords = np.concatenate([start, start + moves, start - moves])
    label_dataset(GFN2, write(tmp_path / "set", [with_coords(row("CO"), coords)]), tmp_path / "new")
    (found,) = ConformerDataset(tmp_path / "new")
    slope = (found.energy[1:19] - found.energy[19:]) / (2 * step)
    assert found.forces is not None
    np.testing.assert_allclose(found.forces[0].ravel(), -slope, atol=2e-3)
    assert np.abs(slope).max() > 10.0


def test_force_fields_label_as_openmm_evaluates_with_the_charges_of_the_data(tmp_path: Path) -> None:
    molecules = [openff_oracle.molecule(smiles, 3) for smiles in ("CC(=O)NC", "COP(=O)([O-])OC")]
    records = [
        with_coords(
            row(
                "C",
                smiles=of.smiles,
                atomic_numbers=of.atomic_numbers.astype(np.int32),
                charges=of.charges,
                id=str(i),
                total_charge=-i,
            ),
            of.coords,
        )
        for i, of in enumerate(molecules)
    ]
    summary = label_dataset(Labeler(openff_oracle.FORCE_FIELD), write(tmp_path / "set", records), tmp_path / "new")
    assert (summary.n_rows, summary.n_conformers, summary.n_left_out, summary.failures) == (2, 6, 0, ())
    data = ConformerDataset(tmp_path / "new")
    assert data.level_of_theory == {"labeled/made": f"pesfit {openff_oracle.FORCE_FIELD}"}
    for found, of in zip(data, molecules, strict=True):
        energy, forces = openff_oracle.openmm_energy_forces(of)
        np.testing.assert_allclose(found.energy, energy, rtol=0, atol=2e-5)
        np.testing.assert_allclose(found.forces, forces, rtol=0, atol=2e-4)


def test_all_but_labels_is_kept(tmp_path: Path) -> None:
    charges = np.linspace(-0.1, 0.1, 9)
    given = [row("CCO", charges=charges), row("CC(=O)[O-]", smiles=None), row("O", id="x/00001", source="other")]
    label_dataset(GFN2, write(tmp_path / "set", given), tmp_path / "new")
    data = ConformerDataset(tmp_path / "new")
    assert data.level_of_theory == {"labeled/made": "GFN2-xTB", "labeled/other": "GFN2-xTB"}
    for found, before in zip(data, given, strict=True):
        for name in ("id", "smiles", "group", "total_charge"):
            assert getattr(found, name) == getattr(before, name)
        for name in ("atomic_numbers", "coords", "frame", "charges"):
            np.testing.assert_array_equal(getattr(found, name), getattr(before, name))
        assert found.source == f"labeled/{before.source}"
        expected = Gfn2(before.atomic_numbers, before.total_charge).energy_and_forces(before.coords[1])
        assert found.energy[1] == expected.energy  # the total charge is that of the row, also where no SMILES says it
    label_dataset(GFN2, ConformerDataset(tmp_path / "set"), tmp_path / "named", source="round-1")
    assert ConformerDataset(tmp_path / "named").level_of_theory == {"round-1": "GFN2-xTB"}
    assert {found.source for found in ConformerDataset(tmp_path / "named")} == {"round-1"}


def test_a_trajectory_of_any_model_is_labeled_by_any_other(smirnoff: Path, network: Path, tmp_path: Path) -> None:
    dataset = write(tmp_path / "0", [row("CCO"), row("CO")])
    for i, name in enumerate((str(smirnoff), str(network), str(smirnoff), "gfn2")):
        label_dataset(Labeler(name), dataset, tmp_path / str(i + 1), source="again")
        dataset = ConformerDataset(tmp_path / str(i + 1))
    first, third = ConformerDataset(tmp_path / "1"), ConformerDataset(tmp_path / "3")
    assert (tmp_path / "1" / "data-00000-of-00001.arrow").read_bytes() == (
        tmp_path / "3" / "data-00000-of-00001.arrow"
    ).read_bytes()
    assert first.level_of_theory == third.level_of_theory == {"again": f"pesfit {smirnoff}"}
    assert ConformerDataset(tmp_path / "2")[0].energy[0] != first[0].energy[0]


def test_what_cannot_be_labeled_is_left_out_and_listed(smirnoff: Path, network: Path, tmp_path: Path) -> None:
    stacked = row("CCO").coords.copy()
    stacked[1, 3] = stacked[1, 8]
    odd = row("C", id="radical", total_charge=1)
    records = [row("CCO", coords=stacked), row("CN"), row("CO"), odd, row("C", id="bare", smiles=None)]
    dataset = write(tmp_path / "set", records)
    expected = {
        str(network): {"CN": "this potential was not trained on N; it knows H, C, O"},
        "gfn2": {"radical": "electrons (total charge +1) cannot have 0 of them unpaired"},
        str(smirnoff): {
            "CCO": "gives no finite energy and forces for 1 of 3 conformers (frames 10): atoms 3 and 8",
            "bare": "a row without SMILES has no bonds",
        },
    }
    for i, (name, messages) in enumerate(expected.items()):
        summary = label_dataset(Labeler(name), dataset, tmp_path / str(i))
        failures = {failure.id: failure for failure in read_failures(tmp_path / str(i) / "failures.csv")}
        assert tuple(failures.values()) == summary.failures
        for id_, message in messages.items():
            assert message in failures[id_].message
            assert failures[id_].stage == "label"
        data = {found.id: found for found in ConformerDataset(tmp_path / str(i))}
        assert summary.n_rows == len(data)
        assert sum(found.n_conformers for found in data.values()) == summary.n_conformers == 15 - summary.n_left_out
        assert set(data) | set(failures) == {record.id for record in records}
        assert not set(messages) - {"CCO"} & set(data)
        assert all(np.isfinite(found.energy).all() for found in data.values())
        if "CCO" in messages:
            assert data["CCO"].frame.tolist() == [0, 20]
            np.testing.assert_array_equal(data["CCO"].coords, stacked[[0, 2]])


def test_coordinates_that_are_not_finite_are_left_out(network: Path, tmp_path: Path) -> None:
    """No writer of ours lets them through, but a file may have been made by another."""
    dataset = write(tmp_path / "set", [row("CO")])
    marked = dataset[0].coords[1, 2, 0]
    (file,) = (tmp_path / "set").glob("*.arrow")
    assert file.read_bytes().count(marked.tobytes()) == 1
    file.write_bytes(file.read_bytes().replace(marked.tobytes(), np.float64(np.nan).tobytes()))
    for i, name in enumerate((str(network), "gfn2")):
        summary = label_dataset(Labeler(name), ConformerDataset(tmp_path / "set"), tmp_path / str(i))
        assert (summary.n_conformers, summary.n_left_out) == (2, 1)
        assert "1 of 3 conformers (frames 10)" in summary.failures[0].message


def test_nothing_is_written_where_nothing_is_labeled(network: Path, tmp_path: Path) -> None:
    dataset = write(tmp_path / "set", [row("CN"), row("CF")])
    with pytest.raises(DataError, match=r"labels none of the 6 conformers of .*; the first failed: CN: .*not trained on N"):
        label_dataset(Labeler(str(network)), dataset, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def frames_of(path: Path) -> dict[str, list[int]]:
    return {found.id: found.frame.tolist() for found in ConformerDataset(path)}


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (Selection(), {"CCO": [0, 10, 20, 30, 40], "CO": [0, 10, 20]}),
        (Selection(every=2), {"CCO": [0, 20, 40], "CO": [0, 20]}),
        (Selection(every=9), {"CCO": [0], "CO": [0]}),
        (Selection(max_conformers=4), {"CCO": [10, 30], "CO": [0, 20]}),  # 1, 3, 5, 7 of 0 to 7
        (Selection(max_conformers=1), {"CCO": [40]}),
        (Selection(max_conformers=100), {"CCO": [0, 10, 20, 30, 40], "CO": [0, 10, 20]}),
        (Selection(every=2, max_conformers=1), {"CCO": [40]}),
    ],
)
def test_conformers_are_chosen_evenly(
    selection: Selection, expected: dict[str, list[int]], network: Path, tmp_path: Path
) -> None:
    dataset = write(tmp_path / "set", [row("CCO", 5), row("CO", 3)])
    label_dataset(Labeler(str(network)), dataset, tmp_path / "new", selection)
    assert frames_of(tmp_path / "new") == expected


def test_the_least_certain_conformers_are_those_with_most_strain(smirnoff: Path, network: Path, tmp_path: Path) -> None:
    """The posterior's force deviation grows with displacement: stretch one conformer of each, and those come first."""
    records = []
    for smiles in ("CCO", "CO"):
        calm = row(smiles, 4)
        coords = np.repeat(calm.coords[:1], 4, axis=0)
        coords[2] *= 1.5
        records.append(replace(calm, coords=coords))
    dataset = write(tmp_path / "set", [*records, row("CN", smiles=None)])
    selection = Selection(most_uncertain=2, by=Labeler(str(smirnoff)))
    summary = label_dataset(Labeler(str(network)), dataset, tmp_path / "new", selection)
    assert frames_of(tmp_path / "new") == {"CCO": [20], "CO": [20]}
    assert [failure.id for failure in summary.failures] == ["CN"]
    label_dataset(Labeler(str(smirnoff)), dataset, tmp_path / "itself", Selection(most_uncertain=2))
    assert frames_of(tmp_path / "itself") == {"CCO": [20], "CO": [20]}
    label_dataset(GFN2, dataset, tmp_path / "all", replace(selection, most_uncertain=100))
    assert frames_of(tmp_path / "all") == {"CCO": [0, 10, 20, 30], "CO": [0, 10, 20, 30]}
    with pytest.raises(DataError, match=f"--most-uncertain: {network} has no posterior; name a model that has one with --by"):
        label_dataset(Labeler(str(network)), dataset, tmp_path / "none", Selection(most_uncertain=2))
    with pytest.raises(DataError, match="has no standard deviations for any conformer; the first failed: a row without SMILES"):
        label_dataset(GFN2, write(tmp_path / "bare", [row("CN", smiles=None)]), tmp_path / "none", selection)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"every": 0}, "--every 0: at least 1 is needed"),
        ({"max_conformers": -3}, "--max-conformers -3: at least 1"),
        ({"most_uncertain": 0}, "--most-uncertain 0: at least 1"),
        ({"most_uncertain": 1, "max_conformers": 1}, "expected one of them"),
        ({"by": GFN2}, "--by gfn2: only --most-uncertain asks"),
    ],
)
def test_choices_that_make_no_sense_are_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        Selection(**wrong)


@pytest.mark.usefixtures("worker_pool")
def test_bytes_do_not_depend_on_the_number_of_workers(network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write(tmp_path / "set", [row("CCO", 5), row("CN"), row("CO", 4)])
    for workers in ("1", "2"):
        monkeypatch.setenv("PESFIT_WORKERS", workers)
        label_dataset(Labeler(str(network)), dataset, tmp_path / workers)
    for file in (tmp_path / "1").iterdir():
        assert (tmp_path / "2" / file.name).read_bytes() == file.read_bytes(), file.name

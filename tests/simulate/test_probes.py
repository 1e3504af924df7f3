"""Probes against geometry, GFN2-xTB itself, and the temperature they are meant to have."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pesfit.data.dataset import ConformerDataset, Record
from pesfit.params.evaluation import Probes
from pesfit.potentials.gfn2 import Gfn2
from pesfit.simulate.molecules import SimulatedMolecule
from pesfit.simulate.probes import stretch, write_probes

PARAMS = Probes(
    temperatures_kelvin=(1000.0,),
    replicas=2,
    frames=3,
    equilibration_fs=20.0,
    stretch_angstrom=(0.2, 0.4),
    conformers=5,
)
WATER = "[O:1]([H:2])[H:3]"
COORDS = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
CYCLOPROPANONE = "[C:1]1(=[O:4])[C:2]([H:5])([H:6])[C:3]1([H:7])[H:8]"


def simulated(n_starts: int = 2, smiles: str | None = WATER, numbers: tuple[int, ...] = (8, 1, 1)) -> SimulatedMolecule:
    coords = np.random.default_rng(3).normal(scale=1.5, size=(n_starts, len(numbers), 3))
    if smiles == WATER:
        coords = COORDS + 0.02 * coords
    record = Record(
        "conformers/made", smiles, np.array(numbers, dtype=np.int32), coords, np.zeros(n_starts), None, None, 0, "made",
        "xtb/conformers", np.arange(n_starts),
    )  # fmt: skip
    return SimulatedMolecule("xtb/conformers/made", (record,), coords, None, "GFN2-xTB")


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Record]]]:
    folder = tmp_path_factory.mktemp("probes")
    assert write_probes([simulated()], PARAMS, folder) == []
    found: dict[str, list[Record]] = {}
    for record in ConformerDataset(folder):
        found.setdefault(record.source, []).append(record)
    return folder, found


def test_all_kinds_are_there_with_labels_of_gfn2(probes) -> None:
    folder, found = probes
    assert {source: sum(record.n_conformers for record in records) for source, records in found.items()} == {
        "probe/hot-1000K": 6,
        "probe/stretched-0.2A": 4,  # 2 starts with 2 bonds: no more than can be told apart
        "probe/stretched-0.4A": 4,
    }
    assert set(ConformerDataset(folder).level_of_theory.values()) == {"GFN2-xTB"}
    method = Gfn2(np.array([8, 1, 1], dtype=np.int32), 0)
    for record in (record for records in found.values() for record in records):
        expected = method.energy_and_forces(record.coords[-1])
        assert record.energy[-1] == pytest.approx(expected.energy, abs=1e-9)
        assert record.forces is not None
        np.testing.assert_allclose(record.forces[-1], expected.forces, atol=1e-9)
    assert [record.frame.tolist() for record in found["probe/hot-1000K"]] == [[40, 60, 80]] * 2


def test_one_bond_alone_is_stretched_by_the_length(probes) -> None:
    _, found = probes
    starts = simulated().starts
    for source, length in (("probe/stretched-0.2A", 0.2), ("probe/stretched-0.4A", 0.4)):
        (record,) = found[source]
        changes = []
        for conformer, start in zip(record.coords, np.concatenate([starts, starts]), strict=True):
            bonds = [np.linalg.norm(coords[1:] - coords[0], axis=1) for coords in (start, conformer)]
            changes.append(bonds[1] - bonds[0])
        np.testing.assert_allclose(changes, length * np.array([[1, 0], [0, 1], [0, 1], [1, 0]]), atol=1e-12)


def test_the_smaller_side_moves_rigidly_along_the_bond() -> None:
    coords = np.random.default_rng(0).normal(size=(5, 3))
    moved = stretch(coords, (1, 2), np.array([2, 4], dtype=np.int32), 0.3)
    step = 0.3 * (coords[2] - coords[1]) / np.linalg.norm(coords[2] - coords[1])
    np.testing.assert_allclose(moved - coords, np.array([0, 0, 1, 0, 1])[:, None] * step, atol=1e-15)


def test_rings_are_left_whole(tmp_path: Path) -> None:
    ring = simulated(1, CYCLOPROPANONE, (6, 6, 6, 8, 1, 1, 1, 1))
    outline = np.array([[np.cos(t), np.sin(t), 0.0] for t in 2 * np.pi * np.arange(3) / 3])
    hydrogens = np.repeat(outline[1:], 2, axis=0) * 1.7 + np.array([[0, 0, 0.9], [0, 0, -0.9]] * 2)
    coords = np.concatenate([0.88 * outline, 2.1 * outline[:1], hydrogens])[None]
    ring = replace(ring, rows=(replace(ring.first, coords=coords),), starts=coords)
    params = PARAMS.model_copy(update={"temperatures_kelvin": (), "stretch_angstrom": (0.3,), "conformers": 32})
    assert write_probes([ring], params, tmp_path) == []
    (record,) = ConformerDataset(tmp_path)
    assert record.n_conformers == 5  # four hydrogens and the oxygen
    distances = np.linalg.norm(record.coords[:, [0, 1, 2]] - record.coords[:, [1, 2, 0]], axis=-1)
    np.testing.assert_allclose(distances, np.broadcast_to(distances[0], distances.shape), atol=1e-12)


def test_what_cannot_be_probed_is_a_failure_and_stops_nothing(tmp_path: Path) -> None:
    without_bonds = replace(simulated(smiles=None), name="xtb/conformers/no-bonds")
    radical = replace(simulated(numbers=(8, 1, 6)), name="xtb/conformers/radical")
    params = PARAMS.model_copy(update={"temperatures_kelvin": (), "stretch_angstrom": (0.2,)})
    failures = write_probes([without_bonds, radical, simulated()], params, tmp_path)
    assert [(failure.id, failure.kind) for failure in failures] == [
        ("stretched-0.2A/xtb/conformers/no-bonds", "MoleculeError"),
        ("stretched-0.2A/xtb/conformers/radical", "MoleculeError"),
    ]
    assert "names the bonds" in failures[0].message
    assert "unpaired" in failures[1].message
    assert (tmp_path / "failures.csv").read_text().count("\n") == 3
    assert len(ConformerDataset(tmp_path)) == 1


def test_a_replica_that_breaks_is_cut(tmp_path: Path) -> None:
    params = PARAMS.model_copy(update={"stretch_angstrom": (), "max_stretch_angstrom": 1e-6})
    (failure,) = write_probes([simulated()], params, tmp_path)
    assert failure.message.startswith("every replica broke at once")


def test_hotter_probes_are_higher_in_energy(tmp_path: Path) -> None:
    """By equipartition, 3 internal degrees of freedom have 3/2 kT: 4.5 kcal/mol between 500 and 2000 K."""
    params = PARAMS.model_copy(
        update={"temperatures_kelvin": (500.0, 2000.0), "replicas": 8, "frames": 10, "stretch_angstrom": ()}
    )
    assert write_probes([simulated()], params, tmp_path) == []
    means = {}
    for record in ConformerDataset(tmp_path):
        means.setdefault(record.source, []).append(record.energy.mean())
    difference = np.mean(means["probe/hot-2000K"]) - np.mean(means["probe/hot-500K"])
    assert difference == pytest.approx(1.5 * 0.0019872 * 1500.0, rel=0.35)


@pytest.mark.usefixtures("worker_pool")
def test_the_same_seed_gives_the_same_bytes_from_any_number_of_workers(probes, tmp_path: Path, monkeypatch) -> None:
    folder, found = probes
    monkeypatch.setenv("PESFIT_WORKERS", "2")
    write_probes([simulated()], PARAMS, tmp_path / "again")
    name = "data-00000-of-00001.arrow"
    assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    monkeypatch.setenv("PESFIT_WORKERS", "1")
    write_probes([simulated()], PARAMS.model_copy(update={"seed": 1, "stretch_angstrom": ()}), tmp_path / "other")
    other = next(iter(ConformerDataset(tmp_path / "other")))
    assert np.abs(other.coords - found["probe/hot-1000K"][0].coords).max() > 1e-3

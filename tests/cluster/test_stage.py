"""Stage 04 on data of our own: what is kept, what is left out, what is counted, and that workers change nothing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pesfit.cluster.stage import cluster_datasets, plot_cluster_sizes
from pesfit.core.exceptions import ParamsError, TooManyFailuresError
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record, open_datasets, read_failures
from pesfit.params.preparation import Cluster

ETHER = "[C:1]([O:2][C:3]([H:7])([H:8])[H:9])([H:4])([H:5])[H:6]"
LEVELS = {"xtb/conformers": "GFN2-xTB", "xtb/trajectory": "GFN2-xTB"}


def make_record(id_: str, source: str = "xtb/conformers", *, basins: int = 3, per_basin: int = 5, seed: int = 0) -> Record:
    """Return conformers scattered a little around some far-apart ones; the energy falls with the index."""
    rng = np.random.default_rng(seed)
    n_conformers = basins * per_basin
    coords = np.repeat(rng.normal(scale=3.0, size=(basins, 9, 3)), per_basin, axis=0)
    coords += rng.normal(scale=0.02, size=coords.shape)
    return Record(
        id=id_,
        smiles=ETHER,
        atomic_numbers=np.array([6, 8, 6, 1, 1, 1, 1, 1, 1], dtype=np.int32),
        coords=coords,
        energy=-np.arange(float(n_conformers)),
        forces=rng.normal(size=coords.shape),
        charges=None,
        total_charge=0,
        group="COC",
        source=source,
        frame=np.arange(n_conformers) * 10,
    )


def write_data(path: Path, records: list[Record]) -> dict[str, ConformerDataset]:
    with DatasetWriter(path / "xtb", LEVELS) as writer:
        for record in records:
            writer.write(record)
    return open_datasets(path)


def run(
    datasets: dict[str, ConformerDataset], path: Path, params: Cluster | None = None, excluded: tuple[str, ...] = ()
) -> dict:
    params = params or Cluster()
    return cluster_datasets(datasets, params, path / "clustered", excluded=excluded, plot=path / "plots" / "sizes.png")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_keeps_one_of_each_cluster(tmp_path: Path) -> None:
    records = [make_record("a", seed=1), make_record("b", basins=2, per_basin=7, seed=2)]
    params = Cluster(representative={"xtb": "lowest_energy"})
    metrics = run(write_data(tmp_path / "arrow", records), tmp_path, params)
    clustered = ConformerDataset(tmp_path / "clustered" / "xtb")
    # Energies fall, so that the last of each basin is the lowest.
    assert [record.frame.tolist() for record in clustered] == [[40, 90, 140], [60, 130]]
    for before, after in zip(records, clustered, strict=True):
        kept = after.frame // 10
        np.testing.assert_array_equal(after.coords, before.coords[kept])
        np.testing.assert_array_equal(after.forces, before.forces[kept])
    assert clustered.level_of_theory == LEVELS
    assert metrics["sources"]["xtb/conformers"] == {
        "molecules": 2,
        "molecules_left_out_unparameterized": 0,
        "conformers_before": 29,
        "conformers_after": 5,
        "molecules_failed": 0,
        "molecules_with_capped_symmetry": 0,
        "clusters": 5,
        "clusters_of_one_conformer": 0,
        "mean_cluster_conformers": 5.8,
        "largest_cluster_conformers": 7,
    }
    assert (metrics["conformers_before"], metrics["conformers_after"]) == (29, 5)


def test_other_sources_pass_through_unchanged(tmp_path: Path) -> None:
    record = make_record("trajectory/00000", "xtb/trajectory")
    datasets = write_data(tmp_path / "arrow", [record])
    (datasets["xtb"].path / "splits.json").write_text("{}")
    metrics = run(datasets, tmp_path)
    assert contents(tmp_path / "clustered" / "xtb") == contents(tmp_path / "arrow" / "xtb")
    assert metrics["sources"]["xtb/trajectory"] == {
        "molecules": 1,
        "molecules_left_out_unparameterized": 0,
        "conformers_before": 15,
        "conformers_after": 15,
    }
    assert (tmp_path / "plots" / "sizes.png").stat().st_size > 1000


def test_leaves_out_what_was_not_parameterized(tmp_path: Path) -> None:
    datasets = write_data(tmp_path / "arrow", [make_record("a"), make_record("b"), make_record("a/b", "xtb/trajectory")])
    metrics = run(datasets, tmp_path, excluded=("xtb/a", "xtb/a/b", "md17/b"))
    assert [record.id for record in ConformerDataset(tmp_path / "clustered" / "xtb")] == ["b"]
    assert [metrics["sources"][source]["molecules_left_out_unparameterized"] for source in LEVELS] == [1, 1]
    assert read_failures(tmp_path / "clustered" / "failures.csv") == []


def test_a_data_set_may_end_empty(tmp_path: Path) -> None:
    run(write_data(tmp_path / "arrow", [make_record("a")]), tmp_path, excluded=("xtb/a",))
    assert len(ConformerDataset(tmp_path / "clustered" / "xtb")) == 0


def test_a_molecule_that_fails_is_a_row_of_the_failures(tmp_path: Path) -> None:
    records = [make_record("a"), dataclasses.replace(make_record("b"), smiles="[C:1]"), make_record("c")]
    datasets = write_data(tmp_path / "arrow", records)
    params = Cluster(symmetry=True, max_failed_fraction=0.4)
    metrics = run(datasets, tmp_path, params)
    assert [record.id for record in ConformerDataset(tmp_path / "clustered" / "xtb")] == ["a", "c"]
    [failure] = read_failures(tmp_path / "clustered" / "failures.csv")
    assert (failure.id, failure.stage, failure.kind) == ("xtb/b", "cluster", "MoleculeError")
    assert metrics["molecules_failed"] == metrics["sources"]["xtb/conformers"]["molecules_failed"] == 1
    with pytest.raises(TooManyFailuresError, match=r"1 of 3 molecules failed.*\n.*xtb/b: MoleculeError"):
        run(datasets, tmp_path / "again", params.model_copy(update={"max_failed_fraction": 0.2}))


def test_a_name_that_is_no_source_is_refused(tmp_path: Path) -> None:
    datasets = write_data(tmp_path / "arrow", [make_record("a")])
    with pytest.raises(ParamsError, match=r"cluster\.sources: 'xtb/conformer' is no source.*mean 'xtb/conformers'"):
        run(datasets, tmp_path, Cluster(sources=("xtb/conformer",)))
    with pytest.raises(ParamsError, match=r"cluster\.representative: 'xtb/conformer' is no source"):
        run(datasets, tmp_path, Cluster(representative={"xtb/conformer": "centroid"}))


@pytest.mark.usefixtures("worker_pool")
def test_workers_change_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = write_data(tmp_path / "arrow", [make_record(f"m{i}", basins=1 + i % 4, seed=i) for i in range(9)])
    monkeypatch.setattr("pesfit.cluster.stage._PAIRS_A_TASK", 150)
    results = []
    for workers in ("1", "2"):
        monkeypatch.setenv("PESFIT_WORKERS", workers)
        run(datasets, tmp_path / workers)
        results.append(contents(tmp_path / workers))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "sizes", [{}, {"xtb/conformers": []}, {"a": [1]}, {"a": [1, 2, 5000] * 200, "b": [3], "c": [], "d": [1, 1], "e": [7]}]
)
def test_same_bytes_and_something_to_see(tmp_path: Path, sizes: dict[str, list[int]]) -> None:
    for name in ("first.png", "second.png"):
        plot_cluster_sizes(tmp_path / name, sizes, 0.25)
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()
    with Image.open(tmp_path / "first.png") as image:
        assert not image.text
        pixels = np.asarray(image.convert("L"))
    assert 0.001 < (pixels < 128).mean() < 0.5


def test_other_sizes_give_another_picture(tmp_path: Path) -> None:
    plot_cluster_sizes(tmp_path / "a.png", {"a": [1, 2]}, 0.25)
    plot_cluster_sizes(tmp_path / "b.png", {"a": [1, 1]}, 0.25)
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()

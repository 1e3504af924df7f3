"""The stage on two small molecules."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pesfit.benchmark import summary as keys
from pesfit.benchmark.build import BenchmarkData, run_benchmark
from pesfit.core.exceptions import TooManyFailuresError
from pesfit.data.dataset import ConformerDataset, read_failures
from pesfit.data.minima import Landscapes
from pesfit.data.topology import ParameterizedSet
from pesfit.models.open import open_fitted
from pesfit.params.evaluation import Benchmark
from pesfit.potentials.interface import Conformers
from pesfit.report.reading import read_rows
from pesfit.smirnoff.potential import SmirnoffPotential
from tests.benchmark.samples import landscape

MODELS = ("smirnoff-initial", "smirnoff", "conservative")
PARAMS = Benchmark(max_steps=100, network_scan_step=4, max_failed_fraction=0.5)


@pytest.fixture(scope="module", name="data")
def _data(smirnoff: Path) -> BenchmarkData:
    """Minima of the force field that the fit started from, and a scan of ethanol."""
    parameterized = ParameterizedSet.open(smirnoff.parent / "parameterized")
    potential = SmirnoffPotential(parameterized.force_field)
    model = open_fitted(["smirnoff-initial"], smirnoff.parent / "parameterized")["smirnoff-initial"]
    minima, scans = [], []
    for record in ConformerDataset(smirnoff.parent / "labeled"):
        topology = parameterized.topology("made", record.id)
        if record.id == "CC" or topology is None or record.smiles is None:
            continue
        prepared = model.prepare(record.atomic_numbers, record.smiles, record.id, charges=topology.charges)
        conformers: Conformers = prepared.conformers(record.coords[:1])
        path = np.array([0, 1, 2, 8]) if record.id == "CCO" else None
        found, scanned = landscape(potential, conformers, record.smiles, path, name=record.id)
        minima.append(found)
        scans += scanned
    return BenchmarkData(
        Landscapes(tuple(minima), tuple(scans), {"made/minima": "MM"}), parameterized, {minima[0].record.group}
    )


def run(data: BenchmarkData, smirnoff: Path, network: Path, output: Path, params: Benchmark = PARAMS) -> dict[str, object]:
    models = open_fitted(MODELS, smirnoff.parent / "parameterized", smirnoff, network.parent)
    output.mkdir()
    return run_benchmark(models, data, params, output)


@pytest.mark.usefixtures("worker_pool")
def test_tables_and_summary_do_not_depend_on_the_number_of_workers(
    data: BenchmarkData, smirnoff: Path, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = run(data, smirnoff, network, tmp_path / "one")
    monkeypatch.setenv("PESFIT_WORKERS", "2")
    assert run(data, smirnoff, network, tmp_path / "two") == one
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == ["failures.csv", "frequencies.csv", "minima.csv", "molecules.csv", "scans.csv"]
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_molecule_with_scans_alone_and_no_hessians_anywhere(
    data: BenchmarkData, smirnoff: Path, network: Path, tmp_path: Path
) -> None:
    (scan,) = data.landscapes.scans
    minima = tuple(replace(each, hessians=None) for each in data.landscapes.minima if each.record.id != scan.molecule)
    found = run(replace(data, landscapes=replace(data.landscapes, minima=minima)), smirnoff, network, tmp_path / "out")
    summary = found["summary"]
    assert isinstance(summary, dict)
    assert (found["molecules"], found["minima"], found["failures"]) == (2, 1, 0)
    start = summary["smirnoff-initial"][keys.ALL_MOLECULES]
    assert (start[keys.MINIMA], start[keys.SCANS]) == (1, 1)
    assert start[keys.PROFILE] < 0.05
    assert keys.FREQUENCY_MAE not in start


def test_the_force_field_returns_to_its_minima_and_the_fitted_one_does_not_quite(
    data: BenchmarkData, smirnoff: Path, network: Path, tmp_path: Path
) -> None:
    found = run(data, smirnoff, network, tmp_path / "out")
    summary = found["summary"]
    assert isinstance(summary, dict)
    assert set(summary) == set(MODELS)
    start, fitted = (summary[name][keys.ALL_MOLECULES] for name in MODELS[:2])
    assert start[keys.NOT_CONVERGED] == start[keys.LOST] == 0
    assert start[keys.RMSD] < 1e-3
    assert start[keys.FREQUENCY_MAE] < 0.5
    assert start[keys.PROFILE] < 0.05
    assert keys.BETTER not in start
    assert fitted[keys.RMSD] > start[keys.RMSD]
    assert (fitted[keys.BETTER], fitted[keys.COMPARED]) == (0, 1)
    trained, held_out = (summary["smirnoff"][subset] for subset in (keys.TRAINED, keys.HELD_OUT))
    assert trained["molecules"] == held_out["molecules"] == 1
    assert summary["conservative"][keys.ALL_MOLECULES][keys.SCAN_POINTS] == 3  # every fourth of twelve
    rows = read_rows(tmp_path / "out/molecules.csv", ("potential", "molecule", keys.BOND))
    assert len(rows) == len(MODELS) * 2
    assert {row["molecule"] for row in rows} == {"made/CCO", "made/CO"}


def test_a_molecule_that_a_potential_cannot_be_asked_about_is_a_failure(
    data: BenchmarkData, smirnoff: Path, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = ParameterizedSet.open(smirnoff.parent / "parameterized")
    monkeypatch.setattr(nothing, "topology", lambda *_: None)
    lacking = BenchmarkData(data.landscapes, nothing, ())
    found = run(lacking, smirnoff, network, tmp_path / "out", PARAMS.model_copy(update={"max_failed_fraction": 1.0}))
    assert found["failures"] == 4
    assert {failure.id for failure in read_failures(tmp_path / "out/failures.csv")} == {
        f"{potential}/made/{molecule}" for potential in MODELS[:2] for molecule in ("CCO", "CO")
    }
    with pytest.raises(TooManyFailuresError, match="stage 03 could not parameterize it"):
        run(lacking, smirnoff, network, tmp_path / "again")

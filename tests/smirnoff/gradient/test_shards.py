"""Several processes: what befalls one of them is said by the first, and torchrun's processes work alike."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import socket
from multiprocessing.process import BaseProcess

import numpy as np
import pytest

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import DataError, PesfitError
from pesfit.core.process_group import ProcessGroup
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record
from pesfit.params.fit_smirnoff import Gradient, Loss
from pesfit.smirnoff.fit_data import MoleculeRows
from pesfit.smirnoff.gradient import shards
from pesfit.smirnoff.gradient.shards import FitMolecule, ShardsJob, Team, divide, gather_team, serve_torchrun
from tests.smirnoff.gradient.samples import labels, molecules, random_z, setting_of


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> ShardsJob:
    """Four molecules in three shards."""
    found, folder = molecules(), tmp_path_factory.mktemp("job") / "made"
    setting = setting_of(found, Gradient())
    members = []
    with DatasetWriter(folder, {"made": "MM"}) as writer:
        for i, (topology, coords, (energy, forces)) in enumerate(
            zip(found.topologies, found.coords, labels(found, found.force_field, noise=1.0), strict=True)
        ):
            n = len(coords)
            numbers = np.ones(topology.n_atoms, dtype=np.int32)
            writer.write(
                Record(f"m{i}", topology.smiles, numbers, coords, energy, forces, None, 0, f"m{i}", "made", np.arange(n))
            )
            rows = MoleculeRows("made", (i,), (f"m{i}",), "made", f"m{i}", i, n * topology.n_atoms)
            members.append(FitMolecule(rows, topology, ((np.arange(n) % 2).astype(np.uint8),)))
    shards, _ = divide(members, 3, None, 0)
    return ShardsJob(setting, Loss(), {"made": ConformerDataset(folder).path}, tuple(map(tuple, shards)), 1e9)


def test_shards_hold_every_molecule_once(job: ShardsJob) -> None:
    members = [molecule for chunks in job.shards for chunk in chunks for molecule in chunk.molecules]
    assert sorted(molecule.rows.topology for molecule in members) == [0, 1, 2, 3]
    for batch_size in (1, 2, 3, 100):
        shards, n_batches = divide(members, 3, batch_size, seed=1)
        by_batch: dict[int, list[int]] = {}
        for chunks in shards:
            for chunk in chunks:
                by_batch.setdefault(chunk.batch, []).extend(molecule.rows.topology for molecule in chunk.molecules)
        assert sorted(itertools.chain(*by_batch.values())) == [0, 1, 2, 3]
        assert len(by_batch) == n_batches == -(-4 // batch_size)
        assert max(map(len, by_batch.values())) <= batch_size


@pytest.fixture
def _two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However little there is to do."""
    monkeypatch.setattr(shards, "_COST_WORTH_A_PROCESS", 0.0)
    monkeypatch.setenv("PESFIT_WORKERS", "2")


def alone(job: ShardsJob) -> Team:
    return Team(ProcessGroup(), job)


@pytest.mark.usefixtures("_two_processes")
@pytest.mark.slow
def test_two_processes_say_what_one_says_and_name_what_is_wrong(job: ShardsJob) -> None:
    z = random_z(job.setting, 3)
    broken = np.full_like(z, np.nan)
    with gather_team(job, 1) as team:
        assert team.size == 2
        for operation in ("count", "train", "validate", "curvature"):
            np.testing.assert_array_equal(team.run(operation, z), alone(job).run(operation, z))
        assert [row.molecule for row in team.errors(np.stack([z, z]))] == [row.molecule for row in alone(job).errors(z[None])]
    with (
        pytest.raises(DataError, match=r"made/m\d: the energy error of conformer \d is not finite"),
        gather_team(job, 1) as team,
    ):
        team.run("train", broken)


@pytest.mark.usefixtures("_two_processes")
def test_what_is_wrong_in_another_process_is_told_by_the_first(job: ShardsJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProcessGroup, "shares_of", lambda _, shards: [shards[:0], shards])  # nothing can fail in the first
    broken = np.full_like(random_z(job.setting, 3), np.nan)
    with (
        pytest.raises(PesfitError, match=r"^made/m\d: the energy error of conformer \d is not finite"),
        gather_team(job, 1) as team,
    ):
        team.run("train", broken)


@pytest.mark.usefixtures("_two_processes")
def test_a_lost_process_is_an_error_not_a_wait(job: ShardsJob) -> None:
    message = "process 1 of 2 was ended with status -9; .*, or lower fit_smirnoff.gradient.memory_gib"
    others = set(multiprocessing.active_children())  # of `worker_pool`
    with pytest.raises(PesfitError, match=message), gather_team(job, 1) as team:
        lose_the_other(team, others, random_z(job.setting, 3))


def lose_the_other(team: Team, others: set[BaseProcess], z: FloatArray) -> None:
    team.run("count", z)
    (process,) = set(multiprocessing.active_children()) - others
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    team.run("train", z)


def as_torchrun_starts_it(rank: int, port: int) -> None:
    os.environ |= {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "GLOO_SOCKET_IFNAME": "lo",
    }
    serve_torchrun()


@pytest.mark.slow
def test_processes_that_torchrun_started_are_used(job: ShardsJob, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    other = multiprocessing.get_context("spawn").Process(target=as_torchrun_starts_it, args=(1, port))
    other.start()
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    z = random_z(job.setting, 4)
    with gather_team(job, 1) as team:
        assert team.size == 2
        found = team.run("train", z)
    other.join()
    assert other.exitcode == 0
    np.testing.assert_array_equal(found, alone(job).run("train", z))


def test_little_work_is_done_here(job: ShardsJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PESFIT_WORKERS", "4")
    with gather_team(job, 10) as team:
        assert team.size == 1

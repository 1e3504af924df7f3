"""Graph files are read bit for bit, or refused."""

from __future__ import annotations

import contextlib
import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesfit.core.exceptions import ArchiveError
from pesfit.sources.dgl import read_graphs
from tests.sources.synthetic import graph_bytes, graph_file

EDGES = np.array([[0, 1, 1], [2, 0, 2]])
NODES = {
    "a": (2, {"f": np.arange(6, dtype=np.float64).reshape(2, 3)}),
    "b": (3, {"k": np.array([-1, 0, 7], dtype=np.int8), "none": np.zeros((3, 0), dtype=np.float32)}),
}
GRAPH = graph_bytes(NODES, {("a", "to", "b"): EDGES, ("b", "self", "b"): np.array([[2], [1]])})
FILE = graph_file([GRAPH, GRAPH], {"label": np.array([0.5, 1.5])})


def test_reads_graphs_and_features() -> None:
    graphs = read_graphs(FILE, "file")
    assert len(graphs) == 2
    graph = graphs[1]
    assert graph.node_counts == {"a": 2, "b": 3}
    np.testing.assert_array_equal(graph.node_data["a"]["f"], np.arange(6.0).reshape(2, 3))
    assert graph.node_data["b"]["k"].dtype == np.int8
    assert graph.node_data["b"]["none"].shape == (3, 0)


def test_arrays_are_those_that_dgl_wrote(real_data: Path) -> None:
    paths = sorted((real_data / "golden" / "dgl").rglob("heterograph.bin"))
    assert len(paths) == 9
    for path in paths:
        graph = read_graphs(path.read_bytes(), str(path))[0]
        golden = np.load(path.with_name("arrays.npz"))
        keys = [key for key in golden if "/" in key]
        assert len(keys) > 10
        for key in keys:
            nodes, name = key.split("/", 1)
            found = graph.node_data[nodes][name]
            assert (found.dtype, found.shape) == (golden[key].dtype, golden[key].shape), key
            assert found.tobytes() == golden[key].tobytes(), key
        elements = read_graphs(path.with_name("homograph.bin").read_bytes(), "homograph")[0].node_data["_N"]["type"]
        np.testing.assert_array_equal(elements[:, 0], golden["Z"])


def test_formats_of_edges_and_several_graphs(real_data: Path) -> None:
    files = {
        name: read_graphs((real_data / "golden" / "dgl" / "extra" / f"{name}.bin").read_bytes(), name)
        for name in ("csr", "csc", "multi")
    }
    assert [len(files[name]) for name in files] == [1, 1, 3]
    for graph in (*files["csr"], *files["csc"], *files["multi"]):
        assert graph.node_counts == {"a": 3, "b": 5}
        np.testing.assert_array_equal(graph.node_data["a"]["f"], np.arange(6, dtype=np.float16).reshape(3, 2))


@pytest.mark.parametrize("version", [1, 3])
def test_another_version_is_refused_by_number(version: int) -> None:
    content = FILE[:8] + version.to_bytes(8, "little") + FILE[16:]
    with pytest.raises(ArchiveError, match=f"version {version}"):
        read_graphs(content, "file")


def test_truncated_anywhere_is_refused() -> None:
    for size in (*range(40), *range(4090, len(FILE))):
        with pytest.raises(ArchiveError, match=r"^broken\.bin: at byte \d+ of \d+: "):
            read_graphs(FILE[:size], "broken.bin")
    with pytest.raises(ArchiveError, match="the list of graphs"):
        read_graphs(FILE + b"\0", "longer.bin")


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(st.integers(4096, len(FILE) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, len(FILE)),
)
def test_changed_bytes_give_an_archive_error_or_a_graph(changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(FILE)
    for position, value in changes:
        content[position] = value
    for damaged in (bytes(content), bytes(content[:cut])):
        try:
            graphs = read_graphs(damaged, "file")
        except ArchiveError:
            continue
        assert all(
            len(array) == graph.node_counts[nodes]
            for graph in graphs
            for nodes, data in graph.node_data.items()
            for array in data.values()
        )


def test_no_announced_size_is_believed() -> None:
    """Every byte in turn, and every eight bytes in turn, say something huge."""
    small = graph_file([graph_bytes(NODES, {("a", "to", "b"): EDGES})])
    tracemalloc.start()
    try:
        for position in range(4096, len(small)):
            for damage in (b"\x7f", b"\xff\xff\xff\xff\xff\xff\xff\x0f"):
                damaged = small[:position] + damage + small[position + len(damage) :]
                with contextlib.suppress(ArchiveError):
                    read_graphs(damaged, "file")
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_real_file_with_changed_bytes(real_data: Path) -> None:
    original = (real_data / "golden" / "dgl" / "extra" / "csr.bin").read_bytes()
    rng = random.Random(2666)
    n_refused = 0
    for _ in range(500):
        content = bytearray(original)
        content[rng.randrange(4096, len(content))] ^= 1 << rng.randrange(8)
        try:
            read_graphs(bytes(content), "csr")
        except ArchiveError:
            n_refused += 1
    assert n_refused > 300

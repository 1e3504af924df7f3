"""Made-up data in the layout of the published archives: molecules whose energy is that of springs between all atoms."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rdkit import Chem
from rdkit.Chem import rdDistGeom

from pesfit.core.arrays import FloatArray
from pesfit.core.units import BOHR, HARTREE
from pesfit.data.dataset import Record

CODES = {"i": 0, "u": 1, "f": 2}


@dataclass(frozen=True)
class Frames:
    """Conformers near one minimum: [Å], [kcal/mol], [kcal/mol/Å]."""

    mol: Chem.Mol
    coords: FloatArray
    energy: FloatArray
    forces: FloatArray

    @property
    def atomic_numbers(self) -> np.ndarray:
        return np.array([atom.GetAtomicNum() for atom in self.mol.GetAtoms()], dtype=np.int32)

    def record(self, **changes: Any) -> Record:
        n = len(self.energy)
        values = {
            "id": "made/up",
            "smiles": None,
            "atomic_numbers": self.atomic_numbers,
            "coords": self.coords,
            "energy": self.energy,
            "forces": self.forces,
            "charges": None,
            "total_charge": 0,
            "group": "made-up",
            "source": "made-up",
            "frame": np.arange(n),
        }
        return Record(**{**values, **changes})


def make_frames(smiles: str, n_frames: int, seed: int = 1, step: float = 0.05) -> Frames:
    """Embed a molecule, displace its atoms at random, turn each frame; E = Σ ½ k (r - r0)² over pairs less than 4 Å apart."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    assert rdDistGeom.EmbedMolecule(mol, randomSeed=7) == 0
    rng = np.random.default_rng(seed)
    minimum = mol.GetConformer().GetPositions()
    coords = minimum + rng.normal(scale=step, size=(n_frames, *minimum.shape))
    rotations, _ = np.linalg.qr(rng.normal(size=(n_frames, 3, 3)))
    rotations *= np.sign(np.linalg.det(rotations))[:, None, None]
    coords = coords @ rotations + rng.normal(size=(n_frames, 1, 3))
    left, right = np.triu_indices(len(minimum), k=1)
    rest = np.linalg.norm(minimum[left] - minimum[right], axis=-1)
    left, right, rest = left[rest < 4.0], right[rest < 4.0], rest[rest < 4.0]
    constant = 600.0 / rest**4
    apart = coords[:, left] - coords[:, right]
    distance = np.linalg.norm(apart, axis=-1)
    energy = -50_000.0 + 0.5 * (constant * (distance - rest) ** 2).sum(axis=1)
    pull = -(constant * (distance - rest) / distance)[..., None] * apart
    forces = np.zeros_like(coords)
    np.add.at(forces, (slice(None), left), pull)
    np.add.at(forces, (slice(None), right), -pull)
    return Frames(mol, coords, energy, forces)


def espaloma_files(frames: Frames, *, leave_out: Sequence[str] = (), **changes: np.ndarray) -> dict[str, bytes]:
    """The three files of an entry, in hartree and bohr, with the gradient where Espaloma has it."""
    mol, n = frames.mol, frames.mol.GetNumAtoms()
    bonds = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()], dtype=np.int64).reshape(-1, 2)
    idxs = np.concatenate([bonds, bonds[:, ::-1]])
    features: dict[str, Any] = {
        "u_qm": (frames.energy / HARTREE)[None],
        "u_ref": (frames.energy / HARTREE)[None] - 1.0,
        "u_qm_prime": (-np.swapaxes(frames.forces, 0, 1) / HARTREE * BOHR).astype(np.float32),
        "xyz": (np.swapaxes(frames.coords, 0, 1) / BOHR).astype(np.float32),
        "q_ref": np.full((n, 1), Chem.GetFormalCharge(mol) / n, dtype=np.float32),
        **changes,
    }
    features = {key: value for key, value in features.items() if key not in leave_out}
    g = {key: value for key, value in features.items() if key.startswith("u_") and not key.endswith("_prime")}
    n1 = {key: value for key, value in features.items() if key not in g}
    hetero = graph_bytes(
        {"g": (1, g), "n1": (n, n1), "n2": (len(idxs), {"idxs": idxs})},
        {
            ("n1", "n1_neighbors_n1", "n1"): idxs.T,
            ("g", "g_has_n1", "n1"): np.stack([np.zeros(n, dtype=np.int64), np.arange(n)]),
        },
    )
    homo = graph_bytes({"_N": (n, {"type": frames.atomic_numbers.astype(np.float32)[:, None]})}, {("_N", "_E", "_N"): idxs.T})
    return {
        "heterograph.bin": graph_file([hetero]),
        "homograph.bin": graph_file([homo]),
        "mol.json": json.dumps(json.dumps(openff_json(mol))).encode(),
    }


def openff_json(mol: Chem.Mol) -> dict[str, Any]:
    """The molecule as openff-toolkit 0.10 wrote it."""
    kekulized = Chem.Mol(mol)
    Chem.Kekulize(kekulized, clearAromaticFlags=True)
    Chem.AssignStereochemistry(kekulized, cleanIt=True, force=True)
    aromatic = Chem.Mol(kekulized)
    Chem.SetAromaticity(aromatic, Chem.AromaticityModel.AROMATICITY_MDL)
    codes = {Chem.BondStereo.STEREOE: "E", Chem.BondStereo.STEREOZ: "Z"}
    atoms = [
        {
            "atomic_number": atom.GetAtomicNum(),
            "formal_charge": atom.GetFormalCharge(),
            "is_aromatic": aromatic.GetAtomWithIdx(atom.GetIdx()).GetIsAromatic(),
            "stereochemistry": atom.GetProp("_CIPCode") if atom.HasProp("_CIPCode") else None,
            "name": "",
        }
        for atom in kekulized.GetAtoms()
    ]
    bonds = [
        {
            "atom1": bond.GetBeginAtomIdx(),
            "atom2": bond.GetEndAtomIdx(),
            "bond_order": int(bond.GetBondTypeAsDouble()),
            "is_aromatic": aromatic.GetBondWithIdx(bond.GetIdx()).GetIsAromatic(),
            "stereochemistry": codes.get(bond.GetStereo()),
            "fractional_bond_order": None,
        }
        for bond in kekulized.GetBonds()
    ]
    return {
        "name": "",
        "atoms": atoms,
        "virtual_sites": [],
        "bonds": bonds,
        "properties": {},
        "conformers": None,
        "partial_charges": None,
        "partial_charges_unit": None,
    }


def graph_file(graphs: Sequence[bytes], labels: Mapping[str, np.ndarray] | None = None) -> bytes:
    """A file as DGL's save_graphs writes it."""
    label_bytes = _features(labels or {})
    start = 4096 + 8 + len(label_bytes)
    content = _u64(0xDD2E4FF046B4A13F, 2, 2, len(graphs)).ljust(4096, b"\xa5") + _u64(start) + label_bytes
    positions = []
    for graph in graphs:
        positions.append(len(content))
        content += graph
    size = 8 * (1 + len(graphs))
    return content + _u64(size, len(graphs), *positions, size)


def graph_bytes(
    nodes: Mapping[str, tuple[int, Mapping[str, np.ndarray]]], edges: Mapping[tuple[str, str, str], np.ndarray]
) -> bytes:
    """One graph; relations must come in the order of their source types."""
    types = list(nodes)
    ends = sorted(edges, key=lambda key: types.index(key[0]))
    content = _u64(0xDD589FBE35224ABF) + _metagraph(len(types), [(types.index(a), types.index(b)) for a, _, b in ends])
    content += _u64(len(ends))
    for key in ends:
        n_rows, n_columns = nodes[key[0]][0], nodes[key[2]][0]
        content += _u64(0xDD2E60F0F6B4A127, 1 | 1 << 32, 1 | 1 << 32)
        content += _metagraph(1, [(0, 0)]) if key[0] == key[2] else _metagraph(2, [(0, 1)])
        content += _u64(0xDD61FFD305DFF127, n_columns, n_rows)
        content += (
            _array(np.ascontiguousarray(edges[key][0]))
            + _array(np.ascontiguousarray(edges[key][1]))
            + _array(np.zeros(0, np.int64))
        )
        content += b"\0\0"
    content += _u64(len(types), *(count for count, _ in nodes.values()))
    content += _u64(len(types)) + b"".join(_features(features) for _, features in nodes.values())
    content += _u64(len(ends)) + _features({}) * len(ends)
    return content + _texts(types) + _texts([key[1] for key in ends])


def _metagraph(n_types: int, pairs: Sequence[tuple[int, int]]) -> bytes:
    starts = np.searchsorted([source for source, _ in pairs], np.arange(n_types + 1)).astype(np.int64)
    targets = np.array([target for _, target in pairs], dtype=np.int64)
    return (
        _u64(0xDD3C5FFE20046ABF, 0xDD6CD31205DFF127, n_types, n_types)
        + _array(starts)
        + _array(targets)
        + _array(np.arange(len(pairs), dtype=np.int64))
        + b"\0"
    )


def _features(features: Mapping[str, np.ndarray]) -> bytes:
    return _u64(len(features)) + b"".join(_text(name) + _array(array) for name, array in features.items())


def _array(array: np.ndarray) -> bytes:
    header = struct.pack(
        "<QQiiiBBH", 0xDD5E40F096B4A13F, 0, 1, 0, array.ndim, CODES[array.dtype.kind], 8 * array.dtype.itemsize, 1
    )
    return header + struct.pack(f"<{array.ndim}q", *array.shape) + struct.pack("<q", array.nbytes) + array.tobytes()


def _texts(texts: Sequence[str]) -> bytes:
    return _u64(len(texts)) + b"".join(map(_text, texts))


def _text(text: str) -> bytes:
    return _u64(len(text.encode())) + text.encode()


def _u64(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


def tar_bytes(files: Mapping[str, bytes], mode: str = "w:gz") -> bytes:
    """An archive of these files; the same bytes every time."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode=mode) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def entry_files(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files of an entry under the names they have in an archive."""
    return {f"{folder}/{name}": content for name, content in files.items()}


def npz_bytes(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An `.npz` of these arrays."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()

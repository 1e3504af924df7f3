"""Figures that others published for data sets that ours can be, to stand beside ours.

Mean absolute errors of networks trained on one molecule each. MD17 numbers are published in kcal/mol, those of rMD17 in meV; here all
are in kcal/mol and Å. Ours answer the same question only where the protocol is the same, which `PROTOCOLS` says for each set.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pesfit.core.units import EV
from pesfit.data.dataset import ConformerDataset
from pesfit.data.splits import Splits


@dataclass(frozen=True)
class Published:
    """Errors of one network for one molecule.

    Attributes:
        source: `md17` or `rmd17`.
        molecule: by its name in the parameters.
        method: name of the network.
        energy_mae: [kcal/mol], of total energies.
        force_mae: [kcal/mol/Å], by component.
        reference: who published it.
    """

    source: str
    molecule: str
    method: str
    energy_mae: float
    force_mae: float
    reference: str


_PAINN = "Schütt, Unke, Gastegger, ICML 2021 (arXiv:2102.03150)"
_ET = "Thölke, De Fabritiis, ICLR 2022 (arXiv:2202.02541)"
_MACE = "Batatia et al., NeurIPS 2022 (arXiv:2206.07697)"
_ALLEGRO = "Musaelian et al., Nat. Commun. 14, 579, 2023"
_NEQUIP = "Batzner et al., Nat. Commun. 13, 2453, 2022"

_MD17 = {
    ("PaiNN", _PAINN): {
        "aspirin": (0.167, 0.338),
        "ethanol": (0.064, 0.224),
        "malonaldehyde": (0.091, 0.319),
        "naphthalene": (0.116, 0.077),
        "salicylic": (0.116, 0.195),
        "toluene": (0.095, 0.094),
        "uracil": (0.106, 0.139),
    },
    ("Equivariant Transformer", _ET): {"aspirin": (0.123, 0.253), "ethanol": (0.052, 0.109)},
}
"""Energy [kcal/mol] and forces [kcal/mol/Å]."""
_RMD17 = {
    ("MACE", _MACE): {"aspirin": (2.2, 6.6), "ethanol": (0.4, 2.1)},
    ("Allegro", _ALLEGRO): {"aspirin": (2.3, 7.3), "ethanol": (0.4, 2.1)},
    ("NequIP", _NEQUIP): {"aspirin": (2.3, 8.2), "ethanol": (0.4, 2.8)},
    ("PaiNN", f"{_PAINN}; rMD17 as quoted by {_MACE}"): {"aspirin": (6.9, 16.1), "ethanol": (2.7, 10.0)},
}
"""Energy [meV] and forces [meV/Å]."""

PUBLISHED: tuple[Published, ...] = (
    *(
        Published("md17", molecule, method, energy, force, reference)
        for (method, reference), of in _MD17.items()
        for molecule, (energy, force) in of.items()
    ),
    *(
        Published("rmd17", molecule, method, energy * 1e-3 * EV, force * 1e-3 * EV, reference)
        for (method, reference), of in _RMD17.items()
        for molecule, (energy, force) in of.items()
    ),
)
PROTOCOLS = {"md17": "1,000 frames, drawn at random", "rmd17": "950 frames + 50 for validation"}
"""What the published networks were trained on, one for each molecule."""


@dataclass(frozen=True)
class Frames:
    """How many frames of a molecule of MD17 or rMD17 are in the splits.

    Attributes:
        train, validation, test: number of conformers.
    """

    train: int = 0
    validation: int = 0
    test: int = 0


def molecule_of(source: str, record: str) -> str | None:
    """Return the molecule of MD17 or rMD17 that a row is of; None for rows of other sources.

    Args:
        source: of the record.
        record: its id, such as `ethanol/00003`.
    """
    return record.split("/", maxsplit=1)[0] if source in PROTOCOLS else None


def count_frames(datasets: Mapping[str, ConformerDataset], splits: Splits) -> dict[tuple[str, str], Frames]:
    """Count the frames of each molecule of MD17 and rMD17, by source and molecule.

    Raises:
        DataError: where the splits do not fit the data sets.
    """
    found: dict[tuple[str, str], Frames] = {}
    for name, dataset in datasets.items():
        ids, sources = (dataset.table.column(column).to_pylist() for column in ("id", "source"))
        for record, source in zip(ids, sources, strict=True):
            molecule = molecule_of(source, record)
            if molecule is None:
                continue
            before = found.get((source, molecule), Frames())
            new = {split: len(splits.conformers(name, record, split)) for split in ("train", "validation", "test")}
            found[source, molecule] = Frames(**{split: getattr(before, split) + n for split, n in new.items()})
    return found

"""What the pipeline left, opened by the names that rollouts and the report use."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from rdkit import Chem

from pesfit.chemistry.smiles import read_smiles
from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import DataError
from pesfit.models.build import build_gfn2
from pesfit.models.open import open_model
from pesfit.params.evaluation import PotentialName
from pesfit.potentials.model import Model, PreparedMolecule

PARAMETERIZED, SMIRNOFF, LEARNED = Path("data/parameterized"), Path("outputs/smirnoff"), Path("outputs/learned")


class Gfn2Model(Model):
    """GFN2-xTB itself, which the small profile is labelled with."""

    needs_bonds = False

    def __init__(self, name: str) -> None:
        super().__init__(name, build_gfn2())

    def prepare(
        self, atomic_numbers: IntArray, smiles: str | None, where: str, charges: FloatArray | None = None
    ) -> PreparedMolecule:
        """Take the molecule as it is; see `Model.prepare`."""
        del where, charges
        return PreparedMolecule(atomic_numbers, smiles, 0 if smiles is None else int(Chem.GetFormalCharge(read_smiles(smiles))))


def open_fitted(
    names: Iterable[PotentialName],
    parameterized: Path = PARAMETERIZED,
    smirnoff: Path = SMIRNOFF,
    learned: Path = LEARNED,
) -> dict[str, Model]:
    """Open potentials of a run of the pipeline.

    Args:
        names: which.
        parameterized: output of stage 03, with the force field that the fit started from: `smirnoff-initial`.
        smirnoff: output of stage 06.
        learned: outputs of stage 07, each under the name of its variant.

    Returns:
        In the order of `names`, the slowest, GFN2-xTB, first.

    Raises:
        DataError: where a stage has not written its output, or it is damaged.
        ForceFieldError: where a force field cannot be read.
    """
    folders: dict[PotentialName, Path] = {
        "smirnoff-initial": parameterized / "force-field.offxml",
        "smirnoff": smirnoff,
        "conservative": learned / "conservative",
        "direct": learned / "direct",
    }
    models: dict[str, Model] = {}
    for name in sorted(names, key=lambda name: name != "gfn2"):
        if name == "gfn2":
            models[name] = Gfn2Model(name)
            continue
        folder = folders[name]
        if not folder.exists():
            raise DataError(
                f"{folder} is missing; `dvc repro` runs the stage that writes it, `dvc checkout` brings it back from the cache"
            )
        models[name] = open_model(folder)
    return models

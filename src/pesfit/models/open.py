"""Open models: by path, by the names of the pipeline's outputs, or GFN2-xTB, which needs no file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from pesfit.core.exceptions import DataError
from pesfit.data.topology import ParameterizedSet
from pesfit.painn.model import open_network
from pesfit.painn.potential import CONFIG_FILE
from pesfit.params.evaluation import PotentialName
from pesfit.params.preparation import ChargeMethod
from pesfit.potentials.gfn2_model import Gfn2Model
from pesfit.potentials.model import Model
from pesfit.smirnoff.model import CHARGE_METHODS, FORCE_FIELD_FILE, open_smirnoff

PARAMETERIZED, SMIRNOFF, LEARNED = Path("data/parameterized"), Path("outputs/smirnoff"), Path("outputs/learned")


def open_model(
    model: str | Path, charge_methods: Sequence[ChargeMethod] = CHARGE_METHODS, *, stored: ParameterizedSet | None = None
) -> Model:
    """Open an output folder of the pipeline, or an .offxml.

    Args:
        model: folder with force-field.offxml (and posterior.npz), or with config.json and model.safetensors; or an
            .offxml, by path or by the name under which it is installed.
        charge_methods: where partial charges come from, for SMIRNOFF; tried in this order.
        stored: output of stage 03, for SMIRNOFF: molecules that it has are not parameterized again.

    Raises:
        DataError: where it is none of these, or files are missing, damaged or of another format version.
        ForceFieldError: where a force field cannot be read or is not supported.
        ParamsError: where a charge method is not known.

    Example:
        >>> import numpy, pesfit
        >>> model = pesfit.open_model("outputs/learned/conservative")
        >>> water = model.prepare(numpy.array([8, 1, 1]), smiles=None, where="water")  # SMIRNOFF needs a mapped SMILES
        >>> coords = numpy.array([[[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]]])  # Å
        >>> energy, forces = model.evaluate(water, coords)  # kcal/mol, kcal/mol/Å
        >>> energy.shape, forces.shape
        ((1,), (1, 3, 3))
    """
    path = Path(model)
    if path.is_dir():
        if (path / FORCE_FIELD_FILE).is_file():
            return open_smirnoff(str(model), path / FORCE_FIELD_FILE, charge_methods, stored)
        if (path / CONFIG_FILE).is_file():
            return open_network(str(model), path)
        raise DataError(_no_model(path))
    if path.suffix == ".offxml":
        return open_smirnoff(str(model), path, charge_methods, stored)
    what = "is a file that is no .offxml" if path.exists() else "does not exist"
    raise DataError(f"model {model} {what}; expected a folder such as outputs/smirnoff, or an .offxml")


def open_gfn2() -> Model:
    """Open GFN2-xTB, the method that labels the small profile's data.

    Example:
        >>> import numpy, pesfit
        >>> gfn2 = pesfit.open_gfn2()
        >>> hydrogen = gfn2.prepare(numpy.array([1, 1]), smiles=None, where="hydrogen")
        >>> energy, forces = gfn2.evaluate(hydrogen, numpy.array([[[0.0, 0.0, 0.0], [0.74, 0.0, 0.0]]]))  # kcal/mol, kcal/mol/Å
        >>> round(float(energy[0]), 1)
        -616.2
    """
    return Gfn2Model()


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
        "smirnoff-initial": parameterized / FORCE_FIELD_FILE,
        "smirnoff": smirnoff,
        "conservative": learned / "conservative",
        "direct": learned / "direct",
    }
    stored = ParameterizedSet.open(parameterized) if parameterized.is_dir() else None
    models: dict[str, Model] = {}
    for name in sorted(names, key=lambda name: name != "gfn2"):
        if name == "gfn2":
            models[name] = open_gfn2()
            continue
        if not folders[name].exists():
            raise DataError(
                f"{folders[name]} is missing; `dvc repro` runs the stage that writes it, `dvc checkout` brings it back from the cache"
            )
        models[name] = open_model(folders[name], stored=stored)
    return models


def _no_model(path: Path) -> str:
    inner = sorted(
        str(folder) for folder in path.iterdir() if any((folder / name).is_file() for name in (FORCE_FIELD_FILE, CONFIG_FILE))
    )
    hint = f"; did you mean {' or '.join(inner)}?" if inner else ""
    return f"model {path} has neither {FORCE_FIELD_FILE} nor {CONFIG_FILE}{hint}"

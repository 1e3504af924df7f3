"""Models by the name of a folder or file; both families, each of which has a module of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pesfit.core.exceptions import DataError
from pesfit.painn.model import open_network
from pesfit.painn.potential import CONFIG_FILE
from pesfit.params.preparation import ChargeMethod
from pesfit.potentials.model import Model
from pesfit.smirnoff.model import CHARGE_METHODS, FORCE_FIELD_FILE, open_smirnoff


def open_model(model: str | Path, charge_methods: Sequence[ChargeMethod] = CHARGE_METHODS) -> Model:
    """Open an output folder of the pipeline, or an .offxml.

    Args:
        model: folder with force-field.offxml (and posterior.npz, charges.csv), or with config.json and model.safetensors; or an
            .offxml, by path or by the name under which it is installed.
        charge_methods: where partial charges come from, for SMIRNOFF; tried in this order.

    Raises:
        DataError: where it is none of these, or files are missing, damaged or of another format version.
        ForceFieldError: where a force field cannot be read or is not supported.
        ParamsError: where a charge method is not known.
    """
    path = Path(model)
    if path.is_dir():
        if (path / FORCE_FIELD_FILE).is_file():
            return open_smirnoff(str(model), path / FORCE_FIELD_FILE, charge_methods)
        if (path / CONFIG_FILE).is_file():
            return open_network(str(model), path)
        raise DataError(_no_model(path))
    if path.suffix == ".offxml":
        return open_smirnoff(str(model), path, charge_methods)
    what = "is a file that is no .offxml" if path.exists() else "does not exist"
    raise DataError(f"model {model} {what}; expected a folder such as outputs/smirnoff, or an .offxml")


def _no_model(path: Path) -> str:
    inner = sorted(
        str(folder) for folder in path.iterdir() if any((folder / name).is_file() for name in (FORCE_FIELD_FILE, CONFIG_FILE))
    )
    hint = f"; did you mean {' or '.join(inner)}?" if inner else ""
    return f"model {path} has neither {FORCE_FIELD_FILE} nor {CONFIG_FILE}{hint}"

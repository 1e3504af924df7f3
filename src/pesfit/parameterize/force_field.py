"""A SMIRNOFF force field, read once: its numbers (`topology.ForceField`) and what has to be matched (`Patterns`).

The OpenFF toolkit parses the file and its units. Sections, attributes and values that are not supported are refused by name, so that
no section of a file is ever dropped. Cutoffs, switching and periodic methods are left aside on purpose: they do not affect one molecule
in vacuum.
"""

from __future__ import annotations

import difflib
import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import numpy as np

from pesfit.core.exceptions import ForceFieldError
from pesfit.data.topology import COLUMNS, ForceField, ParameterTable
from pesfit.parameterize.assign import FITTED_CHARGES, N_TAGS, Pattern, Patterns, SectionPatterns, TaggedCharges
from pesfit.parameterize.molecule import read_mapped_smiles
from pesfit.parameterize.nagl_file import MODEL_NAME, MODEL_SHA256

_POTENTIALS = {
    "Bonds": ("harmonic", "(k/2)*(r-length)^2"),
    "Angles": ("harmonic",),
    "ProperTorsions": ("k*(1+cos(periodicity*theta-phase))",),
    "ImproperTorsions": ("k*(1+cos(periodicity*theta-phase))",),
    "vdW": ("Lennard-Jones-12-6",),
}
COVERED = (
    *_POTENTIALS,
    "Constraints",
    "Electrostatics",
    "LibraryCharges",
    "ChargeIncrementModel",
    "ToolkitAM1BCC",
    "NAGLCharges",
)
"""Sections that are supported."""
_INCREMENT_BASES = ("zeros", "formal_charge", "gasteiger", "am1bcc", "am1bccelf10")
_N_IMPROPERS = 3.0
"""Value of `idivf="auto"` for impropers: the number of permutations an improper is evaluated in."""


def read_force_field(name: str) -> tuple[ForceField, Patterns]:
    """Read a force field.

    Args:
        name: path of an .offxml file, or the name of an installed one, such as `openff_unconstrained-2.1.0.offxml`.

    Returns:
        Its numbers, with no `uses` yet, and what has to be matched on molecules.

    Raises:
        ForceFieldError: where there is no such force field, it cannot be read, or it has something that is not supported.
    """
    path = _find(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ForceFieldError(f"force field {path} cannot be read: {error}") from error
    try:
        return _convert(path.name, text, _parse(text))
    except ForceFieldError as error:
        raise ForceFieldError(f"force field {name}: {error}") from error


def _find(name: str) -> Path:
    if Path(name).is_file():
        return Path(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from openff.toolkit.typing.engines.smirnoff import get_available_force_fields
    installed = {Path(path).name: Path(path) for path in sorted(get_available_force_fields(full_paths=True), reverse=True)}
    if name in installed:
        return installed[name]
    near = difflib.get_close_matches(Path(name).name, installed, n=3, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else ";"
    usable = sorted(other for other in installed if "unconstrained" in other and "rc" not in other.lower())
    raise ForceFieldError(
        f"force field {name!r} is neither a file nor installed{hint} Installed are, for instance: {', '.join(usable)}"
    )


def _parse(text: str) -> dict[str, Any]:
    """Let the toolkit parse the file; return its parameter handlers by name."""
    _check_xml(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from openff.toolkit import ForceField as ToolkitForceField

        try:
            parsed = ToolkitForceField(io.BytesIO(text.encode()))
        except Exception as error:
            message = " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
            raise ForceFieldError(f"the OpenFF toolkit refuses it: {type(error).__name__}: {message}") from error
        return {name: parsed.get_parameter_handler(name) for name in parsed.registered_parameter_handlers}


def _check_xml(text: str) -> None:
    """Check what the toolkit has no message for."""
    try:
        root = ET.fromstring(text)  # noqa: S314 - the toolkit reads it with the same parser
    except ET.ParseError as error:
        raise ForceFieldError(f"it is not XML: {error}") from error
    tags = [child.tag for child in root]
    for tag in tags:
        if tags.count(tag) > 1 and tag not in ("Author", "Date"):
            raise ForceFieldError(f"section {tag} is there {tags.count(tag)} times; put its parameters in one")


def _convert(file_name: str, text: str, sections: dict[str, Any]) -> tuple[ForceField, Patterns]:
    check_sections(sections)
    constraints = tuple((p.id or "", p.smirks) for p in _parameters(sections, "Constraints"))
    check_constraints(file_name, constraints)
    tables, patterns = {}, []
    for handler in COLUMNS:
        default_idivf = getattr(sections.get(handler), "default_idivf", None)
        rows = [_rows(handler, p, default_idivf) for p in _parameters(sections, handler)]
        tables[handler] = _table(handler, _parameters(sections, handler), rows)
        if handler in sections:
            patterns.append(_patterns(handler, _parameters(sections, handler), rows))
    model = sections.get("ChargeIncrementModel")
    force_field = ForceField(
        name=file_name,
        offxml=text,
        tables=tables,
        vdw_scale_14=float(sections["vdW"].scale14),
        electrostatics_scale_14=float(sections["Electrostatics"].scale14),
    )
    return force_field, Patterns(
        sections=tuple(patterns),
        constraints=constraints,
        library_charges=tuple(_library_charges(p) for p in _parameters(sections, "LibraryCharges")),
        increment_base=None if model is None else str(model.partial_charge_method),
        increments=tuple(_increments(p) for p in _parameters(sections, "ChargeIncrementModel")),
    )


def check_sections(sections: dict[str, Any]) -> None:
    """Check which sections there are, and their settings.

    Args:
        sections: the toolkit's parameter handlers, by name.

    Raises:
        ForceFieldError: naming the section, the attribute, its value and what is allowed.
    """
    for name, section in sections.items():
        # An empty section of virtual sites adds none.
        if name not in COVERED and not (name == "VirtualSites" and not section.parameters):
            raise ForceFieldError(f"section {name} is not supported; supported are {', '.join(COVERED)}")
    for name in ("vdW", "Electrostatics"):
        if name not in sections:
            raise ForceFieldError(f"section {name} is missing; without it atoms that are not bonded would not interact")
    for name, attribute, allowed in _settings():
        if name in sections and getattr(sections[name], attribute) not in allowed:
            raise ForceFieldError(
                f"{name} {attribute}={getattr(sections[name], attribute)!r} is not supported; "
                f"allowed: {' or '.join(repr(value) for value in allowed if value is not None)}"
            )


def _settings() -> Iterator[tuple[str, str, tuple[object, ...]]]:
    """Yield section, attribute and the values that are supported."""
    for name, potentials in _POTENTIALS.items():
        yield name, "potential", potentials
    yield "vdW", "combining_rules", ("Lorentz-Berthelot",)
    yield "vdW", "nonperiodic_method", ("no-cutoff",)
    yield "Electrostatics", "nonperiodic_potential", ("Coulomb",)
    yield "Electrostatics", "exception_potential", ("Coulomb",)
    for name in ("vdW", "Electrostatics"):
        for scale, value in (("scale12", 0.0), ("scale13", 0.0), ("scale15", 1.0)):
            yield name, scale, (value,)
    yield "NAGLCharges", "model_file", (MODEL_NAME,)
    yield "NAGLCharges", "model_file_hash", (MODEL_SHA256, None)
    yield "ChargeIncrementModel", "partial_charge_method", _INCREMENT_BASES


def check_constraints(file_name: str, constraints: tuple[tuple[str, str], ...]) -> None:
    """Refuse a force field that holds bonds to hydrogen at fixed length, as the plain Sage files do.

    Rigid water is allowed here: the unconstrained files have it too, and it concerns water alone, which is refused as a molecule.

    Args:
        file_name: such as `openff-2.1.0.offxml`.
        constraints: id and SMIRKS of each.

    Raises:
        ForceFieldError: naming the constraint and, by its name, the unconstrained force field.
    """
    methane = read_mapped_smiles("[C:1]([H:2])([H:3])([H:4])[H:5]")
    for label, smirks in constraints:
        if Pattern(smirks, N_TAGS["Constraints"]).matches(methane):
            twin = file_name.replace("openff-", "openff_unconstrained-", 1)
            hint = f": {twin}" if twin != file_name else ""
            raise ForceFieldError(
                f"constraint {label or smirks} ({smirks}) fixes bonds to hydrogen, which then have no energy; use the unconstrained "
                f"force field{hint}"
            )


def _parameters(sections: dict[str, Any], name: str) -> list[Any]:
    return list(sections[name].parameters) if name in sections else []


def _rows(handler: str, parameter: Any, default_idivf: Any) -> list[list[float]]:
    """Return the values of a parameter in the units of `COLUMNS`: one row, or one for each periodicity."""
    label = f"{handler} {parameter.id or parameter.smirks}"
    columns = COLUMNS[handler]
    if getattr(parameter, "k_bondorder", None) is not None or getattr(parameter, "length_bondorder", None) is not None:
        raise ForceFieldError(f"{label} is interpolated by bond order, which is not supported; give it one value")
    if "periodicity" in columns:
        idivf = _idivf(handler, label, parameter, default_idivf)
        rows = [
            [k.m_as(columns["k"]), n, phase.m_as(columns["phase"]), divisor]
            for k, n, phase, divisor in zip(parameter.k, parameter.periodicity, parameter.phase, idivf, strict=True)
        ]
        if min(parameter.periodicity) < 1:
            raise ForceFieldError(f"{label} has periodicity {min(parameter.periodicity)}; at least 1 is needed")
    else:
        rows = [[getattr(parameter, column).m_as(unit) for column, unit in columns.items()]]
    if not np.isfinite(rows).all():
        raise ForceFieldError(
            f"{label} has a value that is not finite: {dict(zip(columns, zip(*rows, strict=True), strict=True))}"
        )
    return rows


def _idivf(handler: str, label: str, parameter: Any, default: Any) -> list[float]:
    """Return what each k is divided by.

    The specification lets `auto` for a proper mean the number of torsions about its bond; Interchange takes 1. Refused, as is any
    default on which the two differ.
    """
    if parameter.idivf is not None:
        values = [float(value) for value in parameter.idivf]
    elif handler == "ImproperTorsions":
        values = [_N_IMPROPERS if default == "auto" else float(default)] * len(parameter.k)
    elif default != "auto" and float(default) == 1.0:
        values = [1.0] * len(parameter.k)
    else:
        raise ForceFieldError(
            f"{label} has no idivf and the section's default_idivf is {default!r}; write idivf1, idivf2, ... out"
        )
    if not all(np.isfinite(values)) or min(values) <= 0.0:
        raise ForceFieldError(f"{label} has idivf {values}; a positive number is needed")
    return values


def _table(handler: str, parameters: Sequence[Any], rows: Sequence[Sequence[Sequence[float]]]) -> ParameterTable:
    n_rows = [len(values) for values in rows]
    flat = [row for values in rows for row in values]
    return ParameterTable(
        handler=handler,
        ids=tuple(p.id or "" for p, n in zip(parameters, n_rows, strict=True) for _ in range(n)),
        smirks=tuple(p.smirks for p, n in zip(parameters, n_rows, strict=True) for _ in range(n)),
        mult=np.array([mult for n in n_rows for mult in range(n)], dtype=np.int32),
        values=np.array(flat, dtype=np.float64).reshape(len(flat), len(COLUMNS[handler])),
        uses=np.zeros(len(flat), dtype=np.int64),
    )


def _patterns(handler: str, parameters: Sequence[Any], rows: Sequence[Sequence[Sequence[float]]]) -> SectionPatterns:
    n_rows = [len(values) for values in rows]
    starts = np.concatenate([[0], np.cumsum(n_rows)])[:-1].tolist()
    for parameter in parameters:
        Pattern(parameter.smirks, N_TAGS[handler])
    return SectionPatterns(handler, tuple(p.smirks for p in parameters), tuple(zip(starts, n_rows, strict=True)))


def _library_charges(parameter: Any) -> TaggedCharges:
    charges = tuple(float(charge.m_as("elementary_charge")) for charge in parameter.charge)
    Pattern(parameter.smirks, len(charges))
    return TaggedCharges(parameter.smirks, charges, (parameter.id or "").startswith(FITTED_CHARGES))


def _increments(parameter: Any) -> TaggedCharges:
    """Return the increments of a parameter; where the last is not given, it makes their sum zero."""
    increments = [float(increment.m_as("elementary_charge")) for increment in parameter.charge_increment]
    if len(increments) == Pattern(parameter.smirks).n_tags - 1:
        increments.append(-sum(increments))
    Pattern(parameter.smirks, len(increments))
    return TaggedCharges(parameter.smirks, tuple(increments))

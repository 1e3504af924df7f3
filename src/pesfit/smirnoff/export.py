"""Write a fitted force field as offxml: the file it came from, with the numbers that changed.

Everything else stays: sections, attributes, order, units. A number is written in the unit the file had, with all its digits. Reading it
back, and evaluating molecules with OpenMM, checks that the file is the fitted force field.
"""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import ForceFieldError
from pesfit.data.topology import BONDED_HANDLERS, COLUMNS, ForceField, ParameterTable
from pesfit.smirnoff.exported_charges import UNCHANGED_CHARGES, ExportedCharges, write_charges

_ELEMENTS = {"Bonds": "Bond", "Angles": "Angle", "ProperTorsions": "Proper", "ImproperTorsions": "Improper"}
_NUMBER = re.compile(r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_FITTED = ("k", "length", "angle")
"""Columns a fit may change. Periodicity, phase and idivf of a torsion that the file has are never written: 2.9999999 would be read as 2."""
_READ_BACK_TOLERANCE = 1e-12
_ABOUT_CONSTRAINTS = """Bonds to hydrogen are held at their equilibrium lengths, for time steps of 2 fs, or 4 fs with heavier hydrogens.
To minimize, or for energies and frequencies, use the unconstrained force field that this one was made from."""


def write_offxml(
    path: Path, start: ForceField, fitted: ForceField, charges: ExportedCharges = UNCHANGED_CHARGES, comment: str = ""
) -> None:
    """Write the fitted force field.

    Args:
        path: the new file.
        start: the force field with the text of its file.
        fitted: the same, with other values of k, length and angle; and possibly with more periodicities at the end of its proper torsions.
        charges: those that it is to give to the molecules of the fit.
        comment: what the file says of itself, at its head.

    Raises:
        ForceFieldError: where a value is not finite, or the text and the tables do not belong together.
    """
    root = _parse(start.offxml)
    for handler in BONDED_HANDLERS:
        _write_section(root, start.tables[handler], fitted.tables[handler], fitted.name)
    _write_vdw(root, start.tables["vdW"], fitted.tables["vdW"], fitted.name)
    write_charges(root, charges)
    _write(path, root, comment)


def write_constrained(path: Path, offxml: Path) -> None:
    """Write the twin of a force field that holds bonds to hydrogen at their equilibrium lengths, for time steps of 2 fs and more.

    It differs by one line, the one by which openff-2.1.0.offxml differs from openff_unconstrained-2.1.0.offxml. It is the first of its
    section: the constraints of rigid water, which come later, go before it.

    Args:
        path: the new file.
        offxml: the force field.
    """
    root = _parse(offxml.read_text("utf-8"))
    section = root.find("Constraints")
    if section is None:
        section = ET.Element("Constraints", version="0.3")
        section.tail = root.text
        root.insert(0, section)
    constraint = ET.Element("Constraint", smirks="[#1:1]-[*:2]", id="c1")
    constraint.tail = section.text
    section.insert(0, constraint)
    _write(path, root, _ABOUT_CONSTRAINTS)


def _parse(text: str) -> ET.Element:
    return ET.fromstring(text, parser=ET.XMLParser(target=ET.TreeBuilder(insert_comments=True)))  # noqa: S314


def _write(path: Path, root: ET.Element, comment: str) -> None:
    if comment:
        lines = re.sub("-(?=-)", "- ", comment).strip().splitlines()  # XML allows no "--" inside a comment
        element = ET.Comment("\n".join(["", *("    " + line if line else "" for line in lines), "    "]))
        element.tail = root.text
        root.insert(0, element)
    ET.ElementTree(root).write(path, encoding="utf-8", xml_declaration=True)


def _write_section(root: ET.Element, start: ParameterTable, fitted: ParameterTable, name: str) -> None:
    elements = {element.get("smirks", ""): element for element in root.iter(_ELEMENTS[start.handler])}
    n_start = len(start.smirks)
    for row, smirks in enumerate(fitted.smirks):
        element = elements.get(smirks)
        if element is None:
            raise ForceFieldError(f"{name}: {fitted.handler} {smirks} is not in the text of the force field")
        if row >= n_start:
            _add_periodicity(element, fitted, row)
            continue
        for column, attribute in enumerate(fitted.columns):
            value = float(fitted.values[row, column])
            if value == start.values[row, column]:
                continue
            if attribute not in _FITTED or not math.isfinite(value):
                raise ForceFieldError(f"{name}: {fitted.handler} {smirks}: {attribute} = {value:g} cannot be written")
            key = f"{attribute}{fitted.mult[row] + 1}" if fitted.handler.endswith("Torsions") else attribute
            element.set(key, _like(element.get(key, ""), value, fitted.units[column], f"{fitted.handler} {smirks} {key}"))


def _write_vdw(root: ET.Element, start: ParameterTable, fitted: ParameterTable, name: str) -> None:
    elements = {element.get("smirks", ""): element for section in root.iter("vdW") for element in section.iter("Atom")}
    for row, smirks in enumerate(fitted.smirks):
        for column, attribute in enumerate(fitted.columns):
            value = float(fitted.values[row, column])
            if value == start.values[row, column]:
                continue
            element = elements.get(smirks)
            if element is None or not (math.isfinite(value) and value > 0.0):
                raise ForceFieldError(f"{name}: vdW {smirks}: {attribute} = {value:g} cannot be written")
            key = attribute
            if attribute == "sigma" and "sigma" not in element.attrib:  # the minimum is at 2^(1/6) sigma
                key, value = "rmin_half", value * 2.0 ** (1.0 / 6.0) / 2.0
            element.set(key, _like(element.get(key, ""), value, fitted.units[column], f"vdW {smirks} {key}"))


def _like(original: str, value: float, unit: str, name: str) -> str:
    """Write a value in the unit that an attribute has, keeping the way its unit is written."""
    from openff.units import Quantity

    number = _NUMBER.match(original)
    if number is None:
        raise ForceFieldError(f"{name} = {original!r} is not a number with a unit")
    tail = original[number.end() :].strip()
    one = Quantity(f"1.0 {tail}" if tail else "1.0")  # type: ignore[no-untyped-call]
    return f"{float(value / one.m_as(unit))!r}{' ' + tail if tail else ''}"


def _add_periodicity(element: ET.Element, table: ParameterTable, row: int) -> None:
    k, periodicity, phase, idivf = table.values[row].tolist()
    if k == 0.0:  # untouched by the data: a term of no height has no energy
        return
    number = 1 + max(int(key[1:]) for key in element.attrib if re.fullmatch(r"k\d+", key))
    element.set(f"periodicity{number}", str(round(periodicity)))
    element.set(f"phase{number}", f"{math.degrees(phase)!r} * degree")
    element.set(f"k{number}", f"{k!r} * mole**-1 * kilocalorie")
    element.set(f"idivf{number}", repr(idivf))


def check_offxml(path: Path, start: ForceField, fitted: ForceField) -> None:
    """Read a written force field back and compare it.

    Raises:
        ForceFieldError: where parameters, their order, or anything but the fitted values differ from those written.
    """
    from pesfit.parameterize.force_field import read_force_field

    found, _ = read_force_field(str(path))
    if (found.vdw_scale_14, found.electrostatics_scale_14) != (start.vdw_scale_14, start.electrostatics_scale_14):
        raise ForceFieldError(f"{path} came back with other 1-4 scales")
    for handler in COLUMNS:
        expected = list(_rows(fitted.tables[handler], len(start.tables[handler].smirks)))
        actual = list(_rows(found.tables[handler], len(found.tables[handler].smirks)))
        if [key for key, _ in expected] != [key for key, _ in actual]:
            raise ForceFieldError(f"{path} came back with other {handler}, or in another order")
        for (key, wanted), (_, got) in zip(expected, actual, strict=True):
            if not np.allclose(got, wanted, rtol=_READ_BACK_TOLERANCE, atol=_READ_BACK_TOLERANCE):
                raise ForceFieldError(f"{path}: {handler} {key[1]} came back as {got.tolist()}; {wanted.tolist()} was written")


def _rows(table: ParameterTable, n_start: int) -> Iterator[tuple[tuple[str, str], FloatArray]]:
    """Yield id, SMIRKS and values in the order of the file: added periodicities follow their torsion, if they have any height."""
    added: dict[str, list[int]] = {}
    for row in range(n_start, len(table.smirks)):
        if table.values[row, 0] != 0.0:
            added.setdefault(table.smirks[row], []).append(row)
    for row in range(n_start):
        yield (table.ids[row], table.smirks[row]), table.values[row]
        if row + 1 == n_start or table.smirks[row + 1] != table.smirks[row]:
            for more in added.get(table.smirks[row], []):
                yield (table.ids[more], table.smirks[more]), table.values[more]

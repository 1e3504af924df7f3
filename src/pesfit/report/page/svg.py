"""SVG as it can stand inside a page beside others: no scripts, no foreign addresses, no ids that meet twice."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from pesfit.core.exceptions import DataError

_NAMESPACE = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_SHAPES = ("path", "use", "rect", "circle", "ellipse", "line", "polyline", "polygon", "text", "tspan", "image")
_AROUND = ("svg", "g", "defs", "clipPath", "mask", "linearGradient", "radialGradient", "stop", "symbol")
_DECIMALS = re.compile(r"\d+\.\d{3,}")
_AROUND_LETTERS = re.compile(r"\s*([A-Za-z])\s*")
_LENGTHS = ("d", "points", "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "width", "height")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}\b")
_LOCAL = re.compile(r"url\(#([^)]+)\)")
_FONT = re.compile(r"font-family:[^;]*;?|font: ([0-9.]+px)[^;]*")


@dataclass(frozen=True)
class Graphic:
    """An SVG element for a page.

    Attributes:
        markup: the element.
        width: [pixel], at which its text has the size it was drawn for.
    """

    markup: str
    width: int


def clean(text: str, *, prefix: str, colors: Mapping[str, str] | None = None) -> str:
    """Return the SVG element of a file, for the inside of a page.

    Elements that draw nothing (scripts, styles, metadata), handlers and addresses outside of the file are left out; ids begin with
    `prefix`; fonts are the page's; without width and height its size is the style sheet's matter.

    Args:
        text: an SVG file.
        prefix: unique on the page.
        colors: what to write for colors such as `#1f2328`, in lower case.

    Raises:
        DataError: if this is not SVG.
    """
    try:
        root = ET.fromstring(text)  # noqa: S314 - drawn by our own code
    except ET.ParseError as error:
        raise DataError(f"the drawing {prefix} is not SVG: {error}") from error
    if root.tag != f"{_NAMESPACE}svg":
        raise DataError(f"the drawing {prefix} is not SVG: its outermost element is {root.tag}")
    _drop_foreign(root)
    names = {name: f"{prefix}-{number}" for number, name in enumerate(sorted(_referenced(root)))}
    for element in root.iter():
        element.text, element.tail = (
            None if text is None or not text.strip() else text for text in (element.text, element.tail)
        )
        element.tag = element.tag.removeprefix(_NAMESPACE)
        attributes = {key: _rewritten(key, value, names, colors or {}) for key, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update(
            {key.removeprefix("{http://www.w3.org/1999/xlink}"): v for key, v in attributes.items() if v is not None}
        )
    if "viewBox" not in root.attrib:
        root.set("viewBox", f"0 0 {_number(root.get('width'))} {_number(root.get('height'))}")
    for key in ("width", "height", "version", "baseProfile"):
        root.attrib.pop(key, None)
    root.set("aria-hidden", "true")  # the element around it carries the words
    root.set("focusable", "false")
    return ET.tostring(root, encoding="unicode", short_empty_elements=True)


def _drop_foreign(element: ET.Element) -> None:
    for child in list(element):
        if not isinstance(child.tag, str) or child.tag.removeprefix(_NAMESPACE) not in _SHAPES + _AROUND:
            element.remove(child)
        else:
            _drop_foreign(child)


def _referenced(root: ET.Element) -> set[str]:
    found: set[str] = set()
    for element in root.iter():
        for key, value in element.attrib.items():
            found.update(_LOCAL.findall(value))
            if key in (_LINK, "href") and value.startswith("#"):
                found.add(value[1:])
    return found


def _rewritten(key: str, value: str, names: Mapping[str, str], colors: Mapping[str, str]) -> str | None:
    name = key.rsplit("}", 1)[-1]
    if name.lower().startswith("on") or (key.startswith("{") and key != _LINK):
        return None
    if name == "id":
        return names.get(value)
    if name == "href":
        return _address(value, names)
    if name in _LENGTHS:  # a hundredth of a point is less than anyone sees, and half of the bytes
        return _AROUND_LETTERS.sub(r"\1", _DECIMALS.sub(lambda match: f"{float(match[0]):.2f}", value)).strip()
    value = _LOCAL.sub(lambda match: f"url(#{names[match[1]]})", value)
    if "url(" in value.replace("url(#", ""):
        return None
    if name == "style":
        value = _FONT.sub(lambda match: f"font-size: {match[1]}" if match[1] else "", value)
    return _COLOR.sub(lambda match: colors.get(match[0].lower(), match[0]), value).strip()


def _address(value: str, names: Mapping[str, str]) -> str | None:
    if value.startswith("#"):
        return f"#{names[value[1:]]}"
    return "".join(value.split()) if value.startswith("data:image/png;base64,") else None


def _number(length: str | None) -> str:
    match = re.match(r"[0-9.]+", length or "")
    return match[0] if match else "100"

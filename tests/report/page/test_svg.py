"""SVG that can stand inside a page."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from pesfit.core.exceptions import DataError
from pesfit.report.page.svg import clean

HOSTILE = """<?xml version="1.0"?>
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="100pt" height="50pt" onload="alert(1)">
<script>alert(2)</script><style>* { display: none }</style><metadata>x</metadata>
<defs><clipPath id="clip"><rect width="1.23456" height="2" id="unused"/></clipPath></defs>
<foreignObject><iframe src="https://example.org"/></foreignObject>
<a xlink:href="https://example.org"><path d="M 0 0"/></a>
<g clip-path="url(#clip)" onclick="alert(3)"><path d="M 1.23456 2 L 3 4.5" style="fill: #1f2328; stroke: #ABCDEF"/></g>
<use xlink:href="#clip"/><use href="https://example.org/x.svg#y"/>
<image href="data:image/png;base64,AAAA"/><image href="data:image/svg+xml,x"/>
<rect style="fill: url(https://example.org/x)"/>
<text style="font: 9px 'DejaVu Sans'; fill: #1f2328">a &lt; b</text>
</svg>"""


def cleaned(prefix: str = "one") -> ET.Element:
    return ET.fromstring(clean(HOSTILE, prefix=prefix, colors={"#1f2328": "var(--ink, #1f2328)"}))


def test_nothing_is_left_that_acts_or_asks() -> None:
    text = clean(HOSTILE, prefix="one")
    for word in ("script", "alert", "onload", "onclick", "example.org", "iframe", "<style", "metadata", "svg+xml", "xmlns"):
        assert word not in text


def test_ids_are_those_that_are_used_and_begin_with_the_prefix() -> None:
    root = cleaned("one")
    assert [element.get("id") for element in root.iter() if element.get("id")] == ["one-0"]
    assert root.find("g").get("clip-path") == "url(#one-0)"
    assert [use.get("href") for use in root.iter("use")] == ["#one-0", None]
    assert [image.get("href") for image in root.iter("image")] == ["data:image/png;base64,AAAA", None]


def test_colors_and_fonts_are_the_pages() -> None:
    root = cleaned()
    path, text = root.find("g/path"), root.find("text")
    assert path.get("style") == "fill: var(--ink, #1f2328); stroke: #ABCDEF"
    assert path.get("d") == "M1.23 2L3 4.5"
    assert "DejaVu" not in text.get("style")
    assert "font-size: 9px" in text.get("style")
    assert text.text == "a < b"


def test_the_style_sheet_says_how_large_it_is() -> None:
    root = cleaned()
    assert root.get("viewBox") == "0 0 100 50"
    assert root.get("width") is None


@pytest.mark.parametrize("text", ["", "no markup", "<svg", "<html xmlns='http://www.w3.org/1999/xhtml'/>"])
def test_what_is_not_svg_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="drawing one is not SVG"):
        clean(text, prefix="one")

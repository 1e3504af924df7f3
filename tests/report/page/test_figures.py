"""Look of figures, and their rendering."""

from __future__ import annotations

import re
import struct
from itertools import combinations
from xml.etree import ElementTree as ET

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure as Canvas

from pesfit.core.exceptions import DataError
from pesfit.report.page.blocks import Figure, Layout
from pesfit.report.page.figures import (
    COLORS,
    EXTRA,
    POTENTIALS,
    SERIES,
    RenderedFigure,
    clean_svg,
    color_of,
    in_order,
    label_of,
    legend,
    log_axis,
    panels,
    render,
    series,
    style,
    tick_label,
)

ROLES = {color.name: color for color in COLORS}
Vector = npt.NDArray[np.float64]

# Machado, Oliveira and Fernandes, IEEE Trans. Vis. Comput. Graph. 15, 1291 (2009), severity 1.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "deuteranopia": np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]),
}
# B. Ottosson, "A perceptual color space for image processing" (2020).
TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.793617785, -0.0040720468],
        [1.9779984951, -2.428592205, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.808675766],
    ]
)


def linear(color: str) -> Vector:
    value = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255.0
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2."""
    low, high = sorted(float(linear(color) @ [0.2126, 0.7152, 0.0722]) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def seen(color: str, deficiency: str) -> Vector:
    return TO_LAB @ np.cbrt(TO_LMS @ np.clip(DEFICIENCIES[deficiency] @ linear(color), 0.0, 1.0))


def draw(layout: Layout) -> Canvas:
    canvas, (one, two) = panels(layout, 2, columns=2)
    for name in SERIES:
        one.plot([1.0, 2.0, 3.0], [1.0, 4.0, 2.0], **series(name, dashes=True))
    one.set_title("costs $5 and <b>, not $x^2$")
    two.scatter(np.linspace(0.1, 10.0, 500), np.linspace(1.0, 1e-6, 500), s=2.0, rasterized=True, color=color_of("direct"))
    log_axis(two, "y")
    return canvas


FIGURE = Figure("example", "An example", "Lines.", draw)


@pytest.fixture(scope="module", name="rendered")
def _rendered() -> RenderedFigure:
    return render(FIGURE)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everything_is_legible_on_its_background(theme: str) -> None:
    surface = getattr(ROLES["surface"], theme)
    for color in (*SERIES.values(), *EXTRA):
        assert contrast(getattr(color, theme), surface) >= 3.0, color.name
    for color in (ROLES["ink"], ROLES["muted"]):
        assert contrast(getattr(color, theme), surface) >= 4.5, color.name


def test_what_is_rasterized_in_light_colors_is_legible_on_dark_too() -> None:
    for color in (*SERIES.values(), *EXTRA):
        assert contrast(color.light, ROLES["surface"].dark) >= 2.8, color.name


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_color_blind_readers_tell_potentials_apart(theme: str, deficiency: str) -> None:
    for one, other in combinations(SERIES, 2):
        distance = np.linalg.norm(
            seen(getattr(SERIES[one], theme), deficiency) - seen(getattr(SERIES[other], theme), deficiency)
        )
        assert distance >= 0.1, (one, other)


def test_potentials_have_one_order() -> None:
    assert in_order(["direct", "other", "gfn2", "direct"]) == ["gfn2", "direct", "other"]
    assert label_of("other") == "other"


def test_every_potential_has_a_color_and_no_two_roles_share_one() -> None:
    assert set(SERIES) == set(POTENTIALS)
    assert len({color.light for color in COLORS}) == len(COLORS)
    styles = {(each["marker"], each["linestyle"]) for each in (series(name, dashes=True) for name in POTENTIALS)}
    assert len(styles) == len(POTENTIALS)


def test_same_figure_same_bytes_whatever_a_users_settings_say(rendered: RenderedFigure) -> None:
    with mpl.rc_context({"font.size": 30.0, "axes.grid": False, "svg.hashsalt": None, "savefig.dpi": 20.0}):
        assert render(FIGURE) == rendered


def test_all_colors_of_the_drawing_are_variables_of_the_page(rendered: RenderedFigure) -> None:
    markup = rendered.wide.markup
    bare = re.sub(r"var\(--[a-z0-9-]+, #[0-9a-f]{6}\)", "", markup)
    assert re.findall(r"#[0-9a-fA-F]{6}\b", bare) == []
    for color in SERIES.values():
        assert f"var(--{color.name}, {color.light})" in markup


def test_text_stays_text(rendered: RenderedFigure) -> None:
    markup = rendered.wide.markup
    assert "costs $5 and &lt;b&gt;, not $x^2$" in markup
    assert "10⁻⁵" in markup
    assert "DejaVu" not in markup


def test_a_dense_scatter_is_a_picture(rendered: RenderedFigure) -> None:
    markup = rendered.wide.markup
    assert markup.count("data:image/png;base64,") == 1
    assert markup.count("<use") < 200


def test_panels_go_below_each_other_on_a_phone(rendered: RenderedFigure) -> None:
    assert rendered.narrow is not None
    assert rendered.narrow.width < 350 < rendered.wide.width
    sizes = [
        [float(each) for each in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', graphic.markup).groups()]
        for graphic in (rendered.wide, rendered.narrow)
    ]
    assert sizes[0][0] > sizes[0][1]
    assert sizes[1][0] < sizes[1][1]


def test_a_figure_that_does_not_look_at_the_room_is_drawn_once() -> None:
    assert render(Figure("fixed", "", "", lambda _: Canvas(figsize=(3.0, 2.0)))).narrow is None


def test_the_png_has_two_pixels_for_each_of_the_pages(rendered: RenderedFigure) -> None:
    width, _ = struct.unpack(">II", rendered.png[16:24])
    assert width == pytest.approx(2 * rendered.wide.width, abs=2)


@pytest.mark.parametrize(("high", "ticks"), [(15.0, [1.0, 2.0, 5.0, 10.0]), (1500.0, [1.0, 10.0, 100.0, 1000.0])])
def test_an_axis_of_few_decades_has_more_ticks(high: float, ticks: list[float]) -> None:
    with style():
        _, (axes,) = panels("wide", 1)
        log_axis(axes, "y")
        axes.set_ylim(0.9, high)
        assert [tick for tick in axes.get_yticks() if 0.9 <= tick <= high] == ticks


@pytest.mark.parametrize("layout", ["wide", "narrow"])
def test_one_legend_names_each_thing_once(layout: Layout) -> None:
    with style():
        canvas, axes = panels(layout, 2)
        legend(canvas)
        assert canvas.legends == []  # nothing to name
        for each in axes:
            each.plot([0.0], [0.0], label="same")
        axes[1].plot([0.0], [0.0], label="other")
        legend(canvas)
    assert [text.get_text() for text in canvas.legends[0].get_texts()] == ["same", "other"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.01, "0.01"), (300.0, "300"), (1e-5, "10⁻⁵"), (2e6, "2·10⁶"), (0.0, "0"), (-1.0, "")]
)
def test_powers_of_ten(value: float, text: str) -> None:
    assert tick_label(value) == text


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
    return ET.fromstring(clean_svg(HOSTILE, prefix=prefix, colors={"#1f2328": "var(--ink, #1f2328)"}))


def test_nothing_is_left_that_acts_or_asks() -> None:
    text = clean_svg(HOSTILE, prefix="one")
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
        clean_svg(text, prefix="one")

"""Look of figures, names and colors of potentials, and rendering as SVG for the page and as PNG.

Figures are drawn in the colors of the light theme, each of which stands for one role. In the vector graphics every one of them becomes a
variable of the page's style sheet (`var(--ink, #1f2328)`), so that axes, text and lines follow the theme; a rasterized scatter keeps the
light color, which is why all series are legible on both backgrounds. Each figure is drawn for a wide page, and once more for a phone,
where panels stand below each other and text keeps its size.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree as ET

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pesfit.core.exceptions import DataError
from pesfit.report.page.blocks import Figure, Layout
from pesfit.report.page.tables import power_of_ten

PNG_DPI = 192
_RASTER_DPI = 200
PIXELS_PER_INCH = 96
"""Of a page: an inch of a figure is as many of its pixels."""

_WIDTHS: dict[Layout, float] = {"wide": 9.4, "narrow": 3.55}
"""Of figures [inch] on a page of 1280 pixels, and of 390."""
_LONG_LABEL = 22
"""Characters of a label beside which no other has room on a narrow page."""


@dataclass(frozen=True)
class Color:
    """A role's color in both themes.

    Attributes:
        name: of the variable in the style sheet, without its dashes.
        light: such as `#0072b2`; no two roles share it.
        dark: of the dark theme.
    """

    name: str
    light: str
    dark: str


_INK = Color("ink", "#1f2328", "#e6e4df")
_MUTED = Color("muted", "#5d646d", "#a2a8b0")
_GRID = Color("rule", "#e3e2dd", "#32373d")
_SURFACE = Color("surface", "#fdfdfc", "#16191c")
SERIES = {
    "gfn2": Color("series-gfn2", "#868d9b", "#d3dae3"),
    "smirnoff-initial": Color("series-smirnoff-initial", "#c47b00", "#f5b840"),
    "smirnoff": Color("series-smirnoff", "#bf2f06", "#f4511e"),
    "conservative": Color("series-conservative", "#0a5fcb", "#2f97f0"),
    "direct": Color("series-direct", "#86507a", "#bd72a0"),
}
"""Colors of potentials, the same in every figure."""
EXTRA = (
    Color("extra-teal", "#0c8577", "#3fc1b0"),
    Color("extra-brown", "#8f5a35", "#cf9468"),
    Color("extra-violet", "#6f56c6", "#a592f0"),
)
COLORS = (_INK, _MUTED, _GRID, _SURFACE, *SERIES.values(), *EXTRA)
"""All roles: the page's style sheet defines a variable for each."""

INK, MUTED, GRID, SURFACE = (color.light for color in (_INK, _MUTED, _GRID, _SURFACE))
CYCLE = tuple(color.light for color in (*EXTRA, *(color for name, color in SERIES.items() if name != "gfn2")))
"""Colors of things other than potentials, such as elements or splits."""
_MARKERS = {"gfn2": "D", "smirnoff-initial": "s", "smirnoff": "s", "conservative": "o", "direct": "^"}
_LINES = {"smirnoff-initial": (0, (4.0, 2.0)), "direct": (0, (7.0, 1.5))}


POTENTIALS = {
    "gfn2": "GFN2-xTB",
    "smirnoff-initial": "SMIRNOFF, initial",
    "smirnoff": "SMIRNOFF, fitted",
    "conservative": "PaiNN, conservative",
    "direct": "PaiNN, direct",
}
"""Names of potentials in files and on the page, in the order of all tables and figures."""


def label_of(potential: str) -> str:
    """Return a potential's name on the page; an unknown one as it is."""
    return {**POTENTIALS, "ensemble": "PaiNN, ensemble"}.get(potential, potential)


def in_order(potentials: Iterable[str]) -> list[str]:
    """Return distinct names in the order of `POTENTIALS`, unknown ones last by name."""
    order = list(POTENTIALS)
    return sorted(set(potentials), key=lambda name: (order.index(name) if name in order else len(order), name))


def color_of(potential: str) -> str:
    """Return a potential's color; gray for an unknown one."""
    return SERIES[potential].light if potential in SERIES else MUTED


def series(potential: str, *, dashes: bool = False) -> dict[str, Any]:
    """Return color, marker and label of a potential, as arguments of `Axes.plot`.

    Args:
        potential: its name.
        dashes: add a line style of its own, for readers who do not tell colors apart.
    """
    style: dict[str, Any] = {"color": color_of(potential), "marker": _MARKERS.get(potential, "v"), "label": label_of(potential)}
    return style | {"linestyle": _LINES.get(potential, "-")} if dashes else style


def density_map(potential: str) -> LinearSegmentedColormap:
    """Return a color map from nearly transparent to the potential's color, which is legible on both backgrounds."""
    rgb = to_rgb(color_of(potential))
    return LinearSegmentedColormap.from_list(f"density-{potential}", [(*rgb, 0.12), (*rgb, 1.0)])


def panels(layout: Layout, n_panels: int, *, columns: int = 3, height: float = 2.9) -> tuple[Canvas, list[Axes]]:
    """Return a figure with panels: side by side on a wide page, below each other on a narrow one.

    Args:
        layout: as `Figure.draw` is given it.
        n_panels: number of panels.
        columns: of them that stand side by side at most, where there is room.
        height: of each row [inch].
    """
    n_columns = 1 if layout == "narrow" else min(columns, n_panels)
    n_rows = -(-n_panels // n_columns)
    share = 1.0 if layout == "narrow" else {1: 0.72, 2: 0.86}.get(n_columns, 1.0)
    canvas = Canvas(figsize=(_WIDTHS[layout] * share, height * n_rows), layout="constrained")
    FigureCanvasAgg(canvas)
    return canvas, [canvas.add_subplot(n_rows, n_columns, number + 1) for number in range(n_panels)]


def label_rows(axes: Sequence[Axes], label: str) -> None:
    """Label the y axis of the first panel of each row, and no other."""
    for panel in axes:
        place = panel.get_subplotspec()
        if place is not None and place.is_first_col():
            panel.set_ylabel(label)


def legend(canvas: Canvas) -> None:
    """Put one legend of everything that any panel labels above them all, in the order in which it comes."""
    found = {label: handle for axes in canvas.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if found:
        is_narrow = canvas.get_figwidth() <= _WIDTHS["narrow"]
        n_columns = min(5, len(found)) if not is_narrow else 1 if max(map(len, found)) > _LONG_LABEL else 2
        canvas.legend(list(found.values()), list(found), loc="outside upper left", ncols=n_columns)


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Make the y axis a list of names from top to bottom, at 0, 1, 2, ..., without ticks and line."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def log_axis(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with labels such as 0.01 and 10⁻⁵ that are text like all others."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(_Decades())
    axis.set_major_formatter(FuncFormatter(lambda value, _: tick_label(value)))
    axis.set_minor_formatter(NullFormatter())


class _Decades(LogLocator):
    """Ticks at 1, 10, 100; on an axis of less than two decades at 1, 2, 5, 10 too."""

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        """Return where ticks are."""
        self.set_params(subs=(1.0, 2.0, 5.0) if vmin > 0.0 and vmax / vmin < 100.0 else (1.0,))
        return [float(tick) for tick in super().tick_values(vmin, vmax)]


def tick_label(value: float) -> str:
    """Write a number short: 0.01, 300, 10⁻⁵."""
    if value <= 0.0:
        return "0" if value == 0.0 else ""
    if 1e-3 <= value < 1e5:
        return f"{value:g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    power = power_of_ten(int(exponent))
    return power if float(mantissa) == 1.0 else f"{float(mantissa):g}·{power}"


@dataclass(frozen=True)
class Graphic:
    """An SVG element for a page.

    Attributes:
        markup: the element.
        width: [pixel], at which its text has the size it was drawn for.
    """

    markup: str
    width: int


@dataclass(frozen=True)
class RenderedFigure:
    """A figure as it goes to the page and to disk.

    Attributes:
        wide: SVG element, whose colors are variables of the page.
        narrow: the same for a phone; None where it is drawn no differently.
        png: in the light theme, two pixels for each of a page's.
    """

    wide: Graphic
    narrow: Graphic | None
    png: bytes


def render(figure: Figure) -> RenderedFigure:
    """Draw a figure; bytes depend on its content alone."""
    with style():
        canvas, narrow = figure.draw("wide"), figure.draw("narrow")
        is_same = tuple(narrow.get_size_inches()) == tuple(canvas.get_size_inches())
        png = io.BytesIO()
        canvas.draw_without_rendering()  # constrained layout settles before the backends ask
        wide = _vector(canvas, f"{figure.name}-wide")
        canvas.savefig(
            png, format="png", dpi=PNG_DPI, facecolor=SURFACE, metadata={"Software": None}
        )  # else matplotlib's version
        return RenderedFigure(wide, None if is_same else _vector(narrow, f"{figure.name}-narrow"), png.getvalue())


@contextmanager
def style() -> Iterator[None]:
    """Make matplotlib draw in our style, whatever a user's own settings are."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)  # type: ignore[arg-type] # its names are strings to us
        yield


def _vector(canvas: Canvas, name: str) -> Graphic:
    stream = io.StringIO()
    canvas.draw_without_rendering()
    canvas.savefig(stream, format="svg", dpi=_RASTER_DPI, transparent=True, metadata={"Date": None, "Creator": None})
    variables = {color.light: f"var(--{color.name}, {color.light})" for color in COLORS}
    markup = clean_svg(stream.getvalue(), prefix=name, colors=variables)
    return Graphic(markup, round(float(canvas.get_size_inches()[0]) * PIXELS_PER_INCH))


_SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be found and copied, and has the page's own font
    "svg.hashsalt": "pesfit",
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.titlepad": 7.0,
    "axes.labelsize": 9.0,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.formatter.use_mathtext": False,
    "axes.prop_cycle": cycler(color=CYCLE),
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    **{
        f"{axis}tick.{name}": value
        for axis in "xy"
        for name, value in {"color": MUTED, "labelsize": 8.5, "major.width": 0.7, "major.size": 3.0}.items()
    },
    "xtick.minor.visible": False,
    "text.color": INK,
    "text.parse_math": False,  # names from data may hold dollar signs; formulas are written in Unicode
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "legend.labelcolor": INK,
    "legend.borderaxespad": 0.2,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.0,
    "patch.edgecolor": SURFACE,
    "figure.facecolor": "none",
    "figure.edgecolor": "none",
    "figure.constrained_layout.w_pad": 0.06,
    "figure.constrained_layout.h_pad": 0.06,
    "savefig.facecolor": "none",
}

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


def clean_svg(text: str, *, prefix: str, colors: Mapping[str, str] | None = None) -> str:
    """Return the SVG element of a file, for the inside of a page.

    Elements that draw nothing (scripts, styles, metadata), handlers and addresses outside of the file are left out; ids begin with
    `prefix`; fonts are the page's; without width and height its size is the style sheet's matter.

    Args:
        text: an SVG file.
        prefix: unique on the page.
        colors: replacements of colors such as `#1f2328`, in lower case.

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

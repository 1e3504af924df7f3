"""How figures look, and their rendering: drawn once for the page in both of its themes and for PNG.

Figures are drawn in the colors of the light theme, each of which stands for one role. In the vector graphics every one of them becomes a
variable of the page's style sheet (`var(--ink, #1f2328)`), so that axes, text and lines follow the theme; a rasterized scatter keeps the
light color, which is why all series are legible on both backgrounds.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from pesfit.report.page import svg
from pesfit.report.page.blocks import Figure

Marker = Literal["o", "s", "D", "^", "v"]

PNG_DPI = 192
_RASTER_DPI = 200
PIXELS_PER_INCH = 96
"""Of a page: an inch of a figure is as many of its pixels."""

_LONG_LABEL = 22
"""Characters of a label beside which no other has room on a narrow page."""

WIDE_INCHES = 9.4
NARROW_INCHES = 3.55
"""Widths of figures on a page of 1280 pixels, and of 390."""


@dataclass(frozen=True)
class Color:
    """A role's color in both themes.

    Attributes:
        name: of the variable in the style sheet, without its dashes.
        light: such as `#0072b2`; no two roles share it.
        dark: likewise.
    """

    name: str
    light: str
    dark: str


INK = Color("ink", "#1f2328", "#e6e4df")
MUTED = Color("muted", "#5d646d", "#a2a8b0")
GRID = Color("rule", "#e3e2dd", "#32373d")
SURFACE = Color("surface", "#fdfdfc", "#16191c")
SERIES = {
    "gfn2": Color("series-gfn2", "#868d9b", "#d3dae3"),
    "smirnoff-initial": Color("series-smirnoff-initial", "#c47b00", "#f5b840"),
    "smirnoff": Color("series-smirnoff", "#bf2f06", "#f4511e"),
    "conservative": Color("series-conservative", "#0a5fcb", "#2f97f0"),
    "direct": Color("series-direct", "#86507a", "#bd72a0"),
}
EXTRA = (
    Color("extra-teal", "#0c8577", "#3fc1b0"),
    Color("extra-brown", "#8f5a35", "#cf9468"),
    Color("extra-violet", "#6f56c6", "#a592f0"),
)
COLORS = (INK, MUTED, GRID, SURFACE, *SERIES.values(), *EXTRA)
"""All roles: the page's style sheet defines a variable for each."""

_MARKERS: dict[str, Marker] = {"gfn2": "D", "smirnoff-initial": "s", "smirnoff": "s", "conservative": "o", "direct": "^"}
_LINES = {"smirnoff-initial": (0, (4.0, 2.0)), "direct": (0, (7.0, 1.5))}


@dataclass(frozen=True)
class Palette:
    """Colors by role, and how much room there is.

    Attributes:
        narrow: whether the figure is for a phone: `panels` then puts panels below each other.
    """

    narrow: bool = False
    ink: str = INK.light
    muted: str = MUTED.light
    grid: str = GRID.light
    surface: str = SURFACE.light

    @property
    def width(self) -> float:
        """Width of a figure [inch]."""
        return NARROW_INCHES if self.narrow else WIDE_INCHES

    @property
    def cycle(self) -> tuple[str, ...]:
        """Colors of things that are no potentials, such as elements or splits."""
        return (*(color.light for color in EXTRA), *(color.light for name, color in SERIES.items() if name != "gfn2"))

    def color(self, potential: str) -> str:
        """Return a potential's color, the same in every figure; grey for one that is not known."""
        return SERIES[potential].light if potential in SERIES else self.muted

    def marker(self, potential: str) -> Marker:
        """Return a potential's marker, for those who do not tell the colors apart."""
        return _MARKERS.get(potential, "v")

    def line(self, potential: str) -> str | tuple[int, tuple[float, float]]:
        """Return a potential's line style, likewise."""
        return _LINES.get(potential, "-")

    def density(self, potential: str) -> LinearSegmentedColormap:
        """Return a color map from nearly transparent to the potential's color, which reads on both backgrounds."""
        rgb = to_rgb(self.color(potential))
        return LinearSegmentedColormap.from_list(f"density-{potential}", [(*rgb, 0.12), (*rgb, 1.0)])


@dataclass(frozen=True)
class Rendered:
    """A figure as it goes to the page and to disk.

    Attributes:
        wide: SVG element, whose colors are variables of the page.
        narrow: the same for a phone; None where it is drawn no differently.
        png: in the light theme, two pixels for each of a page's.
    """

    wide: svg.Graphic
    narrow: svg.Graphic | None
    png: bytes


def render(figure: Figure) -> Rendered:
    """Draw a figure; bytes depend on what is drawn alone."""
    canvas = _drawn(figure, Palette())
    narrow = _drawn(figure, Palette(narrow=True))
    is_same = tuple(narrow.get_size_inches()) == tuple(canvas.get_size_inches())
    return Rendered(
        wide=_vector(canvas, f"{figure.name}-wide"),
        narrow=None if is_same else _vector(narrow, f"{figure.name}-narrow"),
        png=_png(canvas),
    )


@contextmanager
def style(palette: Palette) -> Iterator[None]:
    """Make matplotlib draw in our style, whatever a user's own settings say."""
    with mpl.rc_context():
        mpl.rcdefaults()
        for name, value in _settings(palette).items():
            mpl.rcParams[name] = value  # type: ignore[index] # its names are strings to us
        yield


def panels(palette: Palette, n_panels: int, *, columns: int = 3, height: float = 2.9) -> tuple[Canvas, list[Axes]]:
    """Return a figure with panels: side by side on a wide page, below each other on a narrow one.

    Args:
        palette: as `Figure.draw` is given it.
        n_panels: how many.
        columns: how many stand side by side at most, where there is room.
        height: of each row [inch].
    """
    n_columns = 1 if palette.narrow else min(columns, n_panels)
    n_rows = -(-n_panels // n_columns)
    share = 1.0 if palette.narrow else {1: 0.72, 2: 0.86}.get(n_columns, 1.0)
    canvas = Canvas(figsize=(palette.width * share, height * n_rows), layout="constrained")
    FigureCanvasAgg(canvas)
    return canvas, [canvas.add_subplot(n_rows, n_columns, number + 1) for number in range(n_panels)]


def legend(canvas: Canvas, palette: Palette, *, columns: int = 5) -> None:
    """Put one legend of everything that any panel labels above them all, in the order in which it comes."""
    found = {label: handle for axes in canvas.axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if found:
        narrow = 1 if max(map(len, found)) > _LONG_LABEL else 2
        n_columns = narrow if palette.narrow else min(columns, len(found))
        canvas.legend(list(found.values()), list(found), loc="outside upper left", ncols=n_columns)


def log_axis(axes: Axes, which: Literal["x", "y"]) -> None:
    """Make an axis logarithmic, with labels such as 0.01 and 10⁻⁵ that are text like all others."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    axis.set_major_locator(_Decades())
    axis.set_major_formatter(FuncFormatter(lambda value, _: power_of_ten(value)))
    axis.set_minor_formatter(NullFormatter())


class _Decades(LogLocator):
    """Ticks at 1, 10, 100; on an axis of less than two decades at 1, 2, 5, 10 too."""

    def tick_values(self, vmin: float, vmax: float) -> list[float]:
        """Return where ticks are."""
        self.set_params(subs=(1.0, 2.0, 5.0) if vmin > 0.0 and vmax / vmin < 100.0 else (1.0,))
        return [float(tick) for tick in super().tick_values(vmin, vmax)]


def power_of_ten(value: float) -> str:
    """Write a number short: 0.01, 300, 10⁻⁵."""
    if value <= 0.0:
        return "0" if value == 0.0 else ""
    if 1e-3 <= value < 1e5:
        return f"{value:g}"
    mantissa, exponent = f"{value:.1e}".split("e")
    power = "10" + str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return power if float(mantissa) == 1.0 else f"{float(mantissa):g}·{power}"


def _settings(palette: Palette) -> dict[str, Any]:
    ink, muted = palette.ink, palette.muted
    return {
        "svg.fonttype": "none",  # text stays text: it can be found and copied, and has the page's own font
        "svg.hashsalt": "pesfit",
        "font.size": 9.0,
        "axes.titlesize": 9.5,
        "axes.titlelocation": "left",
        "axes.titlecolor": ink,
        "axes.titlepad": 7.0,
        "axes.labelsize": 9.0,
        "axes.labelcolor": muted,
        "axes.edgecolor": muted,
        "axes.facecolor": "none",
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.unicode_minus": True,
        "axes.formatter.use_mathtext": False,
        "axes.prop_cycle": cycler(color=palette.cycle),
        "grid.color": palette.grid,
        "grid.linewidth": 0.7,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "xtick.major.size": 3.0,
        "ytick.major.size": 3.0,
        "xtick.minor.visible": False,
        "text.color": ink,
        "text.parse_math": False,  # names from data may hold dollar signs; formulas are written in Unicode
        "legend.frameon": False,
        "legend.fontsize": 8.5,
        "legend.labelcolor": ink,
        "legend.borderaxespad": 0.2,
        "lines.linewidth": 1.6,
        "lines.markersize": 5.0,
        "patch.edgecolor": palette.surface,
        "figure.facecolor": "none",
        "figure.edgecolor": "none",
        "figure.constrained_layout.w_pad": 0.06,
        "figure.constrained_layout.h_pad": 0.06,
        "savefig.facecolor": "none",
    }


def _drawn(figure: Figure, palette: Palette) -> Canvas:
    with style(palette):
        canvas: Canvas = figure.draw(palette)
        canvas.draw_without_rendering()  # constrained layout settles before the backends ask
    return canvas


def _vector(canvas: Canvas, name: str) -> svg.Graphic:
    stream = io.StringIO()
    with style(Palette()):
        canvas.savefig(stream, format="svg", dpi=_RASTER_DPI, transparent=True, metadata={"Date": None, "Creator": None})
    variables = {color.light: f"var(--{color.name}, {color.light})" for color in COLORS}
    width = float(canvas.get_size_inches()[0]) * PIXELS_PER_INCH
    return svg.Graphic(svg.clean(stream.getvalue(), prefix=name, colors=variables), round(width))


def _png(canvas: Canvas) -> bytes:
    stream = io.BytesIO()
    with style(Palette()):  # Software would carry matplotlib's version into the bytes
        canvas.savefig(stream, format="png", dpi=PNG_DPI, facecolor=SURFACE.light, metadata={"Software": None})
    return stream.getvalue()


def write_png(rendered: Rendered, path: Path) -> None:
    """Write the picture of a figure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(rendered.png)

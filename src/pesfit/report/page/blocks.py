"""What a report is made of: sections of text, tables and figures, before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Cell: TypeAlias = str | float | int | bool | None
Tone: TypeAlias = Literal["plain", "warning"]


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        key: its name in CSV and JSON, with the unit: `force_mae_kcal_per_mol_per_angstrom`.
        label: what a reader sees, such as `force MAE`.
        unit: shown beside the label; empty where there is none.
        digits: significant digits of numbers on the page; CSV and JSON have all.
        interval: key of a column pair `<interval>_low`, `<interval>_high` that the page shows as a range behind the number; None without.
        error: key of a standard error that the page shows behind the number as ± 0.02, where there is no interval; None without.
        best: which of the values the page sets in bold, in each group of rows; None for no such mark.
    """

    key: str
    label: str
    unit: str = ""
    digits: int = 3
    interval: str | None = None
    error: str | None = None
    best: Literal["lowest", "highest"] | None = None


@dataclass(frozen=True)
class Table:
    """A table of the page, a CSV file `tables/<name>.csv`, and an entry of `numbers.json`.

    Attributes:
        name: file name without suffix: small letters, digits and hyphens.
        title: one line above it.
        columns: what the page shows, in order.
        rows: by key; keys that no column shows go to CSV and JSON alone. A value None is an empty cell.
        note: what a reader has to know, below it.
        folded: whether the page shows it closed (`<details>`).
        group: key whose value stands as a line of its own above the rows that share it (they are next to each other); none without.
    """

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[dict[str, Cell]]
    note: str = ""
    folded: bool = False
    group: str | None = None


@dataclass(frozen=True)
class Figure:
    """A figure: vector graphics on the page that follow its light and dark theme, and `figures/<name>.png`.

    Attributes:
        name: file name without suffix, likewise.
        title: one line above it.
        alt: what it shows, in words, for those who do not see it.
        draw: returns a matplotlib figure; called with the style's rcParams active and the palette (`figures.Palette`) as its argument,
            twice: for a wide page and for a phone. `figures.panels`, `figures.legend` and `figures.log_axis` know both. Text is shown as
            it is, without TeX.
        note: below it.
    """

    name: str
    title: str
    alt: str
    draw: Callable[[Any], Any]
    note: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph, as plain text with `code` marked by backticks; `tone` sets warnings apart."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Facts:
    """Names and values side by side, such as what was run; also an entry of `numbers.json`.

    Attributes:
        name: key in `numbers.json`.
        items: label and value, in order.
    """

    name: str
    items: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Drawing:
    """A small picture with a caption, such as a molecule: SVG text whose strokes may be `currentColor`."""

    svg: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Drawings side by side."""

    title: str
    drawings: Sequence[Drawing]
    note: str = ""


Block: TypeAlias = Text | Facts | Table | Figure | Gallery


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Attributes:
        id: its anchor.
        title: its heading, and its entry in the contents.
        blocks: in order.
    """

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)

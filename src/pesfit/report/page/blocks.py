"""The blocks that sections of a report are made of (text, facts, tables, figures, galleries), before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Cell: TypeAlias = str | float | int | bool | None
Tone: TypeAlias = Literal["plain", "warning"]
Layout: TypeAlias = Literal["wide", "narrow"]
"""Room for a figure: a page of 1280 pixels, or a phone."""


@dataclass(frozen=True)
class TableColumn:
    """A column of a table.

    Attributes:
        key: its name in CSV and JSON, with the unit: `force_mae_kcal_per_mol_per_angstrom`.
        label: its head on the page, such as `force MAE`.
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
        columns: shown on the page, in order.
        rows: by key; keys that no column shows go to CSV and JSON alone. A value None is an empty cell.
        note: definitions and remarks below it.
        folded: whether the page shows it closed (`<details>`).
        group: key whose value stands as a line of its own above the rows that share it (they are next to each other); none without.
        across: whether it is the numbers of a row that are of one kind: they share decimals, and the best of those in columns with a
            `best` is bold, which is the `lowest`, the `highest` or the `smallest` in magnitude, as the row's key `best` says.
    """

    name: str
    title: str
    columns: Sequence[TableColumn]
    rows: Sequence[dict[str, Cell]]
    note: str = ""
    folded: bool = False
    group: str | None = None
    across: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure: vector graphics on the page that follow its light and dark theme, and `figures/<name>.png`.

    Attributes:
        name: file name without suffix: small letters, digits and hyphens.
        title: one line above it.
        alt: its content in words, for readers who do not see it.
        draw: returns a matplotlib figure; called once for each layout, with the page's rcParams active. `figures.panels` and
            `figures.legend` arrange things for either. Text is shown as it is, without TeX.
        note: definitions and remarks below it.
    """

    name: str
    title: str
    alt: str
    draw: Callable[[Layout], Any]
    note: str = ""


@dataclass(frozen=True)
class Text:
    """A paragraph, as plain text with `code` marked by backticks; `tone` sets warnings apart."""

    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Facts:
    """Names and values side by side, such as the force field and the versions of a run; also an entry of `numbers.json`.

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
    """Drawings side by side.

    Attributes:
        title: one line above them.
        drawings: in order.
        note: definitions and remarks below them.
    """

    title: str
    drawings: Sequence[Drawing]
    note: str = ""


Block: TypeAlias = Text | Facts | Table | Figure | Gallery


@dataclass(frozen=True)
class PageSection:
    """A section of the page.

    Attributes:
        id: its anchor.
        title: its heading, and its entry in the contents.
        blocks: in order.
    """

    id: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)

"""A report on disk: one page of HTML that needs nothing beside itself, its figures as PNG, its tables as CSV, all numbers as JSON."""

from __future__ import annotations

import csv
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import jinja2
from markupsafe import Markup, escape

from pesfit.core.files import rounded, write_json
from pesfit.report.page import tables
from pesfit.report.page.blocks import Cell, Drawing, Facts, Figure, PageSection, Table
from pesfit.report.page.figures import COLORS, RenderedFigure, clean_svg, render

PAGE, FIGURES, TABLES, NUMBERS = "index.html", "figures", "tables", "numbers.json"

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_CODE = re.compile(r"`([^`]+)`")
_DIGITS = 10
_Named = TypeVar("_Named", Table, Figure, Facts)


def write_report(output: Path, title: str, subtitle: str, sections: Sequence[PageSection]) -> None:
    """Write a report; bytes depend on the arguments alone.

    Writes to `output`: `index.html`, `figures/<name>.png`, `tables/<name>.csv`, and `numbers.json`, with an entry for each section
    that holds its tables and facts by name.

    Args:
        output: folder.
        title: heading of the page.
        subtitle: a line below it.
        sections: in order; everything in them is shown as text, whatever it holds.

    Raises:
        ValueError: if a name or an anchor cannot be a file's name or stands for two things, or a row lacks a column of its table.
    """
    _check(sections)
    figures = {figure.name: render(figure) for figure in _all(sections, Figure)}
    for folder in (FIGURES, TABLES):
        (output / folder).mkdir(parents=True, exist_ok=True)
    for name, rendered in figures.items():
        (output / FIGURES / f"{name}.png").write_bytes(rendered.png)
    for table in _all(sections, Table):
        _write_csv(output / TABLES / f"{table.name}.csv", table)
    write_json(output / NUMBERS, {section.id: _numbers(section) for section in sections}, indent=1, ascii_only=False)
    (output / PAGE).write_text(_make_page(title, subtitle, sections, figures), encoding="utf-8")


def prose(text: str) -> Markup:
    """Return a paragraph's text, escaped, with `code` between backticks as such."""
    return _trusted(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _all(sections: Sequence[PageSection], kind: type[_Named]) -> list[_Named]:
    return [block for section in sections for block in section.blocks if isinstance(block, kind)]


def _check(sections: Sequence[PageSection]) -> None:
    shown = _all(sections, Table)
    for kind, names in {
        "section": [section.id for section in sections],
        "figure": [figure.name for figure in _all(sections, Figure)],
        "table or list of facts": [table.name for table in shown] + [facts.name for facts in _all(sections, Facts)],
    }.items():
        for name, times in Counter(names).items():
            if _NAME.fullmatch(name) is None:
                raise ValueError(f"{kind} {name!r}: small letters, digits and hyphens are allowed in its name")
            if times > 1:
                raise ValueError(f"{kind} {name!r}: {times} have this name, one may")
    for table in shown:
        for row in table.rows:
            missing = [column.key for column in table.columns if column.key not in row]
            if missing:
                raise ValueError(f"table {table.name!r}: a row lacks {', '.join(missing)}; an empty cell is None")


def _keys(table: Table) -> list[str]:
    """Return keys in the order in which the rows have them, or the columns where there are none."""
    keys = dict.fromkeys(key for row in table.rows for key in row)
    return list(keys or dict.fromkeys(column.key for column in table.columns))


def _write_csv(path: Path, table: Table) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, _keys(table), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rounded(table.rows, _DIGITS))


def _numbers(section: PageSection) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for block in section.blocks:
        if isinstance(block, Table):
            found[block.name] = [{key: _json(row.get(key)) for key in _keys(block)} for row in block.rows]
        elif isinstance(block, Facts):
            found[block.name] = dict(block.items)
    return found


def _json(value: Cell) -> Cell:
    """Return a cell as JSON can hold it, which has no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else rounded(value, _DIGITS)


def _make_page(title: str, subtitle: str, sections: Sequence[PageSection], figures: Mapping[str, RenderedFigure]) -> str:
    """Return the page. It has no script and asks for nothing: style and figures are inside, and its policy forbids the rest."""
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_packaged),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["prose"] = prose
    return environment.get_template("page.html.jinja").render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        kind_of=lambda block: type(block).__name__,
        number_of=dict(_ordinals(sections)),
        figures={name: list(_graphics(rendered)) for name, rendered in figures.items()},
        head_of=tables.head,
        body_of=tables.body,
        span_of=lambda table: sum(1 + column.has_range for column in tables.head(table)),
        has_best=lambda table: any(column.best for column in table.columns),
        drawing_of=_drawing,
        style=_trusted(_variables() + _packaged("page.css")),
    )


def _packaged(name: str) -> str:
    return resources.files("pesfit.report.page").joinpath(name).read_text(encoding="utf-8")


def _trusted(markup: str) -> Markup:
    return Markup(markup)  # noqa: S704 - our own style sheet and drawings, and text that is escaped already


def _variables() -> str:
    light, dark = ("".join(f"--{color.name}: {getattr(color, theme)}; " for color in COLORS) for theme in ("light", "dark"))
    only = "@media screen and (prefers-color-scheme: dark)"
    return f":root {{ {light}}}\n{only} {{ :root {{ {dark}}} }}\n"


def _ordinals(sections: Sequence[PageSection]) -> Iterator[tuple[str, int]]:
    """Number tables and figures through the page, each from 1."""
    yield from ((f"Table/{table.name}", number) for number, table in enumerate(_all(sections, Table), start=1))
    yield from ((f"Figure/{figure.name}", number) for number, figure in enumerate(_all(sections, Figure), start=1))


def _graphics(rendered: RenderedFigure) -> Iterator[tuple[str, int, Markup]]:
    """Yield layout, width [pixel] and markup; the layout is `any` where there is one drawing for all."""
    for layout, graphic in (("wide", rendered.wide), ("narrow", rendered.narrow)):
        if graphic is not None:
            yield "any" if rendered.narrow is None else layout, graphic.width, _trusted(graphic.markup)


def _drawing(drawing: Drawing, prefix: str) -> Markup:
    return _trusted(clean_svg(drawing.svg, prefix=prefix))

"""A report as one page of HTML that needs nothing beside itself."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources

import jinja2
from markupsafe import Markup, escape

from pesfit.report.page import svg
from pesfit.report.page import table_html as cells
from pesfit.report.page.blocks import Block, Drawing, Figure, Section, Table
from pesfit.report.page.figures import COLORS, Rendered

_CODE = re.compile(r"`([^`]+)`")


def make_page(title: str, subtitle: str, sections: Sequence[Section], figures: Mapping[str, Rendered]) -> str:
    """Return the page. It has no script and asks for nothing: style and figures are inside, and its policy forbids the rest.

    Args:
        title: its heading.
        subtitle: a line below.
        sections: in order; everything in them is shown as text, whatever it holds.
        figures: each figure of the sections, rendered, by name.
    """
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_packaged),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["prose"] = prose
    template = environment.get_template("page.html.jinja")
    return template.render(
        title=title,
        subtitle=subtitle,
        sections=sections,
        kind_of=lambda block: type(block).__name__,
        number_of=_numbered(sections),
        figures={name: _graphics(rendered) for name, rendered in figures.items()},
        head_of=cells.head,
        body_of=cells.body,
        span_of=lambda table: sum(1 + column.has_range for column in cells.head(table)),
        has_best=lambda table: any(column.best for column in table.columns),
        drawing_of=_drawing,
        style=_trusted(_variables() + _packaged("page.css")),
    )


def prose(text: str) -> Markup:
    """Return a paragraph's text, escaped, with `code` between backticks as such."""
    return _trusted(_CODE.sub(r"<code>\1</code>", str(escape(text))))


def _packaged(name: str) -> str:
    return resources.files("pesfit.report.page").joinpath(name).read_text(encoding="utf-8")


def _trusted(markup: str) -> Markup:
    return Markup(markup)  # noqa: S704 - our own style sheet and drawings, and text that is escaped already


def _variables() -> str:
    light, dark = ("".join(f"--{color.name}: {getattr(color, theme)}; " for color in COLORS) for theme in ("light", "dark"))
    only = "@media screen and (prefers-color-scheme: dark)"
    return f":root {{ {light}}}\n{only} {{ :root {{ {dark}}} }}\n"


def _numbered(sections: Sequence[Section]) -> Mapping[str, int]:
    """Number tables and figures through the page, each from 1."""
    numbers: dict[str, int] = {}
    for kind in (Table, Figure):
        named: Iterator[Block] = (block for section in sections for block in section.blocks if isinstance(block, kind))
        numbers |= {f"{kind.__name__}/{getattr(block, 'name', '')}": number for number, block in enumerate(named, start=1)}
    return numbers


def _graphics(rendered: Rendered) -> list[tuple[str, int, Markup]]:
    """Return for which width of the page, how wide, and the drawing."""
    if rendered.narrow is None:
        return [("any", rendered.wide.width, _trusted(rendered.wide.markup))]
    return [
        (name, graphic.width, _trusted(graphic.markup))
        for name, graphic in (("wide", rendered.wide), ("narrow", rendered.narrow))
    ]


def _drawing(drawing: Drawing, prefix: str) -> Markup:
    return _trusted(svg.clean(drawing.svg, prefix=prefix))

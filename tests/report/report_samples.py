"""Sections with typical and with hostile content."""

from __future__ import annotations

from matplotlib.figure import Figure as Canvas

from pesfit.report.page.blocks import Drawing, Facts, Figure, Gallery, Layout, PageSection, Table, TableColumn, Text
from pesfit.report.page.figures import panels

HOSTILE = "</td></style><script>alert('x')</script><img src=https://example.org/x onerror=alert(1)>&amp;\"'`<b>`"
LONG = "phenylmethylsulfanyl" * 12
DRAWING = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><path id="a" d="M 0 0 L 9 9" style="stroke: currentColor"/></svg>'

COLUMNS = (
    TableColumn("potential", HOSTILE),
    TableColumn("error", "force MAE", "kcal/mol/Å", interval="error", best="lowest"),
    *(TableColumn(f"more{number}", f"another long heading {number}", "kcal/mol/ps/atom") for number in range(8)),
)


def row(name: str, error: float | None, **more: str) -> dict[str, str | float | int | bool | None]:
    numbers = {f"more{number}": 1000.0 / (1 + number) for number in range(8)}
    low, high = (None, None) if error is None else (0.9 * error, 1.1 * error)
    return {"potential": name, "error": error, "error_low": low, "error_high": high, **numbers, **more}


def draw(layout: Layout) -> Canvas:
    canvas, axes = panels(layout, 3)
    for each in axes:
        each.plot([0.0, 1.0], [0.0, 1.0], label=HOSTILE[:40])
        each.set_title(HOSTILE[:30])
    return canvas


def draw_fixed(_: Layout) -> Canvas:
    canvas = Canvas(figsize=(8.0, 2.0))
    canvas.add_subplot().plot([0.0, 1.0], [1.0, 0.0])
    return canvas


def sections() -> list[PageSection]:
    rows = [row("a", 1.0, source="one"), row(HOSTILE, 0.5, source="one"), row(LONG, None, source=HOSTILE)]
    return [
        PageSection(
            "first",
            "The first section",
            [
                Text("With `code` and " + HOSTILE),
                Text("Mind this.", tone="warning"),
                Facts("facts", [("profile", "`small`"), (HOSTILE, LONG)]),
                Table("open", "An open table", COLUMNS, rows, note=HOSTILE, group="source"),
                Table("folded", "A folded table", COLUMNS, rows, folded=True),
                Table("empty", "An empty table", COLUMNS, []),
            ],
        ),
        PageSection(
            "second",
            HOSTILE,
            [
                Figure("panels", "Panels " + HOSTILE, HOSTILE, draw, note=HOSTILE),
                Figure("fixed", "Fixed", "A line that falls.", draw_fixed),
                Gallery(HOSTILE, [Drawing(DRAWING, HOSTILE), Drawing(DRAWING, LONG)], note=HOSTILE),
            ],
        ),
    ]

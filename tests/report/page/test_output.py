"""A report on disk, and its page."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pesfit.report.page.blocks import Facts, PageSection, Table, TableColumn, Text
from pesfit.report.page.output import prose, write_report
from tests.report.report_samples import HOSTILE, LONG, sections


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def table(rows: list[dict[str, str | float | int | bool | None]], name: str = "t") -> PageSection:
    return PageSection("s", "S", [Table(name, "T", (TableColumn("name", "name"), TableColumn("value", "value")), rows)])


def test_same_sections_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_report(tmp_path / name, "Title", "Subtitle", sections())
    found = hashes(tmp_path / "one")
    assert found == hashes(tmp_path / "two")
    assert set(found) == {
        "index.html",
        "numbers.json",
        "figures/panels.png",
        "figures/fixed.png",
        "tables/open.csv",
        "tables/folded.csv",
        "tables/empty.csv",
    }


def test_files_have_all_digits_and_all_keys(tmp_path: Path) -> None:
    value = math.pi * 1e-7
    rows = [{"name": 'comma, quote " and\nline', "value": value, "more": None}, {"name": "b", "value": math.inf, "more": True}]
    section = PageSection("s", "S", [*table(rows).blocks, Facts("facts", [("profile", "small")]), Text("text")])
    write_report(tmp_path, "Title", "", [section])
    with (tmp_path / "tables/t.csv").open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert first["name"] == rows[0]["name"]
    assert float(first["value"]) == pytest.approx(value, rel=1e-9)
    assert (second["value"], second["more"]) == ("inf", "True")
    numbers = json.loads((tmp_path / "numbers.json").read_text())["s"]
    assert numbers["facts"] == {"profile": "small"}
    assert numbers["t"][0]["value"] == pytest.approx(value, rel=1e-9)
    assert numbers["t"][1] == {"name": "b", "value": None, "more": True}  # JSON knows no infinity
    assert "3.14·10⁻⁷" in (tmp_path / "index.html").read_text()


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    write_report(tmp_path, "Title", "", [table([])])
    assert (tmp_path / "tables/t.csv").read_text() == "name,value\n"


@pytest.mark.parametrize("name", ["xtb/conformers", "../x", "A", "", "a b", "a--b"])
def test_a_name_is_a_files_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="small letters, digits and hyphens"):
        write_report(tmp_path, "Title", "", [table([], name)])
    assert not any(tmp_path.iterdir())


def test_two_things_have_two_names(tmp_path: Path) -> None:
    twice = PageSection("s", "S", [*table([]).blocks, Facts("t", [])])
    with pytest.raises(ValueError, match="table or list of facts 't': 2 have this name"):
        write_report(tmp_path, "Title", "", [twice])
    with pytest.raises(ValueError, match="section 's': 2 have this name"):
        write_report(tmp_path, "Title", "", [table([]), PageSection("s", "S")])


def test_a_row_has_all_columns(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a row lacks value"):
        write_report(tmp_path, "Title", "", [table([{"name": "a"}])])


class Reader(HTMLParser):
    """Notes elements, with their attributes and the text in them."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def of(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


@pytest.fixture(scope="module", name="page")
def _page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder: Path = tmp_path_factory.mktemp("report")
    write_report(folder, HOSTILE, HOSTILE, sections())
    return (folder / "index.html").read_text()


def test_what_comes_from_data_stays_text(page: str) -> None:
    read = Reader(page)
    assert {tag for tag, _ in read.elements}.isdisjoint({"script", "img", "iframe", "object"})
    assert not [name for _, attributes in read.elements for name in attributes if name.startswith("on")]
    assert "".join(read.texts).count("alert('x')") > 10
    assert HOSTILE not in page


def test_it_asks_for_nothing(page: str) -> None:
    read = Reader(page)
    (policy,) = [each for each in read.of("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert read.of("link") == [{"rel": "icon", "href": "data:,"}]
    assert {value.split(":")[0] for _, each in read.elements if (value := each.get("src"))} <= {"data"}
    assert "@import" not in page
    assert "@font-face" not in page
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style


def test_links_lead_to_places_and_to_files_beside_it(page: str) -> None:
    read = Reader(page)
    ids = [value for _, attributes in read.elements if (value := attributes.get("id"))]
    assert len(ids) == len(set(ids))
    links = [value for each in read.of("a", "use") if (value := each["href"]) is not None]
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    files = {link for link in links if not link.startswith("#")}
    assert files == {
        "tables/open.csv",
        "tables/folded.csv",
        "tables/empty.csv",
        "figures/panels.png",
        "figures/fixed.png",
        "numbers.json",
    }


def test_headings_are_in_order_and_listed(page: str) -> None:
    read = Reader(page)
    assert [tag for tag, _ in read.elements if tag in {"h1", "h2", "h3", "h4"}] == ["h1", "h2", "h2"]
    nav = page[page.index("<nav") : page.index("</nav>")]
    assert nav.index("#first") < nav.index("#second")


def test_pictures_have_words_and_tables_have_captions(page: str) -> None:
    read = Reader(page)
    ids = {value for _, attributes in read.elements if (value := attributes.get("id"))}
    pictures = [each for _, each in read.elements if each.get("role") == "img"]
    assert len(pictures) == 2 + 1 + 2  # one for each width, one that is the same for both, two molecules
    assert all(each.get("aria-label") for each in pictures)
    assert all(each.get("aria-hidden") == "true" for each in read.of("svg"))
    assert len(read.of("table")) == 3
    assert {each["aria-labelledby"] for each in read.of("table")} <= ids
    assert all(each.get("scope") for each in read.of("th"))


def test_tables_and_figures_are_numbered(page: str) -> None:
    text = "".join(Reader(page).texts)
    for name in ("Table 1.", "Table 2.", "Table 3.", "Figure 1.", "Figure 2."):
        assert text.count(name) == 1


def test_folded_tables_are_closed(page: str) -> None:
    assert [tag for tag, _ in Reader(page).elements if tag == "details"] == ["details"]
    assert "(3 rows)" in page


def test_the_rows_of_a_group_stand_below_its_name(page: str) -> None:
    table = page[page.index('id="table-open"') : page.index('id="table-folded"')]
    read = Reader(table)
    (width,) = {each["colspan"] for each in read.of("th") if each.get("scope") == "rowgroup"}
    assert (
        int(str(width)) == len([each for each in read.of("th") if each.get("scope") in {"col", "colgroup"}]) + 1
    )  # an interval
    assert LONG in table


def test_code_stands_between_backticks() -> None:
    assert prose("a `b < c` d <e>") == "a <code>b &lt; c</code> d &lt;e&gt;"
    assert prose("one ` alone") == "one ` alone"

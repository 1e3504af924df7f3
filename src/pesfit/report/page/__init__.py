"""A page of HTML from blocks, which hold the content of a report.

`blocks` is the vocabulary of sections: `PageSection`, `Text`, `Facts`, `Table`, `Figure`, `Gallery`. `tables` formats numbers and cells.
`figures` has names and colors of potentials, and helpers that figures are drawn with; it renders them for light and dark themes, wide
pages and phones. `output` writes a report: the page (`page.html.jinja`, `page.css`), and every figure as PNG, every table as CSV, all
numbers as JSON.
"""

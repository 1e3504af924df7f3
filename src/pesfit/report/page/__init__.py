"""A page of HTML from blocks, without knowledge of what they are about.

`blocks` is the vocabulary of sections: `PageSection`, `Text`, `Facts`, `Table`, `Figure`, `Gallery`. `tables` formats numbers and cells.
`figures` has the colors and helpers that figures are drawn with, and renders them for light and dark themes, wide pages and phones.
`output` writes a report: the page (`page.html.jinja`, `page.css`), and every figure as PNG, every table as CSV, all numbers as JSON.
"""

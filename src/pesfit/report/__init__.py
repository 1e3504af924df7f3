"""Stage 09: the test errors, simulations and uncertainties of all potentials, as one page of HTML with CSV, PNG and JSON beside it.

Read `build` first: it opens the models, has `evaluate` compute, and lists the sections in their order on the page. `reading` opens the
metrics and tables of earlier stages. `sections/` has a module for each section of the page, `page/` writes it. To add a section, write a
function that returns a `page.blocks.PageSection`, and call it in `build.analyse`.
"""

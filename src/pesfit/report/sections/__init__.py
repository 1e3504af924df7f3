"""One module for each section of the report: values in, blocks (text, tables, figures) out. Nothing here writes files or HTML.

In the order of the page: `summary` (the first screen), `run` (data, splits, parameters, versions; failures, which come last), `errors`
(test errors, published errors), `parity`, `breakdown` (errors by element, energy, size and molecule), `rollouts` with `rollout_traces`
(simulations), `uncertainty`, `learning`, `parameters`. Where a section reads outputs of a stage, its module has a class with a method
`read` and the function `section` that shows it.
"""

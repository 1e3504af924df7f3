"""The exact fit: the objective is a quadratic of the parameters, so one pass over the data and one bounded solve find its optimum.

Read in this order:

- `molecule_statistics`: `MoleculeStatistics`, sums over the conformers of a molecule, small and additive, and enough for every energy zero,
  weight and error that follows.
- `accumulate`: one pass over the data in worker processes; `FitEquations`, normal equations of each split.
- `landscapes`: `LandscapeSet`, rows of minima and scans, linear in the same parameters; `landscape_data`: which molecules have them.
- `solve`: `fit_exactly`, prior strength, bounded optimum, posterior, and the path over prior strengths.
"""

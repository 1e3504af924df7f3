"""Errors, their intervals, and linear-Gaussian regression: numbers alone, without molecules or models.

Read `errors` first: the table of errors that stages 06, 07 and 09 fill, the definition of every key of their metrics (`summarize`), and
then `resampling`, the one rule for intervals of 95 %: over molecules, over blocks of the frames of a single molecule, or none.

The exact fits are the other half: `normal_equations` (`Moments`, `NormalEquations`, sums over the data that add), `linear_gaussian`
(prior strength by evidence, posterior within bounds) and `quadratic` (convex quadratic programs with linear inequalities, and their
optimality conditions). SMIRNOFF parameters and the last layer of the network are fitted by these.
"""

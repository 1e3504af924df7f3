"""Evaluation of fitted models on labeled conformers: predictions, errors, calibration, uncertainty.

Read in this order: `labeled_rows` (`LabeledRow`, conformers of a row of a data set with labels), `predictions` (`predict_rows` and
`predict_test` in worker processes, `Predictions`; `summaries` of their errors with the definitions of `pesfit.statistics.errors`),
`breakdown` (errors by element, energy and size), `calibrate` (the last step of stages 06 and 07: factors for standard deviations from the
validation set), `uncertainty_scores` (`score_models`: calibration and ranking on the test set) with `out_of_distribution` (scores of
other molecules and of probes against those of the test set).

Here is computed what `pesfit.report` shows, and what stages print as metrics.
"""

"""Predicted standard deviations, as arrays: what they are, their correction, and their scores. No model is opened here.

Read in this order: `standard_deviations` (`StandardDeviations` of energies and forces, and `Uncertainty`, the interface of whatever
predicts them: the posterior of SMIRNOFF parameters, that of a network's last layer, an ensemble), `calibration` (`Scale` and
`Calibration`: factors from the validation set and thresholds of the score above which a conformer is out of distribution, stored as
`calibration.json`), `scores` (`judge`: likelihood, coverage, rank correlation; `auroc`).

Models are calibrated and scored in `pesfit.evaluate`.
"""

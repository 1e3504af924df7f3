"""How good a potential is at what its users look at: minima, conformer energies, harmonic frequencies, torsion profiles.

From each minimum of the labeling method the potential relaxes, and where it ends is compared with where it started; frequencies are
compared at the minima of each; torsion scans are relaxed again. After V. T. Lim, D. F. Hahn, G. Tresadern, C. I. Bayly, D. L. Mobley,
F1000Research 9, 1390 (2020), and L. D'Amore et al., J. Chem. Inf. Model. 62, 6094 (2022).

Read `comparison` (one molecule, one potential, all measures), then `build` (all of them, in worker processes, into tables), then `summary`
(over molecules, with intervals).
"""

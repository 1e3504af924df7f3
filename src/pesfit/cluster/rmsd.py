"""Root-mean-square distances between all pairs of conformers after optimal superposition, without superimposing any.

For centered coordinates X, Y of shape (n_atoms, 3), the smallest RMSD that a rotation can reach is

    rmsd² = 2 (E0 - λ) / n_atoms,    E0 = (|X|² + |Y|²) / 2,

where λ is the largest eigenvalue of a symmetric, traceless 4x4 matrix K made of the entries of M = Xᵀ Y (`_key_matrices`).
It is the largest root of

    P(λ) = λ⁴ + c2 λ² + c1 λ + c0,    c2 = -2 |M|²,    c1 = -8 det M,    c0 = |M|⁴ - 4 |cof M|².

The last form of c0 follows from the singular values s of M: the roots are ±s1 ± s2 ± s3 with an even number of minus signs
(or odd, where det M < 0), so that c0 = (Σ s²)² - 4 Σ s_i² s_j², and the second sum is the squared norm of the cofactor matrix.
Rotations alone are allowed: mirror images stay apart.

References:
    D. L. Theobald, Acta Cryst. A61, 478 (2005), doi:10.1107/S0108767305015266: E0, λ and Newton's method from E0.
    P. Liu, D. K. Agrafiotis, D. L. Theobald, J. Comput. Chem. 31, 1561 (2010), doi:10.1002/jcc.21439: precision and speed.
    B. K. P. Horn, J. Opt. Soc. Am. A 4, 629 (1987), doi:10.1364/JOSAA.4.000629: the matrix K.

====================  ========================================
`key`                 M, its nine entries in row order
`half_norms`          (|X|² + |Y|²) / 2, E0
`root`                μ = λ / E0, at most 1
====================  ========================================
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from pesfit.core.arrays import BoolArray, FloatArray, LongArray

_BLOCK = 96
"""Conformers on each side of a block of pairs: the temporaries of one block stay in the processor's cache."""

_MAX_NEWTON_STEPS = 24
_LAST_STEP = 1e-9
"""Newton's steps (of λ/E0) below this are the last: convergence is quadratic, so the next would be 1e-18."""

_MIN_SLOPE = 0.02
"""Where dP/dλ / E0³ at the root is below this (two roots nearly meet), the root of the polynomial loses digits that the
eigenvalues of K keep."""

_ROUNDING = 16.0 * np.finfo(np.float64).eps
"""Largest 1 - λ/E0 that rounding alone gives; below it two conformers are the same."""


def all_pairs_rmsd(coords: FloatArray, atom_orders: LongArray | None = None) -> FloatArray:
    """Return the RMSD of each pair of conformers, lowest over rotations, translations and, if asked for, atom orders.

    Args:
        coords: [Å], shape (n_conformers, n_atoms, 3).
        atom_orders: equivalent orders of the atoms, shape (n_orders, n_atoms), a group under composition
            (`representatives.equivalent_orders`); None compares atoms as they are numbered.

    Returns:
        [Å], symmetric with zeros on the diagonal, shape (n_conformers, n_conformers).
    """
    result = np.zeros((len(coords), len(coords)))
    for rows, columns, squared in _blocks(coords, atom_orders):
        result[rows, columns] = np.sqrt(squared)
        result[columns, rows] = result[rows, columns].T
    return result


def pairs_within(coords: FloatArray, cutoff: float, atom_orders: LongArray | None = None) -> BoolArray:
    """Say which conformers are at most a cutoff apart; one byte a pair, so that large molecules fit.

    Args:
        coords: [Å], shape (n_conformers, n_atoms, 3).
        cutoff: [Å], largest RMSD of neighbors.
        atom_orders: as in `all_pairs_rmsd`.

    Returns:
        symmetric with True on the diagonal, shape (n_conformers, n_conformers).
    """
    result = np.zeros((len(coords), len(coords)), dtype=np.bool_)
    for rows, columns, squared in _blocks(coords, atom_orders):
        result[rows, columns] = np.sqrt(squared) <= cutoff
        result[columns, rows] = result[rows, columns].T
    return result


def _blocks(coords: FloatArray, atom_orders: LongArray | None) -> Iterator[tuple[slice, slice, FloatArray]]:
    """Yield the squared RMSD of blocks of pairs that cover the upper triangle: rows, columns, [Å²]; those on the diagonal whole."""
    centered = coords - coords.mean(axis=1, keepdims=True)
    norms = np.einsum("cai,cai->c", centered, centered)
    axes = np.ascontiguousarray(centered.transpose(2, 0, 1))
    n_conformers, n_atoms = coords.shape[:2]
    for start in range(0, n_conformers, _BLOCK):
        rows = slice(start, min(start + _BLOCK, n_conformers))
        # Reordering the rows once for each symmetry serves all of their blocks.
        left = [axes[:, rows]] if atom_orders is None else [axes[:, rows][:, :, order] for order in atom_orders]
        for other in range(start, n_conformers, _BLOCK):
            columns = slice(other, min(other + _BLOCK, n_conformers))
            half_norms = 0.5 * (norms[rows, None] + norms[None, columns])
            gap = _superposition_gap(left[0], axes[:, columns], half_norms)
            for permuted in left[1:]:
                np.minimum(gap, _superposition_gap(permuted, axes[:, columns], half_norms), out=gap)
            if rows == columns:
                # Both halves are there, and differ by rounding; symmetric with zeros on the diagonal is what a caller counts on.
                gap = np.triu(gap, 1)
                gap += gap.T
            yield rows, columns, 2.0 / n_atoms * gap


def _superposition_gap(left: FloatArray, right: FloatArray, half_norms: FloatArray) -> FloatArray:
    """Return E0 - λ for all pairs of two sets of centered conformers.

    Args:
        left: [Å], shape (3, n_left, n_atoms).
        right: [Å], shape (3, n_right, n_atoms).
        half_norms: E0 [Å²], shape (n_left, n_right).

    Returns:
        [Å²], at least 0, shape (n_left, n_right).
    """
    key = np.stack([left[i] @ right[j].T for i in range(3) for j in range(3)])
    # Atoms that all lie on one point have E0 = 0, and any rotation superimposes them: the root is 1 whatever it is divided by.
    scale = np.where(half_norms > 0.0, half_norms, 1.0)
    key /= scale
    root, doubtful = _largest_root(key)
    if doubtful.any():
        root[doubtful] = np.linalg.eigvalsh(_key_matrices(key[:, doubtful]))[:, -1]
    gap = 1.0 - root
    gap[gap < _ROUNDING] = 0.0
    gap *= half_norms
    return gap


def _largest_root(key: FloatArray) -> tuple[FloatArray, BoolArray]:
    """Return the largest root of P by Newton's method from above, and where it is not to be relied on.

    Args:
        key: M / E0, shape (9, ...).

    Returns:
        λ / E0, shape (...), and whether the eigenvalues of K are needed instead.
    """
    xx, xy, xz, yx, yy, yz, zx, zy, zz = key
    cofactors = (
        yy * zz - yz * zy,
        yz * zx - yx * zz,
        yx * zy - yy * zx,
        xz * zy - xy * zz,
        xx * zz - xz * zx,
        xy * zx - xx * zy,
        xy * yz - xz * yy,
        xz * yx - xx * yz,
        xx * yy - xy * yx,
    )
    squared_norm = np.einsum("k...,k...->...", key, key)
    c2 = -2.0 * squared_norm
    c1 = -8.0 * (xx * cofactors[0] + xy * cofactors[1] + xz * cofactors[2])
    c0 = squared_norm * squared_norm
    for cofactor in cofactors:
        c0 -= 4.0 * cofactor * cofactor
    root = np.ones_like(c2)
    slope, step = np.ones_like(c2), np.ones_like(c2)
    for _ in range(_MAX_NEWTON_STEPS):
        square = root * root
        half_slope = root * (2.0 * square + c2)
        slope = 2.0 * half_slope + c1
        value = (square + c2) * square + c1 * root + c0
        step = value / np.where(slope > 0.0, slope, 1.0)
        root -= step
        if step.max() < _LAST_STEP:
            break
    return root, (slope < _MIN_SLOPE) | ~(np.abs(step) < _LAST_STEP)


def _key_matrices(key: FloatArray) -> FloatArray:
    """Return Horn's matrix K for each M.

    Args:
        key: shape (9, n).

    Returns:
        shape (n, 4, 4), symmetric.
    """
    xx, xy, xz, yx, yy, yz, zx, zy, zz = key
    rows = (
        (xx + yy + zz, yz - zy, zx - xz, xy - yx),
        (yz - zy, xx - yy - zz, xy + yx, zx + xz),
        (zx - xz, xy + yx, yy - xx - zz, yz + zy),
        (xy - yx, zx + xz, yz + zy, zz - xx - yy),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)

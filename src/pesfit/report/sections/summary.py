"""The first screen: the benchmark's table and figure, the main results in a few sentences, and one figure of errors and energy drift."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from pesfit.report.page.blocks import Block, Figure, Layout, PageSection, Text
from pesfit.report.page.figures import color_of, in_order, label_of, log_axis, name_rows, panels, series
from pesfit.report.page.tables import NARROW_SPACE, number
from pesfit.report.sections.rollouts import MoleculeDrift

_NETWORKS = ("conservative", "direct")


@dataclass(frozen=True)
class ForceError:
    """The force error of a potential on the test set of one source.

    Attributes:
        potential: its name.
        source: of the test conformers.
        value: [kcal/mol/Å].
        low: lower end of its interval; None where there is none, as for a single molecule.
        high: upper end.
    """

    potential: str
    source: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Headlines:
    """Content of the first screen.

    Attributes:
        measure: name of the force error, such as `force MAE`.
        errors: of each potential and source; sources in the order in which they are to be shown.
        drifts: of each potential with NVE simulations, for one molecule.
        stable: fraction of stable replicas in all simulations, 0 to 1, for each potential.
        more: sentences of other sections, such as one on calibration.
        first: blocks that come before all of these: the benchmark.
    """

    measure: str
    errors: Sequence[ForceError]
    drifts: Sequence[MoleculeDrift]
    stable: Mapping[str, float]
    more: Sequence[str] = ()
    first: Sequence[Block] = ()


def section(headlines: Headlines) -> PageSection:
    """Return the summary; its figure needs an error or a drift."""
    blocks: list[Block] = [*headlines.first, *(Text(sentence) for sentence in (*_sentences(headlines), *headlines.more))]
    if headlines.errors or headlines.drifts:
        blocks.append(_figure(headlines))
    return PageSection("summary", "Summary", blocks)


def _sentences(headlines: Headlines) -> Iterator[str]:
    for source in _sources(headlines):
        of = {error.potential: error.value for error in headlines.errors if error.source == source}
        parts = []
        if "smirnoff-initial" in of and "smirnoff" in of:
            before, after = number(of["smirnoff-initial"], 3), number(of["smirnoff"], 3)
            parts.append(f"SMIRNOFF {before} before the fit, {after} after")
        parts += [f"PaiNN {number(of[name], 3)} ({name})" for name in _NETWORKS if name in of]
        if parts:
            measure = headlines.measure[:1].upper() + headlines.measure[1:]
            yield f"{measure} on test conformers of `{source}`, kcal/mol/Å: {'; '.join(parts)}."
    drift = {each.potential: each for each in headlines.drifts}
    if "conservative" in drift and "direct" in drift:
        one, other = drift["conservative"].magnitude, drift["direct"].magnitude
        words = f"{number(one, 2)} kcal/mol/ps/atom with the conservative network, {number(other, 2)} with the direct one"
        times = f" ({number(other / one, 2)} times as much)" if one > 0.0 else ""
        yield f"Drift of the total energy in NVE simulations of `{headlines.drifts[0].molecule}`: {words}{times}."
    if headlines.stable:
        stable = (
            f"{label_of(name)} {100.0 * headlines.stable[name]:.0f}{NARROW_SPACE}%" for name in in_order(headlines.stable)
        )
        yield f"Replicas that were stable to the end of the simulation: {'; '.join(stable)}."


def _sources(headlines: Headlines) -> list[str]:
    return list(dict.fromkeys(error.source for error in headlines.errors))


def _figure(headlines: Headlines) -> Figure:
    sources, drifts = _sources(headlines), headlines.drifts
    names = in_order([each.potential for each in headlines.errors] + [each.potential for each in drifts])

    def draw(layout: Layout) -> Canvas:
        n_panels = len(sources) + bool(drifts)
        canvas, all_axes = panels(layout, n_panels, columns=min(4, n_panels), height=0.95 + 0.3 * len(names))
        for axes, source in zip(all_axes, sources, strict=False):
            _errors(axes, [error for error in headlines.errors if error.source == source], names)
            axes.set_title(source)
            axes.set_xlabel(f"{headlines.measure}, kcal/mol/Å")
        if drifts:
            axes = all_axes[-1]
            log_axis(axes, "x")
            _points(axes, {each.potential: each.magnitude for each in drifts}, names, 2)
            if positive := [each.magnitude for each in drifts if each.magnitude > 0.0]:
                axes.set_xlim(min(positive) / 4.0, max(positive) * 4.0)
            axes.set_title(drifts[0].molecule)
            axes.set_xlabel("|drift|, kcal/mol/ps/atom")
        for position, axes in enumerate(all_axes):
            name_rows(axes, [label_of(name) for name in names] if position == 0 or layout == "narrow" else [""] * len(names))
        return canvas

    told = [f"{label_of(error.potential)} {number(error.value, 3)} on {error.source}" for error in headlines.errors]
    told += [f"{label_of(drift.potential)} drifts by {number(drift.magnitude, 2)}" for drift in drifts]
    return Figure(
        "summary-forces",
        "Force error and NVE energy drift of every potential",
        f"{headlines.measure} in kcal/mol/Å and drift in kcal/mol/ps/atom: {'; '.join(told)}.",
        draw,
        note="Lower is better. Bars: 95 % intervals, where the test set is large enough for them. The drift axis is logarithmic.",
    )


def _errors(axes: Axes, errors: Sequence[ForceError], names: Sequence[str]) -> None:
    for error in errors:
        if error.low is not None and error.high is not None:
            row = names.index(error.potential)
            axes.plot([error.low, error.high], [row, row], color=color_of(error.potential), linewidth=1.4)
    _points(axes, {error.potential: error.value for error in errors}, names, 3)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.set_xlim(0.0, 1.15 * max([error.value for error in errors] + [error.high or 0.0 for error in errors]))


def _points(axes: Axes, values: Mapping[str, float], names: Sequence[str], digits: int) -> None:
    for potential, value in values.items():
        row = names.index(potential)
        axes.plot(value, row, **series(potential), markersize=7.0)
        axes.annotate(number(value, digits), (value, row), (0, 7), textcoords="offset points", ha="center", fontsize=8.0)

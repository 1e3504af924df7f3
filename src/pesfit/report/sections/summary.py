"""The first screen: what came out, in a few sentences, and the one figure to remember."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import MaxNLocator

from pesfit.evaluate.names import in_order, label_of
from pesfit.report.page.blocks import Block, Figure, Section, Text
from pesfit.report.page.figures import Palette, log_axis, panels
from pesfit.report.page.format_numbers import NARROW_SPACE, number
from pesfit.report.sections.rollout_measures import Drift

_NETWORKS = ("conservative", "direct")


@dataclass(frozen=True)
class ForceError:
    """The force error of a potential on the test set of one source.

    Attributes:
        potential: its name.
        source: of the test conformers.
        value: [kcal/mol/Å].
        low: end of its interval; None where there is none, as for a single molecule.
        high: likewise.
    """

    potential: str
    source: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Headlines:
    """What the first screen tells.

    Attributes:
        measure: name of the force error, such as `force MAE`.
        errors: of each potential and source; sources in the order in which they are to be shown.
        drifts: of each potential that was simulated at constant energy, for one molecule.
        stable: share of replicas of all simulations that came to their end, 0 to 1, for each potential.
        more: sentences of other sections, such as one on calibration.
    """

    measure: str
    errors: Sequence[ForceError]
    drifts: Sequence[Drift]
    stable: Mapping[str, float]
    more: Sequence[str] = ()


def section(headlines: Headlines) -> Section:
    """Return the summary; its figure needs an error or a drift."""
    blocks: list[Block] = [Text(sentence) for sentence in (*_sentences(headlines), *headlines.more)]
    if headlines.errors or headlines.drifts:
        blocks.append(_figure(headlines))
    return Section("summary", "Summary", blocks)


def _sentences(headlines: Headlines) -> Iterator[str]:
    for source in _sources(headlines.errors):
        of = {error.potential: error.value for error in headlines.errors if error.source == source}
        parts = []
        if "smirnoff-initial" in of and "smirnoff" in of:
            before, after = number(of["smirnoff-initial"], 3), number(of["smirnoff"], 3)
            parts.append(f"the fit takes SMIRNOFF from {before} to {after} kcal/mol/Å")
        networks = [f"{number(of[name], 3)} ({name})" for name in _NETWORKS if name in of]
        if networks:
            parts.append(f"the {'networks reach' if len(networks) > 1 else 'network reaches'} {' and '.join(networks)}")
        if parts:
            yield f"{headlines.measure[:1].upper()}{headlines.measure[1:]} on test conformers of `{source}`: {', '.join(parts)}."
    drift = {each.potential: each for each in headlines.drifts}
    if "conservative" in drift and "direct" in drift:
        one, other = drift["conservative"].magnitude, drift["direct"].magnitude
        words = f"{number(one, 2)} kcal/mol/ps/atom with the conservative network and {number(other, 2)} with the direct one"
        times = f", {number(other / one, 2)} times as much" if one > 0.0 else ""
        yield f"At constant energy the total energy of `{headlines.drifts[0].molecule}` drifts by {words}{times}."
    if headlines.stable:
        yield f"Replicas that came to their end whole: {'; '.join(_stable(headlines.stable))}."


def _stable(shares: Mapping[str, float]) -> Iterator[str]:
    for name in in_order(shares):
        yield f"{label_of(name)} {100.0 * shares[name]:.0f}{NARROW_SPACE}%"


def _sources(errors: Sequence[ForceError]) -> list[str]:
    return list(dict.fromkeys(error.source for error in errors))


def _figure(headlines: Headlines) -> Figure:
    sources = _sources(headlines.errors)
    names = in_order([error.potential for error in headlines.errors] + [drift.potential for drift in headlines.drifts])

    def draw(palette: Palette) -> Canvas:
        n_panels = len(sources) + bool(headlines.drifts)
        canvas, all_axes = panels(palette, n_panels, columns=min(4, n_panels), height=0.95 + 0.3 * len(names))
        for axes, source in zip(all_axes, sources, strict=False):
            _errors(axes, [error for error in headlines.errors if error.source == source], names, palette)
            axes.set_title(source)
            axes.set_xlabel(f"{headlines.measure}, kcal/mol/Å")
        if headlines.drifts:
            _drifts(all_axes[-1], headlines.drifts, names, palette)
            all_axes[-1].set_title(headlines.drifts[0].molecule)
            all_axes[-1].set_xlabel("|drift|, kcal/mol/ps/atom")
        for position, axes in enumerate(all_axes):
            labels = [label_of(name) for name in names] if position == 0 or palette.narrow else [""] * len(names)
            axes.set_yticks(range(len(names)), labels)
            axes.set_ylim(len(names) - 0.5, -0.75)
            axes.tick_params(axis="y", length=0)
            axes.grid(visible=False, axis="y")
            axes.spines["left"].set_visible(False)
        return canvas

    told = [f"{label_of(error.potential)} {number(error.value, 3)} on {error.source}" for error in headlines.errors]
    told += [f"{label_of(drift.potential)} drifts by {number(drift.magnitude, 2)}" for drift in headlines.drifts]
    return Figure(
        "summary",
        "Error and drift of every potential",
        f"{headlines.measure} in kcal/mol/Å and drift in kcal/mol/ps/atom: {'; '.join(told)}.",
        draw,
        note="Left is better. Bars: 95 % intervals from resampled molecules, where there are several. The drift's axis is logarithmic.",
    )


def _errors(axes: Axes, errors: Sequence[ForceError], names: Sequence[str], palette: Palette) -> None:
    for error in errors:
        row, color = names.index(error.potential), palette.color(error.potential)
        if error.low is not None and error.high is not None:
            axes.plot([error.low, error.high], [row, row], color=color, linewidth=1.4)
        axes.plot(error.value, row, palette.marker(error.potential), color=color, markersize=7.0)
        axes.annotate(number(error.value, 3), (error.value, row), (0, 7), textcoords="offset points", ha="center", fontsize=8.0)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axes.set_xlim(0.0, 1.15 * max([error.value for error in errors] + [error.high or 0.0 for error in errors]))


def _drifts(axes: Axes, drifts: Sequence[Drift], names: Sequence[str], palette: Palette) -> None:
    log_axis(axes, "x")
    for drift in drifts:
        row, color = names.index(drift.potential), palette.color(drift.potential)
        axes.plot(drift.magnitude, row, palette.marker(drift.potential), color=color, markersize=7.0)
        axes.annotate(
            number(drift.magnitude, 2), (drift.magnitude, row), (0, 7), textcoords="offset points", ha="center", fontsize=8.0
        )
    positive = [drift.magnitude for drift in drifts if drift.magnitude > 0.0]
    if positive:
        axes.set_xlim(min(positive) / 4.0, max(positive) * 4.0)

"""The plots of a report, drawn off screen as PNG bytes; the simulations draw figure 2.

The colours are the colour-blind-safe palette of Okabe and Ito. Markers, line styles and hatching
repeat the information for greyscale print. The background is white, so that a plot styles the same
on light and dark pages. Names are drawn literally, never parsed as formulas.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mamfed_common.plan import Stage
from mamfed_server.report.results import ARM_NAMES
from mamfed_server.run.round_choice import RoundChoice
from mamfed_server.run_folder.round_record import RoundRecord

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, GREY = "#E69F00", "#56B4E9", "#595959"
SITE_COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
SITE_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ((4, 2), (1.5, 1.5), (6, 2, 1, 2))
ARM_LOOKS = {
    "local": (ORANGE, "//"),
    "centralised": ("#C4C4C4", ".."),
    "personal": (SKY, "\\\\"),
    "federated": (BLUE, ""),
}
DPI = 130
LEGEND_LETTERS = 100
"""Number of letters that fit side by side in the legend under the curves."""

LineStyles = Mapping[str, Mapping[str, Any]]
"""Matplotlib's line properties, by site."""


class BarGroup(NamedTuple):
    """One site's bars.

    Attributes:
        name: The site.
        note: Text below the name, such as the number of images.
        dice: Mean Dice by arm, 0..1; None: not measured.
    """

    name: str
    note: str
    dice: Mapping[str, float | None]


def draw_curves(
    rounds: Sequence[RoundRecord], other_rounds: Mapping[str, Sequence[RoundRecord]]
) -> bytes:
    """Draw the training losses of both stages and the validation Dice of stage 2 by round.

    Args:
        rounds: Rounds of the federated arm.
        other_rounds: Rounds of other arms. Their mean validation Dice is drawn as a thin dashed
            line, for ``local-NAME`` in the colour of site NAME.
    """
    figure = Figure(figsize=(9, 7.4), layout="constrained")
    panels = figure.subplot_mosaic(
        [[Stage.PRETRAINING, Stage.FINETUNING], ["dice", "dice"]], height_ratios=(1, 1.25)
    )
    styles = _site_styles(rounds)
    for number, stage in enumerate(Stage, start=1):
        frame(panels[stage], f"Stage {number}, {stage}: training loss")
        _draw_losses(panels[stage], [r for r in rounds if r.stage is stage], styles)
    finetuning = [r for r in rounds if r.stage is Stage.FINETUNING]
    frame(panels["dice"], "Stage 2, finetuning: Dice on validation patients")
    _draw_validation(panels["dice"], finetuning, styles)
    _draw_other_arms(panels["dice"], other_rounds, styles)
    choice = RoundChoice(finetuning)
    if choice.chosen:
        numbers, smoothed = zip(*choice.smoothed, strict=True)
        panels["dice"].plot(
            numbers, smoothed, color="black", lw=1.2, dashes=(1, 1), label="all images, smoothed"
        )
        _mark_chosen(panels["dice"], choice.chosen.server_round)
    lines = {str(line.get_label()): line for a in panels.values() for line in a.get_lines()}
    named = {label: line for label, line in lines.items() if not label.startswith("_")}
    columns = max(1, min(4, LEGEND_LETTERS // max(map(len, named), default=1)))
    figure.legend(
        named.values(), named.keys(), loc="outside lower center", ncols=columns, frameon=False
    )
    return to_png(figure)


def draw_dice_bars(groups: Sequence[BarGroup]) -> bytes:
    """Draw mean Dice by site and arm. A missing value is labelled n/a, never drawn as 0.

    Args:
        groups: One per site, all with the same arms; at least one.
    """
    arms = list(groups[0].dice)
    width = 0.8 / len(arms)
    figure = Figure(figsize=(max(7.0, 1.9 * len(groups)), 3.8), layout="constrained")
    axes = figure.subplots()
    frame(axes, "Mean Dice on held-out images with malignancy", rounds=False)
    for index, arm in enumerate(arms):
        offset = (index - (len(arms) - 1) / 2) * width
        dice = {place + offset: group.dice[arm] for place, group in enumerate(groups)}
        _draw_bars(axes, arm, dice, width * 0.94)
    for place, group in enumerate(groups):
        label = f"{group.name}\n{group.note}"
        axes.text(place, -0.04, label, ha="center", va="top", parse_math=False)
    # These texts replace tick labels, in which matplotlib would parse formulas.
    axes.set_xticks(range(len(groups)), ["\n\n"] * len(groups))
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.tick_params(axis="x", length=0)
    axes.set_ylim(0, 1.08)
    figure.legend(loc="outside lower center", ncols=len(arms), frameon=False)
    return to_png(figure)


def to_png(figure: Figure) -> bytes:
    """Return a figure as PNG, on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _site_styles(rounds: Sequence[RoundRecord]) -> LineStyles:
    """Assign each site a colour and a marker; pairs repeat only after 42 sites."""
    sites = sorted({site for r in rounds for site in (*r.expected, *r.validation)})
    pairs = zip(sites, cycle(SITE_COLOURS), cycle(SITE_MARKERS), strict=False)
    return {s: {"color": c, "marker": m, "markersize": 5, "linewidth": 1.5} for s, c, m in pairs}


def _draw_losses(axes: Axes, rounds: Sequence[RoundRecord], styles: LineStyles) -> None:
    """Draw each site's loss; a round without its update is a gap, with a cross on the axis."""
    if not rounds:
        _write_centred(axes, "no rounds")
    for site in sorted({site for r in rounds for site in r.expected}):
        accepted = [r.accepted.get(site) for r in rounds]
        losses = [math.nan if c is None else _number(c.loss) for c in accepted]
        axes.plot([r.server_round for r in rounds], losses, label=site, **styles[site])
        lost = [r.server_round for r in rounds if site not in r.accepted]
        if lost:
            axes.plot(
                lost,
                [0.05] * len(lost),
                transform=axes.get_xaxis_transform(),
                color=styles[site]["color"],
                label=f"{site}, update missing",
                linestyle="",
                marker="x",
                markersize=9,
                markeredgewidth=2.5,
            )


def _draw_validation(axes: Axes, rounds: Sequence[RoundRecord], styles: LineStyles) -> None:
    axes.set_ylim(-0.02, 1.02)
    rounds = [r for r in rounds if r.validation]  # the plan may validate only some rounds
    numbers = [r.server_round for r in rounds]
    for site in sorted({site for r in rounds for site in r.validation}):
        scores = [r.validation.get(site) for r in rounds]
        dice = [math.nan if score is None else _number(score.dice) for score in scores]
        axes.plot(numbers, dice, label=site, **styles[site])
    means = [_number(r.mean_validation_dice) for r in rounds]
    if all(math.isnan(mean) for mean in means):
        _write_centred(axes, "no validation")
    else:
        axes.plot(numbers, means, color="black", lw=3.2, marker=".", label="mean of the sites")


def _draw_other_arms(
    axes: Axes, other_rounds: Mapping[str, Sequence[RoundRecord]], styles: LineStyles
) -> None:
    for (arm, rounds), dash in zip(other_rounds.items(), cycle(DASHES), strict=False):
        rated = [r for r in rounds if r.mean_validation_dice is not None]
        axes.plot(
            [r.server_round for r in rated],
            [_number(r.mean_validation_dice) for r in rated],
            color=styles.get(arm.removeprefix("local-"), {}).get("color", GREY),
            label=arm,
            linewidth=1.3,
            dashes=dash,
        )


def _mark_chosen(axes: Axes, server_round: int) -> None:
    axes.set_title(axes.get_title("left"), loc="left", fontsize=11, fontweight="bold", pad=18)
    axes.axvline(server_round, color="black", linewidth=1, linestyle=":", zorder=0)
    place = axes.get_xaxis_transform()
    text = f"round {server_round} chosen"
    axes.text(server_round, 1.01, text, transform=place, ha="center", va="bottom", fontsize=9)


def _draw_bars(axes: Axes, arm: str, dice: Mapping[float, float | None], width: float) -> None:
    """Draw one arm's bars; ``dice`` maps their horizontal positions to values."""
    colour, hatch = ARM_LOOKS.get(arm, (GREEN, "xx"))
    heights = [_number(value) for value in dice.values()]
    bars = axes.bar(
        list(dice), heights, width, label=ARM_NAMES.get(arm, arm), color=colour, hatch=hatch
    )
    for bar in bars:
        bar.set(edgecolor="#333333", linewidth=0.6)
    for place, value in dice.items():
        if value is None:
            axes.text(place, 0.015, "n/a", ha="center", fontsize=9, style="italic", color=GREY)
        else:
            axes.text(place, value + 0.015, f"{value:.2f}", ha="center", fontsize=9)


def frame(axes: Axes, title: str, *, rounds: bool = True) -> None:
    """Set up an empty plot, with rounds on the horizontal axis unless ``rounds`` is False."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.8)
    axes.set_axisbelow(True)
    if rounds:
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def _write_centred(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=GREY, style="italic")


def _number(value: float | None) -> float:
    return math.nan if value is None else value

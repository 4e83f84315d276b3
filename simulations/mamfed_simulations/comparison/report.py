"""Report a comparison of federations: one summary table, then the details."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from mamfed_common.metrics.bootstrap import Interval
from mamfed_common.metrics.detection import RATES
from mamfed_common.metrics.gains import Gain, compared
from mamfed_common.metrics.small_numbers import MARK, cautions, few_patients
from mamfed_simulations.comparison.design import CENTRALISED, LOCAL, MEANINGS, Comparison
from mamfed_simulations.comparison.picture import draw_dice
from mamfed_simulations.comparison.results import (
    OURS,
    YARDSTICKS,
    Outcomes,
    dice_chosen_of,
    dice_of,
    difference,
    marked_of,
    mean_difference,
    mean_over_sites,
    worst_first,
)
from mamfed_simulations.comparison.scores import SiteResult
from mamfed_simulations.reporting.pages import Account, Picture, Table, interval_text

NO_FIGURE = "n/a"

Cell = Callable[[SiteResult], str]


def account_of(
    comparison: Comparison, outcomes: Outcomes, command: str, left_out: Sequence[str]
) -> Account:
    """Return the tables, notes and picture of a comparison."""
    names = [site.name for site in comparison.sites]
    sites = worst_first(outcomes, names)
    size = comparison.plan.image_size
    return Account(
        title=f"mamfed federation: {', '.join(names)} at {size} x {size}",
        command=command,
        plans={"": comparison.plan},
        tables=[_main(outcomes, sites), *_details(outcomes, sites)],
        notes=[*_notes(comparison, outcomes), *left_out],
        verdicts=[*verdicts(outcomes, sites), *caution_lines(outcomes, sites)],
        pictures=[
            Picture(
                "dice.png",
                "Dice by site and arm",
                "Mean Dice of each arm at each site with its interval; numbers are in the table",
                "At threshold 0.5. Bars: 95 % intervals over test patients. Sites without "
                "malignant test images are omitted.",
                draw_dice(outcomes, sites),
            )
        ],
    )


def verdicts(outcomes: Outcomes, sites: Sequence[str]) -> list[str]:
    """Return sentences on where federating scored lower or higher than training alone."""
    lines = []
    for arm in OURS:
        differences = {site: difference(outcomes, arm, LOCAL, site) for site in sites}
        lines += compared(
            arm,
            "local training",
            [
                Gain(site, d.value, d.low, d.high, d.images, d.patients)
                for site, d in differences.items()
                if d is not None
            ],
        )
    return lines


def caution_lines(outcomes: Outcomes, sites: Sequence[str]) -> list[str]:
    """Return cautions about the means over sites."""
    behind = {site: min((r.images for r in _dice_at(outcomes, site)), default=0) for site in sites}
    return cautions(behind)


def _dice_at(outcomes: Outcomes, site: str) -> list[Interval]:
    results = (o.sites[site] for o in outcomes.values() if site in o.sites)
    return [figure for result in results if (figure := dice_of(result))]


def _main(outcomes: Outcomes, sites: Sequence[str]) -> Table:
    """Return one line per site, the worst first: every arm's Dice and the effect of federating."""
    ours = [arm for arm in OURS if arm in outcomes]
    pairs = [(arm, other) for arm in ours for other in YARDSTICKS if other in outcomes]
    rows = []
    for site in sites:
        cells = [_of(outcomes, arm, site, lambda r: _value(dice_of(r))) for arm in outcomes]
        cells += [_signed(difference(outcomes, arm, other, site)) for arm, other in pairs]
        cells += [_of(outcomes, arm, site, _marked) for arm in ours]
        rows.append([_counted(outcomes, site), *cells])
    means = [_value(mean_over_sites(outcome)) for outcome in outcomes.values()]
    means += [_signed(mean_difference(outcomes, arm, other, sites)) for arm, other in pairs]
    rows.append([f"mean of {_rated(outcomes)} sites", *means, *([""] * len(ours))])
    return Table(
        "Dice at 0.5 by site, the federation's worst first (malignant images of patients; images "
        "without malignancy)",
        [
            "site",
            *outcomes,
            *(f"{arm} - {other}" for arm, other in pairs),
            *(f"{arm}: breast marked" for arm in ours),
        ],
        rows,
    )


def _details(outcomes: Outcomes, sites: Sequence[str]) -> Iterator[Table]:
    """Yield one table per figure, with one line per arm."""
    yield _by_arm(outcomes, sites, "Dice at 0.5 [95 % over patients]", _dice)
    yield _by_arm(outcomes, sites, "Dice at the threshold that validation chose", _dice_chosen)
    for other in (name for name in YARDSTICKS if name in outcomes):
        rows = [
            [name, *(_signed(difference(outcomes, name, other, site)) for site in sites)]
            for name in outcomes
            if name != other
        ]
        if rows:
            yield Table(f"Dice at 0.5 minus that of {other}, paired", ["arm", *sites], rows)
    marked = "Marked share of the breast on images without malignancy, at 0.5 (images)"
    yield _by_arm(outcomes, sites, marked, _marked_interval)
    yield _by_arm(outcomes, sites, "Lesions found at 0.5, mean over seeds", _found)
    rates = ", ".join(f"{rate:g}" for rate in RATES)
    yield _by_arm(
        outcomes, sites, f"Sensitivity at {rates} false positives per image", _sensitivities
    )
    if any(len(r.seeds) > 1 for o in outcomes.values() for r in o.sites.values()):
        yield _by_arm(outcomes, sites, "Dice at 0.5 of each seed", _by_seed)


def _by_arm(outcomes: Outcomes, sites: Sequence[str], title: str, cell: Cell) -> Table:
    rows = [[name, *(_of(outcomes, name, site, cell) for site in sites)] for name in outcomes]
    return Table(title, ["arm", *sites], rows)


def _of(outcomes: Outcomes, arm: str, site: str, cell: Cell) -> str:
    result = outcomes[arm].sites.get(site)
    return NO_FIGURE if result is None else cell(result)


def _notes(comparison: Comparison, outcomes: Outcomes) -> list[str]:
    seeds = f"{len(comparison.seeds)} seed{'s' if len(comparison.seeds) > 1 else ''}"
    if comparison.folds is None:
        tested = f"{seeds}; the held-out patients are the same for all."
    else:
        tested = (
            f"{seeds} in {comparison.folds} folds: every patient is tested once per seed, by a "
            "model that never saw her; each fold trains with its own seed. Figures cover the "
            "images of all folds; false positives per image are counted at one score for all "
            "folds."
        )
    budget = "local and centralised training see as many images in total as the federation: a site "
    budget += "alone takes the steps that it takes in the federation, the pool those of all sites."
    return [
        f"{tested} Intervals: 95 %, bootstrap over test patients; they do not include the "
        "variation between seeds.",
        "Each arm's best round and threshold are chosen on validation patients of the training "
        "sites; leave-one-out never sees the tested site. Figures at 0.5 involve no choice.",
        *([f"Equal budgets: {budget}"] if {LOCAL, CENTRALISED} & outcomes.keys() else []),
        *(f"{name}: {MEANINGS[name]}." for name in outcomes),
        *missing_lines(outcomes),
    ]


def missing_lines(outcomes: Outcomes) -> list[str]:
    """Return one line per missing result, with the reason."""
    return [
        f"{name}: {what}: no result: {reason}"
        for name, outcome in outcomes.items()
        for what, reason in outcome.missing.items()
    ]


def _counted(outcomes: Outcomes, site: str) -> str:
    """Return a site's name with the image and patient counts of its row."""
    results = (o.sites[site] for o in outcomes.values() if site in o.sites)
    first = next(results, None)
    if first is None:
        return site
    dice, marked = dice_of(first), marked_of(first)
    malignant = f"{dice.images} of {dice.patients}" if dice else "0"
    return f"{site} ({malignant}; {marked.images if marked else 0})"


def _rated(outcomes: Outcomes) -> int:
    rated = {n for o in outcomes.values() for n, result in o.sites.items() if result.patients}
    return len(rated)


def _value(interval: Interval | None) -> str:
    return NO_FIGURE if interval is None else f"{interval.value:.3f}"


def _signed(interval: Interval | None) -> str:
    return NO_FIGURE if interval is None else interval_text(interval, signed=True)


def _dice(result: SiteResult) -> str:
    figure = dice_of(result)
    return interval_text(figure) if figure else NO_FIGURE


def _dice_chosen(result: SiteResult) -> str:
    figure = dice_chosen_of(result)
    return interval_text(figure) if figure else NO_FIGURE


def _marked(result: SiteResult) -> str:
    figure = marked_of(result)
    return f"{figure.value:.1%}" if figure else NO_FIGURE


def _marked_interval(result: SiteResult) -> str:
    figure = marked_of(result)
    if figure is None:
        return NO_FIGURE
    if figure.low is None or figure.high is None:
        return f"{figure.value:.2%} [n/a] ({figure.images})"
    mark = MARK * few_patients(figure.patients)
    return f"{figure.value:.2%} [{figure.low:.2%}, {figure.high:.2%}]{mark} ({figure.images})"


def _found(result: SiteResult) -> str:
    return f"{result.lesions_found:.1f} of {result.lesions}" if result.lesions else NO_FIGURE


def _sensitivities(result: SiteResult) -> str:
    if result.sensitivity_at is None:
        return NO_FIGURE
    return ", ".join(f"{share:.2f}" for share in result.sensitivity_at)


def _by_seed(result: SiteResult) -> str:
    return ", ".join(f"{dice:.3f}" for dice in result.dice_by_seed()) or NO_FIGURE

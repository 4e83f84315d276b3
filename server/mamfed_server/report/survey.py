"""Say from the sites' surveys whether they can train together, each statement with its numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from mamfed_common.domain import PARTS, PURPOSES
from mamfed_common.metrics.small_numbers import FEW_PATIENTS, UNEVEN
from mamfed_common.plan import EvaluationPlan
from mamfed_common.runtime.files import write_atomic
from mamfed_common.runtime.wording import counted
from mamfed_common.security.survey import MEASURES, PART_WORDS, Measure, Survey

FEW_IN_ALL = 100
"""Malignant patients of all sites below which a gain is hard to tell from chance: a test part of a
fifth then has fewer than 20."""
FEW_SITES = 3
"""A site's policy by default follows no plan that averages fewer (``bounds.min_min_sites``)."""
UNLIKE_SPACING = 1.5
"""Ratio of two sites' mean spacings from which the same lesion has another size in pixels."""
UNLIKE_TONE = 0.1
"""Difference of two sites' mean tones, of 0..1, from which norms by group are recommended."""

Level = Literal["ok", "warning", "failed"]


class Statement(NamedTuple):
    """A statement, and whether it is good news."""

    level: Level
    text: str


def judge(surveys: Sequence[Survey]) -> list[Statement]:
    """Return what the surveys say, the verdict first."""
    points = [
        *_enough(surveys),
        *_validation(surveys),
        *_spacing(surveys),
        *_media(surveys),
        *_makers(surveys),
        *_tones(surveys),
        *_shares(surveys),
    ]
    levels = {point.level for point in points}
    names = _joined([survey.site for survey in surveys])
    if "failed" in levels:
        verdict = Statement("failed", f"{names} cannot train together as they are.")
    elif "warning" in levels:
        verdict = Statement("warning", f"{names} can train together; read what to mind below.")
    else:
        verdict = Statement("ok", f"{names} can train together.")
    return [verdict, *points]


def malignant(survey: Survey) -> int:
    """Return at least how many patients with a malignant outline a site has; 0 if it withholds."""
    cell = survey.uses.get("malignant")
    return cell.patients if cell else 0


def write_page(surveys: Sequence[Survey], out: Path) -> None:
    """Write the statements and tables as one HTML page that needs no network and no script."""
    environment = Environment(
        loader=PackageLoader("mamfed_server.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("survey.html.j2").render(
        surveys=surveys,
        statements=judge(surveys),
        titles=MEASURES,
        divided=[p for p in PURPOSES if any(p in survey.parts for survey in surveys)],
        part_words={part: PART_WORDS[part] for part in PARTS},
        groups=[
            (title, sorted({name for survey in surveys for name in getattr(survey, key)}), key)
            for key, title in (
                ("uses", "Patients and images by use"),
                ("media", "Patients and images by what took them"),
                ("makers", "Patients and images by maker"),
                ("views", "Patients and images by view"),
            )
        ],
    )
    write_atomic(out, page)


def _enough(surveys: Sequence[Survey]) -> Iterator[Statement]:
    counts = {survey.site: malignant(survey) for survey in surveys}
    told = _joined([f"{site} {count}" for site, count in counts.items()])
    if len(surveys) < FEW_SITES:
        yield Statement(
            "warning",
            f"{counted(len(surveys), 'site')}: by default a site follows only plans that average "
            f"{FEW_SITES} or more.",
        )
    small = [survey for survey in surveys if malignant(survey) < FEW_PATIENTS]
    for survey in small:
        many = f"{malignant(survey)} or more" if malignant(survey) else "none, or too few to tell"
        yield Statement(
            "warning",
            f"{survey.site} is too small for a round of stage 2: patients with a malignant "
            f"outline: {many}; a round needs {FEW_PATIENTS} (policy.min_patients_a_round), or half "
            "of a site's patients. It can take part in stage 1 with benign images.",
        )
    if len(surveys) - len(small) < 2:
        yield Statement(
            "failed",
            f"Patients with a malignant outline, at least: {told}. Fewer than two sites have "
            f"{FEW_PATIENTS}, so there is nothing to average.",
        )
    elif (total := sum(counts.values())) < FEW_IN_ALL:
        yield Statement(
            "warning",
            f"At least {total} patients with a malignant outline in all ({told}); with fewer than "
            f"{FEW_IN_ALL}, a gain is hard to tell from chance.",
        )
    else:
        yield Statement(
            "ok", f"At least {total} patients with a malignant outline in all ({told})."
        )


def _validation(surveys: Sequence[Survey]) -> Iterator[Statement]:
    """Say which sites have too few validation patients, by their parts or the default plan's."""
    share = EvaluationPlan().validation_fraction
    for survey in surveys:
        if not malignant(survey):  # said already
            continue
        known = survey.parts.get("malignant")
        least = max(FEW_PATIENTS, survey.minimum)
        many = known["val"].patients if known and "val" in known else 0
        many = many if survey.parts else int(share * malignant(survey))
        if many >= least:
            continue
        found = f"{many} or more" if many else "none, or too few to tell"
        if not survey.parts:
            found = f"about {many} or more, if a plan keeps {share:.0%} as by default"
        yield Statement(
            "warning",
            f"{survey.site} has too few patients for validation: with a malignant outline {found}; "
            f"scores over fewer than {least} stay there (policy.min_patients_to_report) or say "
            "little, so the other sites choose the round and the threshold. A larger "
            "evaluation.validation_fraction in the plan helps.",
        )


def _spacing(surveys: Sequence[Survey]) -> Iterator[Statement]:
    means = _means(surveys, "spacing_mm")
    if without := [survey.site for survey in surveys if survey.site not in means]:
        yield Statement(
            "warning",
            f"No pixel spacing of {_joined(without)}: lesions there have no known size; it is "
            "withheld, or belongs into the column spacing_mm of labels.csv.",
        )
    if len(means) > 1:
        told = _joined([f"{site} {mean:g}" for site, mean in means.items()])
        if max(means.values()) >= UNLIKE_SPACING * min(means.values()):
            yield Statement(
                "warning",
                f"Pixel spacings are unlike: mean in mm {told}. Images are scaled to the breast, "
                "so training works, but the finest have detail that others lack.",
            )
        else:
            yield Statement("ok", f"Pixel spacings are alike: mean in mm {told}.")


def _media(surveys: Sequence[Survey]) -> Iterator[Statement]:
    kinds = {
        kind: [survey.site for survey in surveys if kind in survey.media]
        for kind in ("film", "digital", "unknown")
    }
    if kinds["film"] and kinds["digital"]:
        yield Statement(
            "warning",
            f"Film ({_joined(kinds['film'])}) and digital images ({_joined(kinds['digital'])}): "
            "give each a group of norms (federation.norm_groups in the plan).",
        )
    if kinds["unknown"]:
        yield Statement(
            "warning",
            f"Nothing says whether images of {_joined(kinds['unknown'])} are film or digital; ask.",
        )


def _makers(surveys: Sequence[Survey]) -> Iterator[Statement]:
    main = {
        survey.site: max(survey.makers, key=lambda name: survey.makers[name].images)
        for survey in surveys
        if survey.makers
    }
    if not main:
        return
    told = _joined([f"{site} {maker}" for site, maker in main.items()])
    if len(set(main.values())) > 1:
        yield Statement("warning", f"Most images are of different makers: {told}; compare tones.")
    else:
        yield Statement("ok", f"Most images are of one maker: {told}.")


def _tones(surveys: Sequence[Survey]) -> Iterator[Statement]:
    tones: tuple[Measure, ...] = ("tone_25", "tone_50", "tone_75")
    spreads = {
        tone: max(means.values()) - min(means.values())
        for tone in tones
        if len(means := _means(surveys, tone)) > 1
    }
    if not spreads:
        return
    widest = max(spreads, key=lambda tone: spreads[tone])
    told = _joined([f"{site} {mean:.2f}" for site, mean in _means(surveys, widest).items()])
    if spreads[widest] >= UNLIKE_TONE:
        yield Statement(
            "warning",
            f"Tones are unlike: {MEASURES[widest]}: {told}. Give sites with like tones a group of "
            "norms (federation.norm_groups in the plan).",
        )
    else:
        yield Statement("ok", f"Tones are alike: {MEASURES[widest]}: {told}.")


def _shares(surveys: Sequence[Survey]) -> Iterator[Statement]:
    images = {s.site: s.uses["malignant"].images for s in surveys if "malignant" in s.uses}
    if len(images) < 2:
        return
    told = _joined([f"{site} {count}" for site, count in images.items()])
    if max(images.values()) >= UNEVEN * max(1, min(images.values())):
        yield Statement(
            "warning",
            f"Shares are unlike: malignant images {told}. The plan limits the largest "
            "(federation.max_share_ratio).",
        )
    else:
        yield Statement("ok", f"Shares are not far apart: malignant images {told}.")


def _means(surveys: Sequence[Survey], measure: Measure) -> dict[str, float]:
    return {s.site: s.measures[measure].mean for s in surveys if measure in s.measures}


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

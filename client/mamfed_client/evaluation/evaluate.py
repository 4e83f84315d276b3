"""``mamfed-client evaluate``: score a checkpoint on one folder of mammograms."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from rich.progress import track

from mamfed_client.disclosure.evaluation_question import images_sha256
from mamfed_client.evaluation.report import MAKER, Evaluated, document_of, what_is_replaced
from mamfed_client.preparation.cohort import Cohort, SplitImage, StoredSamples, tally
from mamfed_client.preparation.eligibility import ExclusionReason
from mamfed_client.preparation.sample_store import default_cache_dir
from mamfed_client.preparation.site_data import Site, load_site
from mamfed_client.site.policy import Policy
from mamfed_common import __version__
from mamfed_common.checkpoint import Checkpoint, CheckpointFacts, load_model
from mamfed_common.domain import EVALUATED_ON, PARTS, Part
from mamfed_common.errors import DataError
from mamfed_common.metrics.strata import ImageFacts
from mamfed_common.plan import TrainingPlan
from mamfed_common.runtime.files import cannot_write, write_atomic
from mamfed_common.runtime.fingerprint import Fingerprint
from mamfed_common.runtime.output_checks import check_folder_of
from mamfed_common.runtime.terminal import console, print_lines
from mamfed_common.training.device import choose_device
from mamfed_common.training.inference import evaluate

Image = TypeVar("Image")


@dataclass(frozen=True, slots=True)
class EvaluationRequest:
    """The options of an ``evaluate`` call.

    Attributes:
        checkpoint: A run's checkpoint.
        data: A data set in one of the known layouts, or a prepared folder.
        out: JSON file to write.
        part: ``all``, or ``train``, ``val`` or ``test`` of the run's own split.
        site: The name of this data in the run; needed to reproduce its split.
        threshold: Probability from which a pixel is marked; None uses the threshold that
            validation chose for the checkpoint or, if there is none, the plan's.
        norms: The group of sites whose norms to use, if the checkpoint holds norms by group.
        min_images: Strata with fewer images are withheld; None uses a policy's default.
        device: The device to run the network on.
        cache_dir: Where to store prepared images; None: the user's cache.
        key_path: Key of an encrypted prepared folder.
    """

    checkpoint: Path
    data: Path
    out: Path
    part: str = "all"
    site: str = ""
    threshold: float | None = None
    norms: str | None = None
    min_images: int | None = None
    device: str = "auto"
    cache_dir: Path | None = None
    key_path: Path | None = None


def evaluate_folder(request: EvaluationRequest) -> dict[str, Any]:
    """Score a checkpoint on a folder; write the result as JSON and return it.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DataError: The folder cannot be used, or there is no image to score.
        OutputError: ``out`` cannot be written, or is not an evaluation.
        PlanError: ``threshold`` is not between 0 and 1.
    """
    _check_part(request)
    check_folder_of(request.out)
    model = load_model(request.checkpoint, request.norms)
    plan, threshold_from = model.facts.plan_at(request.threshold)
    cohort = _load_cohort(request, plan)
    if request.part != "all":
        print_lines(check_division(model.facts, cohort, request.data))
    images = _scorable(cohort, request)
    min_images = request.min_images or Policy().min_cases_to_report
    device = choose_device(request.device)
    question = _question(model.facts, plan, images, request.part, min_images, device)
    print_lines(what_is_replaced(request.out, question))
    evaluated = _score(model, plan, images, device, min_images)
    result = {
        **document_of(evaluated),
        "part": request.part,
        "threshold": plan.evaluation.threshold,
        "threshold_from": threshold_from,
        **_origin(model.facts, cohort),
        "rows": cohort.counts.rows,
        "of_other_parts": len(cohort.images) - len(images),
        "question": question.parts,
    }
    try:
        write_atomic(request.out, json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise cannot_write(request.out, error) from None
    return result


def _check_part(request: EvaluationRequest) -> None:
    if request.part == "all":
        return
    if request.part not in PARTS:
        raise DataError(f"--part {request.part!r}: expected one of all, {', '.join(PARTS)}")
    if not request.site:
        raise DataError(f"--part {request.part} needs --site, the name of this data in the run")


def _load_cohort(request: EvaluationRequest, plan: TrainingPlan) -> Cohort:
    name = request.site or request.data.resolve().name
    cache_dir = request.cache_dir or default_cache_dir()
    site = Site(name, ((name, request.data),), cache_dir, request.key_path)
    return load_site(site, plan, progress=True).cohorts[0]


def _score(
    model: Checkpoint,
    plan: TrainingPlan,
    images: Sequence[SplitImage],
    device: torch.device,
    min_images: int,
) -> Evaluated:
    facts = {i.case.row.image: _facts_of(i) for i in _with_progress(images, "measuring")}
    scores = evaluate(
        model.state,
        _with_progress(StoredSamples(images), "scoring"),
        plan,
        device=device,
        painter=model.painter,
        spacing_mm={image: f.spacing_mm for image, f in facts.items() if f.spacing_mm},
    )
    return Evaluated(scores, facts, min_images)


def _question(
    checkpoint: CheckpointFacts,
    plan: TrainingPlan,
    images: Sequence[SplitImage],
    part: str,
    min_images: int,
    device: torch.device,
) -> Fingerprint:
    """Return everything that determines the result, to compare with an earlier evaluation."""
    return Fingerprint.of(
        made_by=MAKER,
        mamfed_version=__version__,
        images=images_sha256(images, facts=True),
        part=part,
        weights_sha256=checkpoint.weights_sha256,
        painter_sha256=checkpoint.painter_sha256,
        plan_sha256=checkpoint.plan_sha256,
        threshold=plan.evaluation.threshold,
        min_images=min_images,
        device=device.type,
        threads=torch.get_num_threads(),
    )


def check_division(checkpoint: CheckpointFacts, cohort: Cohort, data: Path) -> tuple[str, ...]:
    """Check that a folder is split into parts as it was in the checkpoint's run.

    Returns:
        A note if the checkpoint does not record how this data was split.

    Raises:
        DataError: The run's split differs, so any part may contain images it trained on.
    """
    known = {digest for splits in checkpoint.splits.values() for digest in splits}
    if cohort.split_sha256() in known:
        return ()
    unreported = set(checkpoint.expected) - checkpoint.splits.keys()
    if not known or (unreported and cohort.name not in checkpoint.splits):
        return (
            "the checkpoint does not record how this data was split (it is older, or the site's "
            "policy withholds 'split'), so whether the run held these images out cannot be checked",
        )
    sites = ", ".join(sorted({*checkpoint.expected, *checkpoint.splits}))
    raise DataError(
        f"{data}: under the name {cohort.name!r} its split is not one of the checkpoint's run "
        f"(sites {sites}); the folder, name, split column or images differ from those of the run; "
        "use the run's name for it, or score --part all of images that no site trained on"
    )


def _scorable(cohort: Cohort, request: EvaluationRequest) -> list[SplitImage]:
    """Return the requested part's images that can be scored, in table order.

    Raises:
        DataError: There are none.
    """
    parts = PARTS if request.part == "all" else [cast(Part, request.part)]
    images = [
        image
        for image in cohort.images
        if image.part in parts and not image.case.purposes.isdisjoint(EVALUATED_ON)
    ]
    if not images:
        raise DataError(f"{request.data}: no image to score in part {request.part!r}")
    return images


def _facts_of(image: SplitImage) -> ImageFacts:
    """Return the facts about an image; the pixel size refers to the plan's grid."""
    row = image.case.row
    spacing_mm = None
    if row.spacing_mm is not None:
        spacing_mm = row.spacing_mm / image.entry.transform().scale
    return ImageFacts(
        patient=row.patient_id,
        groups={
            "vendor": row.vendor,
            "density": row.density,
            "kind": row.kind,
            "view": row.view,
            "laterality": row.laterality,
        },
        breast_pixels=int(image.entry.load(row.image).breast_mask.sum()),
        spacing_mm=spacing_mm,
    )


def _origin(checkpoint: CheckpointFacts, cohort: Cohort) -> dict[str, Any]:
    """Return the facts about the model, and counts of the images that were not scored."""
    personal = checkpoint.personal
    return {
        **({"personal_of": personal.site} if personal else {}),
        **({"norms": checkpoint.norm_group} if checkpoint.norm_group else {}),
        "image_size": checkpoint.plan.image_size,
        "rejected": dict(cohort.counts.rejected),
        "left_out": {
            reason: count
            for reason, count in cohort.counts.excluded.items()
            if ExclusionReason(reason).bars_from_all  # others are scored, or in another part
        },
        "masks_drawn_as": tally(
            i.case.result.drawn_as for i in cohort.images if i.case.result.drawn_as
        ),
        "plan_sha256": checkpoint.plan_sha256,
        "weights_sha256": checkpoint.weights_sha256,
        "stage": checkpoint.stage,
        "server_round": checkpoint.server_round,
        "notice": "research use only",
    }


def _with_progress(images: Sequence[Image], title: str) -> Iterable[Image]:
    return track(images, title, console=console(), transient=True)

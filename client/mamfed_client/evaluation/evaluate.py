"""``mamfed-client evaluate``: a checkpoint's result on one folder of mammograms."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
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
from mamfed_common.checkpoint import CheckpointFacts, load_model
from mamfed_common.domain import EVALUATED_ON, PARTS, Part
from mamfed_common.errors import DataError
from mamfed_common.metrics.strata import ImageFacts
from mamfed_common.runtime.files import cannot_write, write_atomic
from mamfed_common.runtime.fingerprint import Fingerprint
from mamfed_common.runtime.output_checks import check_folder_of
from mamfed_common.runtime.terminal import console, print_lines
from mamfed_common.training.device import choose_device
from mamfed_common.training.inference import evaluate

Image = TypeVar("Image")


def evaluate_folder(
    checkpoint_path: Path,
    data: Path,
    out: Path,
    *,
    part: str = "all",
    site: str = "",
    threshold: float | None = None,
    norms: str | None = None,
    min_images: int | None = None,
    device: str = "auto",
    cache_dir: Path | None = None,
    key_path: Path | None = None,
) -> dict[str, Any]:
    """Score a checkpoint on a folder; write the result as JSON and return it.

    Args:
        checkpoint_path: A run's checkpoint.
        data: A data set in one of the known layouts, or a prepared folder.
        out: JSON file to write.
        part: ``all``, or ``train``, ``val`` or ``test`` of the run's own split.
        site: What the run called this data; needed to find its split again.
        threshold: Probability from which a pixel is marked; None: the checkpoint's, which
            validation chose, or else its plan's.
        norms: The group of sites whose norms to use, where the checkpoint holds those of groups.
        min_images: Images without which a stratum is withheld; None: a policy's default.
        device: Where to run the network.
        cache_dir: Where prepared images are kept.
        key_path: Key of a prepared folder that is encrypted.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DataError: The folder cannot be used, or no image is left to score.
        OutputError: ``out`` cannot be written, or is a file of something else.
        PlanError: ``threshold`` is not between 0 and 1.
    """
    if part != "all" and part not in PARTS:
        raise DataError(f"--part {part!r}: expected one of all, {', '.join(PARTS)}")
    if part != "all" and not site:
        raise DataError(f"--part {part} needs --site, the name that this data had in the run")
    check_folder_of(out)
    state, checkpoint, painter = load_model(checkpoint_path, norms)
    plan, threshold_from = checkpoint.plan_at(threshold)
    name = site or data.resolve().name
    here = Site(name, ((name, data),), cache_dir or default_cache_dir(), key_path)
    cohort = load_site(here, plan, progress=True).cohorts[0]
    if part != "all":
        print_lines(check_division(checkpoint, cohort, data))
    placed = _placed(cohort, part)
    if not placed:
        raise DataError(f"{data}: no image to score in part {part!r}")
    least, where = min_images or Policy().min_cases_to_report, choose_device(device)
    question = Fingerprint.of(
        made_by=MAKER,
        mamfed_version=__version__,
        images=images_sha256(placed, facts=True),
        part=part,
        weights_sha256=checkpoint.weights_sha256,
        painter_sha256=checkpoint.painter_sha256,
        plan_sha256=checkpoint.plan_sha256,
        threshold=plan.evaluation.threshold,
        min_images=least,
        device=where.type,
        threads=torch.get_num_threads(),
    )
    print_lines(what_is_replaced(out, question))
    facts = {image.case.row.image: _facts_of(image) for image in _shown(placed, "looking")}
    scores = evaluate(
        state,
        _shown(StoredSamples(placed), "scoring"),
        plan,
        device=where,
        painter=painter,
        spacing_mm={image: f.spacing_mm for image, f in facts.items() if f.spacing_mm},
    )
    evaluated = Evaluated(scores, facts, least)
    result = {
        **document_of(evaluated),
        "part": part,
        "threshold": plan.evaluation.threshold,
        "threshold_from": threshold_from,
        **_origin(checkpoint, cohort),
        "rows": cohort.counts.rows,
        "of_other_parts": len(cohort.placed) - len(placed),
        "question": question.parts,
    }
    try:
        write_atomic(out, json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise cannot_write(out, error) from None
    return result


def check_division(checkpoint: CheckpointFacts, cohort: Cohort, data: Path) -> tuple[str, ...]:
    """Hold a folder's division into parts against that of the checkpoint's run.

    Returns:
        A note where the checkpoint does not say how this data was divided.

    Raises:
        DataError: The run divided no such data: what it trained on may be in any part.
    """
    known = {digest for splits in checkpoint.splits.values() for digest in splits}
    if cohort.split_sha256() in known:
        return ()
    silent = set(checkpoint.expected) - checkpoint.splits.keys()
    if not known or (silent and cohort.name not in checkpoint.splits):
        return (
            "the checkpoint does not say how this data was divided (it is older, or its site keeps "
            "'split' to itself): that its run held these images out is not checked",
        )
    sites = ", ".join(sorted({*checkpoint.expected, *checkpoint.splits}))
    raise DataError(
        f"{data}: as {cohort.name!r} it is not what the checkpoint's run divided (sites {sites}): "
        "another folder, name or split column, or images added, removed or changed since; name it "
        "as the run had it, or score --part all of images that no site trained on"
    )


def _placed(cohort: Cohort, part: str) -> list[SplitImage]:
    """Return a part's images that can be scored, in the table's order."""
    parts = PARTS if part == "all" else [cast(Part, part)]
    return [
        image
        for image in cohort.placed
        if image.part in parts and not image.case.purposes.isdisjoint(EVALUATED_ON)
    ]


def _facts_of(image: SplitImage) -> ImageFacts:
    """Gather what is known of an image beside its pixels; its pixel size is of the plan's grid."""
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
    """Say which model this is, and what of the folder was not scored."""
    personal = checkpoint.personal
    return {
        **({"personal_of": personal.site} if personal else {}),
        **({"norms": checkpoint.norm_group} if checkpoint.norm_group else {}),
        "image_size": checkpoint.plan.image_size,
        "rejected": dict(cohort.counts.rejected),
        "left_out": {
            reason: count
            for reason, count in cohort.counts.left_out.items()
            if ExclusionReason(reason).bars_from_all  # the others are scored, or of another part
        },
        "masks_drawn_as": tally(
            i.case.outcome.drawn_as for i in cohort.placed if i.case.outcome.drawn_as
        ),
        "plan_sha256": checkpoint.plan_sha256,
        "weights_sha256": checkpoint.weights_sha256,
        "stage": checkpoint.stage,
        "server_round": checkpoint.server_round,
        "notice": "research use only",
    }


def _shown(images: Sequence[Image], doing: str) -> Iterable[Image]:
    return track(images, doing, console=console(), transient=True)

"""``mamfed-client evaluate``: a checkpoint's result on one folder of mammograms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from rich.progress import track

from mamfed_client.cache import default_cache_dir
from mamfed_client.cohort import Cohort
from mamfed_client.site import Joined, Site, load_site
from mamfed_common.checkpoint import CheckpointFacts, load_checkpoint
from mamfed_common.device import choose_device
from mamfed_common.errors import DataError, OutputError
from mamfed_common.files import write_atomic
from mamfed_common.metrics import ImageScore, summarise
from mamfed_common.terminal import console
from mamfed_common.training import evaluate
from mamfed_common.weights import EVALUATED_ON, PARTS, Part


def evaluate_folder(
    checkpoint_path: Path,
    data: Path,
    out: Path,
    *,
    part: str = "all",
    site: str = "",
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
        device: Where to run the network.
        cache_dir: Where prepared images are kept.
        key_path: Key of a prepared folder that is encrypted.

    Raises:
        CheckpointError: The checkpoint cannot be used.
        DataError: The folder cannot be used, or no image is left to score.
        OutputError: ``out`` cannot be written.
    """
    if part != "all" and part not in PARTS:
        raise DataError(f"--part {part!r}: expected one of all, {', '.join(PARTS)}")
    if part != "all" and not site:
        raise DataError(f"--part {part} needs --site, the name that this data had in the run")
    if not out.parent.is_dir():
        raise OutputError(f"{out}: folder {out.parent} does not exist")
    state, facts = load_checkpoint(checkpoint_path)
    name = site or data.resolve().name
    here = Site(name, ((name, data),), cache_dir or default_cache_dir(), key_path)
    found = load_site(here, facts.plan, progress=True)
    parts = PARTS if part == "all" else [cast(Part, part)]
    samples = Joined(found.samples(EVALUATED_ON, p) for p in parts)
    if not samples:
        raise DataError(f"{data}: no image to score in part {part!r}")
    shown = track(samples, "scoring", console=console(), transient=True)
    scores = evaluate(state, shown, facts.plan, device=choose_device(device))
    result = _document(scores, found.cohorts[0], facts, part)
    try:
        write_atomic(out, json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise OutputError(f"{out}: cannot be written: {error.strerror}") from None
    return result


def _document(
    scores: Sequence[ImageScore], cohort: Cohort, facts: CheckpointFacts, part: str
) -> dict[str, Any]:
    """Lay out the JSON: means, the counts behind them, then all images in the table's order."""
    summary = summarise(scores)
    place = {image.case.row.image: number for number, image in enumerate(cohort.placed)}
    scores = sorted(scores, key=lambda score: place[score.image])
    return {
        "mean_dice": summary.dice,
        "images": summary.images,
        "sensitivity": summary.sensitivity,
        "lesions": summary.lesions,
        "lesions_found": summary.lesions_found,
        "images_without_malignancy": summary.images_without_malignancy,
        "false_positive_pixels": summary.false_positive_pixels,
        "part": part,
        "threshold": facts.plan.evaluation.threshold,
        "image_size": facts.plan.image_size,
        "rejected": dict(cohort.counts.rejected),
        "left_out": dict(cohort.counts.left_out),
        "plan_sha256": facts.plan_sha256,
        "weights_sha256": facts.weights_sha256,
        "stage": facts.stage,
        "server_round": facts.server_round,
        "per_image": [_row(score) for score in scores if score.lesion_pixels],
        "per_image_without_malignancy": [_row(s) for s in scores if not s.lesion_pixels],
        "notice": "research use only",
    }


def _row(score: ImageScore) -> dict[str, Any]:
    row = score._asdict()
    return row if score.lesion_pixels else {**row, "dice": None}

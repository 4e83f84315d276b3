"""Write ``MODEL_CARD.md``, in the layout of Hugging Face's model cards, and ``README.md``.

Every figure comes from the run's summary and is given with its count. Figures that the run did not
keep or a site did not release are marked as missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from mamfed_common.plan import TrainingPlan
from mamfed_common.runtime.files import write_atomic
from mamfed_server.export.network import ExportModel
from mamfed_server.export.source import Source
from mamfed_server.report.data import Interval

ENVIRONMENT = Environment(
    loader=PackageLoader("mamfed_server.export"),
    autoescape=False,  # Markdown
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
MISSING = "not known"
PARTS = ("train", "val", "test")


def write_card(path: Path, source: Source, model: ExportModel, record: Mapping[str, Any]) -> None:
    """Write the model card."""
    summary = source.summary or {}
    facts = model.facts
    sites = summary.get("sites", {})
    arm, result = _main_arm(summary)
    text = ENVIRONMENT.get_template("MODEL_CARD.md.jinja").render(
        record=record,
        facts=facts,
        preprocessing=model.preprocessing,
        has_run=source.summary is not None,
        summary=summary,
        sites=[_site_row(name, site) for name, site in sorted(sites.items())],
        vendors=_vendors(sites),
        arm=arm,
        results=[
            _result_row(name, score, source.notes.intervals.get(name))
            for name, score in sorted(_scores(result).items())
        ],
        has_intervals=bool(source.notes.intervals),
        mean_dice=_number(result.get("mean_dice")),
        validation=_number(facts.mean_validation_dice),
        validating=len(facts.validation),
        is_best=source.path.stem == "best",
        settings=_settings(facts.plan),
        parameters=sum(weight.numel() for weight in source.checkpoint.state.values()),
    )
    write_atomic(path, text)


def write_readme(path: Path, target: str, model: ExportModel, record: Mapping[str, Any]) -> None:
    """Write the instructions for the files of one format."""
    template = ENVIRONMENT.get_template(f"{target}.README.md.jinja")
    preprocessing = model.preprocessing
    text = template.render(
        record=record,
        preprocessing=preprocessing,
        outputs=model.outputs,
        painter=bool(record["painter_sha256"]),
        has_painter=model.painter is not None,
    )
    write_atomic(path, text)


def _main_arm(summary: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the arm of the run's own checkpoints, and its test results."""
    arms = summary.get("arms", {})
    name = "federated" if "federated" in arms else next(iter(arms), "")
    return name, arms.get(name, {})


def _scores(arm: Mapping[str, Any]) -> dict[str, Any]:
    scores = arm.get("sites", {})
    assert isinstance(scores, dict)
    return scores


def _site_row(name: str, site: Mapping[str, Any]) -> dict[str, str]:
    """Return a site's counts of images (patients), as far as it released them."""
    row = {"site": _cell(name)}
    for kind in ("benign", "malignant"):
        images, patients = (site.get(what, {}).get(kind, {}) for what in ("images", "patients"))
        counts = [f"{_count(images.get(p))} ({_count(patients.get(p))})" for p in PARTS]
        row[kind] = " / ".join(counts)
    vendors = site.get("vendors") or {}
    counts = [f"{_cell(vendor)} {_count(count)}" for vendor, count in sorted(vendors.items())]
    row["vendors"] = ", ".join(counts) or MISSING
    unused = ((site.get(key) or {}).values() for key in ("rejected", "left_out"))
    row["unused"] = str(sum(map(sum, unused)))
    return row


def _vendors(sites: Mapping[str, Mapping[str, Any]]) -> str:
    total: Counter[str] = Counter()
    for site in sites.values():
        total.update(
            {_cell(name): count or 0 for name, count in (site.get("vendors") or {}).items()}
        )
    return ", ".join(f"{name} ({count})" for name, count in sorted(total.items())) or MISSING


def _result_row(name: str, score: Mapping[str, Any], interval: Interval | None) -> dict[str, str]:
    found, lesions = score.get("lesions_found"), score.get("lesions")
    return {
        "site": _cell(name),
        "images": _count(score.get("images")),
        "dice": _number(score.get("dice")),
        "interval": _interval(interval),
        "iou": _number(score.get("iou")),
        "lesions": f"{_count(found)} of {_count(lesions)}",
        "tissue": f"{_count(score.get('redrawn_as_tissue'))} of "
        f"{_count(score.get('lesions_redrawn'))}",
        "without": _count(score.get("images_without_malignancy")),
        "auroc": _number(score.get("auroc")),
        "false_positive_pixels": _number(score.get("false_positive_pixels"), 1),
    }


def _interval(interval: Interval | None) -> str:
    if interval is None or interval.low is None or interval.high is None:
        return MISSING
    return f"{interval.low:.3f} to {interval.high:.3f} ({interval.patients})"


def _settings(plan: TrainingPlan) -> dict[str, object]:
    """Return the settings that matter to users of the network."""
    network, federation = plan.network, plan.federation
    training = {
        name: f"{stage.rounds} rounds of {stage.in_words()}, batch {stage.batch_size}, "
        f"learning rate {stage.learning_rate:g}"
        for name, stage in (("stage 1", plan.pretraining), ("stage 2", plan.finetuning))
    }
    return {
        "image size": f"{plan.image_size} x {plan.image_size}",
        "channels": " ".join(map(str, network.channels)),
        "stem": network.stem,
        "first level with a long skip": network.first_skip_level,
        "head": network.head,
        "smoothing of the difference": f"{network.smoothing} pixels",
        **training,
        "precision": plan.precision,
        "server optimiser": federation.server_optimiser,
        "FedProx mu": f"{federation.proximal_mu:g}",
        "local norms (FedBN)": "yes" if federation.local_norms else "no",
        "norms by group": ", ".join(federation.norm_groups) or "no",
        "seed": plan.seed,
        "split seed": plan.evaluation.split_seed,
    }


def _count(value: int | None) -> str:
    return MISSING if value is None else str(value)


def _number(value: float | None, digits: int = 3) -> str:
    return MISSING if value is None else f"{value:.{digits}f}"


def _cell(text: str) -> str:
    """Return a site's text without anything that would break a Markdown table cell."""
    return " ".join(text.split()).replace("|", "/").replace("<", "&lt;")

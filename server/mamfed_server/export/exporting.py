"""One export from start to end: write into a draft, load it back, compare, and only then keep it.

==========================  ===================================================================
``model.*``                 the network, see the module of each format
``preprocessing.json``      what to do to an image first
``MODEL_CARD.md``           where the weights come from, what they can do, what they must not
``README.md``               how to use it
``export.json``             which weights these are, and how far the file is from PyTorch
==========================  ===================================================================
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType
from typing import Any, NamedTuple

import torch

from mamfed_common import __version__
from mamfed_common.errors import OutputError
from mamfed_common.runtime.files import DRAFT, give_all_to_owner, private_directory, write_atomic
from mamfed_common.runtime.fingerprint import Fingerprint
from mamfed_common.runtime.lock import LOCK, exclusive_folder
from mamfed_common.runtime.optional_packages import check_installed
from mamfed_common.runtime.output_checks import check_folder
from mamfed_server.export.checks import (
    SEED,
    TOLERANCE,
    Images,
    OutputDifference,
    batches_of,
    compare,
    drawn_image,
)
from mamfed_server.export.network import ExportModel
from mamfed_server.export.source import Source

RECORD, PREPROCESSING, CARD, README = (
    "export.json",
    "preprocessing.json",
    "MODEL_CARD.md",
    "README.md",
)


class ExportTarget(StrEnum):
    """What a network can be exported to."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    MONAI_BUNDLE = "monai-bundle"
    SAFETENSORS = "safetensors"


class ExportFormat(NamedTuple):
    """How one target is written.

    Attributes:
        module: What does it.
        files: What it writes.
        needs: What it imports.
        painter: The file of the painter's weights, where the checkpoint has them; empty: they are
            left out.
    """

    module: str
    files: tuple[str, ...]
    needs: tuple[str, ...] = ("jinja2",)
    painter: str = ""


FORMS = {
    ExportTarget.ONNX: ExportFormat(
        "onnx_file", ("model.onnx",), ("jinja2", "onnx", "onnxscript", "onnxruntime")
    ),
    ExportTarget.TORCHSCRIPT: ExportFormat("torchscript", ("model.ts",)),
    ExportTarget.SAFETENSORS: ExportFormat(
        "plain", ("model.safetensors", "network.json"), painter="painter.safetensors"
    ),
    ExportTarget.MONAI_BUNDLE: ExportFormat(
        "bundle",
        (
            "LICENSE",
            "configs/inference.json",
            "configs/metadata.json",
            "docs/README.md",
            "models/model.pt",
            "models/model.ts",
        ),
    ),
}


class Request(NamedTuple):
    """What is to be exported where.

    Attributes:
        source: The checkpoint.
        target: The format.
        out: The folder to make, or to replace where it holds this export already.
        images: ``(H, W)`` in 0..1 to compare on; None draws one.
    """

    source: Source
    target: ExportTarget
    out: Path
    images: Sequence[Images] | None = None

    @property
    def question(self) -> Fingerprint:
        """All that an export depends on; the same one again replaces it."""
        facts = self.source.checkpoint.facts
        _, threshold_from = facts.plan_at(None)
        return Fingerprint.of(
            target=self.target,
            weights_sha256=facts.weights_sha256,
            painter_sha256=facts.painter_sha256,
            plan_sha256=facts.plan_sha256,
            threshold=facts.threshold,
            threshold_from=threshold_from,
            norm_group=facts.norm_group,
            stage=facts.stage,
            server_round=facts.server_round,
        )

    @property
    def network_files(self) -> list[str]:
        """The names of the files that hold the network."""
        form = FORMS[self.target]
        painter = form.painter if self.source.checkpoint.painter is not None else ""
        return sorted(filter(None, (*form.files, painter)))

    @property
    def files(self) -> list[Path]:
        """What will be there."""
        names = {*self.network_files, PREPROCESSING, CARD, README, RECORD}
        return [self.out / name for name in sorted(names)]


def check_request(request: Request) -> None:
    """Refuse before the work what could not be finished.

    Raises:
        MamfedError: A package is missing.
        OutputError: The folder holds something else, another export, or files of others.
    """
    check_installed("export", *FORMS[request.target].needs)
    out = request.out
    check_folder(out, lambda folder: _is_ours(folder, request), f"export to {request.target}")
    held = _record_of(out)
    if held is None:  # nothing is there, or what a kill has left
        return
    kept = held.get("question", {"weights_sha256": held.get("weights_sha256")})
    question = request.question
    if "question" not in held:  # mamfed 0.1.0 wrote the weights alone
        question = Fingerprint.of(weights_sha256=question.parts["weights_sha256"])
    advice = "choose another folder by --out, or remove it"
    question.check(kept, f"{out}: holds another export", advice)
    ours = {*request.files, *(out / str(name) for name in held.get("files", ()))}
    if others := _others(out, ours):
        raise OutputError(f"{others[0]}: no file of the export to be replaced; move it away")


def _is_ours(out: Path, request: Request) -> bool:
    """Tell whether a folder holds an export to this target, or what a kill has left of one."""
    held = _record_of(out)
    if held is None:
        return (out / LOCK).exists() and not _others(out, set(request.files))
    return held.get("target") == request.target


def _others(out: Path, ours: set[Path]) -> list[Path]:
    """Return the files in a folder that are not the export's."""
    known = {*ours, out / LOCK}
    files = (p for p in out.rglob("*") if p.is_file() or p.is_symlink())
    return sorted(p for p in files if p not in known and not _in_draft(p.relative_to(out)))


def _in_draft(path: Path) -> bool:
    return path.parts[0].startswith(".") and path.parts[0].endswith(DRAFT)


def export(request: Request, on_step: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Write an export that agrees with PyTorch; return what ``export.json`` says.

    Args:
        request: What is asked.
        on_step: Called with what is done next.

    Raises:
        MamfedError: A package is missing.
        OutputError: The folder is taken, cannot be written, or the export disagrees.
        SetupError: Another export works in the folder.
    """
    check_request(request)
    with exclusive_folder(request.out, "another export") as out:
        check_request(request)  # another one may have ended since
        for left in out.glob(f".*{DRAFT}"):
            shutil.rmtree(left, ignore_errors=True)
        draft = Path(mkdtemp(prefix=".", suffix=DRAFT, dir=out.absolute()))
        try:
            record = _fill(draft, request, on_step)
            _put_in_place(draft, request)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return record


def _fill(draft: Path, request: Request, on_step: Callable[[str], None]) -> dict[str, Any]:
    from mamfed_server.export.card import write_card, write_readme

    model, form = request.source.model(), FORMS[request.target]
    module = _module(form)
    on_step(f"writing {request.target}")
    module.write(draft, model)
    difference = _compared(draft, module, model, request, on_step)
    record = _record(request, model, difference)
    write_atomic(draft / PREPROCESSING, json.dumps(model.preprocessing, indent=2) + "\n")
    write_card(draft / CARD, request.source, model, record)
    write_readme(draft / README, request.target, model, record)
    write_atomic(draft / RECORD, json.dumps(record, indent=2) + "\n")
    for path in draft.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    give_all_to_owner(draft, request.out)
    return record


def _compared(
    draft: Path,
    module: ModuleType,
    model: ExportModel,
    request: Request,
    on_step: Callable[[str], None],
) -> OutputDifference:
    images = request.images or [drawn_image(model.facts.plan.image_size)]
    batches = batches_of(model, images)
    done = 0

    def on_batch() -> None:
        nonlocal done
        done += 1
        on_step(f"compared with PyTorch: {done} of {len(batches)}")

    on_step("loading it back")
    return compare(model, module.load(draft), batches, on_batch)


def _record(request: Request, model: ExportModel, difference: OutputDifference) -> dict[str, Any]:
    facts = model.facts
    images = request.images
    return {
        "target": request.target,
        "question": request.question.parts,
        "files": request.network_files,
        "checkpoint": request.source.path.name,
        "weights_sha256": facts.weights_sha256,
        "painter_sha256": facts.painter_sha256 if FORMS[request.target].painter else "",
        "plan_sha256": facts.plan_sha256,
        "stage": facts.stage,
        "server_round": facts.server_round,
        "compared_on": "given images" if images else f"a drawn image, seed {SEED}",
        "images": len(images) if images else 0,
        "shapes": [list(shape) for shape in difference.shapes],
        "tolerance": TOLERANCE,
        "largest_difference": difference.float64,
        "largest_difference_from_float32": difference.float32,
        "mamfed_version": __version__,
        "torch_version": torch.__version__,
        "use": model.preprocessing["use"],
    }


def _module(form: ExportFormat) -> ModuleType:
    return importlib.import_module(f"mamfed_server.export.{form.module}")


def _record_of(out: Path) -> dict[str, Any] | None:
    try:
        record = json.loads((out / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _put_in_place(draft: Path, request: Request) -> None:
    """Move a finished export to its place, its record last; an older one of the same goes.

    File by file: the folder may be a mount, or the one that somebody is in.
    """
    out, held = request.out, _record_of(request.out) or {}
    (out / RECORD).unlink(missing_ok=True)
    for name in held.get("files", ()):
        (out / str(name)).unlink(missing_ok=True)
    for path in sorted(request.files, key=lambda path: path.name == RECORD):
        name = path.relative_to(out)
        private_directory(path.parent)
        os.replace(draft / name, path)

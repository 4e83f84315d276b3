"""Export a network: write a draft, load it back, compare it with PyTorch, then put it in place.

==========================  ===================================================================
``model.*``                 the network, see the module of each format
``preprocessing.json``      how to prepare an image
``MODEL_CARD.md``           origin, performance and limits of the weights
``README.md``               how to use the export
``export.json``             which weights these are, and their difference from PyTorch
==========================  ===================================================================
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import mkdtemp
from types import ModuleType
from typing import Any

import torch

from mamfed_common import __version__
from mamfed_common.errors import OutputError
from mamfed_common.runtime.bounded import DOCUMENT_BYTES, read_values
from mamfed_common.runtime.files import DRAFT, give_all_to_owner, private_directory, write_atomic
from mamfed_common.runtime.fingerprint import Fingerprint
from mamfed_common.runtime.lock import LOCK, exclusive_folder
from mamfed_common.runtime.optional_packages import check_installed
from mamfed_common.runtime.output_checks import check_folder
from mamfed_server.export.checks import (
    SEED,
    TOLERANCE,
    OutputDifference,
    batches_of,
    compare,
    drawn_image,
)
from mamfed_server.export.network import ExportModel
from mamfed_server.export.request import (
    CARD,
    FORMATS,
    PREPROCESSING,
    README,
    RECORD,
    ExportFormat,
    Request,
)


def check_request(request: Request) -> None:
    """Refuse a request that could not be completed, before any work is done.

    Raises:
        MamfedError: A package is missing.
        OutputError: The folder holds something else, another export, or unknown files.
    """
    check_installed("export", *FORMATS[request.target].needs)
    out = request.out
    check_folder(out, lambda folder: _is_ours(folder, request), f"export to {request.target}")
    record = _record_of(out)
    if record is None:  # an empty folder, or one left by a crash
        return
    earlier = record.get("question", {"weights_sha256": record.get("weights_sha256")})
    question = request.question
    if "question" not in record:  # mamfed 0.1.0 recorded only the weights
        question = Fingerprint.of(weights_sha256=question.parts["weights_sha256"])
    advice = "choose another folder with --out, or remove this one"
    question.check(earlier, f"{out}: holds another export", advice)
    ours = {*request.files, *(out / str(name) for name in record.get("files", ()))}
    if unknown := _unknown_files(out, ours):
        raise OutputError(f"{unknown[0]}: does not belong to the export to be replaced; move it")


def _is_ours(out: Path, request: Request) -> bool:
    """Return whether a folder holds an export to this format, complete or left by a crash."""
    record = _record_of(out)
    if record is None:
        return (out / LOCK).exists() and not _unknown_files(out, set(request.files))
    return record.get("target") == request.target


def _unknown_files(out: Path, ours: set[Path]) -> list[Path]:
    """Return the files in a folder that do not belong to the export."""
    known = {*ours, out / LOCK}
    files = (p for p in out.rglob("*") if p.is_file() or p.is_symlink())
    return sorted(p for p in files if p not in known and not _in_draft(p.relative_to(out)))


def _in_draft(path: Path) -> bool:
    return path.parts[0].startswith(".") and path.parts[0].endswith(DRAFT)


def export(request: Request, on_step: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Write an export that agrees with PyTorch; return the contents of ``export.json``.

    Args:
        request: The request.
        on_step: Called with a description of each step before it begins.

    Raises:
        MamfedError: A package is missing.
        OutputError: The folder is in use or cannot be written, or the export differs from PyTorch.
        SetupError: Another export is writing to the folder.
    """
    check_request(request)
    with exclusive_folder(request.out, "another export") as out:
        check_request(request)  # another export may have finished before the lock was taken
        for stale in out.glob(f".*{DRAFT}"):
            shutil.rmtree(stale, ignore_errors=True)
        draft = Path(mkdtemp(prefix=".", suffix=DRAFT, dir=out.absolute()))
        try:
            record = _fill(draft, request, on_step)
            _put_in_place(draft, request)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return record


def _fill(draft: Path, request: Request, on_step: Callable[[str], None]) -> dict[str, Any]:
    from mamfed_server.export.card import write_card, write_readme

    model, module = request.source.model(), _module(FORMATS[request.target])
    on_step(f"writing {request.target}")
    module.write(draft, model)
    difference = _compare(draft, module, model, request, on_step)
    record = _record(request, model, difference)
    write_atomic(draft / PREPROCESSING, json.dumps(model.preprocessing, indent=2) + "\n")
    write_card(draft / CARD, request.source, model, record)
    write_readme(draft / README, request.target, model, record)
    write_atomic(draft / RECORD, json.dumps(record, indent=2) + "\n")
    for path in draft.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    give_all_to_owner(draft, request.out)
    return record


def _compare(
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
        on_step(f"comparing with PyTorch: {done} of {len(batches)} batches done")

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
        "painter_sha256": facts.painter_sha256 if FORMATS[request.target].painter else "",
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


def _module(target_format: ExportFormat) -> ModuleType:
    return importlib.import_module(f"mamfed_server.export.{target_format.module}")


def _record_of(out: Path) -> dict[str, Any] | None:
    try:
        record = read_values(out / RECORD, DOCUMENT_BYTES)
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _put_in_place(draft: Path, request: Request) -> None:
    """Move a finished export into place, its record last, and replace an earlier one.

    Files are moved one by one: the folder may be a mount point or somebody's current folder.
    """
    out, earlier = request.out, _record_of(request.out) or {}
    (out / RECORD).unlink(missing_ok=True)
    for name in earlier.get("files", ()):
        (out / str(name)).unlink(missing_ok=True)
    for path in sorted(request.files, key=lambda path: path.name == RECORD):
        name = path.relative_to(out)
        private_directory(path.parent)
        os.replace(draft / name, path)

"""``mamfed-client predict``: make segmentations, pictures and records of images."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.progress import track

from mamfed_client.imaging.rejections import FileRejected, Reason, rejection
from mamfed_client.prediction.account import PredictionCounts, document_of, forecast
from mamfed_client.prediction.answer import answer
from mamfed_client.prediction.folder import (
    SUMMARY,
    PredictionFolder,
    check_folder,
    open_folder,
    question_of,
)
from mamfed_client.prediction.kinds import DEFAULT
from mamfed_client.prediction.model import LoadedModel, load_model
from mamfed_client.prediction.segmentation import Encoding
from mamfed_client.prediction.sources import FoundSources, Selection, Source, find_sources
from mamfed_client.prediction.study_page import write_pages
from mamfed_client.prediction.view import View, view_of
from mamfed_client.preparation.pseudonyms import site_secret
from mamfed_client.sandbox.decoder_pool import DecoderPool, open_decoder_pool
from mamfed_common.errors import DataError, MamfedError
from mamfed_common.runtime.files import write_atomic
from mamfed_common.runtime.terminal import Advance, console, reading_progress
from mamfed_common.training.inference import Prediction, predict
from mamfed_common.transforms.sample import Sample

DEFAULT_BATCH = {"cuda": 4}
"""Images per batch by type of device; a CPU is as fast with one."""


@dataclass(frozen=True, slots=True)
class PredictionRequest:
    """The options of a ``predict`` call.

    Attributes:
        checkpoint: The model.
        inputs: Files, folders and prepared folders.
        out: The folder for predictions.
        threshold: Lowest probability at which a pixel is marked; None: the checkpoint's.
        norms: The group of sites whose norms to use, if the checkpoint holds norms by group.
        encoding: Whether segmentations hold flags or probabilities.
        kinds: The kinds of DICOM objects to write, of ``objects.FILES``.
        batch: Images per batch; None: chosen by device.
        device: The device to run on.
        rows: Rows of prepared folders to use; empty: all.
        layout: Layout of the folders; None: auto-detected.
        allow: Reasons for which files are not rejected.
        key_path: Key file of encrypted prepared folders.
        names_patients: Whether records and pages show patient numbers, by the site's policy.
    """

    checkpoint: Path
    inputs: tuple[Path, ...]
    out: Path
    threshold: float | None = None
    norms: str | None = None
    encoding: Encoding = "binary"
    kinds: tuple[str, ...] = DEFAULT
    batch: int | None = None
    device: str = "auto"
    rows: frozenset[int] = frozenset()
    layout: str | None = None
    allow: frozenset[Reason] = frozenset()
    key_path: Path | None = None
    names_patients: bool = False


class PredictionTask(NamedTuple):
    """An image to be predicted.

    Attributes:
        source: The image.
        identity: Its pseudonym.
        metadata_id: Pseudonym of its metadata, see :meth:`.Source.metadata_id`.
    """

    source: Source
    identity: str
    metadata_id: str


def predict_images(request: PredictionRequest, *, dry_run: bool = False) -> dict[str, Any]:
    """Predict all images that the folder does not hold yet; return a summary of its contents.

    An interrupted call loses only the images in progress; the next call resumes. Inputs are never
    changed.

    Args:
        request: The options.
        dry_run: Whether to report only what would be done. Files are read to identify images by
            their content, but not decoded.

    Raises:
        CheckpointError: The checkpoint is damaged, for another network, or from stage 1.
        DataError: An input does not exist, or a folder as a whole cannot be used.
        OutputError: ``out`` holds something else, or cannot be written.
        PlanError: Threshold or device cannot be used.
    """
    model = load_model(request.checkpoint, request.threshold, request.device, request.norms)
    secret = site_secret()
    question = question_of(
        model.to_json(), request.encoding, model.device.type, secret, request.kinds
    )
    check_folder(request.out, question)
    selection = Selection(
        model.plan.image_size, request.rows, request.layout, request.allow, request.key_path
    )
    offered = find_sources(request.inputs, selection)
    if dry_run:
        tasks, outcomes = _new_tasks(offered, PredictionFolder(request.out), secret)
        return forecast(model, offered, len(tasks), outcomes)
    with open_folder(request.out, question) as folder:
        tasks, outcomes = _new_tasks(offered, folder, secret)
        _clean(folder, outcomes, names_patients=request.names_patients)
        _predict(request, model, folder, tasks, outcomes, secret)
        document = document_of(model, folder, outcomes)
        write_atomic(request.out / SUMMARY, json.dumps(document, indent=2) + "\n")
        write_pages(folder, document)
    return document


def _new_tasks(
    offered: FoundSources, folder: PredictionFolder, secret: bytes
) -> tuple[list[PredictionTask], PredictionCounts]:
    """Return the images to predict, without those in the folder and those given twice."""
    outcomes = PredictionCounts(rejected=list(offered.rejected), own=offered.own)
    tasks: dict[str, PredictionTask] = {}
    known: dict[str, str] = {}
    for source in track(offered.sources, "listing", console=console(), transient=True):
        try:
            identity, metadata_id = source.identity(secret), source.metadata_id(secret)
        except FileRejected as refusal:
            outcomes.rejected.append(rejection(source.row.row_number, source.name, refusal))
            continue
        if identity in known:
            outcomes.duplicates += 1
            outcomes.contradicted += known[identity] != metadata_id
            continue
        known[identity] = metadata_id
        record = folder.find(identity)
        if record is not None and record["said"] == metadata_id:
            outcomes.done_before += 1
            outcomes.kept.append((record, source))
            continue
        if record is not None:
            outcomes.outdated.append(record)
        tasks[identity] = PredictionTask(source, identity, metadata_id)
    names = {s.name for s in offered.sources} | {r.image for r in offered.rejected}
    outcomes.replaced = [
        record
        for record in folder.records()
        if record["image"] not in known and record["source"] in names
    ]
    return list(tasks.values()), outcomes


def _clean(folder: PredictionFolder, outcomes: PredictionCounts, *, names_patients: bool) -> None:
    """Remove outdated results, and update the source of the images that are kept.

    Patient numbers that may no longer be shown are removed from all records.
    """
    for record in (*outcomes.outdated, *outcomes.replaced):
        folder.forget(record)
    for record, source in outcomes.kept:
        patient = source.row.patient_id or record.get("patient")
        folder.note(record, source=source.name, patient=patient if names_patients else None)
    if not names_patients:
        for record in folder.records():
            folder.note(record, patient=None)


def _predict(
    request: PredictionRequest,
    model: LoadedModel,
    folder: PredictionFolder,
    tasks: Sequence[PredictionTask],
    outcomes: PredictionCounts,
    secret: bytes,
) -> None:
    """Process batches concurrently: while one is in the network, others are read or written.

    Memory holds one batch for each of at most ``MAX_DECODERS`` threads.
    """
    size = request.batch or DEFAULT_BATCH.get(model.device.type, 1)
    batches = [tasks[start : start + size] for start in range(0, len(tasks), size)]
    with (
        open_decoder_pool(len(batches), threads_per_decoder=1) as decoders,
        reading_progress("predicting", len(tasks)) as done,
    ):
        worker = _Worker(
            model,
            folder,
            request.encoding,
            request.kinds,
            decoders,
            outcomes,
            done,
            secret,
            request.names_patients,
        )
        for _ in decoders.pool.map(worker.predict, batches):
            pass


@dataclass(frozen=True, slots=True)
class _Worker:
    """Predicts batches; several threads share it."""

    model: LoadedModel
    folder: PredictionFolder
    encoding: Encoding
    kinds: tuple[str, ...]
    readers: DecoderPool
    outcomes: PredictionCounts
    done: Advance
    secret: bytes
    names_patients: bool
    network: threading.Lock = field(default_factory=threading.Lock)
    counting: threading.Lock = field(default_factory=threading.Lock)

    def predict(self, batch: Sequence[PredictionTask]) -> None:
        """Read a batch, run the network on it, and store the results.

        Raises:
            MamfedError: The device has too little memory, or the folder cannot be written.
        """
        metadata_ids = {task.identity: task.metadata_id for task in batch}
        views = [view for task in batch if (view := self._view(task)) is not None]
        if not views:
            return
        with self.network:
            predictions = _in_memory(self.model, [view.sample for view in views])
        for view, prediction in zip(views, predictions, strict=True):
            files, record = answer(view, prediction, self.model, self.encoding, self.kinds)
            record |= {"said": metadata_ids[view.identity]}
            if self.names_patients and view.patient:
                record |= {"patient": view.patient}
            self.folder.keep(view.identity, files, record)
            with self.counting:
                self.outcomes.predicted += 1
                self.done(1, 0)

    def _view(self, task: PredictionTask) -> View | None:
        """Read an image; record it as rejected if it cannot be used."""
        source, size = task.source, self.model.plan.image_size
        try:
            with self.readers.decoder() as decoder:
                return view_of(source, task.identity, size, decoder, self.secret, self.kinds)
        except FileRejected as refusal:
            reason = refusal
        except DataError as error:  # a prepared sample is damaged
            reason = FileRejected(Reason.UNREADABLE_IMAGE, str(error))
        with self.counting:
            self.outcomes.rejected.append(rejection(source.row.row_number, source.name, reason))
            self.done(1, 1)
        return None


def _in_memory(model: LoadedModel, samples: Sequence[Sample]) -> list[Prediction]:
    """Run the network.

    Raises:
        MamfedError: The device has too little memory.
    """
    try:
        return predict(model.network, samples, model.plan, model.device, model.painter)
    except torch.OutOfMemoryError:
        raise MamfedError(
            f"{model.device}: not enough memory for {len(samples)} images per batch; "
            "choose a smaller --batch, or --device cpu"
        ) from None

"""What the audit log says of a request and of the answer to it."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from flwr.app import RecordDict
from torch import Tensor

from mamfed_client.disclosure.answered import Question
from mamfed_client.disclosure.audit_log import ArrayEntry
from mamfed_common.protocol.messages import BODY, JSON, wire_bytes
from mamfed_common.protocol.tasks import EvaluateTask, PlanRequest, TrainTask


def request_fields(request: PlanRequest, question: Question | None) -> dict[str, Any]:
    """Return all that a request asked.

    Args:
        request: The request.
        question: What it asks with its weights; None if they were not read.
    """
    fields: dict[str, Any] = {"plan_sha256": request.plan.sha256()}
    if isinstance(request, TrainTask | EvaluateTask):
        fields |= {"stage": request.stage.value, "round": request.server_round}
        fields |= {"run": request.run or None}
    if isinstance(request, EvaluateTask):
        fields |= {"part": request.part, "threshold": request.threshold}
        fields |= {"painter": request.painter or None}
        fields |= {"model": request.model if request.model == "personal" else None}
    if question is not None:
        fields |= {"asked_sha256": question.weights_sha256}
    return fields


def array_entry(name: str, tensor: Tensor) -> ArrayEntry:
    """Return the entry of an array that leaves."""
    data = tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data
    return ArrayEntry(name=name, sha256=hashlib.sha256(data).hexdigest(), bytes=data.nbytes)


def size_of(content: RecordDict) -> int:
    """Return the bytes of an answer: its arrays and its values."""
    return wire_bytes(content) + len(str(content.config_records[BODY][JSON]).encode())

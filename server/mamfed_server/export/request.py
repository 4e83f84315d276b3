"""What to export: a checkpoint, the format and its files, and where to write them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from mamfed_common.runtime.fingerprint import Fingerprint
from mamfed_server.export.checks import Images
from mamfed_server.export.source import Source

RECORD, PREPROCESSING, CARD, README = (
    "export.json",
    "preprocessing.json",
    "MODEL_CARD.md",
    "README.md",
)


class ExportTarget(StrEnum):
    """The formats that a network can be exported to."""

    ONNX = "onnx"
    TORCHSCRIPT = "torchscript"
    MONAI_BUNDLE = "monai-bundle"
    SAFETENSORS = "safetensors"
    MAP = "map"


class ExportFormat(NamedTuple):
    """How one format is written.

    Attributes:
        module: The module in this package that writes it.
        files: The files that it writes.
        needs: The optional packages that it imports.
        painter: The file for the painter's weights, if the checkpoint has them; empty: the format
            omits them.
    """

    module: str
    files: tuple[str, ...]
    needs: tuple[str, ...] = ()
    painter: str = ""


FORMATS = {
    ExportTarget.ONNX: ExportFormat(
        "onnx_file", ("model.onnx",), ("onnx", "onnxscript", "onnxruntime")
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
_APP = ("__main__.py", "app.py", "app.yaml", "malignancy.py", "mamfed.zip", "requirements.txt")
_BUNDLE = (*FORMATS[ExportTarget.MONAI_BUNDLE].files, "preprocessing.json")
FORMATS[ExportTarget.MAP] = ExportFormat(
    "map_package",
    (*(f"app/{name}" for name in _APP), *(f"model/malignancy/{name}" for name in _BUNDLE)),
)


class Request(NamedTuple):
    """A request for one export.

    Attributes:
        source: The checkpoint.
        target: The format.
        out: The output folder; one that already holds this export is replaced.
        images: Images for the comparison, ``(H, W)`` in 0..1; None: one is generated.
    """

    source: Source
    target: ExportTarget
    out: Path
    images: Sequence[Images] | None = None

    @property
    def question(self) -> Fingerprint:
        """Everything that the export depends on; an export with the same values is replaced."""
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
        target_format = FORMATS[self.target]
        painter = target_format.painter if self.source.checkpoint.painter is not None else ""
        return sorted(filter(None, (*target_format.files, painter)))

    @property
    def files(self) -> list[Path]:
        """All files of the export."""
        names = {*self.network_files, PREPROCESSING, CARD, README, RECORD}
        return [self.out / name for name in sorted(names)]

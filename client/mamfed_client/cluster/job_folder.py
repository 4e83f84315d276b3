"""The folder of one job: an order and its weights in, an answer and its weights out.

===================  ==========================================================================
``order.json``       what to compute, with the SHA-256 of each input
``*.safetensors``    ``weights``, ``painter`` and ``moments`` in; ``result`` and
                     ``moments-after`` out
``secret``           the secret of a private round's draws, hexadecimal
``submission.json``  the job that was started
``progress.json``    the job's sign of life
``cancel``           asks the job to end
``answer.json``      the answer, written last, with the SHA-256 of each output
``state/``           the job's own checkpoints
``logs/``            what the scheduler and the job printed
===================  ==========================================================================

Everything is written under a draft's name and renamed; every read is bounded. The folder belongs to
one user alone, on both machines.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mamfed_client.cluster.documents import Answer, Order, Progress, Submission
from mamfed_common.config import Config
from mamfed_common.errors import JobError, SetupError
from mamfed_common.model.state_dict import State
from mamfed_common.runtime.bounded import (
    CHECKPOINT_BYTES,
    DOCUMENT_BYTES,
    KEY_BYTES,
    STATE_BYTES,
    read_bytes,
)
from mamfed_common.runtime.files import os_error_line, owner_note, private_directory, write_atomic

SECRET = "secret"
"""Name of the secret of a private round's draws."""
Document = TypeVar("Document", bound=Config)


def check_private(folder: Path) -> Path:
    """Refuse a folder that other users may enter or own; return it.

    Raises:
        SetupError: It is such a folder, or none.
    """
    try:
        found = folder.stat()
    except OSError as error:
        raise SetupError(os_error_line(error)) from None
    if not stat.S_ISDIR(found.st_mode):
        raise SetupError(f"{folder}: not a folder, expected one that jobs see as well")
    if found.st_uid != os.geteuid():
        raise SetupError(f"{folder}: expected a folder of this user{owner_note(folder)}")
    if mode := stat.S_IMODE(found.st_mode) & 0o077:
        raise SetupError(
            f"{folder}: found mode {stat.S_IMODE(found.st_mode):04o}, which lets others in "
            f"({mode:04o}), expected 0700: run chmod 700 {folder}"
        )
    return folder


def jobs_of(shared: Path, site: str, what: str) -> Path:
    """Return the folder of a site's jobs of one kind, creating it and the shared folder (0700).

    Raises:
        SetupError: A folder lets others in, or cannot be created.
    """
    folder = shared
    try:
        for part in ("", site, what):
            folder = check_private(private_directory(folder / part))
    except OSError as error:
        raise SetupError(os_error_line(error)) from None
    return folder


class JobFolder:
    """The folder of one job, as the node and the job see it."""

    def __init__(self, path: Path) -> None:
        """Refer to the folder."""
        self.path = path

    def exists(self) -> bool:
        """Return whether there is a complete order."""
        return (self.path / "order.json").exists()

    def create(self, order: Order, tensors: Mapping[str, bytes], secret: bytes | None) -> None:
        """Write the order, with its inputs first.

        Raises:
            OSError: The folder cannot be written.
        """
        private_directory(self.path)
        for name, content in tensors.items():
            write_atomic(self._tensors(name), content)
        if secret is not None:
            write_atomic(self.path / SECRET, secret.hex())
        write_atomic(self.path / "order.json", order.model_dump_json())

    def order(self) -> tuple[Order, str]:
        """Return the order and its SHA-256.

        Raises:
            SetupError: There is none, or it is damaged.
        """
        path = self.path / "order.json"
        try:
            content = read_bytes(path, STATE_BYTES)
            return Order.model_validate_json(content), hashlib.sha256(content).hexdigest()
        except OSError as error:
            raise SetupError(os_error_line(error)) from None
        except ValidationError:
            raise SetupError(f"{path}: damaged, or of another version of mamfed") from None

    def secret(self, sha256s: Mapping[str, str]) -> bytes:
        """Return the secret of a private round's draws.

        Raises:
            SetupError: It is missing or not the one that the order states.
        """
        path = self.path / SECRET
        try:
            found = bytes.fromhex(read_bytes(path, KEY_BYTES).decode())
        except OSError as error:
            raise SetupError(os_error_line(error)) from None
        except ValueError:
            raise SetupError(f"{path}: damaged, expected hexadecimal digits") from None
        if hashlib.sha256(found).hexdigest() != sha256s.get(SECRET):
            raise SetupError(f"{path}: not the secret of this order")
        return found

    def write_tensors(self, name: str, tensors: Mapping[str, Tensor]) -> str:
        """Write tensors; return the SHA-256 of their file."""
        content = packed(tensors)
        write_atomic(self._tensors(name), content)
        return hashlib.sha256(content).hexdigest()

    def tensors(self, name: str, sha256s: Mapping[str, str]) -> State:
        """Read tensors whose SHA-256 an order or an answer states.

        Raises:
            JobError: The file is missing, damaged, too large, or not what was stated.
        """
        path = self._tensors(name)
        try:
            content = read_bytes(path, CHECKPOINT_BYTES)
            if hashlib.sha256(content).hexdigest() != sha256s.get(name):
                raise JobError(f"{path}: not the file that the document beside it states")
            return load(content)
        except OSError as error:
            raise JobError(os_error_line(error)) from None
        except (SafetensorError, ValueError):
            raise JobError(f"{path}: damaged, expected a safetensors file") from None

    def write(self, document: Answer | Progress | Submission) -> None:
        """Write one of the small documents."""
        write_atomic(self._document(type(document)), document.model_dump_json())

    def read(self, kind: type[Document]) -> Document | None:
        """Return one of the small documents; None if there is none yet.

        Raises:
            JobError: It is damaged.
        """
        path = self._document(kind)
        limit = STATE_BYTES if kind is Answer else DOCUMENT_BYTES
        try:
            return kind.model_validate_json(read_bytes(path, limit))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise JobError(os_error_line(error)) from None
        except ValidationError:
            raise JobError(f"{path}: damaged") from None

    def forget(self, *kinds: type[Config]) -> None:
        """Remove small documents."""
        for kind in kinds:
            self._document(kind).unlink(missing_ok=True)

    def ask_to_cancel(self) -> None:
        """Ask the job to end, wherever it runs."""
        write_atomic(self.path / "cancel", "")

    def may_go_on(self) -> None:
        """Withdraw :meth:`ask_to_cancel`."""
        (self.path / "cancel").unlink(missing_ok=True)

    def is_cancelled(self) -> bool:
        """Return whether the job is asked to end, or its folder has gone."""
        return (self.path / "cancel").exists() or not self.exists()

    @property
    def state(self) -> Path:
        """Return the folder of the job's own checkpoints."""
        return self.path / "state"

    @property
    def logs(self) -> Path:
        """Return the folder of what was printed, creating it (0700)."""
        return private_directory(self.path / "logs")

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _tensors(self, name: str) -> Path:
        return self.path / f"{name}.safetensors"

    def _document(self, kind: type[Config]) -> Path:
        return self.path / f"{kind.__name__.lower()}.json"


def packed(tensors: Mapping[str, Tensor]) -> bytes:
    """Return tensors as a safetensors file."""
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})

"""File locks that admit one process at a time and name their holder.

The kernel holds the lock (``flock``) and releases it when the process ends, so a crash leaves no
lock behind: the file that remains is only text. The text names the process, its machine and its
start time, for the message to whoever is refused.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

from mamfed_common.errors import SetupError
from mamfed_common.runtime.bounded import parse_json
from mamfed_common.runtime.files import (
    cannot_write,
    give_to_owner,
    name_in_errors,
    private_directory,
)

PATIENCE_SECONDS = 1.0
"""Time to wait for the lock, which tolerates the brief lock that :func:`holder` takes."""
MOST_BYTES = 1000
NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS})
"""Errors of file systems without locks, such as NFS without its lock service."""


class LockHolder(NamedTuple):
    """The current or last holder of a lock.

    Attributes:
        pid: Process id; 0 if unknown.
        host: Its machine or container.
        started: When it took the lock (UTC, ISO 8601).
    """

    pid: int = 0
    host: str = ""
    started: str = ""

    def words(self) -> str:
        """Return a description such as ``process 12, since 2026-01-01T00:00:00+00:00``."""
        if not self.pid:
            return "a process that has just started"
        elsewhere = f" on {self.host}" if self.host and self.host != socket.gethostname() else ""
        since = f", since {self.started}" if self.started else ""
        return f"process {self.pid}{elsewhere}{since}"


@contextmanager
def exclusive_lock(
    path: Path, what: str, place: Path | None = None, *, leaves_file: bool = True
) -> Iterator[None]:
    """Hold a lock while the block runs.

    Args:
        path: The lock file, created if necessary (0600).
        what: Name of what may run only once, for the error.
        place: Where it runs, for the error; None means the folder of the file.
        leaves_file: Whether the file remains after the block.

    Raises:
        SetupError: Another process holds it, or its file system has no locks.
        OutputError: The file cannot be created.
    """
    descriptor = _acquire(path, f"{place or path.parent}: {what}")
    try:
        me = LockHolder(os.getpid(), socket.gethostname(), _now())
        with name_in_errors(path):
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(me._asdict()).encode(), 0)
        try:
            yield
        finally:
            os.truncate(descriptor, 0)
            if not leaves_file:
                path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _acquire(path: Path, what: str) -> int:
    """Open a file and lock it; return its descriptor."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise cannot_write(path, error) from None
        try:
            give_to_owner(descriptor, path.parent)
            if not _wait_for(path, descriptor):
                who = _read(descriptor).words()
                raise SetupError(
                    f"{what} is already running here ({who}); stop it, or choose another folder"
                )
            # The previous holder may have removed the file: then this lock protects nothing.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def stop(path: Path) -> LockHolder | None:
    """Stop the process that holds a lock (SIGTERM), and wait until it has exited.

    Returns:
        The holder; None if nobody holds the lock.

    Raises:
        SetupError: The holder is not verifiably a process of this machine with the file open;
            nothing is signalled.
    """
    found = holder(path)
    if found is None:
        return None
    if found.host not in ("", socket.gethostname()):
        raise SetupError(f"{path.parent}: {found.words()} is using it; stop it there")
    if not _has_open(found.pid, path):
        raise SetupError(
            f"{path.parent}: {found.words()} holds the lock but does not have {path.name} open; "
            "nothing was stopped"
        )
    os.kill(found.pid, signal.SIGTERM)
    while holder(path) == found:
        sleep(0.1)
    return found


@contextmanager
def short_lock(path: Path, kind: int = fcntl.LOCK_EX, flags: int | None = None) -> Iterator[int]:
    """Wait for a lock that is only ever held briefly; yield the file's descriptor.

    Args:
        path: The file.
        kind: ``fcntl.LOCK_EX`` or ``LOCK_SH``.
        flags: Flags of ``os.open``; None means read and write, created if necessary (0600).

    Raises:
        OSError: The file cannot be opened.
        SetupError: Its file system has no locks.
    """
    if flags is None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        if flags & os.O_CREAT:
            give_to_owner(descriptor, path.parent)
        _flock(path, descriptor, kind)
        yield descriptor
    finally:
        os.close(descriptor)


LOCK = ".lock"


@contextmanager
def exclusive_folder(folder: Path, what: str) -> Iterator[Path]:
    """Create a folder if necessary and lock it against other processes while the block runs.

    A new folder is removed again if the block leaves it empty.

    Args:
        folder: The folder; its lock file is ``.lock``.
        what: Name of what may run only once, for the error.

    Raises:
        OutputError: It cannot be created or written.
        SetupError: Another process uses it, or its file system has no locks.
    """
    is_new = not folder.exists()
    try:
        private_directory(folder)
    except OSError as error:
        raise cannot_write(folder, error) from None
    try:
        with exclusive_lock(folder / LOCK, what, leaves_file=False):
            yield folder
    finally:
        if is_new:
            with suppress(OSError):  # not empty
                folder.rmdir()


TURN = ".turn.lock"


@contextmanager
def home_lock(home: Path) -> Iterator[None]:
    """Serialise the commands that change a home.

    Otherwise two commands that read the same state and then write could undo each other's change,
    such as a revocation.

    Raises:
        OutputError: The home cannot be written.
        SetupError: Its file system has no locks.
    """
    try:
        with short_lock(home / TURN):
            yield
    except PermissionError as error:
        raise cannot_write(home, error) from None


def holder(path: Path) -> LockHolder | None:
    """Return the holder of a lock; None if there is none, or if that cannot be determined."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(descriptor)
    except OSError:  # no locks here; the command that starts something reports that
        return None
    else:
        return None
    finally:
        os.close(descriptor)


def _has_open(pid: int, path: Path) -> bool:
    """Return whether a process has a file open; without /proc, assume that it has."""
    if not Path("/proc/self/fd").is_dir():
        return pid > 0
    wanted = path.stat()
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):  # closed in the meantime, or a pipe
                if os.path.samestat(link.stat(), wanted):
                    return True
    except OSError:  # no such process here, or another user's
        return False
    return False


def _wait_for(path: Path, descriptor: int) -> bool:
    deadline = monotonic() + PATIENCE_SECONDS
    while True:
        try:
            _flock(path, descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > deadline:
                return False
            sleep(0.05)
        else:
            return True


def _flock(path: Path, descriptor: int, kind: int) -> None:
    try:
        fcntl.flock(descriptor, kind)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise SetupError(
            f"{path}: its file system does not support locks ({error.strerror}), so two processes "
            "could write here at once; use a local disk, or have the mount's lock service started"
        ) from None


def _read(descriptor: int) -> LockHolder:
    """Return the holder named in a lock file; unknown before its text is written."""
    text = os.pread(descriptor, MOST_BYTES, 0).decode(errors="replace")
    if text.isdigit():  # mamfed 0.1.0 wrote the number alone
        return LockHolder(int(text))
    try:
        found = parse_json(text)
        return LockHolder(int(found["pid"]), str(found["host"]), str(found["started"]))
    except (ValueError, TypeError, KeyError):
        return LockHolder()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

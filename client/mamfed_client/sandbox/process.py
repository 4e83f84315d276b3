"""The parent's handle on a ``worker.py`` process."""

from __future__ import annotations

import os
import resource
import select
import subprocess
import time
from importlib.util import find_spec
from pathlib import Path

from mamfed_common.errors import MamfedError
from mamfed_common.runtime.child_processes import module_command, start_process

START_S = 60.0
MAX_ANSWER = 1 << 16
"""Bytes; the longest genuine answer has a tenth of this."""
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # Keep freed memory for the next image: new pages cost as much time as an uncompressed image.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(64 << 20),
}
THREADS = ("OPJ_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


class SandboxProcess:
    """A running decoding process that answers each request with one line."""

    def __init__(self, buffer: int, deadline_s: float, threads: int) -> None:
        """Start the process and wait until it is ready.

        Args:
            buffer: Descriptor of the file that receives the pixels.
            deadline_s: Maximum time per request, in seconds.
            threads: Number of threads for OpenJPEG and OpenCV.

        Raises:
            MamfedError: The process cannot be started.
            ModuleNotFoundError: A decoding library is not installed.
        """
        # Discard stderr: libraries may quote the file there.
        self._process = start_process(
            module_command("mamfed_client.sandbox.worker", str(buffer), str(deadline_s)),
            env=os.environ | ENVIRONMENT | dict.fromkeys(THREADS, str(threads)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[buffer],
            bufsize=0,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin, self._process.stdout
        os.set_blocking(self._requests.fileno(), False)
        try:
            self.ask(b"", START_S)
        except (TimeoutError, EOFError):
            self.end()
            _check_installed()
            raise MamfedError(
                "the decoding process does not start; "
                "run `python -m mamfed_client.sandbox.worker 0 20` to see why"
            ) from None
        except BaseException:
            self.end()
            raise

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    @property
    def resident(self) -> int:
        """The process's resident memory in bytes; 0 if the system does not report it."""
        try:
            pages = Path(f"/proc/{self.pid}/statm").read_bytes().split()[1]
        except OSError:
            return 0
        return int(pages) * resource.getpagesize()

    def ask(self, request: bytes, deadline_s: float) -> bytes:
        """Write a request and return the answer line.

        Raises:
            TimeoutError: No answer arrived within the deadline.
            EOFError: The process has died, or its answer is too long.
        """
        end, answer, poller = time.monotonic() + deadline_s, b"", select.poll()
        poller.register(self._answers, select.POLLIN)
        if request:
            poller.register(self._requests, select.POLLOUT)
        while not answer.endswith(b"\n"):
            ready = poller.poll(max(0, end - time.monotonic()) * 1000)
            if not ready:
                raise TimeoutError
            for descriptor, _ in ready:
                if descriptor == self._answers.fileno():
                    answer += self._read(MAX_ANSWER - len(answer))
                elif not (request := self._write(request)):
                    poller.unregister(self._requests)
        return answer

    def _read(self, limit: int) -> bytes:
        piece = self._answers.read(limit)
        if not piece:
            raise EOFError
        return bytes(piece)

    def _write(self, request: bytes) -> bytes:
        """Write as much as the pipe accepts and return the rest."""
        try:
            return request[os.write(self._requests.fileno(), request) :]
        except BrokenPipeError:
            raise EOFError from None

    def end(self) -> int:
        """Kill the process if it is still running, and return its exit code as ``subprocess`` does.

        A process that is already dying keeps its own exit code.
        """
        self._process.kill()
        code = self._process.wait()
        self._requests.close()
        self._answers.close()
        return code


def _check_installed() -> None:
    """Raise the error that the process itself could not report: a missing library."""
    for name in ("pydicom", "imagecodecs"):
        if find_spec(name) is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

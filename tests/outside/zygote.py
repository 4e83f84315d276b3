"""Commands as processes of their own, without the seconds that each would take to import torch.

``python -m tests.outside.zygote`` imports all that the commands import and forks for each order
that it reads. What a fork runs is what the console script runs, with streams, folder, user and
capabilities of its own: only the import is shared. For an ordinary user of an ordinary system,
that holds for the decoding processes that the command starts, too (``tests/nursery``).
"""

from __future__ import annotations

import ctypes
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.nursery import birth

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "mamfed-client": "mamfed_client.cli.main",
    "mamfed-server": "mamfed_server.cli.main",
    "mamfed-simulate": "mamfed_simulations.cli.main",
}
PRELOADED = (
    "highdicom",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "monai.losses",
    "monai.metrics",
    "tensorboardX",
    "mamfed_client.preparation.commands",
    "mamfed_client.evaluation.evaluate",
    "mamfed_client.site.identity",
    "mamfed_client.disclosure.plan_store",
    "mamfed_client.review.page",
    "mamfed_client.prediction.predict",
    "mamfed_client.node.supervisor",
    "mamfed_client.node.executor",
    "mamfed_client.node.supernode",
    "mamfed_client.sandbox.worker",
    "mamfed_server.admission.approval",
    "mamfed_server.export.bundle",
    "mamfed_server.export.exporting",
    "mamfed_server.export.onnx_file",
    "mamfed_server.service.supervisor",
    "mamfed_server.service.server_process",
    "mamfed_simulations.comparison.report",
    "mamfed_simulations.federation.arm_worker",
    "mamfed_simulations.federation.experiment",
    "mamfed_simulations.federation.hospitals",
    "mamfed_simulations.study.report",
)
SERVICES = ("start", "resume", "dashboard", "playground")
"""Commands whose processes are executed: a test stops them before these have begun."""
TEMPORARY = ("/tmp", "/var/tmp")
NEW_MOUNTS, READ_ONLY, NOEXEC, REMOUNT, BIND, REC, PRIVATE = (
    0x20000, 1, 8, 32, 4096, 16384, 1 << 18,
)  # fmt: skip
"""Flags of unshare(2) and mount(2)."""
OVERRIDES_OF_MODES = 1 << 1 | 1 << 2 | 1 << 3  # DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER


@dataclass(frozen=True)
class Order:
    """One command, and the surroundings that it is to run in.

    Attributes:
        argv: Program and arguments.
        folder: Its working folder; None: one that is removed before it begins.
        out: File for its stdout.
        err: File for its stderr; None: both streams are a terminal that was closed.
        env: Its whole environment.
        user: Whom it runs as; None: as these tests.
        modes_count: Whether the superuser is held to modes of files like everybody.
        encoding: Of its console.
        writable: A folder that stays writable while what temporary files are put in does not, may
            run no program, and ``/dev/shm`` has Docker's 64 MB; empty: all stays.
        tiny_demo: Whether ``demo`` has a plan of seconds and few phantoms.
    """

    argv: list[str]
    folder: str | None
    out: str
    err: str | None
    env: dict[str, str] = field(default_factory=dict)
    user: int | None = None
    modes_count: bool = False
    encoding: str = "utf-8"
    writable: str = ""


class Zygote:
    """The tests' end of the process that forks."""

    def __init__(self) -> None:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.outside.zygote"],
            cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._answer()

    def start(self, order: Order) -> int:
        """Start a command; return its process id."""
        return int(self._ask(start=asdict(order)))

    def wait(self, pid: int, seconds: float = 120) -> int:
        """Wait for the end of a command; return its exit code, minus a signal's number."""
        return int(self._ask(wait=pid, seconds=seconds))

    def ended(self, pid: int) -> bool:
        """Tell whether a command has ended."""
        return bool(self._ask(ended=pid))

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(60)
        self._process.stdout.close()

    def _ask(self, **question: Any) -> Any:
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        line = self._process.stdout.readline()
        assert line, "the zygote has died"
        return json.loads(line)


def _serve() -> None:
    import importlib

    from mamfed_common.runtime.terminal import set_environment

    set_environment()
    for name in (*PROGRAMS.values(), *PRELOADED):
        importlib.import_module(name)
    import torch

    torch.set_num_threads(1)
    birth.THREADS.append(1)
    birth.nursery.adopt(root=False)
    _shrink_demo()
    codes: dict[int, int] = {}
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        question = json.loads(line)
        if "start" in question:
            answer: Any = _fork(Order(**question["start"]))
        elif "ended" in question:
            answer = _reap(question["ended"], codes)
        else:
            answer = _wait(question["wait"], question["seconds"], codes)
        print(json.dumps(answer), flush=True)
    os._exit(0)  # an interpreter's end takes as long as its imports


def _reap(pid: int, codes: dict[int, int]) -> bool:
    if pid not in codes:
        found, status = os.waitpid(pid, os.WNOHANG)
        if not found:
            return False
        codes[pid] = os.waitstatus_to_exitcode(status)
    return True


def _wait(pid: int, seconds: float, codes: dict[int, int]) -> int:
    deadline = time.monotonic() + seconds
    while not _reap(pid, codes):
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
            deadline += 20
        time.sleep(0.01)
    return codes[pid]


def _fork(order: Order) -> int:
    executed = os.environ.get(birth.nursery.SWITCH)
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        _settle(order)
        if executed or order.user is not None or order.modes_count or order.writable:
            pass
        elif order.argv[1] not in SERVICES:
            birth.leave_a_nursery()
        code = _run(order)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _settle(order: Order) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(order.env)
    os.umask(0o022)
    tempfile.tempdir = None
    _open_streams(order)
    os.chdir(order.folder or tempfile.mkdtemp())
    if order.folder is None:
        os.rmdir(os.getcwd())
    if order.writable:
        _take_temporary(order.writable)
    if order.modes_count:
        _drop_overrides()
    if order.user is not None:
        os.setgroups([])
        os.setresgid(order.user, order.user, order.user)
        os.setresuid(order.user, order.user, order.user)


def _open_streams(order: Order) -> None:
    null = os.open(os.devnull, os.O_RDONLY)
    if order.err is None:
        main, terminal = os.openpty()
        streams = (terminal, terminal, terminal)
        os.close(main)
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        streams = (null, *(os.open(path, flags, 0o666) for path in (order.out, order.err)))
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    sys.stdin = open(0, closefd=False)
    for number, name in ((1, "stdout"), (2, "stderr")):
        raw = open(number, "wb", closefd=False)
        setattr(sys, name, io.TextIOWrapper(raw, order.encoding, line_buffering=number == 2))


def _take_temporary(writable: str) -> None:
    """Let nothing be put where temporary files go, in mounts that this process alone sees."""
    libc = ctypes.CDLL(None, use_errno=True)

    def mount(source: str, at: str, flags: int, kind: str | None = None, data: str = "") -> None:
        words = [None if word is None else word.encode() for word in (source, at, kind)]
        if libc.mount(*words, ctypes.c_ulong(flags), data.encode()):
            raise OSError(ctypes.get_errno(), "mount", at)

    assert libc.unshare(NEW_MOUNTS) == 0
    mount("none", "/", REC | PRIVATE)
    for folder in (*TEMPORARY, writable):
        mount(folder, folder, BIND | REC)
    for folder in TEMPORARY:
        mount("none", folder, REMOUNT | BIND | READ_ONLY | NOEXEC)
    mount("tmpfs", "/dev/shm", NOEXEC, "tmpfs", "size=64m")
    os.chdir(os.getcwd())  # the folder as it is under the new mounts


def _drop_overrides() -> None:
    """Give up the superuser's way around modes (capset(2), version 3), with uid and files kept."""
    if os.geteuid():
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    assert libc.capget(header, data) == 0
    for word in (0, 1, 2):
        data[word] &= ~OVERRIDES_OF_MODES & 0xFFFFFFFF
    assert libc.capset(header, data) == 0


def _run(order: Order) -> int:
    import importlib

    program, *_ = order.argv
    sys.argv = list(order.argv)
    try:
        importlib.import_module(PROGRAMS[program]).main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _shrink_demo() -> None:
    """Give ``demo`` a plan of a second: its own takes minutes."""
    from mamfed_simulations.federation import demo
    from mamfed_simulations.playground import setup

    from .material import tiny_plan

    demo.demo_plan = lambda seed=0, size=32: tiny_plan().changed(seed=seed)
    demo.BENIGN_IMAGES, demo.MALIGNANT_IMAGES = 5, 8
    write = demo.write_cohort
    demo.write_cohort = lambda *words, **named: write(*words, **named, scale=0.06)
    setup.write_cohort = demo.write_cohort
    setup.BENIGN_IMAGES = setup.MALIGNANT_IMAGES = 4


if __name__ == "__main__":
    _serve()

"""Python processes of the tests, born with their imports.

An interpreter that imports torch and Flower takes seconds of CPU time, and a federation of three
sites starts a dozen. So what a test starts by ``subprocess`` (a module or console script of mamfed,
one of MONAI, a benchmark, a script of these tests) is forked from a process that has imported what
it will need, a *nursery*. It is a child of whoever started it all the same, with a process id,
session, streams, environment, limits, exit code and command line of its own; only the imports are
shared. What it starts in turn comes from a nursery that it was born with.

How a process becomes the child of one that did not fork it: the nursery forks twice, and the
starter takes in orphans meanwhile (``PR_SET_CHILD_SUBREAPER``).

Not forked but executed, as ever: ``python -c``, unless its code begins with :data:`BORN_CODE`;
whatever asks for another user, name space, import path, locale, library or warnings than the
nursery has; everything within :func:`executed`, or with ``MAMFED_TESTS_EXECUTE=1``. Forks of a
nursery share its hash seed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .messages import receive, send

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
SWITCH = "MAMFED_TESTS_EXECUTE"
LIGHT = "light"
HEAVY = "heavy"
DECODER = "mamfed_client.sandbox.worker"
BORN_CODE = "'born with its imports'; "
"""Beginning of what ``python -c`` runs, if a nursery may run it."""
MODULES = {
    LIGHT: (DECODER,),
    HEAVY: (
        "highdicom",
        "httpx",
        "matplotlib.backends.backend_agg",
        "monai.losses",
        "monai.metrics",
        "opacus.accountants",
        "tensorboardX",
        "uvicorn",
        "mamfed_client.cli.main",
        "mamfed_client.cluster.job",
        "mamfed_client.evaluation.evaluate",
        "mamfed_client.node.executor",
        "mamfed_client.node.supernode",
        "mamfed_client.node.supervisor",
        "mamfed_client.prediction.predict",
        "mamfed_client.preparation.commands",
        "mamfed_client.review.page",
        DECODER,
        "mamfed_client.training.device_worker",
        "mamfed_server.cli.main",
        "mamfed_server.service.server_process",
        "mamfed_server.service.supervisor",
        "mamfed_simulations.cli.main",
        "mamfed_simulations.comparison.report",
        "mamfed_simulations.federation.arm_worker",
        "mamfed_simulations.federation.experiment",
        "mamfed_simulations.federation.hospitals",
    ),
}
"""What each kind of nursery imports. The decoding process must not have torch: it comes from a
light one, and where there is none (in a process that was itself born), torch is taken from it."""
CHILDLESS = (DECODER, "mamfed_client.training.device_worker", "mamfed_client.cluster.job")
"""Modules that start no process."""
SUBREAPER = 36
"""Option of prctl(2)."""
TITLE = 4096
"""Bytes that a command line may have to be seen in /proc."""
SETTINGS = ("LC_", "LANG", "LD_", "PYTHON", "GLIBC")
"""Variables, by their beginning, that an interpreter reads as it starts."""
TOLD = {"PYTHONSAFEPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
"""Those that a fork can obey."""
LIMITS = sorted({getattr(resource, n) for n in dir(resource) if n.startswith("RLIMIT_")})
_execute_child = subprocess.Popen._execute_child


class Nursery:
    """The starter's end of a nursery: one end of a pair of sockets, and its place in the system."""

    def __init__(self, end: socket.socket, pid: int, environment: dict[str, str]) -> None:
        self._end = end
        self.pid = pid
        self._environment = environment
        self._surroundings = _surroundings()
        self._owner = os.getpid()

    def suits(self, environment: dict[str, str]) -> bool:
        """Tell whether what it forks is what an interpreter started here would be."""
        names = {n for n in self._environment.keys() | environment.keys() if n.startswith(SETTINGS)}
        alike = all(self._environment.get(n) == environment.get(n) for n in names - TOLD)
        return alike and self._owner == os.getpid() and self._surroundings == _surroundings()

    def close(self) -> None:
        """End it; what it forked lives on."""
        self._end.close()
        os.waitpid(self.pid, 0)

    def bear(self, order: dict[str, Any], descriptors: list[int]) -> int:
        """Have a child forked; return its process id.

        Raises:
            OSError: As when a program is executed.
        """
        with _one_at_a_time, _taking_in_orphans():
            send(self._end, {**order, "parent": os.getpid()}, descriptors)
            answer, _ = receive(self._end)
        if failed := answer.get("failed"):
            raise RuntimeError(failed)
        if code := answer.get("errno"):
            raise OSError(code, os.strerror(code), order["cwd"])
        return int(answer["pid"])


nurseries: dict[str, Nursery] = {}
_one_at_a_time = threading.Lock()
"""Orphans are taken in by the whole process: the end of a birth must not end that of another."""
_ways: list[tuple[str, ...]] = []
_off: list[None] = []
_roots: list[int] = []
_first_environment: dict[str, str] = {}
"""The environment as pytest found it: what a test, or Ray, changes later is not a nursery's."""


@contextlib.contextmanager
def executed() -> Iterator[None]:
    """Have what is started meanwhile executed as ever, for a test of just that."""
    _off.append(None)
    try:
        yield
    finally:
        _off.pop()


@contextlib.contextmanager
def entering(*way: str) -> Iterator[None]:
    """Have what is started behind these words forked from a nursery that was started behind them.

    Args:
        way: A program and arguments, such as nsenter(1), that execute the rest of a command line
            in their own place, in other name spaces.
    """
    _ways.append(way)
    try:
        yield
    finally:
        _ways.remove(way)
        if found := nurseries.pop(" ".join(way), None):
            found.close()


def close() -> None:
    """End this process's nurseries."""
    while nurseries:
        nurseries.popitem()[1].close()


def adopt(*, root: bool = True) -> None:
    """Let ``subprocess`` of this process use nurseries from now on.

    Args:
        root: Whether it may start nurseries, rather than use only those that it was born with.
    """
    if root:
        _roots.append(os.getpid())
        _first_environment.update(os.environ)
    if sys.platform == "linux":
        subprocess.Popen._execute_child = _born_or_executed


def _born_or_executed(popen: Any, argv: Any, executable: Any, *more: Any) -> None:
    """Take the place of ``Popen._execute_child``, whose arguments these are."""
    (preexec, close_fds, pass_fds, cwd, env, _, _, shell, p2cread, _, _, c2pwrite, _, errwrite,
     _, gid, gids, uid, umask, session, group) = more  # fmt: skip
    plain = close_fds and {executable, preexec, gid, gids, uid} == {None} and not shell
    if not plain or umask >= 0 or group >= 0 or not isinstance(argv, (list, tuple)):
        return _execute_child(popen, argv, executable, *more)
    words = [os.fsdecode(word) for word in argv]
    way = next((way for way in _ways if tuple(words[: len(way)]) == way), ())
    words = words[len(way) :]
    environment = {os.fsdecode(k): os.fsdecode(v) for k, v in (env or os.environ).items()}
    nursery = _nursery_for(words, environment, way)
    if nursery is None:
        return _execute_child(popen, argv, executable, *more)
    order = {
        "argv": words,
        "cwd": os.fsdecode(cwd) if cwd else os.getcwd(),
        "env": environment,
        "session": bool(session),
        "umask": _umask(),
        "ignored": [s for s in (1, 2, 3, 15) if signal.getsignal(s) is signal.SIG_IGN],
        "limits": [resource.getrlimit(kind) for kind in LIMITS],
        "numbers": [0, 1, 2, *pass_fds],
    }
    ends = [(p2cread, 0), (c2pwrite, 1), (errwrite, 2)]
    descriptors = [given if given != -1 else own for given, own in ends]
    popen.pid = nursery.bear(order, [*descriptors, *pass_fds])
    popen._child_created = True
    popen._close_pipe_fds(*more[8:14])
    return None


def _nursery_for(
    words: list[str], environment: dict[str, str], way: tuple[str, ...]
) -> Nursery | None:
    program = program_of(words)
    if program is None or _off or environment.get(SWITCH) or os.environ.get(SWITCH):
        return None
    kind = LIGHT if program == DECODER and not way else HEAVY
    name = " ".join(way) or kind
    if name not in nurseries and os.getpid() in _roots:
        nurseries[name] = _start(kind, way)
    nursery = nurseries.get(name) if way else nurseries.get(kind, nurseries.get(HEAVY))
    return nursery if nursery and nursery.suits(environment) else None


def program_of(words: list[str]) -> str | None:
    """Return the module, the script's path or ``-c``, that a nursery can run; else None."""
    if words[0] != sys.executable:
        ours = Path(words[0]).parent == BIN and Path(words[0]).name.startswith("mamfed-")
        return words[0] if ours else None
    rest = words[2:] if words[1:2] == ["-P"] else words[1:]
    if rest[:1] == ["-c"]:
        return "-c" if rest[1].startswith(BORN_CODE) else None
    if rest[:1] == ["-m"] and len(rest) > 1:
        return rest[1] if rest[1].startswith(("mamfed_", "benchmarks.", "monai.")) else None
    script = Path(rest[0]) if rest else Path()
    tests = script.suffix == ".py" and script.is_absolute() and script.is_relative_to(ROOT)
    return str(script) if tests else None


def _start(kind: str, way: tuple[str, ...]) -> Nursery:
    """Start a nursery of this process's own, behind a way; it imports what its kind needs."""
    own, other = socket.socketpair()
    fixed = {"OPENBLAS_NUM_THREADS": "1"} if kind == HEAVY else {"OMP_NUM_THREADS": "1"}
    kept = {k: v for k, v in _first_environment.items() if not k.startswith("OMP_")}
    environment = kept | fixed
    birth = Path(__file__).resolve().with_name("birth.py")
    argv = [*way, sys.executable, "-P", str(birth), kind, str(other.fileno())]
    with executed():
        process = subprocess.Popen(
            [*argv, "-" * TITLE], env=environment, pass_fds=[other.fileno()],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    process.returncode = 0  # nobody waits for it: it ends as this process does
    other.close()
    ready, _ = receive(own)
    assert ready == {"ready": kind}
    return Nursery(own, process.pid, environment)


def _surroundings() -> tuple[object, ...]:
    """Return what a child has from its parent, unless told otherwise."""
    spaces = (os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "net", "user"))
    user = (os.getresuid(), os.getresgid(), os.getpgrp(), os.getpriority(os.PRIO_PROCESS, 0))
    return (*spaces, *user, frozenset(os.sched_getaffinity(0)))


def _umask() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Umask:"):
            return int(line.split()[1], 8)
    raise AssertionError("no umask")


@contextlib.contextmanager
def _taking_in_orphans() -> Iterator[None]:
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(SUBREAPER, 1, 0, 0, 0) == 0
    try:
        yield
    finally:
        libc.prctl(SUBREAPER, 0, 0, 0, 0)

"""Python processes of the tests, born with their imports.

An interpreter that imports torch and Flower takes seconds of CPU time, and a federation of three
sites starts a dozen. So what a test starts by ``subprocess`` (a module or console script of mamfed,
or a script of these tests) is forked from a process that has imported what it will need, a
*nursery*. It is a child of whoever started it all the same, with a process id, session, streams,
environment, limits, exit code and command line of its own; only the imports are shared. What it
starts in turn comes from a nursery that it was born with.

How a process becomes the child of one that did not fork it: the nursery forks twice, and the starter
takes in orphans meanwhile (``PR_SET_CHILD_SUBREAPER``).

Not forked but executed, as ever: ``python -c``; whatever asks for other import paths, locale,
libraries or warnings than the nursery has; the decoding process when not started by the tests'
own process; everything after :func:`executed`, or with ``MAMFED_TESTS_EXECUTE=1``. Forks of a
nursery share its hash seed.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import runpy
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
SWITCH = "MAMFED_TESTS_EXECUTE"
LIGHT = "light"
HEAVY = "heavy"
DECODER = "mamfed_client.sandbox.worker"
MODULES = {
    LIGHT: (DECODER,),
    HEAVY: (
        "highdicom",
        "matplotlib.backends.backend_agg",
        "mamfed_client.cli.main",
        "mamfed_client.cluster.job",
        "mamfed_client.evaluation.evaluate",
        "mamfed_client.node.executor",
        "mamfed_client.node.supernode",
        "mamfed_client.node.supervisor",
        "mamfed_client.prediction.predict",
        "mamfed_client.preparation.commands",
        "mamfed_client.review.page",
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
"""What each kind of nursery imports; the decoding process must never have torch."""
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
        self._lock = threading.Lock()
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
        with self._lock, _taking_in_orphans():
            _send(self._end, {**order, "parent": os.getpid()}, descriptors)
            answer, _ = _receive(self._end)
        if code := answer.get("errno"):
            raise OSError(code, os.strerror(code), order["cwd"])
        return int(answer["pid"])


nurseries: dict[str, Nursery] = {}
_off: list[None] = []


@contextlib.contextmanager
def executed() -> Iterator[None]:
    """Have what is started meanwhile executed as ever, for a test of just that."""
    _off.append(None)
    try:
        yield
    finally:
        _off.pop()


def close() -> None:
    """End this process's nurseries."""
    while nurseries:
        nurseries.popitem()[1].close()


def adopt() -> None:
    """Let ``subprocess`` of this process use nurseries from now on."""
    if sys.platform == "linux":
        subprocess.Popen._execute_child = _born_or_executed  # type: ignore[method-assign]


def _born_or_executed(popen: Any, argv: Any, executable: Any, *more: Any) -> None:
    """Take the place of ``Popen._execute_child``, whose arguments these are."""
    (preexec, close_fds, pass_fds, cwd, env, _, _, shell, p2cread, _, _, c2pwrite, _, errwrite,
     _, gid, gids, uid, umask, session, group) = more  # fmt: skip
    plain = close_fds and {executable, preexec, gid, gids, uid} == {None} and not shell
    if not plain or umask >= 0 or group >= 0 or not isinstance(argv, (list, tuple)):
        return _execute_child(popen, argv, executable, *more)
    words = [os.fsdecode(word) for word in argv]
    environment = {os.fsdecode(k): os.fsdecode(v) for k, v in (env or os.environ).items()}
    nursery = _nursery_for(words, environment)
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


def _nursery_for(words: list[str], environment: dict[str, str]) -> Nursery | None:
    program = _program(words)
    if program is None or _off or environment.get(SWITCH) or os.environ.get(SWITCH):
        return None
    kind = LIGHT if program == DECODER else HEAVY
    if kind not in nurseries and os.getpid() == _tests:
        nurseries[kind] = _start(kind)
    nursery = nurseries.get(kind)
    return nursery if nursery and nursery.suits(environment) else None


def _program(words: list[str]) -> str | None:
    """Return the module, or the script's path, that a nursery can run; else None."""
    if words[0] != sys.executable:
        ours = Path(words[0]).parent == BIN and Path(words[0]).name.startswith("mamfed-")
        return words[0] if ours else None
    rest = words[2:] if words[1:2] == ["-P"] else words[1:]
    if rest[:1] == ["-m"] and len(rest) > 1:
        return rest[1] if rest[1].startswith("mamfed_") else None
    script = Path(rest[0]) if rest else Path()
    tests = script.suffix == ".py" and script.is_absolute() and script.is_relative_to(ROOT)
    return str(script) if tests else None


def _start(kind: str) -> Nursery:
    """Start a nursery of this process's own, which imports what its kind needs."""
    own, other = socket.socketpair()
    fixed = {"OPENBLAS_NUM_THREADS": "1"} if kind == HEAVY else {"OMP_NUM_THREADS": "1"}
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")} | fixed
    argv = [sys.executable, "-P", str(Path(__file__).resolve()), kind, str(other.fileno())]
    with executed():
        process = subprocess.Popen(
            [*argv, "-" * TITLE], env=environment, pass_fds=[other.fileno()],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip
    process.returncode = 0  # nobody waits for it: it ends as this process does
    other.close()
    ready, _ = _receive(own)
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


def _send(end: socket.socket, message: dict[str, Any], descriptors: list[int]) -> None:
    data = json.dumps(message).encode("utf-8", "surrogateescape")
    head = struct.pack("!I", len(data))
    if descriptors:
        socket.send_fds(end, [head], descriptors)
    else:
        end.sendall(head)
    end.sendall(data)


def _receive(end: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return a message and its descriptors.

    Raises:
        EOFError: The other end has gone.
    """
    head, descriptors, _, _ = socket.recv_fds(end, 4, 64)
    data = bytearray()
    while head and len(data) < (size := struct.unpack("!I", head)[0]):
        piece = end.recv(size - len(data))
        if not piece:
            break
        data += piece
    if not data:
        raise EOFError
    return json.loads(data.decode("utf-8", "surrogateescape")), descriptors


def _serve(end: socket.socket) -> dict[str, Any]:
    """Fork for each order until the starter has gone; return the order in the process born."""
    while True:
        try:
            order, descriptors = _receive(end)
        except (EOFError, OSError):
            os._exit(0)
        between = os.fork()
        if not between:
            if os.fork():
                os._exit(0)
            return {**order, "descriptors": descriptors, "starter": end}
        os.waitpid(between, 0)
        for descriptor in descriptors:
            os.close(descriptor)


def _settle(order: dict[str, Any]) -> None:
    """Take on all that the starter would have given to a program that it executes."""
    end = order["starter"]
    deadline = time.monotonic() + 20
    while os.getppid() != order["parent"]:
        if time.monotonic() > deadline:
            os._exit(70)
        time.sleep(0.0005)
    try:
        os.chdir(order["cwd"])
    except OSError as error:
        _send(end, {"errno": error.errno}, [])
        os._exit(70)
    if order["session"]:
        os.setsid()
    os.umask(order["umask"])
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    for kind, limit in zip(LIMITS, order["limits"], strict=True):
        if resource.getrlimit(kind) != tuple(limit):
            resource.setrlimit(kind, tuple(limit))
    for number in (1, 2, 3, 15):
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in order["ignored"] else default)
    _take_descriptors(order)


def _take_descriptors(order: dict[str, Any]) -> None:
    """Give each descriptor its number, and close all others but the one to the starter."""
    numbers, received = order["numbers"], order["descriptors"]
    high = max(*numbers, *received, order["starter"].fileno()) + 1
    moved = [os.dup2(descriptor, high + i) for i, descriptor in enumerate(received)]
    starter = os.dup2(order["starter"].detach(), high + len(moved), inheritable=False)
    for number, descriptor in zip(numbers, moved, strict=True):
        os.dup2(descriptor, number)
    kept = [*sorted(numbers), starter]
    for low, up in zip(kept, [*kept[1:], 1 << 16], strict=True):
        os.closerange(low + 1, up)
    order["starter"] = socket.socket(fileno=starter)


def _open_streams(environment: dict[str, str]) -> None:
    unbuffered = bool(environment.get("PYTHONUNBUFFERED"))
    kept = {name: getattr(sys, name) for name in ("stdin", "stdout", "stderr")}
    for number, (name, old) in enumerate(kept.items()):
        lines = name == "stderr" or (name == "stdout" and os.isatty(number))
        stream = open(
            number, "w" if number else "r", buffering=1 if lines else -1, closefd=False,
            encoding=old.encoding, errors=old.errors, newline="\n" if number else None,
        )  # fmt: skip
        if unbuffered and number:
            stream.reconfigure(write_through=True)  # type: ignore[attr-defined]
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _show_command_line(words: list[str]) -> None:
    """Let /proc and ps show the command rather than the nursery's."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    text = b"\0".join(word.encode("utf-8", "surrogateescape") for word in words)[: end - start - 1]
    ctypes.memset(start, 0, end - start)
    ctypes.memmove(start, text, len(text))


def _be_told_threads() -> None:
    """Use as many threads as an interpreter with this environment, whose torch would read it."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", _threads)))
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()


_threads = 1
_tests = os.getpid()


def _live(order: dict[str, Any]) -> None:
    """Be the process that was ordered, to its end."""
    _settle(order)
    words = order["argv"]
    program = _program(words)
    _show_command_line(words)
    _open_streams(order["env"])
    nurseries.clear()
    end = order["starter"]
    if program not in CHILDLESS:
        own, other = socket.socketpair()
        pid = os.fork()
        if not pid:
            end.detach()
            keep = other.detach()
            os.closerange(3, keep)
            os.closerange(keep + 1, 1 << 16)
            null = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            os.close(null)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            return _live(_serve(socket.socket(fileno=keep)))
        other.close()
        nurseries[HEAVY] = Nursery(own, pid, dict(os.environ))
    _send(end, {"pid": os.getpid()}, [])
    end.close()
    _be_told_threads()
    _leave(_run(words, str(program)))


def _run(words: list[str], program: str) -> int:
    """Run a module or script as the interpreter would; return the exit code."""
    module = "-m" in words[1:3]
    sys.orig_argv = list(words)
    sys.argv = words[words.index(program) :] if words[0] == sys.executable else list(words)
    safe = "-P" in words[1:2] or bool(os.environ.get("PYTHONSAFEPATH"))
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    if not safe:
        sys.path.insert(0, os.getcwd() if module else str(Path(program).parent))
    try:
        if module:
            sys.modules.pop(program, None)
            sys.modules["__main__"] = types.ModuleType("__main__")
            runpy._run_module_as_main(program)  # type: ignore[attr-defined]
        else:
            runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return (end.code or 0) & 0xFF
        print(end.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        sys.excepthook(*sys.exc_info())
        return -signal.SIGINT
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _leave(code: int) -> NoReturn:
    """End as an interpreter does: threads, what ``atexit`` knows, streams."""
    import atexit

    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = code or 120
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def main() -> None:
    """Import all of a kind, then fork for each order."""
    global _threads, _tests
    import gc
    import importlib

    kind, number = sys.argv[1], int(sys.argv[2])
    if kind == HEAVY:
        from mamfed_common.runtime.terminal import set_environment

        set_environment()
    for name in MODULES[kind]:
        importlib.import_module(name)
    if torch := sys.modules.get("torch"):
        _threads = torch.get_num_threads()
    _tests = 0
    sys.modules["nursery"] = sys.modules["__main__"]
    adopt()
    gc.collect()
    gc.freeze()
    end = socket.socket(fileno=number)
    _send(end, {"ready": kind}, [])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _live(_serve(end))


if __name__ == "__main__":
    main()

"""The nursery's own end: import what children will need, fork for each order, be the child."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import io
import logging
import os
import resource
import runpy
import signal
import socket
import sys
import threading
import time
import traceback
import types
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import nursery
from nursery import CHILDLESS, DECODER, HEAVY, LIMITS, MODULES, Nursery, program_of
from nursery.messages import receive, send

sys.path.pop(0)

THREADS: list[int] = []
"""As many as torch uses unless told."""


def _serve(end: socket.socket) -> dict[str, Any]:
    """Fork for each order until the starter has gone; return the order in the process born."""
    while True:
        try:
            order, descriptors = receive(end)
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
    while os.getppid() != order["parent"]:
        if not Path(f"/proc/{order['parent']}").exists():  # it died before it could adopt this one
            os._exit(0)
        time.sleep(0.0005)
    try:
        os.chdir(order["cwd"])
    except OSError as error:
        send(order["starter"], {"errno": error.errno}, [])
        os._exit(70)
    if order["session"]:
        os.setsid()
    os.umask(order["umask"])
    os.environ.clear()
    os.environ.update(order["env"])
    time.tzset()
    for number in (1, 2, 3, 15):
        default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN if number in order["ignored"] else default)
    _take_descriptors(order)
    for kind, limit in zip(LIMITS, order["limits"], strict=True):
        if resource.getrlimit(kind) != tuple(limit):
            resource.setrlimit(kind, tuple(limit))


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
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        old = getattr(sys, name)
        raw = open(number, "wb" if number else "rb", -1 if number == 0 or not unbuffered else 0,
                   closefd=False)  # fmt: skip
        lines = not unbuffered and (number == 2 or os.isatty(number))
        stream = io.TextIOWrapper(
            raw, old.encoding, old.errors, "\n" if number else None,
            line_buffering=lines, write_through=unbuffered and number > 0,
        )  # fmt: skip
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
        wanted = int(os.environ.get("OMP_NUM_THREADS", THREADS[0]))
        if torch.get_num_threads() != wanted:  # it starts threads, which no fork would have
            torch.set_num_threads(wanted)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()


def leave_a_nursery(end: socket.socket | None = None) -> None:
    """Fork one for what this process will start.

    Args:
        end: A socket to the starter, which the nursery must not keep.
    """
    own, other = socket.socketpair()
    pid = os.fork()
    if pid:
        other.close()
        nursery.nurseries[HEAVY] = Nursery(own, pid, dict(os.environ))
        return
    if end:
        end.detach()
    kept = other.detach()
    os.closerange(3, kept)
    os.closerange(kept + 1, 1 << 16)
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.close(null)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _live(_serve(socket.socket(fileno=kept)))


def _live(order: dict[str, Any]) -> NoReturn:
    """Be the process that was ordered, to its end."""
    end, words = order["starter"], order["argv"]
    program = str(program_of(words))
    try:
        _settle(order)
        end = order["starter"]
        _open_streams(order["env"])
        nursery.nurseries.clear()
        if program not in CHILDLESS:
            leave_a_nursery(end)
        _show_command_line(words)
        _be_told_threads()
    except BaseException:
        send(end, {"failed": traceback.format_exc()}, [])
        os._exit(70)
    send(end, {"pid": os.getpid()}, [])
    end.close()
    _leave(_run(words, program))


def _run(words: list[str], program: str) -> int:
    """Run a module, script or code as the interpreter would; return the exit code."""
    module, code = "-m" in words[1:3], program == "-c"
    sys.orig_argv = list(words)
    sys.argv = words[words.index(program) :] if words[0] == sys.executable else list(words)
    safe = "-P" in words[1:2] or bool(os.environ.get("PYTHONSAFEPATH"))
    sys.dont_write_bytecode = bool(os.environ.get("PYTHONDONTWRITEBYTECODE"))
    if program == DECODER:
        for name in [n for n in sys.modules if n.partition(".")[0] in ("torch", "flwr")]:
            del sys.modules[name]
    if not safe:
        sys.path.insert(0, os.getcwd() if module else "" if code else str(Path(program).parent))
    try:
        if code:
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(sys.argv.pop(1), "<string>", "exec"), main.__dict__)
        elif module:
            sys.modules.pop(program, None)
            sys.modules["__main__"] = types.ModuleType("__main__")
            runpy._run_module_as_main(program)
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
    with contextlib.suppress(BaseException):
        threading._shutdown()
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
    kind, number = sys.argv[1], int(sys.argv[2])
    if kind == HEAVY:
        from mamfed_common.runtime.terminal import set_environment

        set_environment()
    for name in MODULES[kind]:
        importlib.import_module(name)
    logging.root.handlers.clear()  # Opacus leaves one behind, and basicConfig would do nothing
    if torch := sys.modules.get("torch"):
        THREADS.append(torch.get_num_threads())
    nursery.adopt(root=False)
    gc.collect()
    gc.freeze()
    end = socket.socket(fileno=number)
    send(end, {"ready": kind}, [])
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _live(_serve(end))


if __name__ == "__main__":
    main()

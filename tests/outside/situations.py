"""The situations outside the lab in which every command that writes is tried."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import stat
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
from safetensors import safe_open

from mamfed_common.runtime.lock import exclusive_lock

from .material import Material
from .recipes import Recipe
from .zygote import Order

STRANGER, NOBODY = 54321, 65534
"""A user without an entry in /etc/passwd, and one with."""
WORKS = 0
FOREIGN = {
    "thesis.tex": b"mine",
    "plan.yaml": b"image_size: 512\n",
    "labels.csv": b"image,patient_id\n",
    "site.yaml.bak": b"mine",
    "results.json": b"{}",
    "report.html": b"<p>mine</p>",
    "images/mine.png": b"mine",
}
"""What somebody has in a folder; some of it has names that mamfed uses, too."""


class Observed(NamedTuple):
    """What came of a command.

    Attributes:
        code: Its exit code.
        said: All that it printed.
    """

    code: int
    said: str


class Cell:
    """One command in one situation: where it works and what it is given.

    Attributes:
        place: The folder that the user is in.
        out: What is written, or the home that is changed.
    """

    def __init__(self, material: Material, recipe: Recipe, folder: Path, name: str = "") -> None:
        folder.mkdir(parents=True)
        folder.chmod(0o755)
        self.material, self.recipe, self.folder = material, recipe, folder
        self.place = folder / "work"
        self.place.mkdir()
        self.out = self.place / (name or recipe.name)
        if recipe.home:
            shutil.copytree(material.path / recipe.home, self.out)
        self._streams = 0

    def order(self, out: Path | None = None, **changes: object) -> Order:
        """Return the order to run the command once."""
        self._streams += 1
        words = self.recipe.argv(self.material, out or self.out)
        said = [str(self.folder / f"{name}{self._streams}") for name in ("out", "err")]
        order = Order(
            [*self.recipe.command.split(), *map(str, words)],
            str(self.place), said[0], said[1], self.material.env(),
        )  # fmt: skip
        return replace(order, **changes)

    def start(self, order: Order) -> int:
        return self.material.zygote.start(order)

    def end(self, pid: int, order: Order) -> Observed:
        """Wait for a command's end; a service is stopped once it serves."""
        zygote = self.material.zygote
        if self.recipe.kind == "service":
            self._stop(pid)
        code = zygote.wait(pid)
        streams = (order.out, order.err or order.out)
        said = "\n".join(
            Path(p).read_text(errors="replace") for p in dict.fromkeys(streams) if os.path.exists(p)
        )
        return Observed(code, said)

    def _stop(self, pid: int) -> None:
        zygote, deadline = self.material.zygote, time.monotonic() + 60
        while not zygote.ended(pid) and not (self.recipe.serves(self.out) and _catches_term(pid)):
            assert time.monotonic() < deadline, "does not serve"
            time.sleep(0.02)
        if not zygote.ended(pid):
            os.kill(pid, signal.SIGTERM)

    def run(self, out: Path | None = None, **changes: object) -> Observed:
        order = self.order(out, **changes)
        return self.end(self.start(order), order)

    def check_whole(self, out: Path | None = None) -> None:
        """Fail unless all is there, every file of it can be read, and nothing is half done."""
        out = out or self.out
        assert out.exists(), "nothing was written"
        missing = [name for name in self.recipe.makes if not (out / name).exists()]
        assert not missing, f"not there: {missing}"
        for path in [out] if out.is_file() else out.rglob("*"):
            _check_readable(path)
        left = [p for p in self.place.rglob("*") if p.name.endswith((".draft", ".old"))]
        assert not left, f"left behind: {left}"


def _catches_term(pid: int) -> bool:
    """Tell whether a process has said what to do at SIGTERM (proc(5))."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (caught,) = (int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:"))
    return bool(caught >> (signal.SIGTERM - 1) & 1)


def _check_readable(path: Path) -> None:
    if path.suffix == ".json":
        json.loads(path.read_bytes())
    elif path.suffix == ".safetensors":
        with safe_open(path, "numpy") as file:
            file.keys()
    elif path.suffix == ".png":
        assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED) is not None, path
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>"), path


def content(folder: Path) -> dict[str, str]:
    """Tell every file and folder below one, by name and SHA-256."""
    return {
        str(path.relative_to(folder)): (
            hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        )
        for path in folder.rglob("*")
    }


def own(path: Path, user: int) -> None:
    """Give all below a path to a user."""
    for each in [path, *path.rglob("*")]:
        os.chown(each, user, user, follow_symlinks=False)


def twice(cell: Cell) -> Observed:
    """Start it while another one works there; without a lock, two at once."""
    recipe = cell.recipe
    if recipe.lock is not None:
        lock = recipe.lock(cell.out)
        lock.parent.mkdir(exist_ok=True)
        with exclusive_lock(lock, "another"):
            before = content(cell.place)
            found = cell.run()
            assert content(cell.place) == before
        return found
    orders = [cell.order() for _ in range(2)]
    pids = [cell.start(order) for order in orders]
    found = [cell.end(pid, order) for pid, order in zip(pids, orders, strict=True)]
    cell.check_whole()
    return max(found)


def others(cell: Cell) -> Observed:
    """Name a folder that somebody else has things in, or a file of theirs."""
    if cell.recipe.kind == "file":
        cell.out.write_bytes(b"mine")
    else:
        shutil.rmtree(cell.out, ignore_errors=True)
        for name, text in FOREIGN.items():
            (cell.out / name).parent.mkdir(parents=True, exist_ok=True)
            (cell.out / name).write_bytes(text)
    before = content(cell.place)
    found = cell.run()
    after = content(cell.place)
    changed = {name for name in before if after.get(name) != before[name]}
    assert not changed, f"changed: {changed}"
    if found.code:
        assert after.keys() == before.keys(), f"left behind: {after.keys() - before.keys()}"
    return found


def dot(cell: Cell) -> Observed:
    """Be in an empty folder, or in the home, and call it ``.``."""
    place = cell.out if cell.recipe.kind in ("home", "service") else cell.place / "here"
    place.mkdir(exist_ok=True)
    found = cell.run(Path("."), folder=str(place))
    if not found.code:
        cell.check_whole(place)
    return found


def read_only(cell: Cell) -> Observed:
    """Write where nobody may write."""
    paths = [cell.place, *(p for p in cell.place.rglob("*") if p.is_dir())]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    before = content(cell.place)
    try:
        for path, mode in modes.items():
            path.chmod(mode & 0o555)
        found = cell.run(modes_count=True)
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
    assert content(cell.place) == before
    return found


def removed(cell: Cell) -> Observed:
    """Be in a folder that is removed."""
    return cell.run(Path(cell.out.name), folder=None)


def terminal_closed(cell: Cell) -> Observed:
    """Go on without the terminal that it was started in."""
    return _whole(cell, cell.run(err=None))


def no_home(cell: Cell) -> Observed:
    """Run as a user that has neither a home nor a name."""
    own(cell.folder, STRANGER)
    env = {"PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
    return _whole(cell, cell.run(user=STRANGER, env=env))


def ascii_console(cell: Cell) -> Observed:
    """Show paths that the console has no letters for."""
    return _whole(cell, cell.run(encoding="ascii"))


def superuser(cell: Cell) -> Observed:
    """Work as the superuser in somebody's folder: what is written is theirs."""
    own(cell.place, STRANGER)
    found = _whole(cell, cell.run())
    owners = {str(p): p.stat().st_uid for p in cell.place.rglob("*")}
    shut_out = [path for path, owner in owners.items() if owner != STRANGER]
    assert not shut_out, f"the owner is shut out of {shut_out[:3]}"
    return found


def another_user(cell: Cell) -> Observed:
    """Work as another user than the folder's owner."""
    own(cell.place, STRANGER)
    before = content(cell.place)
    scratch = cell.folder / "scratch"
    scratch.mkdir()
    own(scratch, NOBODY)
    env = cell.material.env() | {
        "HOME": str(scratch),
        "MAMFED_CACHE": str(scratch / "cache"),
        "MAMFED_SECRET": str(scratch / "secret"),
    }
    cell.folder.chmod(0o777)
    found = cell.run(user=NOBODY, env=env)
    assert content(cell.place) == before
    return found


def changed(cell: Cell) -> Observed:
    """Ask for something else at the same place: other data, weights or options."""
    first = cell.run()
    assert not first.code, first.said
    words = cell.recipe.changed(cell.material, cell.out)
    if not words:
        return _whole(cell, cell.run())
    argv = [*cell.recipe.command.split(), *map(str, words)]
    return _whole(cell, cell.run(argv=argv))


def no_temporary_folder(cell: Cell) -> Observed:
    """Have no place for temporary files but the folder that the user is in, and little memory."""
    env = cell.material.env() | {"TMPDIR": "/no/such/folder"}
    found = _whole(cell, cell.run(env=env, writable=str(cell.material.path)))
    left = [path.name for path in cell.place.iterdir() if path.name.startswith(("tmp", "mamfed-"))]
    assert not left, f"left behind: {left}"
    return found


def _whole(cell: Cell, found: Observed) -> Observed:
    if not found.code:
        cell.check_whole()
    return found


SITUATIONS: dict[str, Callable[[Cell], Observed]] = {
    "twice at once": twice,
    "folder of others": others,
    "`.`": dot,
    "read-only": read_only,
    "folder removed": removed,
    "terminal closed": terminal_closed,
    "no `HOME`": no_home,
    "ASCII console": ascii_console,
    "as root": superuser,
    "as another user": another_user,
    "changed input": changed,
    "no `TMPDIR`": no_temporary_folder,
}

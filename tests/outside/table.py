"""What is expected of every command in every situation, and the page that says so.

    python -m tests.outside.table

writes ``docs/outside-the-lab.md``. ``test_outside.py`` runs every cell and holds the page equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .recipes import RECIPES, WRITES_NOTHING, Recipe
from .situations import SITUATIONS

PAGE = Path(__file__).parents[2] / "docs" / "outside-the-lab.md"


class Outcome(NamedTuple):
    """What a cell of the table says.

    Attributes:
        code: The exit code; 0 where it works.
        words: A part of the one line that refuses.
    """

    code: int = 0
    words: str = ""

    def __str__(self) -> str:
        return f"refused, {self.code}" if self.code else "works"


WORKS = Outcome()
AT_WORK = Outcome(9, "is already running here (process")
OTHERS = Outcome(8, "holds other files")
FILE_OF_OTHERS = Outcome(8, "exists and is not a")
NO_SETTINGS = Outcome(9, "not found; create a")
IS_FOLDER = Outcome(8, "is a folder; name a file in it")
DENIED = Outcome(8, "Permission denied")
FOLDER_DENIED = Outcome(8, "its folder cannot be written")
REMOVED = Outcome(1, "the current folder was removed")
NO_SECRET = Outcome(9, "set HOME, or set MAMFED_SECRET")
NO_CACHE = Outcome(9, "set HOME, or set MAMFED_CACHE")
NOT_YOURS = Outcome(8, "belongs to user 54321: run this as user 54321, you are nobody")
OTHER_QUESTION = Outcome(8, " was ")

(
    TWICE, OF_OTHERS, DOT, READ_ONLY, GONE, TERMINAL, NO_HOME, ASCII, ROOT, USER, CHANGED,
    NO_TMPDIR,
) = SITUATIONS  # fmt: skip
BY_KIND: dict[str, tuple[Outcome, ...]] = {
    "folder": (
        AT_WORK, OTHERS, WORKS, DENIED, REMOVED, WORKS, NO_SECRET, WORKS, WORKS, NOT_YOURS,
        OTHER_QUESTION, WORKS,
    ),
    "file": (
        WORKS, FILE_OF_OTHERS, IS_FOLDER, FOLDER_DENIED, REMOVED, WORKS, NO_SECRET, WORKS, WORKS,
        NOT_YOURS, WORKS, WORKS,
    ),
    "home": (
        WORKS, NO_SETTINGS, WORKS, DENIED, REMOVED, WORKS, WORKS, WORKS, WORKS, NOT_YOURS, WORKS,
        WORKS,
    ),
    "service": (
        AT_WORK, NO_SETTINGS, WORKS, DENIED, REMOVED, WORKS, WORKS, WORKS, WORKS, NOT_YOURS, WORKS,
        WORKS,
    ),
}  # fmt: skip
"""In the order of ``SITUATIONS``."""
TAKES_NO_SECRET = {NO_HOME: WORKS}
EXCEPT: dict[str, dict[str, Outcome]] = {
    "mamfed-client data check --table": {
        TWICE: Outcome(8, "exists; name another file"),
        OF_OTHERS: Outcome(8, "exists; name another file"),
        CHANGED: Outcome(8, "exists; name another file"),
    },
    "mamfed-client data prepare": {CHANGED: Outcome(4, "choose another folder")},
    "mamfed-client data show": TAKES_NO_SECRET,
    "mamfed-client data describe": {READ_ONLY: FOLDER_DENIED, NO_HOME: NO_CACHE},
    "mamfed-client init": {OF_OTHERS: WORKS},
    "mamfed-client join": {CHANGED: Outcome(9, "welcome: for borealis, but site.yaml calls")},
    "mamfed-client evaluate": {NO_HOME: NO_CACHE},
    "mamfed-server init": {
        OF_OTHERS: WORKS,
        CHANGED: Outcome(9, "another federation than 'Other'"),
    },
    "mamfed-server sites approve": {READ_ONLY: FOLDER_DENIED},
    "mamfed-server sites revoke": {
        TWICE: Outcome(9, "already revoked"),
        CHANGED: Outcome(9, "already revoked"),
    },
    "mamfed-server start": {CHANGED: Outcome(3, "plan")},
    "mamfed-server report of a run": {OF_OTHERS: Outcome(7, "no run folder")},
    "mamfed-server report --out": TAKES_NO_SECRET,
    "mamfed-server survey": TAKES_NO_SECRET,
    "mamfed-server export --to run": {**TAKES_NO_SECRET, CHANGED: OTHERS},
    "mamfed-server export to a format": TAKES_NO_SECRET,
    "mamfed-simulate partition": {CHANGED: Outcome(8, "holds another partition")},
    "mamfed-simulate compare": {**TAKES_NO_SECRET, CHANGED: WORKS},
    "mamfed-simulate run": {
        OF_OTHERS: Outcome(8, "is not a run folder"), NO_HOME: NO_CACHE, CHANGED: WORKS,
    },
    "mamfed-simulate experiment federation": {
        NO_HOME: NO_CACHE, CHANGED: Outcome(3, "plan"),
    },
    "mamfed-simulate experiment table1": {NO_HOME: NO_CACHE},
    "mamfed-simulate experiment peers": {NO_HOME: NO_CACHE},
    "mamfed-simulate playground": {**TAKES_NO_SECRET, CHANGED: WORKS},
    "mamfed-simulate demo": {
        OF_OTHERS: Outcome(8, "is not a run folder"), NO_HOME: NO_CACHE, CHANGED: WORKS,
    },
}  # fmt: skip


def expected(recipe: Recipe, situation: str) -> Outcome:
    """Return what a command is to do in a situation."""
    usual = dict(zip(SITUATIONS, BY_KIND[recipe.kind], strict=True))[situation]
    return EXCEPT.get(recipe.title, {}).get(situation, usual)


TEXT = """# Outside the lab

This page shows how every command that writes behaves in awkward environments. A test ({test})
runs each command in a process of its own in every situation, and the page is generated from the
same table ({command}).

*Works* means exit code 0 and a complete result. *Refused* means one line, quoted below, and the
exit code. No command prints a traceback, changes somebody else's file, or mistakes an incomplete
result for a complete one.

| situation | meaning |
|---|---|
"""
LEGEND = {
    TWICE: "another process works there; a command that needs no lock is started twice at once",
    OF_OTHERS: "`--out` or the home is a file or folder with somebody else's content",
    DOT: "the current folder, which is empty or the home, is given as `.`",
    READ_ONLY: "the folders to write to are read-only",
    GONE: "the current folder has been removed",
    TERMINAL: "the command's terminal is closed, without a hang-up signal (`nohup`)",
    NO_HOME: "the user has no home and no name, and no `MAMFED_...` variable is set",
    ASCII: "the console shows ASCII only, and a path has other characters and brackets",
    ROOT: "the superuser works in somebody else's folder; the owner gets all files",
    USER: "a user other than the folder's owner",
    CHANGED: "repeated in the same place with other data, weights or options",
    NO_TMPDIR: "`TMPDIR` does not exist; `/tmp` is read-only and `noexec`; `/dev/shm` has 64 MB",
}
BEHIND = """
`export` to a format is tested with `safetensors`; the same code writes ONNX, TorchScript and the
MONAI bundle. `demo` and
`playground --setup-only` are tested with fewer phantoms, `experiment` with one arm or
row.
Commands that write nothing are not in the table: {nothing}.
`mamfed-client pacs` needs an archive, and is tested with a real one instead.
"""


def page() -> str:
    """Return the page as Markdown."""
    test, command = "`tests/outside/`", "`python -m tests.outside.table`"
    lines = [TEXT.format(test=test, command=command).rstrip()]
    lines += [f"| {name} | {words} |" for name, words in LEGEND.items()]
    lines += ["", "## Commands", ""]
    lines += [f"| command | {' | '.join(SITUATIONS)} |", "|---" * (len(SITUATIONS) + 1) + "|"]
    for recipe in RECIPES:
        cells = [str(expected(recipe, situation)) for situation in SITUATIONS]
        variant = f" {recipe.variant}" if recipe.variant else ""
        lines.append(f"| `{recipe.command}`{variant} | {' | '.join(cells)} |")
    nothing = ", ".join(
        f"`{name}`" + (f" ({what})" if what else "") for name, what in WRITES_NOTHING.items()
    )
    lines += [BEHIND.format(nothing=nothing).rstrip(), "", "## Refusals", ""]
    lines += ["| exit code | the line says | where |", "|---|---|---|"]
    for outcome, places in _refusals().items():
        lines.append(f"| {outcome.code} | {outcome.words.strip()} | {places} |")
    return "\n".join([*lines, ""])


def _refusals() -> dict[Outcome, str]:
    """Describe where each refusal occurs: by situation, with up to four commands by name."""
    found: dict[Outcome, dict[str, list[str]]] = {}
    for situation in SITUATIONS:
        for recipe in RECIPES:
            outcome = expected(recipe, situation)
            if outcome.code:
                found.setdefault(outcome, {}).setdefault(situation, []).append(recipe.title)
    return {
        outcome: "; ".join(
            f"{situation}: {', '.join(titles) if len(titles) <= 4 else f'{len(titles)} commands'}"
            for situation, titles in places.items()
        )
        for outcome, places in found.items()
    }


if __name__ == "__main__":
    PAGE.write_text(page())

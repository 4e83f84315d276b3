"""``make lock``: write ``lock/ROLE.txt``, what each role installs, by version and hash.

A lock holds for Python 3.11 and newer on Linux, macOS and Windows. What the environment beside has
installed is what was tested: those versions stand in the lock, wherever the ranges of
``pyproject.toml`` allow them. torch is left out, with its CUDA libraries: which build fits is
each machine's own choice (``README.md``), and PyPI's is not the one of PyTorch's own index.

``make ranges`` (``--check``) asks whether the ranges alone resolve.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROLES = {
    "server": ("report",),
    "export": ("report", "export"),
    "client": ("client",),
    "simulations": ("simulations",),
    "dev": ("dev",),
}
LEFT_OUT = re.compile(r"(torch|torchvision|triton|nvidia-.*|cuda-.*)==")
FREE = ("mamfed", "pip", "setuptools", "pymdown-extensions")
"""Not held to what is installed: Python 3.11.0 to 3.11.4 needs an older one of the last."""
HEAD = """\
# Written by `make lock` (deploy/lock.py): what mamfed[{extras}] installs, apart from torch.
# pip install --require-hashes --no-deps -r deploy/lock/{role}.txt && pip install '.[{extras}]'
"""


def main() -> None:
    """Write the locks, or check the ranges."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only: do the ranges resolve?")
    if parser.parse_args().check:
        newest = without_torch(resolve(ROLES["dev"]))
        print(f"the ranges of pyproject.toml resolve, to {len(newest.splitlines())} packages")
        return
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as tested:
        tested.writelines(f"{d.name}=={d.version}\n" for d in distributions() if is_locked(d.name))
        tested.flush()
        for role, extras in ROLES.items():
            found = resolve(extras, "--generate-hashes", "--constraint", tested.name)
            head = HEAD.format(role=role, extras=",".join(extras))
            (ROOT / "deploy" / "lock" / f"{role}.txt").write_text(head + without_torch(found))


def is_locked(name: str) -> bool:
    """Tell whether a package of this environment is held to its version."""
    return LEFT_OUT.match(f"{name}==") is None and name not in FREE


def resolve(extras: tuple[str, ...], *options: str) -> str:
    """Return what extras of mamfed need, for all systems, as uv writes it."""
    command = [
        Path(sys.executable).parent / "uv", "pip", "compile", ROOT / "pyproject.toml",
        "--universal", "--python-version", "3.11", "--no-header", "--no-annotate", "--quiet",
        *options,
        *(word for extra in extras for word in ("--extra", extra)),
    ]  # fmt: skip
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def without_torch(text: str) -> str:
    """Leave out torch and what comes with it; each requirement begins at the line's start."""
    blocks = re.split(r"(?m)^(?=\S)", text)
    return "".join(block for block in blocks if LEFT_OUT.match(block) is None)


if __name__ == "__main__":
    main()

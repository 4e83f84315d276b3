"""``make wheel``: build the wheel, and check it in an empty environment before it is published.

The wheel must hold every file of the four packages and nothing else, and its three programs must
start from an environment that has the locked packages but not this checkout. Beside it lies, for
each role, a bill of materials (CycloneDX) from its lock: each package with version and hashes,
except torch, which is each machine's own choice.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROLES = ("server", "export", "client", "simulations")
PROGRAMS = ("mamfed-client", "mamfed-server", "mamfed-simulate")


def main() -> None:
    """Build into ``dist/``, check, and print the wheel's SHA-256."""
    wheel = build(ROOT / "dist")
    if difference := packaged(wheel) ^ tracked():
        sys.exit(f"{wheel.name}: not the files of the repository: {', '.join(sorted(difference))}")
    with tempfile.TemporaryDirectory() as folder:
        check_programs(wheel, Path(folder))
    for path in bills_of_materials(wheel):
        print(path.relative_to(ROOT))
    print(f"{hashlib.sha256(wheel.read_bytes()).hexdigest()}  {wheel.relative_to(ROOT)}")


def build(dist: Path) -> Path:
    """Build the wheel in an isolated environment, as pip does for a user."""
    for old in dist.glob("mamfed-*.whl"):
        old.unlink()
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(dist), str(ROOT))
    (wheel,) = dist.glob("mamfed-*.whl")
    return wheel


def bills_of_materials(wheel: Path, roles: Sequence[str] = ROLES) -> list[Path]:
    """Write what each role installs beside the wheel, as ``mamfed-VERSION.ROLE.cdx.json``."""
    release = "-".join(wheel.name.split("-")[:2])
    for old in wheel.parent.glob("mamfed-*.cdx.json"):
        old.unlink()
    quiet = {**os.environ, "PYTHONWARNINGS": "ignore"}  # a lock does not say who needs whom
    paths = [wheel.parent / f"{release}.{role}.cdx.json" for role in roles]
    for role, path in zip(roles, paths, strict=True):
        command = [
            *(sys.executable, "-m", "cyclonedx_py", "requirements"),
            *(ROOT / "deploy" / "lock" / f"{role}.txt", "--pyproject", ROOT / "pyproject.toml"),
            *("--output-reproducible", "--of", "JSON", "--output-file", path),
        ]
        subprocess.run(command, check=True, env=quiet, stdout=sys.stderr)
    return paths


def packaged(wheel: Path) -> set[str]:
    """Return the paths in a wheel, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def tracked() -> set[str]:
    """Return the files of the four packages that Git tracks, by their path in a wheel."""
    roles = ("common", "client", "server", "simulations")
    command = ["git", "-C", str(ROOT), "ls-files", *(f"{role}/mamfed_*" for role in roles)]
    listing = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {path.partition("/")[2] for path in listing.splitlines()}


def check_programs(wheel: Path, folder: Path) -> None:
    """Install a wheel into a new environment, and start each program."""
    install(wheel, folder)
    for program in PROGRAMS:
        subprocess.run([folder / "bin" / program, "--version"], check=True, cwd=folder)


def install(wheel: Path, folder: Path) -> None:
    """Make a virtual environment with a wheel and the dependencies of this one, not its checkout.

    Raises:
        CalledProcessError: The wheel cannot be installed, or is not what Python imports there.
    """
    venv.create(folder, with_pip=False, symlinks=True)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    # The dependencies of this environment, but none of its .pth files, which lead to the checkout.
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (site_packages / "dependencies.pth").write_text("\n".join(packages) + "\n")
    python = str(folder / "bin" / "python")
    options = ("--no-deps", "--no-index", "--ignore-installed", "--quiet")
    pip(sys.executable, "--python", python, "install", *options, str(wheel))
    check = (
        "import mamfed_common, sys; sys.exit(not mamfed_common.__file__.startswith(sys.argv[1]))"
    )
    subprocess.run([python, "-c", check, str(folder)], check=True, cwd=folder)


def pip(python: str, *arguments: str) -> None:
    """Run pip, quietly and without its own update check."""
    command = [python, "-m", "pip", "--disable-pip-version-check", *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    main()

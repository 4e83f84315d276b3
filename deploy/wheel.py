"""``make wheel``: build the wheel, and check it in an empty environment before it is published.

The wheel must hold every file of the four packages and nothing else, and its three programs must
start from an environment that has the locked packages but not this checkout. The live pages of both
roles must find all their assets there, without a request that leaves this machine. Beside the wheel
lies, for each role, a bill of materials (CycloneDX) from its lock: each package with version and
hashes, except torch, which is each machine's own choice.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROLES = ("server", "export", "client", "simulations")
PROGRAMS = ("mamfed-client", "mamfed-server", "mamfed-simulate")
ASSETS = ROOT / "common" / "mamfed_common" / "web" / "assets"
PAGES = {
    "server": ("/", "/sites", "/plans", "/results", "/log", "/no-such-page"),
    "client": ("/", "/data", "/plans", "/left", "/predictions", "/models", "/no-such-page"),
}
"""The pages of each role that are asked for."""
ON_LOOPBACK = """
import ipaddress, os, sys

def refuse(event, values):
    if event in ("socket.connect", "socket.sendto") and isinstance(values[1], tuple):
        host = values[1][0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = values[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    try:
        is_here = host in (None, "", "localhost") or ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_here = False
    if not is_here:
        print(f"asked for {host}", file=sys.stderr, flush=True)
        os._exit(70)

sys.addaudithook(refuse)
"""
"""Ends a Python process that asks for any host but this machine."""


def main() -> None:
    """Build into ``dist/``, check, and print the wheel's SHA-256."""
    wheel = build(ROOT / "dist")
    if difference := packaged(wheel) ^ tracked():
        sys.exit(f"{wheel.name}: not the files of the repository: {', '.join(sorted(difference))}")
    with tempfile.TemporaryDirectory() as folder:
        check_programs(wheel, Path(folder))
        for line in check_pages(Path(folder)):
            print(line)
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


def check_pages(folder: Path) -> list[str]:
    """Open the live pages of both roles from an installed wheel; say what each has loaded.

    Raises:
        SystemExit: A page or an asset is missing, is not the repository's, or comes from elsewhere.
    """
    images = folder / "images"
    images.mkdir()
    homes = {role: folder / f"{role}-home" for role in PAGES}
    more = {
        "server": ("--name", "wheel", "--host", "127.0.0.1"),
        "client": ("--name", "wheel", "--data", str(images)),
    }
    found = []
    for role, home in homes.items():
        program = str(folder / "bin" / f"mamfed-{role}")
        command = (program, "init", str(home), *more[role])
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        count = len(_assets_of(role, folder, home))
        found.append(
            f"mamfed-{role} dashboard: {len(PAGES[role])} pages, {count} assets, all local"
        )
    return found


def _assets_of(role: str, folder: Path, home: Path) -> dict[str, bytes]:
    """Serve a role's page, and return each asset that its pages name, with the licences."""
    code = f"{ON_LOOPBACK}\nfrom mamfed_{role}.cli.main import main; main()"
    command = [str(folder / "bin" / "python"), "-P", "-c", code, "dashboard", "--home", str(home)]
    with subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, text=True, cwd=folder
    ) as served:
        try:
            assert served.stdout is not None
            said = served.stdout.readline().split() or sys.exit(f"mamfed-{role} dashboard: ended")
            assets = _loaded(said[-1], PAGES[role])
        finally:
            served.terminate()
    expected = {path.name: path.read_bytes() for path in ASSETS.iterdir()}
    if assets != expected:
        names = [name for name in {**assets, **expected} if assets.get(name) != expected.get(name)]
        sys.exit(f"mamfed-{role} dashboard: assets that differ or are missing: {', '.join(names)}")
    return assets


def _loaded(address: str, paths: Sequence[str]) -> dict[str, bytes]:
    """Sign in and open pages; return the content of what they load and of its licences, by name."""
    browser = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor()
    )
    browser.open(address, timeout=60).close()
    base, assets = address.partition("/sign-in")[0], {}
    names = {f"/assets/{path.name}" for path in ASSETS.glob("*.LICENSE.txt")}
    for path in paths:
        text = _read(browser, base + path)
        names |= set(re.findall(r'(?:src|href)="(/assets/[^"]+)"', text.decode()))
        if away := re.findall(r'(?:src|href|action)="((?:[a-z]+:)?//[^"]+)"', text.decode()):
            sys.exit(f"{path}: leads away from this machine: {', '.join(away)}")
    for name in names:
        content = _read(browser, base + name)
        if name.split("?")[0].endswith(".css") and b"url(" in content.replace(b"url(data:", b""):
            sys.exit(f"{name}: loads something else")
        assets[name.split("?")[0].removeprefix("/assets/")] = content
    return assets


def _read(browser: urllib.request.OpenerDirector, address: str) -> bytes:
    try:
        with browser.open(address, timeout=60) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:
        if error.code == 404 and address.endswith("/no-such-page"):
            return bytes(error.read())
        sys.exit(f"{address}: answered {error.code}")


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

r"""Pictures of the live pages: a coordinator's or a site's home as a desk and a phone show it.

Usage: python -m benchmarks.federation.dashboard_shots HOME docs/images
Usage: python -m benchmarks.federation.dashboard_shots SITE_HOME docs/images --role site \
    --page /=site-now --page /left=site-left
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from pathlib import Path

SIZES = {1440: 1000, 390: 844}
PATIENCE_S = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path, help="a home; best while a run goes on")
    parser.add_argument("out", type=Path)
    parser.add_argument("--role", choices=("server", "site"), default="server")
    parser.add_argument(
        "--page", action="append", help="address on the page, and the picture's name: /=dashboard"
    )
    chosen = parser.parse_args()
    name = "mamfed-client" if chosen.role == "site" else "mamfed-server"
    program = Path(sys.executable).with_name(name)
    command = [str(program), "dashboard", "--home", str(chosen.home), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            _shoot(server.stdout.readline().split()[-1], chosen)
        finally:
            server.terminate()


def _shoot(address: str, chosen: argparse.Namespace) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        options = {"executable_path": shutil.which("chromium"), "args": ["--no-sandbox"]}
        browser = driver.chromium.launch(**options)
        context = browser.new_context()
        page = context.new_page()
        page.goto(address)
        base = page.url.rstrip("/")
        for where in chosen.page or ["/=dashboard"]:
            at, _, name = where.rpartition("=")
            for width, height in SIZES.items():
                page.set_viewport_size({"width": width, "height": height})
                page.goto(base + at)
                time.sleep(3)  # charts, and one message of the stream
                path = chosen.out / f"{name}-{width}.png"
                page.screenshot(path=path, full_page=True)
                print(path)
        browser.close()


if __name__ == "__main__":
    main()

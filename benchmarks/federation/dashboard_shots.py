"""Pictures of the coordinator's page: a home as a desk and a phone show it.

Usage: python -m benchmarks.federation.dashboard_shots HOME docs/images
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
    parser.add_argument("home", type=Path, help="a coordinator's home; best while a run goes on")
    parser.add_argument("out", type=Path)
    parser.add_argument("--page", default="/", help="address on the page")
    parser.add_argument("--name", default="dashboard")
    chosen = parser.parse_args()
    program = Path(sys.executable).with_name("mamfed-server")
    command = [str(program), "dashboard", "--home", str(chosen.home), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            _shoot(server.stdout.readline().strip(), chosen)
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
        for width, height in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            page.goto(base + chosen.page)
            time.sleep(3)  # charts, and one message of the stream
            path = chosen.out / f"{chosen.name}-{width}.png"
            page.screenshot(path=path, full_page=True)
            print(path)
        browser.close()


if __name__ == "__main__":
    main()

"""``python -m mamfed_server.dashboard.process HOME HOST PORT SECONDS [PASSWORDS CERT KEY]``.

The page as a supervised child of ``mamfed-server start --dashboard``: it ends with its supervisor.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mamfed_common.errors import MamfedError
from mamfed_common.runtime.lifeline import hold_lifeline
from mamfed_common.web.serving import Listen
from mamfed_server.dashboard.application import serve_dashboard
from mamfed_server.settings import ServerHome


def main() -> None:
    """Serve the page of a home."""
    hold_lifeline()
    os.umask(0o077)
    home, host, port, seconds, *files = sys.argv[1:]
    paths = [Path(each) if each else None for each in (*files, "", "", "")[:3]]
    try:
        listen = Listen(host, int(port), *paths)
        serve_dashboard(ServerHome(Path(home)), listen, float(seconds), _say)
    except MamfedError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


def _say(address: str) -> None:
    print(f"page: {address.partition('?')[0]}", flush=True)  # its token stays out of the log


if __name__ == "__main__":
    main()

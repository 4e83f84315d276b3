"""``python -m mamfed_client.node.watchman HOME``: tell people at the site, and serve metrics."""

from __future__ import annotations

import sys
from pathlib import Path

from mamfed_client.node.metrics import metrics
from mamfed_client.node.notices import notices
from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_common.errors import MamfedError
from mamfed_common.notify.watchman import run_watchman
from mamfed_common.runtime import terminal


def main() -> None:
    """Watch the home that the command line names."""
    terminal.set_environment()
    home = SiteHome(Path(sys.argv[1]))
    try:
        settings = load_site_settings(home)
    except MamfedError as error:
        sys.exit(f"notify and metrics are off: {error}")
    run_watchman(
        settings.notify,
        settings.metrics_port,
        home.path,
        settings.source(),
        lambda: notices(home, settings.notify),
        lambda: metrics(home),
    )


if __name__ == "__main__":
    main()

"""``python -m mamfed_client.cluster.cancel HOME``: cancel the jobs of a site's rounds.

A process of its own, because a supervisor stays small: it loads neither torch nor Flower.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mamfed_client.cluster.dispatcher import cancel_all
from mamfed_client.cluster.job_executor import site_jobs
from mamfed_client.cluster.queues import queue_of
from mamfed_client.site.settings import SiteHome, load_site_settings
from mamfed_common.errors import MamfedError
from mamfed_common.runtime.wording import counted


def main() -> None:
    """Cancel the jobs of the home on the command line; print how many there were."""
    try:
        settings = load_site_settings(SiteHome(Path(sys.argv[1])))
        count = cancel_all(site_jobs(settings), queue_of(settings.executor))
    except MamfedError as error:
        print(f"warning: a job of this site may still run: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    if count:
        jobs = counted(count, "job")
        print(f"{jobs} cancelled; a round goes on from its checkpoint when it is asked again")


if __name__ == "__main__":
    main()

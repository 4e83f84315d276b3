"""Train three hospitals together on one machine, with the server's and the sites' own code."""

import sys
from pathlib import Path

from phantom_data import phantom_folders, tiny_plan

from mamfed_client import Site
from mamfed_server import Job, RunFolder
from mamfed_simulations import run_federation


def main(folder: Path) -> RunFolder:
    """Simulate a federation below ``folder``; return its run folder."""
    data = phantom_folders(folder / "data")
    sites = [Site(name, ((name, path),), folder / "cache") for name, path in data.items()]

    # Any strategy that is built in or installed: docs/extending.md.
    plan = tiny_plan()
    federation = {**plan.federation.model_dump(), "strategy": "median"}
    job = Job(
        plan=plan.changed(federation=federation),
        folder=folder / "run",
        num_nodes=len(sites),
        on_round=lambda record: print(
            f"{record.stage} round {record.server_round}: {len(record.accepted)} updates"
        ),
    )
    run_federation(sites, job, threads=1)

    run = RunFolder(job.folder)
    print("final model:", run.checkpoint_path("final"))
    print("status:", run.read_summary()["status"])
    return run


if __name__ == "__main__":
    main(Path(sys.argv[1]))

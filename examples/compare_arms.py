"""Compare a federation with each hospital alone and with all data in one place."""

import sys
from pathlib import Path

from phantom_data import phantom_folders, tiny_plan

from mamfed_client import Site
from mamfed_server import RunFolder
from mamfed_simulations import (
    centralised_arm,
    describe_sites,
    federated_arm,
    local_arms,
    run_federation,
)


def main(folder: Path) -> dict[str, float | None]:
    """Train all arms below ``folder``; return each one's mean Dice on the same test patients."""
    plan, out = tiny_plan(), folder / "run"
    data = phantom_folders(folder / "data")
    sites = [Site(name, ((name, path),), folder / "cache") for name, path in data.items()]

    descriptions = describe_sites(sites, plan)
    local, not_trained = local_arms(sites, descriptions, plan, out)
    arms = [
        federated_arm(sites, plan, out),
        *local,
        centralised_arm(sites, descriptions, plan, out),
    ]
    print("sites that cannot train alone:", not_trained or "none")

    dice = {}
    for arm in arms:
        run_federation(arm.sites, arm.job, threads=1)
        summary = RunFolder(arm.job.folder).read_summary()
        dice[arm.name] = summary["arms"][arm.job.arm]["mean_dice"]
        print(f"{arm.name}: mean Dice {dice[arm.name]}")
    return dice


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""``make federation``: enrol three phantom hospitals, train both stages between real processes.

Ends with the final weights beside those of ``mamfed-simulate run`` with the same plan, data and
seeds: they must be equal bit for bit.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from mamfed_common.runtime import terminal

from deployment import Deployment, simulated_sha256  # isort: skip
from phantoms import NORM_GROUPS, small_plan, write_phantoms  # isort: skip


def main() -> int:
    """Run the federation; return 0 where the bits agree."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/federation"))
    out = parser.parse_args().out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    shown, started = terminal.console(), time.monotonic()

    def say(text: str) -> None:
        shown.print(f"{time.monotonic() - started:6.1f} s  {text}", soft_wrap=True)

    say("drawing phantoms")
    data = write_phantoms(out / "phantoms", benign=16, malignant=16)
    plan = out / "plan.yaml"
    plan.write_text(small_plan(pretraining=2, finetuning=3, norm_groups=NORM_GROUPS).to_yaml())
    say("init, enroll, approve, join")
    with Deployment(out, data) as federation:
        federation.start_server(plan)
        federation.wait_for_listener()
        for name in data:
            say(f"preflight at {name}")
            home = federation.site_home(name)
            federation.command("mamfed-client", "preflight", "--home", home, "--plan", plan)
            federation.start_site(name)
        code = federation.wait_for_end(280)
        if code:
            print(federation.story())
            return code
        for record in federation.rounds():
            say(
                f"{record['stage']} {record['server_round']}: accepted "
                f"{', '.join(record['accepted'])} in {record['seconds']:.1f} s"
            )
        found = federation.weights_sha256()
        for name in data:
            federation.command(
                "mamfed-client", "audit", "verify", "--home", federation.site_home(name)
            )
    say("the same by mamfed-simulate")
    expected = simulated_sha256(out, plan, data)
    say(f"federation {found}")
    say(f"simulation {expected}")
    say("equal bit for bit" if found == expected else "NOT EQUAL")
    return 0 if found == expected else 1


if __name__ == "__main__":
    sys.exit(main())

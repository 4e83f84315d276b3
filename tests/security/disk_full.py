"""Fill the disks of a coordinator and a site at 20 points: ``python tests/security/disk_full.py``.

First every writer, with so many pages left that it fails early, late or not at all: what was there
stays whole, the error is one line with the file and the cause, and the same write succeeds once
there is room. Then (not with ``--quick``) real processes over TLS on small disks, filled for some
seconds at 20 moments of a run; at 5 more, the server process may open no further file. The run ends
by itself with all its rounds, by the server process that began it, every file is whole, and no log
has a traceback. Skipped, with a line, where no small disk can be mounted.
"""

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent / "lib"), str(Path(__file__).parents[1] / "processes")]
import sound_files  # noqa: E402
from attempts import Attempts  # noqa: E402
from small_disk import NoSmallDisk, empty, fill, small_disk  # noqa: E402
from writers import writers  # noqa: E402

from mamfed_client.disclosure.audit_log import read_record  # noqa: E402
from mamfed_common.checkpoint import load_checkpoint  # noqa: E402
from mamfed_common.errors import MamfedError  # noqa: E402
from mamfed_common.runtime.files import os_error_line  # noqa: E402

POINTS, HUNGRY = 20, 5
CAUSE = "No space left on device"


def try_writer(disk, writer, left_bytes):
    """Write with so many bytes left; return what went wrong, if anything, and whether it failed."""
    before, failed = writer.read(), False
    fill(disk, left_bytes)
    try:
        failed = writer.write() is False
    except (OSError, MamfedError) as error:
        failed = True
        line = os_error_line(error) if isinstance(error, OSError) else str(error)
        if CAUSE not in line or "\n" in line:
            return f"not one clear line: {line}", failed
    finally:
        empty(disk)
    try:
        after = writer.read()
        # A log may have the line whole although its head had no room: the line counts.
        kept = after[: len(before)] if writer.is_log else after
        if failed and kept != before:
            return "what was there has changed", failed
        if not failed and after == before:
            return "nothing was written, and nothing said", failed
        if failed and writer.write() is False:
            return "does not go on with room", failed
        if writer.read() == before:
            return "does not go on with room", failed
    except Exception as error:
        return f"{type(error).__name__}: {error}", failed
    return "", failed


def run_writers(noted, folder):
    """Try each writer at 20 points."""
    with small_disk(folder / "disk", 4096) as disk:
        for writer in writers(sound_files.make(disk / "material"), disk):
            flaws, failures = [], 0
            for point in range(POINTS):
                flaw, failed = try_writer(disk, writer, point * 4096)
                failures += failed
                if flaw:
                    flaws.append(f"{point} pages left: {flaw}")
            words = "; ".join(flaws[:2]) or ("" if failures else "the disk was never full")
            noted.note(
                writer.name, words, f"{failures} of {POINTS} writes failed and were repeated"
            )


def run_processes(noted, folder, seed):
    """Fill the disks of real processes at 20 moments of a run."""
    from deployment import Deployment, wait_until
    from phantoms import small_plan, write_phantoms

    rng, rounds = random.Random(seed), 14
    data = dict(list(write_phantoms(folder / "data", benign=4, malignant=6).items())[:2])
    victim = next(iter(data))
    place = folder / "deployment"
    plan = folder / "plan.yaml"
    plan.write_text(small_plan(pretraining=0, finetuning=rounds, min_sites=2).to_yaml())
    with (
        small_disk(place / "server", 24 * 1024) as server,
        small_disk(place / "sites" / victim, 24 * 1024) as site,
        Deployment(place, data) as federation,
    ):
        for name in data:
            federation.change_policy(name, bounds={"min_min_sites": 2})
        federation.start_server(plan)
        federation.wait_for_listener()
        for name in data:
            federation.start_site(name)
        wait_until(lambda: bool(federation.rounds()), "the first round")
        first = server_pid(federation)
        starve(noted, federation, rng)
        disks = [server, site] * (POINTS // 2)
        for number, disk in enumerate(disks, 1):
            if federation.processes["server"].poll() is not None:
                noted.note(f"point {number}", "", "the run had ended")
                continue
            time.sleep(rng.uniform(0, 3))
            fill(disk)
            time.sleep(rng.uniform(0.5, 4))
            empty(disk)
            alive = federation.processes[victim].poll() is None
            noted.note(f"point {number}: {disk.name}", "" if alive else "the site ended")
        code = federation.wait_for_end()
        noted.note("the run ends by itself", f"exit code {code}" if code else "")
        story = federation.story(10_000)
        lines = story.splitlines()
        again = sum("the server process" in x and "restarting in" in x for x in lines)
        noted.note("the server process goes on", again and f"restarted {again} times", f"{first}")
        noted.note("it says that it waits", "" if "no room: " in story else "nowhere")
        done = len(federation.rounds())
        noted.note("no round is lost", f"{done} of {rounds}" if done != rounds else "")
        noted.note("every file is whole", _damaged(federation, victim))
        _, traceback, rest = story.partition("Traceback")
        why = [line for line in rest.splitlines() if line and not line.startswith(" ")]
        noted.note("no log has a traceback", traceback and f"{why[:2]}")
        noted.note("the cause is said", "" if CAUSE in story else "nowhere")


def server_pid(federation):
    """Return the number of the server process."""
    return json.loads((federation.server_home / "status.json").read_text())["pid"]


def starve(noted, federation, rng):
    """Leave the server process without a free descriptor, for some seconds each time."""
    for number in range(1, HUNGRY + 1):
        time.sleep(rng.uniform(0, 2))
        try:
            pid = server_pid(federation)
            limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            used = max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) + 1
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, limits[1]))
            time.sleep(rng.uniform(0.5, 3))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        except OSError:
            noted.note(f"no descriptor, {number}", "", "the run had ended")
            return
        ended = federation.processes["server"].poll() is not None
        alive = ended or server_pid(federation) == pid
        noted.note(f"no descriptor, {number}", "" if alive else "the server process ended")


def _damaged(federation, site):
    try:
        for path in (federation.run_folder() / "checkpoints").glob("[!.]*.safetensors"):
            if not path.name.startswith("optimi"):
                load_checkpoint(path)
        record = read_record(federation.site_home(site) / "audit.jsonl")
    except MamfedError as error:
        return str(error)
    return "" if record.entries else "no audit"


def run(seed, quick):
    """Try all; print a line each."""
    print(f"seed {seed}", flush=True)
    noted = Attempts()
    with tempfile.TemporaryDirectory() as folder:
        try:
            run_writers(noted, Path(folder))
            if not quick:
                run_processes(noted, Path(folder), seed)
        except NoSmallDisk as error:
            print(f"skipped: {error}")
    noted.finish()


def main():
    """Parse the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=21)
    parser.add_argument("--quick", action="store_true", help="the writers only, no processes")
    options = parser.parse_args()
    run(options.seed, options.quick)


if __name__ == "__main__":
    main()

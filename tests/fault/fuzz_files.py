"""Feed damaged and hostile files to the decoder: ``python tests/fault/fuzz_files.py``.

Every file must become a mammogram or a refusal with a reason, without the patient's name, within
memory and time. Exits with 1 where one did otherwise.
"""

import json
import os
import resource
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import typer
from fuzz_bombs import bombs
from fuzz_mutations import mutants
from fuzz_seeds import SECRET, dicom_seeds, picture_seeds
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mamfed_client.imaging.mammogram import MAX_PIXELS
from mamfed_client.imaging.rejections import FileRejected
from mamfed_client.sandbox.decoder import Decoder

PICTURES = {"png", "tif", "jpg", "pgm"}
MAX_PARENT, MAX_CHILD = 1 << 30, 3 << 30
READ = "read"


class Case(NamedTuple):
    """A file to try; ``expected`` are names of results, or None where anything sound will do."""

    kind: str
    name: str
    suffix: str
    data: bytes
    expected: set[str] | None = None


class Outcome(NamedTuple):
    """What became of a case; ``violation`` is empty where it is as it should be."""

    kind: str
    name: str
    result: str
    seconds: float
    violation: str = ""


def cases(count, first=0):
    """Sound seeds, then mutants, then bombs."""
    seeds = dicom_seeds() | picture_seeds()
    for name, data in seeds.items():
        yield Case("sound", name, suffix(name), data, {READ})
    for number, (name, data) in enumerate(mutants(seeds, count, first), first):
        yield Case(name, f"mutant {number}", suffix(name), data)
    for name, (ending, data, expected) in bombs(seeds).items():
        yield Case("bombs", name, ending, data, expected)


def suffix(name):
    return f".{name}" if name in PICTURES else ".dcm"


def judge(case, decode):
    """Try a case by ``decode``, which returns a mammogram or raises."""
    start = time.monotonic()
    try:
        result, violation = READ, flaw(decode())
    except FileRejected as refusal:
        result = refusal.reason.name
        violation = "names the patient" if SECRET.lower() in str(refusal).lower() else ""
    except Exception as error:
        result, violation = type(error).__name__, "neither a mammogram nor a refusal"
    if case.expected is not None and result not in case.expected:
        violation = violation or f"expected {' or '.join(sorted(case.expected))}"
    return Outcome(case.kind, case.name, result, time.monotonic() - start, violation)


def flaw(mammogram):
    """Say what is wrong with a mammogram, or nothing."""
    if getattr(getattr(mammogram, "grey", None), "dtype", None) != np.uint16:
        return "no mammogram"
    if mammogram.grey.ndim != 2 or not 0 < mammogram.grey.size <= MAX_PIXELS:
        return "a strange shape"
    valid = mammogram.valid
    wrong = valid is not None and (valid.dtype != bool or valid.shape != mammogram.grey.shape)
    return "a strange mask" if wrong else ""


class Tries:
    """Tries cases, each thread with a decoder and a file of its own."""

    def __init__(self, folder):
        self.folder, self.mine, self.decoders = folder, threading.local(), []

    def __call__(self, case):
        if not hasattr(self.mine, "decoder"):
            self.mine.decoder = Decoder(threads=2)  # OpenJPEG has more to go wrong
            self.decoders.append(self.mine.decoder)
        path = self.folder / f"{threading.get_ident()}{case.suffix}"
        path.write_bytes(case.data)
        return judge(case, lambda: self.mine.decoder.mammogram(path)[0])

    def close(self):
        for decoder in self.decoders:
            decoder.close()


def run(count, first, jobs, progress):
    """Return the outcomes of all cases, and the largest memory of any child in bytes."""
    total = sum(1 for _ in cases(0)) + count
    task, limit = progress.add_task("files", total=total), threading.BoundedSemaphore(4 * jobs)
    outcomes = []

    def done(future):
        outcomes.append(future.result())
        progress.advance(task)
        limit.release()

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        tries = Tries(Path(folder))
        for case in cases(count, first):
            limit.acquire()  # files wait on disk no more than in memory
            pool.submit(tries, case).add_done_callback(done)
        pool.shutdown()
        tries.close()
    return outcomes, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def own_peak():
    """Give this program's peak memory in bytes; ru_maxrss counts what ran before its exec, too."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def report(outcomes, child_peak):
    """Sum up as a dictionary for JSON."""
    kinds = sorted({outcome.kind for outcome in outcomes})
    parent_peak = own_peak()
    violations = [f"{o.kind}: {o.name}: {o.result}: {o.violation}" for o in outcomes if o.violation]
    for who, peak, most in (("parent", parent_peak, MAX_PARENT), ("child", child_peak, MAX_CHILD)):
        if peak > most:
            violations.append(f"{who} held {peak >> 20} MiB")
    return {
        "files": len(outcomes),
        "outcomes": {
            kind: dict(Counter(o.result for o in outcomes if o.kind == kind)) for kind in kinds
        },
        "slowest_s": {
            kind: round(max(o.seconds for o in outcomes if o.kind == kind), 2) for kind in kinds
        },
        "parent_peak_mib": parent_peak >> 20,
        "child_peak_mib": child_peak >> 20,
        "violations": violations,
    }


def show(summary, console):
    results = sorted({result for counts in summary["outcomes"].values() for result in counts})
    peaks = f"parent {summary['parent_peak_mib']} MiB, child {summary['child_peak_mib']} MiB"
    table = Table(title=f"{summary['files']} files; largest memory: {peaks}")
    table.add_column("file", no_wrap=True)
    for result in results:
        table.add_column(result.replace("_", " ").lower(), justify="right")
    table.add_column("slowest, s", justify="right")
    for kind, counts in summary["outcomes"].items():
        cells = [str(counts.get(result, "")) for result in results]
        table.add_row(kind, *cells, f"{summary['slowest_s'][kind]:.2f}")
    console.print(table)
    for violation in summary["violations"]:
        console.print(f"violation: {violation}")


def main(
    mutants: Annotated[int, typer.Option(help="How many damaged files.")] = 1000,
    first: Annotated[int, typer.Option(help="Number of the first of them.")] = 0,
    jobs: Annotated[int, typer.Option(help="Decoders at a time.")] = os.cpu_count() or 1,
    format: Annotated[str, typer.Option(help="table or json.")] = "table",
) -> None:
    """Feed damaged and hostile files to the decoder."""
    with Progress(console=Console(stderr=True)) as progress:
        outcomes, child_peak = run(mutants, first, jobs, progress)
    summary = report(outcomes, child_peak)
    if format == "json":
        print(json.dumps(summary, indent=2))
    else:
        show(summary, Console(width=None if sys.stdout.isatty() else 160))
    raise SystemExit(bool(summary["violations"]))


if __name__ == "__main__":
    typer.run(main)

"""Profile ``mamfed-simulate demo`` in its own process by kind of work.

Usage: python -m benchmarks.commands.profile_demo [--short] [--threads 2] [--top 5]

A thread samples the main thread's stack fifty times per second and assigns each sample to the first
rule with a matching word. ``--short`` runs one round of each stage, which overstates imports,
phantoms and report. This is not a comparison: nothing is recorded.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from mamfed_common.plan import TrainingPlan

EVERY_SECONDS = 0.02


class Rule(NamedTuple):
    """A kind of work, identified by words in the stack's ``file:function`` entries."""

    work: str
    words: tuple[str, ...]


RULES = (
    Rule("imports", ("importlib._bootstrap",)),
    Rule("training: backward", ("torch/autograd/",)),
    Rule("training: optimiser", ("torch/optim/", "torch/nn/utils/clip_grad")),
    Rule("training: batches, corruption, augmentation", ("/batches.py",)),
    Rule("training: loss", ("monai/losses/",)),
    Rule("training: forward", ("/stages.py:fit",)),
    Rule("scoring: network", ("/stages.py:malignancy_of", "/stages.py:predict")),
    Rule("scoring: measures", ("mamfed_common/metrics/",)),
    Rule("phantoms drawn and written", ("/demo.py:write_demo_cohorts",)),
    Rule("intake: read, decode, prepare", ("/ingest.py", "/site_data.py:load_site", "/cohort.py")),
    Rule("report, figures", ("/report/", "/figure2.py", "/pages.py")),
    Rule("checkpoints", ("/checkpoint.py", "/checkpoint_selection.py")),
    Rule("rounds: wire, checks, average", ("/training_round.py", "/messages.py", "/requests.py")),
)
OTHER = "other"


def work_of(stack: str) -> str:
    """Return a stack's kind of work, by the first matching rule."""
    fitting = (rule.work for rule in RULES if any(word in stack for word in rule.words))
    return next(fitting, OTHER)


def stack_of(frame: FrameType | None) -> list[str]:
    """Return a stack's functions, innermost first."""
    lines = []
    while frame is not None:
        lines.append(f"{frame.f_code.co_filename}:{frame.f_code.co_name}")
        frame = frame.f_back
    return lines


class Sampler:
    """Sample the main thread's stack until stopped."""

    def __init__(self) -> None:
        self.work: Counter[str] = Counter()
        self.innermost: dict[str, Counter[str]] = {}
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop sampling."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        main = threading.main_thread().ident
        assert main is not None
        while not self._over.wait(EVERY_SECONDS):
            stack = stack_of(sys._current_frames().get(main))
            work = work_of("\n".join(stack))
            self.work[work] += 1
            ours = next((line for line in stack if "mamfed_" in line), stack[0])
            self.innermost.setdefault(work, Counter())["/".join(ours.split("/")[-2:])] += 1


def run_demo(out: Path, threads: int, *, short: bool) -> None:
    """Run the command with an empty cache, so that all images are prepared again."""
    from mamfed_common.runtime import terminal

    terminal.set_environment()
    from mamfed_simulations.cli import main
    from mamfed_simulations.federation import demo

    if short:
        whole = demo.demo_plan

        def one_round(seed: int = 0, size: int = 128) -> TrainingPlan:
            plan = whole(seed, size)
            stages = {
                name: getattr(plan, name).model_copy(update={"rounds": 1})
                for name in ("pretraining", "finetuning")
            }
            return plan.model_copy(update=stages)

        demo.demo_plan = one_round
    arguments = ["demo", "--out", str(out / "demo"), "--cache", str(out / "cache")]
    main.app([*arguments, "--threads", str(threads), "--device", "cpu"], standalone_mode=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--short", action="store_true", help="One round of each stage.")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--top", type=int, default=5, help="Rows of the table.")
    given = parser.parse_args()
    sampler, started = Sampler(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run_demo(Path(folder), given.threads, short=given.short)
    seconds = time.perf_counter() - started
    sampler.stop()
    looks = sampler.work.total()
    print(f"\n{seconds:.0f} s in all, {looks} looks\n")
    print("| share | work | most of it in |\n|---|---|---|")
    for work, count in sampler.work.most_common(given.top):
        ((where, _),) = sampler.innermost[work].most_common(1)
        print(f"| {100 * count / looks:.1f} % | {work} | `{where}` |")


if __name__ == "__main__":
    main()

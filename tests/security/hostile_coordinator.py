"""A coordinator that turns hostile, with its real keys and an approved plan, against one site.

In full, the site is a real node and worker over TLS; ``--quick`` calls the same handlers and gate
in this process. 0 foreign bytes run, no figure rests on fewer than 10 patients, and every attempt
stands in the site's audit log.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2])]

from flwr.app import ConfigRecord, Message, RecordDict  # noqa: E402
from tests.processes.intruder import peak_bytes  # noqa: E402
from tests.security.lib.asked_sites import AskedSite, InProcessSite, RealSite  # noqa: E402
from tests.security.lib.attempts import parse_with_seed  # noqa: E402
from tests.security.lib.foreign_bundle import foreign_bundle  # noqa: E402
from tests.security.lib.judged import Judged  # noqa: E402

from mamfed_client.disclosure.audit_log import Entry, read_record  # noqa: E402
from mamfed_client.disclosure.audit_proofs import keys_of  # noqa: E402
from mamfed_client.disclosure.audit_report import verify  # noqa: E402
from mamfed_client.disclosure.plan_store import MAX_PENDING, PlanStore  # noqa: E402
from mamfed_common.metrics.site_score import SiteScore  # noqa: E402
from mamfed_common.model.config import NetworkConfig  # noqa: E402
from mamfed_common.model.malignancy_net import build_network  # noqa: E402
from mamfed_common.model.state_dict import State, state_of  # noqa: E402
from mamfed_common.plan import FinetuningPlan, PersonalPlan, Stage, TrainingPlan  # noqa: E402
from mamfed_common.protocol.messages import BODY, JSON, pack, pack_task, unpack_body  # noqa: E402
from mamfed_common.protocol.tasks import (  # noqa: E402
    EvaluateTask,
    PlanRequest,
    Query,
    RefusalCode,
    SiteDescription,
    TrainTask,
)
from mamfed_common.security.signing import sign_plan  # noqa: E402
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort  # noqa: E402

MINIMUM = 10
MEMORY_BYTES = 500 << 20
"""The most that the site's processes may grow by huge plans."""
FINE = {"stage": Stage.FINETUNING, "server_round": 1}


def attack_plan(seed: int, **evaluation: object) -> TrainingPlan:
    """Return a plan within every bound, as a person would approve it."""
    stage = {"local_steps": 1, "batch_size": 2}
    finetuning = FinetuningPlan(rounds=3, learning_rate=1e-3, **stage)
    plan = TrainingPlan(
        seed=seed,
        image_size=32,
        network=NetworkConfig(channels=(4, 8), first_skip_level=1, stem=1),
        finetuning=finetuning,
        personal=PersonalPlan(steps=1),
    )
    parts = {"test_fraction": 0.45, "validation_fraction": 0.05, **evaluation}
    return plan.changed(
        pretraining={"rounds": 0, "learning_rate": 1e-3},
        evaluation={**plan.evaluation.model_dump(), **parts},
    )


class Coordinator:
    """A hostile coordinator: it asks, keeps what came, and looks for it in the site's log."""

    def __init__(self, site: AskedSite, attempts: Judged, seed: int) -> None:
        """Attack a site."""
        self.site, self.attempts, self.seed = site, attempts, seed
        self.plan = attack_plan(seed)
        self.weights = self._crafted(0)

    def _crafted(self, number: int) -> State:
        return state_of(build_network(self.plan.network, self.seed + number))

    def lines(self) -> list[Entry]:
        """Return the site's audit log."""
        return read_record(self.site.home.audit).entries

    def ask(
        self,
        kind: str,
        request: PlanRequest | None,
        content: RecordDict | None = None,
        **more: State,
    ) -> Message:
        """Send a message; it must add a line to the site's log."""
        before = len(self.lines())
        if content is None:
            assert request is not None
            state = more.get("state")
            content = pack(request) if state is None else pack_task(request, state)
        reply = self.site.ask(kind, content)
        if len(self.lines()) <= before:
            self.attempts.judge(f"a {kind} stands in the audit log", False)
        return reply

    def signed(self, kind: type[PlanRequest], plan: TrainingPlan | None = None, **values: object):
        """Return a request with its plan's true signature."""
        plan = plan or self.plan
        return kind(plan=plan, signature=sign_plan(self.site.key, plan), **values)

    def score(self, plan: TrainingPlan | None = None, number: int = 0, **values: object):
        """Ask for a score; return it, or None where none came."""
        task = self.signed(EvaluateTask, plan, **{"part": "test", **FINE, **values})
        reply = self.ask("evaluate", task, state=self._crafted(number))
        return None if reply.has_error() else unpack_body(reply.content, SiteScore)

    def train(self, plan: TrainingPlan | None = None, number: int = 0, **values: object) -> Message:
        """Ask for a round."""
        task = self.signed(TrainTask, plan, **(FINE | values))
        return self.ask("train", task, state=self._crafted(number))

    def refused(self, name: str, reply: Message, *codes: RefusalCode) -> None:
        """Judge an attempt that must bring a code and nothing else."""
        code = reply.error.code if reply.has_error() else None
        self.attempts.judge(name, code in codes, f"code {code}")


def forged_plans(c: Coordinator, quick: bool) -> None:
    """Altered, unsigned and foreign-signed plans, and those outside the policy."""
    altered = c.signed(Query).model_copy(update={"plan": c.plan.changed(seed=c.seed + 1)})
    c.refused("a plan altered after signing", c.ask("query", altered), RefusalCode.PLAN_NOT_SIGNED)
    c.refused("an unsigned plan", c.ask("query", Query(plan=c.plan)), RefusalCode.PLAN_NOT_SIGNED)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    foreign = Query(plan=c.plan, signature=sign_plan(Ed25519PrivateKey.generate(), c.plan))
    c.refused("a plan signed by another key", c.ask("query", foreign), RefusalCode.PLAN_NOT_SIGNED)
    fine = c.plan.finetuning.model_dump()
    outside = {
        "4096 pixels": {"image_size": 4096},
        "101 rounds": {"finetuning": fine | {"rounds": 101}},
        "a learning rate of 1": {"finetuning": fine | {"learning_rate": 1.0}},
        "17 images a step": {"finetuning": fine | {"batch_size": 17}},
        "an average over one site": {"federation": {"min_sites": 1}},
        "100,000 personal steps": {"personal": {"steps": 100_000}},
    }
    for what, changes in outside.items():
        reply = c.train(c.plan.changed(**changes))
        c.refused(f"a plan with {what}", reply, RefusalCode.PLAN_OUTSIDE_POLICY)


def tiny_splits(c: Coordinator, quick: bool) -> None:
    """Splits that leave a single patient in a part."""
    splits = (
        {"test_fraction": 0.001}, {"validation_fraction": 0.001}, {"folds": 100},
        {"test_fraction": 0.98, "validation_fraction": 0.01}, {"validation_fraction": 0.54},
    )  # fmt: skip
    for split in splits:
        plan = attack_plan(c.seed, **split)
        words = ", ".join(f"{key} {value}" for key, value in split.items())
        c.refused(f"a split with {words}", c.train(plan), RefusalCode.PLAN_OUTSIDE_POLICY)
    plan = attack_plan(c.seed, test_fraction=0.06, validation_fraction=0.0)
    c.attempts.judge("a score of three patients stays", c.score(plan) is None)
    c.attempts.judge("a score of one validation patient stays", c.score(part="val") is None)
    reply = c.train(plan)
    c.attempts.judge("a site with few test patients trains", not reply.has_error())


def single_patients(c: Coordinator, quick: bool) -> None:
    """The attack of the issue: part train, 49 thresholds, crafted weights, repeated questions."""
    for part in ("train",):
        task = c.signed(EvaluateTask, part=part, **FINE)
        reply = c.ask("evaluate", task, state=c.weights)
        c.refused(f"a score of part {part}", reply, RefusalCode.PLAN_OUTSIDE_POLICY)
    thresholds = [number / 50 for number in range(1, 50)]
    random.Random(c.seed).shuffle(thresholds)
    found = [c.score(threshold=value) for value in thresholds]
    answers = [score for score in found if score is not None]
    c.attempts.judge("49 thresholds", len(answers) == 1, f"{len(answers)} answered")
    again = [c.score(number=number) for number in range(1, 9)]
    c.attempts.judge("the final test with 8 other weights", not any(again))
    rounds = [c.train(number=number) for number in range(8)]
    count = sum(not reply.has_error() for reply in rounds)
    c.attempts.judge("one round with 8 weights", count == 1, f"{count} answered")
    c.attempts.judge("the same round again", not c.train(number=0).has_error(), "same answer")
    c.refused("a fourth round of three", c.train(server_round=4), RefusalCode.PLAN_OUTSIDE_POLICY)
    for stage in (Stage.PRETRAINING,):
        task = c.signed(EvaluateTask, part="val", stage=stage, server_round=1)
        reply = c.ask("evaluate", task, state=c.weights)
        c.refused("a score of stage 1", reply, RefusalCode.PLAN_OUTSIDE_POLICY)


def differencing(c: Coordinator, quick: bool) -> None:
    """Scores over groups that differ by few patients, by plans that differ in little."""
    fractions = [0.45 + step / 100 for step in range(1, 3 if quick else 8)]
    for fraction in fractions:
        c.score(attack_plan(c.seed, test_fraction=round(fraction, 2)))
    for size in () if quick else (33, 40):
        c.score(attack_plan(c.seed, test_fraction=0.47).changed(image_size=size))
    told = [line for line in c.lines() if line.kind == "evaluate"]
    groups = sorted({(line.patients or {}).get("images", 0) for line in told} - {0})
    near = [(a, b) for a, b in pairwise(groups) if b - a < MINIMUM]
    c.attempts.judge("groups that differ by few patients", not near, f"released over {groups}")
    description = unpack_body(c.ask("query", c.signed(Query)).content, SiteDescription)
    small = [
        count
        for counts in (*description.patients.values(), description.rejected, description.vendors)
        for count in counts.values()
        if 0 < count < MINIMUM
    ]
    c.attempts.judge("small counts in a description", not small, small)


def huge_plans(c: Coordinator, quick: bool) -> None:
    """Plans and messages that would take gigabytes."""
    before = [peak_bytes(pid) for pid in c.site.pids()]
    network = c.plan.network.model_dump()
    for channels in ((12_000,) * 6, (65_536,) * 16):
        plan = c.plan.changed(network=network | {"channels": channels})
        for kind, request in (("query", Query), ("train", TrainTask)):
            values = FINE if request is TrainTask else {}
            reply = c.ask(kind, c.signed(request, plan, **values))
            name = f"a {kind} of {len(channels)} levels of {channels[0]} channels"
            c.refused(name, reply, RefusalCode.PLAN_OUTSIDE_POLICY)
    plan = c.plan.changed(finetuning=c.plan.finetuning.model_dump() | {"batch_size": 16},
                          image_size=2048, network=network | {"channels": (512, 512)})  # fmt: skip
    c.refused("a step of 500 GiB", c.train(plan), RefusalCode.PLAN_OUTSIDE_POLICY)
    body = c.signed(Query).model_dump_json()
    for name, text in {
        "a body of 8 MB": body[:-1] + " " * (8 << 20) + "}",
        "100,000 levels": body.replace("[4,8]", str([1] * 100_000)),
        "an integer of 100,000 digits": body.replace(
            '"image_size":32', '"image_size":' + "9" * 10**5
        ),
    }.items():
        content = RecordDict({BODY: ConfigRecord({JSON: text})})
        reply = c.ask("query", None, content)
        c.attempts.judge(name, reply.has_error(), f"code {reply.error.code}")
    grown = [peak_bytes(pid) - old for pid, old in zip(c.site.pids(), before, strict=True)]
    c.attempts.judge("memory", all(size < MEMORY_BYTES for size in grown), f"grew by {grown}")


def many_plans(c: Coordinator, quick: bool) -> None:
    """More signed plans than anybody would read."""
    for number in range(MAX_PENDING + 5 if quick else 200):
        c.ask("query", c.signed(Query, c.plan.changed(seed=1000 + number)))
    store = PlanStore(c.site.home.plans)
    kept = len(store.plans())
    c.attempts.judge("signed plans", kept <= MAX_PENDING, f"{kept} kept, {store.dropped()} dropped")


def what_left(c: Coordinator, quick: bool) -> None:
    """The whole log: no figure over few patients, all that was asked, and every signature."""
    scores = [line for line in c.lines() if line.kind == "evaluate" and not line.again]
    few = [
        line.n
        for line in scores
        for name, count in (line.patients or {}).items()
        if count < MINIMUM and name in line.values
    ]
    c.attempts.judge("figures over few patients", not few, f"{len(scores)} scores left")
    asked = [line for line in c.lines() if line.part is not None]
    vague = [line.n for line in asked if not line.plan_sha256 or not line.stage]
    c.attempts.judge("all that was asked is recorded", asked and not vague, f"{len(asked)} scores")
    summary = verify(c.site.home.audit, keys_of(c.site.home))
    signed = summary.proofs.signed == summary.lines
    c.attempts.judge("every line is signed", signed, f"{summary.lines} lines")
    if c.site.pids():
        heads = summary.proofs.countersigned
        c.attempts.judge("heads are countersigned", bool(heads), f"{len(heads)} heads")


def foreign_code(c: Coordinator, quick: bool) -> None:
    """A bundle with code of the coordinator's; last, because the site reconnects."""
    if not isinstance(c.site, RealSite):
        return
    canary = c.site.federation.folder / "the-bundle-ran"
    bundle, sha256 = foreign_bundle(canary)
    c.site.with_foreign_bundle(bundle, sha256)
    reply = c.ask("query", c.signed(Query))
    c.refused("a foreign bundle", reply, RefusalCode.OTHER_VERSION)
    c.attempts.judge("0 foreign bytes run", not canary.exists())


CHAPTERS: tuple[Callable[[Coordinator, bool], None], ...] = (
    forged_plans, tiny_splits, single_patients, differencing, huge_plans, many_plans, what_left,
    foreign_code,
)  # fmt: skip


def run(folder: Path, seed: int, quick: bool) -> None:
    """Run the suite in a folder; it ends with the suite's exit code."""
    attempts, data = Judged(), folder / "phantoms"
    look = VENDORS["aurora"]
    write_cohort(data, look, benign=24, malignant=60, seed=seed % 1000, scale=0.05)
    site = InProcessSite(folder, data) if quick else RealSite(folder, data)
    try:
        for chapter in CHAPTERS:
            chapter(Coordinator(site, attempts, seed), quick)
    finally:
        site.close()
    attempts.finish()


def main() -> None:
    """Run the suite; exit with 0 where everything held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    given = parse_with_seed(parser)
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        run(Path(folder), given.seed, given.quick)


if __name__ == "__main__":
    main()

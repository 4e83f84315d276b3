"""The threshold of the chosen round comes from its validation, by the mean over sites."""

import pytest
from flwr.app import Message
from tests.server.sites import Sites, run
from tests.server.sites import score as made_score

from mamfed_common.checkpoint import load_checkpoint
from mamfed_common.metrics import THRESHOLDS, SiteScore
from mamfed_common.weights import EvaluateTask, pack, unpack_body
from mamfed_server.selection import choose_threshold

CHECKPOINTS = ("best", "final")


def score(dice_at):
    return SiteScore(
        images=3,
        dice=0.5,
        lesions=None,
        lesions_found=None,
        images_without_malignancy=None,
        false_positive_pixels=None,
        dice_at=dice_at,
    )


def peak(at, height=0.6):
    return tuple(height if t == at else 0.1 for t in THRESHOLDS)


@pytest.mark.parametrize("best", [0.1, 0.3, 0.5, 0.9])
def test_one_site_chooses_its_best(best):
    assert choose_threshold({"a": score(peak(best))}) == best


def test_sites_choose_by_their_mean_whatever_their_size():
    big = score(peak(0.2, 0.9)).model_copy(update={"images": 1000})
    small = score(tuple(0.0 if t == 0.2 else 0.95 if t == 0.7 else 0.1 for t in THRESHOLDS))
    assert choose_threshold({"big": big, "small": small}) == 0.7


def test_of_equal_ones_the_nearest_to_a_half_wins():
    assert choose_threshold({"a": score((0.4,) * 9)}) == 0.5
    assert choose_threshold({"a": score((0.4, 0.4, 0.4, 0.4, 0.3, 0.4, 0.4, 0.4, 0.4))}) in (
        0.4,
        0.6,
    )


def test_a_site_that_says_nothing_does_not_count():
    assert choose_threshold({"a": score(None), "b": score(peak(0.4))}) == 0.4


@pytest.mark.parametrize("scores", [{}, {"a": score(None)}])
def test_without_any_the_plans_threshold_stays(scores):
    assert choose_threshold(scores) is None


class Choosing(Sites):
    """Sites whose first round of stage 2 is the best, at 0.3, and whose second is at 0.8."""

    def __init__(self, at=(0.3, 0.8)):
        super().__init__()
        self.at = at
        self.tested = []

    def evaluate(self, message, context):
        task = unpack_body(message.content, EvaluateTask)
        if task.part == "test":
            self.tested.append((str(task.stage), task.server_round, task.threshold))
            return Message(pack(made_score(0.5)), reply_to=message)
        at = self.at[task.server_round - 1]
        answer = made_score(0.9 / task.server_round, dice_at=at and peak(at))
        return Message(pack(answer), reply_to=message)


def test_the_test_is_scored_at_the_threshold_of_the_best_round(tmp_path, tiny_plan):
    sites = Choosing()
    folder = run(sites, tiny_plan, tmp_path / "run")
    assert sites.tested == [("finetuning", 1, 0.3)] * 3
    chosen = {n: load_checkpoint(folder.checkpoint_path(n)).facts.threshold for n in CHECKPOINTS}
    assert chosen == {"best": 0.3, "final": 0.8}
    summary = folder.read_summary()
    assert (summary["threshold"], summary["threshold_from"]) == (0.3, "validation")


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_a_run_that_was_killed_goes_on_with_the_threshold(tmp_path, tiny_plan, rounds):
    records = []

    def on_round(record):
        records.append(record)
        if len(records) == rounds:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(Choosing(), tiny_plan, tmp_path / "run", on_round=on_round)
    sites = Choosing()
    summary = run(sites, tiny_plan, tmp_path / "run", resume=True).read_summary()
    assert sites.tested == [("finetuning", 1, 0.3)] * 3
    assert (summary["threshold"], summary["threshold_from"]) == (0.3, "validation")


def test_where_no_site_says_what_its_dice_would_be_the_plans_threshold_is_used(tmp_path, tiny_plan):
    sites = Choosing((None, None))
    folder = run(sites, tiny_plan, tmp_path / "run")
    assert sites.tested == [("finetuning", 1, None)] * 3
    summary = folder.read_summary()
    assert (summary["threshold"], summary["threshold_from"]) == (0.5, "plan")


def test_a_threshold_is_chosen_even_where_no_dice_chooses_a_round(tmp_path, tiny_plan):
    """A site may let ``dice_at`` leave and ``dice`` not: the last round is then the best."""
    sites = Choosing()
    choosing = sites.evaluate

    def evaluate(message, context):
        score = unpack_body(choosing(message, context).content, SiteScore)
        return Message(pack(score.model_copy(update={"dice": None})), reply_to=message)

    sites.evaluate = evaluate
    summary = run(sites, tiny_plan, tmp_path / "run").read_summary()
    assert sites.tested == [("finetuning", 2, 0.8)] * 3
    assert summary["checkpoint_chosen_by"] == "last round"
    assert (summary["threshold"], summary["threshold_from"]) == (0.8, "validation")

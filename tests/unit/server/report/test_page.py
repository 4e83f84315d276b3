"""The report: every number and every loss is on the page, and the page needs nothing else."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from mamfed_common.metrics.site_score import SiteScore
from mamfed_common.plan import FinetuningPlan, Stage, StagePlan, TrainingPlan
from mamfed_server.report.data import CaseNote, RejectedRow, ReportData, RunNotes
from mamfed_server.report.page import write_report
from mamfed_server.report.result_tables import measures, rows_of
from mamfed_server.report.results import read_arms, read_sites, verdict
from mamfed_server.run.state import KeptCheckpoint
from mamfed_server.run_folder.round_record import Contribution, RoundRecord

SIZE = 32
HOSTILE = "<script>alert('$x$')</script>"
PLAN = TrainingPlan(
    image_size=SIZE,
    pretraining=StagePlan(rounds=1, learning_rate=1e-3),
    finetuning=FinetuningPlan(rounds=3, learning_rate=1e-3),
)


def score(images: int, dice: float | None, without: int = 0) -> dict[str, Any]:
    return SiteScore(
        images=images,
        dice=dice,
        lesions=images,
        lesions_found=images // 2,
        images_without_malignancy=without,
        false_positive_pixels=7.5 if without else None,
        lesions_redrawn=images // 3,
        redrawn_as_tissue=images // 4,
        redrawn_minus_ring=0.02 if images // 3 else None,
    ).model_dump()


def description(site: str, malignant_test: int) -> dict[str, Any]:
    return {
        "site": site,
        "images": {
            "benign": {"train": 21, "val": 3, "test": 4},
            "malignant": {"train": 17, "val": 5, "test": malignant_test},
            "without_malignancy": {"train": 22, "val": 3, "test": 4},
        },
        "patients": {"benign": {"train": 11}, "malignant": {"train": 9}},
        "rows": 53 + malignant_test,
        "rejected": {"missing mask": 2},
        "left_out": {"BI-RADS 0": 1},
        "vendors": {"Vendor & Co": 60},
    }


def record(
    stage: Stage, server_round: int, dice: float | None, refused: dict[str, str] | None = None
) -> RoundRecord:
    lost = refused or {}
    validation = {} if dice is None else {"alpha": SiteScore.model_validate(score(5, dice))}
    return RoundRecord(
        stage=stage,
        server_round=server_round,
        expected=("alpha", "beta"),
        answered=("alpha", "beta"),
        accepted={
            site: Contribution(num_examples={"benign": 17}, share=0.5, loss=0.25)
            for site in ("alpha", "beta")
            if site not in lost
        },
        refused=lost,
        validation=validation,
        mean_validation_dice=dice,
        bytes_sent=2_500_000,
        bytes_received=1_250_000,
        seconds=3.0,
    )


def case(site: str, image: str) -> CaseNote:
    return CaseNote(site=site, image=image, vendor="Vendor & Co", dice=0.75)


def figure2() -> bytes:
    """A picture, as a simulation draws one."""
    _, png = cv2.imencode(".png", np.arange(2400, dtype=np.uint16).reshape(40, 60).astype(np.uint8))
    return png.tobytes()


def make_report() -> ReportData:
    """Two sites; beta cannot train alone, and holds two images only."""
    summary = {
        "status": "finished",
        "reason": "",
        "complete": True,
        "arms": {
            "federated": {
                "mean_dice": 0.5,
                "sites": {"alpha": score(12, 0.62, without=11), "beta": score(2, 0.38)},
            },
            "local": {
                "mean_dice": 0.51,
                "sites": {"alpha": score(12, 0.51, without=11)},
                "across": {"alpha": {"alpha": score(12, 0.51), "beta": score(2, 0.13)}},
                "not_trained": {"beta": "no annotated malignant training case"},
            },
            "centralised": {
                "mean_dice": 0.545,
                "sites": {"alpha": score(12, 0.65, without=11), "beta": score(2, 0.44)},
            },
        },
        "checkpoint": "/runs/a/checkpoints/best.safetensors",
        "checkpoint_chosen_by": "the last round: ...",
        "pooled_validation_dice": 0.41,
        "plan_sha256": PLAN.sha256(),
        "stages": {"pretraining": ["alpha"], "finetuning": ["alpha", "beta"]},
        "sites": {"alpha": description("alpha", 12), "beta": description("beta", 2)},
        "rounds": 4,
        "warnings": [],
        "seconds": 75.0,
    }
    dice = (0.33, 0.47, 0.41)
    finetuning = [record(Stage.FINETUNING, n, d) for n, d in enumerate(dice, start=1)]
    return ReportData(
        plan=PLAN,
        summary=summary,
        rounds=[record(Stage.PRETRAINING, 1, None), *finetuning],
        kept=KeptCheckpoint(Path("/runs/a/checkpoints/best.safetensors"), Stage.FINETUNING, 3),
        other_rounds={"local-alpha": finetuning, "centralised": finetuning},
        notes=RunNotes(
            title="A report",
            command="mamfed-simulate demo",
            cases=(case("alpha", HOSTILE), case("beta", "b1.dcm")),
            rejected=(
                RejectedRow(
                    site="alpha",
                    row=14,
                    image=HOSTILE,
                    reason="missing mask",
                    detail="masks/<i>.png",
                ),
            ),
            environment={"torch": "2.13.0"},
        ),
        figure2=figure2(),
    )


def with_summary(report: ReportData, **values: Any) -> ReportData:
    return replace(report, summary={**report.summary, **values})


class Page(HTMLParser):
    """A page's visible words, its tags, and every address that it names."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.rows: list[list[str]] = []
        self._in_cell = False
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        named = dict(attrs)
        self.addresses += [named[k] or "" for k in ("src", "href", "srcset") if k in named]
        if tag == "img":
            self.images.append(named)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        self.text += data + " "
        if self._in_cell:
            self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip()

    def rows_starting(self, name: str) -> list[list[str]]:
        return [row for row in self.rows if row and row[0].startswith(name)]


def write(folder: Path, report: ReportData) -> Page:
    return Page(write_report(folder, report))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of :func:`make_report`."""
    folder = tmp_path_factory.mktemp("report") / "run"
    write_report(folder, make_report())
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page(folder / "report.html")


def test_a_page_needs_no_other_file_and_no_network(page: Page) -> None:
    assert not re.search(r"https?:|://|@import|url\(", page.html)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert {address.split(",")[0] for address in page.addresses if address[0] != "#"} == {
        "data:image/png;base64"
    }
    assert "default-src 'none'" in page.html


def test_the_pictures_in_the_page_are_the_pngs_beside_it(page: Page, folder: Path) -> None:
    embedded = [base64.b64decode((i["src"] or "").split(",")[1]) for i in page.images]
    files = [folder / name for name in ("dice.png", "figure2.png", "curves.png")]
    assert embedded == [path.read_bytes() for path in files]
    for path in files:
        picture = cv2.imread(str(path))
        assert picture is not None
        assert picture.std() > 1
    assert all(image["alt"] for image in page.images)


def test_every_file_is_its_owners_only(folder: Path) -> None:
    assert folder.stat().st_mode & 0o777 == 0o700
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.iterdir()}
    assert modes == dict.fromkeys(("report.html", "curves.png", "dice.png", "figure2.png"), 0o600)


def test_every_site_and_number_is_shown(page: Page) -> None:
    dice, gains, lesions, false_positives, tissue, *_ = page.rows_starting("alpha")
    assert dice == ["alpha", "12", "0.51", "0.65", "0.62"]
    assert gains[:7] == ["alpha", "12 images", "0.62", "n/a", "0.51", "+0.11", "n/a"]
    assert lesions == ["alpha", "12", "6 of 12 50%", "6 of 12 50%", "6 of 12 50%"]
    assert false_positives == ["alpha", "11", "7.5", "7.5", "7.5"]
    assert tissue == ["alpha", "12", *["3 of 4 +0.020"] * 3]
    for words in ("Vendor & Co: 60", "2 rejected: missing mask", "21 / 11", "17 / 9"):
        assert page.text.count(words) >= 2, words
    kept = "/runs/a/checkpoints/best.safetensors"
    for words in (PLAN.sha256(), kept, "75 seconds", "2.13.0"):
        assert words in page.text
    assert "learning_rate: 0.001" in page.text
    assert "mamfed-simulate demo" in page.text


def test_the_verdict_compares_arms_over_the_same_sites_only() -> None:
    sentences = verdict(read_arms(make_report().summary))
    assert sentences == [
        "Federated: mean Dice 0.50 over 2 sites (14 held-out images with malignancy).",
        "At the one site measured in every arm (alpha): "
        "federated 0.62; centralised 0.65; local only 0.51.",
    ]


def test_the_verdict_gives_all_means_where_every_site_is_in_every_arm() -> None:
    summary = make_report().summary
    del summary["arms"]["local"]
    assert verdict(read_arms(summary)) == [
        "Federated: mean Dice 0.50 over 2 sites (14 held-out images with malignancy); "
        "centralised 0.55."
    ]


def test_a_site_that_could_not_train_alone_reads_not_trained_and_never_zero(page: Page) -> None:
    dice = page.rows_starting("beta")[0]
    assert dice == ["beta few images", "2", "n/a not trained", "0.44", "0.38"]
    assert "beta was not trained: no annotated malignant training case." in page.text


def test_a_site_without_held_out_images_reads_no_images() -> None:
    summary = make_report().summary
    summary["arms"]["federated"]["sites"]["beta"] = score(0, None)
    summary["sites"]["beta"] = description("beta", 0)
    dice, *_ = measures(PLAN, 0.5)
    rows = rows_of(dice, read_arms(summary)[-1:], read_sites(summary))
    assert [(row.name, row.images, row.small) for row in rows] == [
        ("alpha", "12", False),
        ("beta", "0", False),
        ("Mean of sites", "12", False),
    ]
    assert rows[1].cells == [("n/a", "no images")]


def test_a_site_whose_test_result_is_missing_is_named(tmp_path: Path) -> None:
    report = make_report()
    del report.summary["arms"]["federated"]["sites"]["beta"]
    page = write(tmp_path, report)
    assert "beta: has test images, but returned no result." in page.text
    assert "something is missing" in page.text
    assert page.rows_starting("beta")[0][-1] == "n/a no result"


def test_figures_with_fewer_than_ten_images_are_flagged(page: Page) -> None:
    for words in (
        "Results over fewer than 10 images: beta (2 images).",
        "The mean over sites gives beta with 2 images the same weight as alpha with 12 images.",
        "The shared model scored higher than local training at the one site: alpha +0.11 (12",
    ):
        assert words in page.text
    assert "few images" in page.rows_starting("beta")[0][0]
    assert "few images" not in page.rows_starting("alpha")[0][0]


def test_a_complete_run_says_so(page: Page) -> None:
    assert 'class="status ok"' in page.html
    assert "The run finished and is complete." in page.text
    assert "8 of 8 updates accepted (4 rounds)." in page.text
    account = "120 rows: 76 trained on, 16 validation, 22 test, 2 not used, 4 rejected."
    assert f"In the tables of 2 sites: {account}" in page.text


def test_a_refused_site_is_shown_with_its_reason(tmp_path: Path) -> None:
    report = make_report()
    refused = record(Stage.FINETUNING, 2, 0.47, {"beta": "array 'a<b' is not finite"})
    rounds = [*report.rounds[:2], refused, report.rounds[3]]
    warnings = ["finetuning round 2: beta left out: array 'a<b' is not finite"]
    lossy = with_summary(replace(report, rounds=rounds), complete=False, warnings=warnings)
    page = write(tmp_path, lossy)
    assert 'class="status warning"' in page.html
    assert "7 of 8 updates accepted (4 rounds)." in page.text
    assert "beta: update in 2 of 3 rounds of finetuning (1 x array 'a<b' is" in page.text
    assert "1 warning " in page.text
    assert warnings[0] in page.text
    assert ["finetuning", "2", "1 of 2", "beta: array 'a<b' is not finite"] in [
        row[:4] for row in page.rows
    ]


def test_a_failed_run_says_so_first(tmp_path: Path) -> None:
    arms = {"federated": {"mean_dice": None, "sites": {}}}
    failed = with_summary(
        make_report(),
        status="failed",
        reason="finetuning round 1: 0 of 2 updates accepted",
        complete=False,
        arms=arms,
        pooled_validation_dice=None,
    )
    page = write(
        tmp_path, replace(failed, rounds=[], other_rounds={}, notes=RunNotes(), figure2=None)
    )
    assert 'class="status failed"' in page.html
    assert "The run failed: finetuning round 1: 0 of 2 updates accepted." in page.text
    assert "No Dice was measured on held-out images." in page.text
    assert "There are no results: the run failed, and the test comes at its end." in page.text
    assert "returned no result" not in page.text, "nobody was asked for one"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html"]


def test_a_federation_alone_needs_no_other_arm(tmp_path: Path) -> None:
    report = make_report()
    arms = {"federated": report.summary["arms"]["federated"]}
    page = write(tmp_path, replace(with_summary(report, arms=arms), other_rounds={}))
    assert page.rows_starting("alpha")[0] == ["alpha", "12", "0.62"]
    assert "Local models at other sites" not in page.text
    assert "may be chance" not in page.text


def test_the_cross_table_has_every_local_model_at_every_site(page: Page) -> None:
    assert page.rows_starting("alpha alone") == [["alpha alone", "0.51 n 12", "0.13 n 2"]]
    assert page.rows_starting("all, federated") == [["all, federated", "0.62 n 12", "0.38 n 2"]]


def test_names_are_shown_as_written_and_never_run(tmp_path: Path) -> None:
    report = make_report()
    hostile = {"title": HOSTILE, "command": HOSTILE, "environment": {HOSTILE: HOSTILE}}
    notes = report.notes.model_copy(update=hostile)
    page = write(tmp_path, replace(report, notes=notes))
    assert "<script" not in page.html
    assert "<i>" not in page.html
    assert page.text.count(HOSTILE) >= 6
    assert ["alpha", "14", HOSTILE, "missing mask", "masks/<i>.png"] in page.rows


def test_figure_2_lists_its_columns_in_their_order(page: Page) -> None:
    assert ["1", "alpha", HOSTILE, "Vendor & Co", "0.75", "0.62"] in page.rows
    assert ["2", "beta", "b1.dcm", "Vendor & Co", "0.75", "0.38"] in page.rows


def test_rounds_are_totalled_and_the_chosen_one_marked(page: Page) -> None:
    assert page.rows_starting("All")[-1][-3:] == ["12 seconds", "10.0", "5.0"]
    chosen = [row for row in page.rows if "chosen" in " ".join(row)]
    assert [row[:2] for row in chosen] == [["finetuning", "3"]]
    assert "round 3. Chosen: the last round: none has a higher smoothed Dice on 5" in page.text
    assert "0.41 over all 5 images at 0.5, 0.41 as the mean of the sites" in page.text


def test_every_table_names_its_columns_and_itself(page: Page) -> None:
    assert page.tags.count("table") == page.tags.count("caption") == 13
    assert not re.search(r"<th(?![^>]*scope=)[ >]", page.html.replace("<thead", ""))
    assert '<html lang="en">' in page.html

"""A site's home with a plan that waits, messages that left, models and predictions."""

import json

import pytest
import yaml
from tests.unit.client.cli.test_models import SCORE

from mamfed_client.dashboard.snapshot import SiteReader
from mamfed_client.disclosure.audit_log import AuditLog
from mamfed_client.disclosure.plan_store import PlanStore
from mamfed_client.models.model_store import ModelFolder, folder_for
from mamfed_client.prediction.folder import MAKER
from mamfed_client.site.data_account import DataAccount
from mamfed_client.site.settings import SiteHome
from mamfed_common.checkpoint import Checkpoint, CheckpointFacts
from mamfed_common.model.malignancy_net import build_network
from mamfed_common.model.state_dict import state_of
from mamfed_common.plan import Stage
from mamfed_common.runtime.output_checks import PAGE_MARK

STUDY = "0123456789abcdef0123456789abcdef"
BOUNDS = {"max_rounds_a_year": 4, "min_min_sites": 2}
POLICY = {"bounds": BOUNDS, "release": {"arrays": ["*"], "metrics": ["counts", "num_examples"]}}


@pytest.fixture
def home(tmp_path):
    home = SiteHome(tmp_path / "home")
    home.path.mkdir(mode=0o700)
    settings = {"name": "north", "data": [{"name": "pacs", "folder": "x"}], "policy": POLICY}
    home.settings_path.write_text(yaml.safe_dump(settings))
    return home


@pytest.fixture
def reader(home):
    return SiteReader(home)


@pytest.fixture
def arrived(home, tiny_plan):
    """The plan, as it arrived with a valid signature."""
    PlanStore(home.plans).remember(tiny_plan)
    return tiny_plan


@pytest.fixture
def left(home, tiny_plan):
    """Three messages left."""
    log, plan = AuditLog(home.audit), tiny_plan.sha256()
    log.append("describe", plan_sha256=plan, policy_sha256="p", bytes=900, to="North")
    log.append(
        "train", stage="finetuning", round=2, plan_sha256=plan, policy_sha256="p", bytes=31_000,
        values={"num_examples": 40, "loss": 0.31259}, patients={"train": 12},
        withheld={"dice": "<b>4 patients</b>, 10 are needed"}, to="North",
    )  # fmt: skip
    log.append("fault", values={"fault": 112}, bytes=8, to="North")
    return log


@pytest.fixture
def account(home, tiny_plan):
    """What lies here: two makers, two doubts, three files that cannot be used."""
    counts = {"train": 7, "val": 1, "test": 2}
    data_set = {
        "name": "pacs",
        "prepared": True,
        "summary": {
            "files": 23, "accepted": 20, "patients": 14, "vendors": {"HOLOGIC": 12, "GE": 8},
            "doubts": {"noise": 2}, "rejected": {"truncated": 3}, "left_out": {},
            "other_files": {}, "notes": ["4 masks are boxes"],
        },
        "images": {"benign": counts, "malignant": {**counts, "train": 5}},
        "patients": {"benign": counts, "malignant": {**counts, "train": 4}},
    }  # fmt: skip
    written = DataAccount.model_validate(
        {
            "time": "2026-11-30T08:00:00Z",
            "plan_sha256": tiny_plan.sha256(),
            "data_sets": [data_set],
        }
    )
    home.data_account.write_text(written.model_dump_json())
    return written


@pytest.fixture
def models(home, tiny_plan):
    """A run's shared model, with the Dice of five images of three patients."""
    folder = ModelFolder(folder_for(home.models, "first", tiny_plan))
    facts = CheckpointFacts(
        plan=tiny_plan, plan_sha256=tiny_plan.sha256(), stage=Stage.FINETUNING, server_round=2
    )
    folder.keep_shared(Checkpoint(state_of(build_network(tiny_plan.network, 0)), facts), "first")
    images = ((0, 0.5), (0, 0.7), (1, 0.6), (2, 0.6), (2, 0.725))
    folder.note_score("shared", SCORE, "first", images)
    return folder


def page_of(title):
    head = f'<meta http-equiv="Content-Security-Policy" content="{PAGE_MARK.decode()}">'
    return f"<!DOCTYPE html>\n<html lang='en'><head>{head}<title>{title}</title></head></html>\n"


@pytest.fixture
def predictions(tmp_path):
    """A folder as predict writes it: a summary, a list of studies, one study."""
    folder = tmp_path / "predictions"
    (folder / "studies").mkdir(parents=True)
    (folder / "model.json").write_text(json.dumps({"made_by": MAKER}))
    record = {
        "study": STUDY, "laterality": "L", "view": "CC", "score": 0.9, "source": "Secret^Name.dcm",
        "lesions": [{"score": 0.81, "area_mm2": 44.0}],
    }  # fmt: skip
    other = {**record, "view": "MLO", "lesions": [], "score": 0.2}
    document = {"model": {"weights_sha256": "ab" * 32}, "rejected": {"spot": 2}}
    document["per_image"] = [record, other]
    (folder / "predictions.json").write_text(json.dumps(document))
    (folder / "index.html").write_text(page_of("Predictions"))
    (folder / "studies" / f"{STUDY}.html").write_text(page_of("Study"))
    return folder

"""``mamfed-client data describe``: what a site says of its data before there is a plan."""

import json
import re
import shutil
import stat

import pytest
from tests.unit.client.homes import ok, run_client

from mamfed_client.disclosure import survey as surveys
from mamfed_client.disclosure.audit_log import read_record
from mamfed_client.disclosure.survey import _figure
from mamfed_client.site.identity import load_node_key
from mamfed_client.site.settings import SiteHome
from mamfed_common.errors import AuditError, MamfedError, OutputError
from mamfed_common.security.survey import read_survey
from mamfed_simulations.phantoms.vendors import VENDORS, write_cohort

LOOK = VENDORS["cirrus"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Twelve patients with malignant findings, three with benign ones; two images each."""
    path = tmp_path_factory.mktemp("hospital") / "data"
    write_cohort(path, LOOK, benign=6, malignant=24, seed=3, scale=0.06)
    return path


@pytest.fixture
def home(tmp_path, data):
    ok(run_client("init", tmp_path / "a", "--name", "a", "--data", data))
    return SiteHome(tmp_path / "a")


def _describe(home, out, *options, **settings):
    return run_client("data", "describe", "--out", out, "--home", home.path, *options, **settings)


def test_counts_are_rounded_down_and_small_ones_stay(home, tmp_path):
    out = tmp_path / "a.survey.json"
    ok(_describe(home, out, "--yes"))
    survey = read_survey(out)
    assert survey.uses["malignant"].model_dump() == {"patients": 10, "images": 20}
    assert not {"benign", "without_malignancy"} & survey.uses.keys()
    assert survey.withheld >= 2
    assert {name: cell.patients for name, cell in survey.views.items()} == {"CC": 10, "MLO": 10}
    assert survey.measures["rows"].patients == 10
    assert survey.measures["rows"].quartiles is None  # fewer than four times the minimum
    assert 0 < survey.measures["tone_5"].mean < survey.measures["tone_95"].mean <= 1
    assert 0 < survey.measures["breast_share"].mean < 1


def _allow(home, minimum):
    path = home.settings_path
    text, found = re.subn(
        r"min_patients_to_report: \d+", f"min_patients_to_report: {minimum}", path.read_text()
    )
    assert found == 1
    path.write_text(text)


def test_a_plan_divides_the_patients_and_small_parts_stay(home, tmp_path, tiny_plan):
    out, plan = tmp_path / "a.survey.json", tmp_path / "plan.yaml"
    plan.write_text(tiny_plan.to_yaml())
    _allow(home, 2)
    output = ok(_describe(home, out, "--plan", plan, "--yes")).output
    survey = read_survey(out)
    cells = survey.parts["malignant"]
    assert {part: cell.patients for part, cell in cells.items()} == {
        "train": 8,
        "val": 2,
        "test": 2,
    }
    assert all(cell.images == 2 * cell.patients for cell in cells.values())
    assert "malignant by part: training 8 patients, validation 2 patients" in output
    assert survey.is_signed(load_node_key(home).public_key())
    _allow(home, 3)
    before = survey.withheld
    ok(_describe(home, out, "--plan", plan, "--yes"))
    assert read_survey(out).parts["malignant"].keys() == {"train"}
    assert read_survey(out).withheld > before


def test_without_a_plan_or_a_split_column_there_are_no_parts(home, tmp_path):
    out = tmp_path / "a.survey.json"
    _allow(home, 1)
    ok(_describe(home, out, "--yes"))
    assert read_survey(out).parts == {}
    assert "parts" not in json.loads(out.read_text())


def test_a_split_column_needs_no_plan(tmp_path, data):
    folder = tmp_path / "split"
    shutil.copytree(data, folder)
    header, *rows = (folder / "labels.csv").read_text().splitlines()
    patients = list(dict.fromkeys(_patient(header, row) for row in rows))
    parts = {p: "val" if place % 3 == 0 else "train" for place, p in enumerate(patients)}
    table = [f"{header},split", *(f"{row},{parts[_patient(header, row)]}" for row in rows)]
    (folder / "labels.csv").write_text("\n".join(table) + "\n")
    ok(run_client("init", tmp_path / "a", "--name", "a", "--data", folder))
    home, out = SiteHome(tmp_path / "a"), tmp_path / "a.survey.json"
    _allow(home, 1)
    ok(_describe(home, out, "--yes"))
    found = read_survey(out).parts
    assert found["malignant"].keys() == {"train", "val"}
    told = sum(cell.patients for cell in found["malignant"].values())
    assert told == read_survey(out).uses["malignant"].patients


def _patient(header, row):
    return dict(zip(header.split(","), row.split(","), strict=True))["patient_id"]


def test_all_of_it_is_shown_signed_and_in_the_audit_log(home, tmp_path):
    out = tmp_path / "a.survey.json"
    result = ok(_describe(home, out, input="y\n"))
    assert "use malignant: 10 patients, 20 images at least" in result.output
    assert "withheld: " in result.output
    survey = read_survey(out)
    assert survey.is_signed(load_node_key(home).public_key())
    (entry,) = read_record(home.audit).entries
    assert entry.kind == "survey"
    assert entry.is_signed(load_node_key(home).public_key())
    assert entry.values == survey.model_dump(mode="json", exclude={"signature"})
    assert entry.bytes == out.stat().st_size
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    report = ok(run_client("audit", "report", "--home", home.path)).output
    assert "survey: 1 message" in report
    assert "a person here sends by hand" in " ".join(report.split())


def test_no_name_path_or_date_is_in_it(home, tmp_path, data):
    out = tmp_path / "a.survey.json"
    ok(_describe(home, out, "--yes"))
    text = out.read_text()
    rows = (data / "labels.csv").read_text().splitlines()
    header = rows[0].split(",")
    for row in rows[1:]:
        cells = dict(zip(header, row.split(","), strict=True))
        assert cells["image"] not in text
        assert f'"{cells["patient_id"]}"' not in text
    assert str(tmp_path) not in text
    assert not {"time", "date", "folder"} & json.loads(text).keys()


def test_no_for_an_answer_writes_and_records_nothing(home, tmp_path):
    out = tmp_path / "a.survey.json"
    result = _describe(home, out, input="n\n")
    assert isinstance(result.exception, MamfedError)
    assert not out.exists()
    assert not home.audit.exists()


def test_what_cannot_be_recorded_does_not_leave(home, tmp_path):
    home.audit.write_text("not a log\n")
    out = tmp_path / "a.survey.json"
    assert isinstance(_describe(home, out, "--yes").exception, AuditError)
    assert not out.exists()


def test_another_file_is_not_replaced(home, tmp_path):
    out = tmp_path / "notes.txt"
    out.write_text("mine")
    assert isinstance(_describe(home, out, "--yes").exception, OutputError)
    assert out.read_text() == "mine"


def test_a_prepared_folder_is_described_without_changing_it(tmp_path, data):
    prepared = tmp_path / "prepared"
    ok(run_client("data", "prepare", data, "--out", prepared, "--size", 64, "--accept-doubts"))
    before = {path: path.read_bytes() for path in prepared.rglob("*") if path.is_file()}
    ok(run_client("init", tmp_path / "a", "--name", "a", "--data", prepared))
    out = tmp_path / "a.survey.json"
    ok(_describe(SiteHome(tmp_path / "a"), out, "--yes"))
    assert read_survey(out).uses["malignant"].patients == 10
    assert {path: path.read_bytes() for path in prepared.rglob("*") if path.is_file()} == before


def test_quartiles_need_the_minimum_beyond_each():
    values = {("a", str(number)): [number, number + 2] for number in range(12)}
    assert _figure(values, 4).quartiles is None
    assert _figure(values, 3).model_dump() == {
        "patients": 12,
        "mean": 6.5,
        "quartiles": (3.8, 6.5, 9.2),
    }
    assert _figure(values, 13) is None


def test_one_number_in_two_data_sets_counts_as_one_person_against_the_minimum():
    values = {(name, str(number)): [1.0] for name in "ab" for number in range(5)}
    assert _figure(values, 6) is None
    assert _figure(values, 5).patients == 10


def test_only_some_images_are_opened(home, tmp_path, monkeypatch):
    monkeypatch.setattr(surveys, "MEASURED", 5)
    out = tmp_path / "a.survey.json"
    ok(_describe(home, out, "--yes"))
    assert not read_survey(out).measures  # of five images' patients, all stay
    assert read_survey(out).uses["malignant"].patients == 10

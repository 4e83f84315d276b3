"""``mamfed-server survey``: whether sites can train together, from their signed counts."""

import json

import pytest
from tests.unit.server.homes import new_coordinator, new_site, request_of
from typer.testing import CliRunner

from mamfed_client.site.identity import load_node_key
from mamfed_common.errors import OutputError, SetupError
from mamfed_common.security.enrolment import write_document
from mamfed_common.security.survey import Survey
from mamfed_server.cli.main import app

runner = CliRunner()


def _cell(patients, images=None):
    return {"patients": patients, "images": 2 * patients if images is None else images}


def _figure(mean):
    return {"patients": 50, "mean": mean, "quartiles": [mean, mean, mean]}


def values(name, *, malignant=80, parts=None, maker="GE", medium="digital", spacing=0.1, tone=0.4):
    many = _cell(malignant)
    measures = {"rows": 3300, "tone_25": tone - 0.1, "tone_50": tone, "tone_75": tone + 0.1}
    if spacing:
        measures["spacing_mm"] = spacing
    return {
        "site": name,
        "minimum": 10,
        "uses": {"malignant": many} if malignant else {},
        **({"parts": {"malignant": {p: _cell(n) for p, n in parts.items()}}} if parts else {}),
        "makers": {maker: many},
        "views": {"CC": many},
        "media": {medium: many},
        "measures": {key: _figure(mean) for key, mean in measures.items()},
        "withheld": 2,
    }


class Federation:
    """A coordinator that has approved the sites a, b and c, whose surveys lie beside it."""

    def __init__(self, path):
        self.path, self.home = path, new_coordinator(path / "coordinator")
        self.sites = {name: new_site(path / name) for name in "abc"}
        for name in self.sites:
            arguments = ["sites", "approve", str(self.request(name)), "--yes"]
            assert runner.invoke(app, [*arguments, "--home", str(self.home.path)]).exit_code == 0
            self.write(name)

    def request(self, name):
        path = self.path / f"{name}.request.json"
        write_document(path, request_of(self.sites[name], name))
        return path

    def write(self, name, signer=None, **changes):
        key = load_node_key(self.sites[signer or name])
        path = self.path / f"{name}.survey.json"
        path.write_text(Survey(**values(name, **changes)).signed(key).model_dump_json())
        return path

    def survey(self, *options, files=None):
        files = files or [self.path / f"{name}.survey.json" for name in "abc"]
        home = ["--home", str(self.home.path)]
        return runner.invoke(app, ["survey", *map(str, files), *home, *map(str, options)])

    def statements(self):
        result = self.survey("--format", "json")
        assert result.exit_code == 0, str(result.exception)
        return [(s["level"], s["text"]) for s in json.loads(result.stdout)["statements"]]


@pytest.fixture
def federation(tmp_path):
    return Federation(tmp_path)


def _warns(federation, *parts):
    statements = federation.statements()
    return any(level != "ok" and all(p in text for p in parts) for level, text in statements)


def test_like_sites_can_train_together(federation):
    result = federation.survey()
    assert result.exit_code == 0
    assert result.output.splitlines()[0] == "ok: a, b and c can train together."
    assert "At least 240 patients with a malignant outline in all (a 80, b 80 and c 80)" in (
        result.output
    )
    assert {level for level, _ in federation.statements()} == {"ok"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"malignant": 0}, ("c is too small", "none, or too few to tell")),
        ({"malignant": 2000}, ("Shares are unlike", "c 4000", "max_share_ratio")),
        ({"malignant": 50}, ("c has too few patients for validation", "about 7 or more", "15%")),
        ({"parts": {"train": 60, "test": 20}}, ("c has too few", "none, or too few to tell")),
        ({"spacing": 0.05}, ("Pixel spacings are unlike", "a 0.1", "c 0.05")),
        ({"spacing": None}, ("No pixel spacing of c",)),
        ({"maker": "Hologic"}, ("different makers", "a GE", "c Hologic")),
        ({"tone": 0.6}, ("Tones are unlike", "a 0.", "norm_groups")),
        ({"medium": "film"}, ("Film (c)", "digital images (a and b)", "norm_groups")),
        ({"medium": "unknown"}, ("Nothing says", "of c")),
    ],
)
def test_what_differs_is_said_with_its_numbers(federation, changes, words):
    assert not _warns(federation, *words)
    federation.write("c", **changes)
    assert _warns(federation, *words)


def test_parts_that_a_site_tells_decide_over_the_default_plan(federation):
    for name in "abc":
        federation.write(name, malignant=40, parts={"train": 20, "val": 10, "test": 10})
    assert not _warns(federation, "too few patients for validation")
    page = federation.path / "survey.html"
    federation.survey("--html", page)
    text = page.read_text()
    assert "Patients and images by part: malignant" in text
    assert '<th scope="col">validation</th>' in text
    assert "10 (20)" in text


def test_a_site_of_few_validation_patients_is_named_with_the_reason(federation):
    federation.write("c", malignant=50, parts={"train": 30})
    level, text = federation.statements()[0]
    assert (level, text) == ("warning", "a, b and c can train together; read what to mind below.")
    assert _warns(federation, "c has too few", "policy.min_patients_to_report")
    assert not _warns(federation, "a has too few")


def test_sites_without_enough_patients_cannot_train(federation):
    for name in "bc":
        federation.write(name, malignant=0)
    level, text = federation.statements()[0]
    assert (level, text) == ("failed", "a, b and c cannot train together as they are.")
    for name in "abc":
        federation.write(name, malignant=20)
    assert _warns(federation, "At least 60 patients")


def test_a_survey_of_which_all_stayed_is_read(federation):
    empty = {"uses": {}, "makers": {}, "views": {}, "media": {}, "measures": {}}
    survey = Survey(**(values("a") | empty)).signed(load_node_key(federation.sites["a"]))
    path, page = federation.path / "a.survey.json", federation.path / "survey.html"
    path.write_text(survey.model_dump_json())
    result = federation.survey("--html", page, files=[path])
    assert result.exit_code == 0
    assert result.output.startswith("failed: a cannot train together")
    assert "none told" in page.read_text()


def test_two_sites_are_fewer_than_a_policy_accepts(federation):
    files = [federation.path / f"{name}.survey.json" for name in "ab"]
    assert "2 sites: by default" in federation.survey(files=files).output


def _refused(federation, *options, files=None):
    result = federation.survey(*options, files=files)
    assert isinstance(result.exception, SetupError)
    assert "\n" not in str(result.exception)
    return str(result.exception)


def test_an_altered_or_foreign_survey_is_refused_by_name(federation):
    path = federation.path / "b.survey.json"
    document = json.loads(path.read_text())
    document["uses"]["malignant"]["patients"] = 60
    path.write_text(json.dumps(document))
    assert "b.survey.json: altered" in _refused(federation)
    federation.write("b", signer="c")
    assert "b.survey.json: altered, or not signed with the key of b" in _refused(federation)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("{", "not valid JSON"),
        ('{"format": "mamfed survey 1"}', "site: is missing"),
        (" " * (2 << 20), "larger than"),
        (json.dumps(values("b") | {"patient_names": []}), "unknown key 'patient_names'"),
        (json.dumps(values("b") | {"withheld": -1}), "0 or more"),
        (json.dumps(values("b") | {"makers": {str(n): _cell(1) for n in range(99)}}), "64"),
    ],
)
def test_a_damaged_survey_is_refused_by_name(federation, text, words):
    (federation.path / "b.survey.json").write_text(text)
    message = _refused(federation)
    assert "b.survey.json: " in message
    assert words in message


def test_another_kind_of_file_is_named(federation):
    message = _refused(federation, files=[federation.request("a")])
    assert "this is a site's request" in message


def test_a_second_survey_of_a_site_is_refused(federation):
    files = [federation.path / "a.survey.json"] * 2
    assert "a second survey of a" in _refused(federation, files=files)


def test_a_revoked_site_is_unknown_and_a_request_speaks_for_a_new_one(federation):
    arguments = ["sites", "revoke", "b", "--yes", "--home", str(federation.home.path)]
    assert runner.invoke(app, arguments).exit_code == 0
    assert "b.survey.json: from b, which is not approved here" in _refused(federation)
    assert federation.survey("--request", federation.request("b")).exit_code == 0


def test_a_request_with_another_key_than_the_approved_one_is_refused(federation):
    federation.sites["a"] = new_site(federation.path / "other")
    message = _refused(federation, "--request", federation.request("a"))
    assert "another key for a" in message


def test_the_page_has_statements_and_tables_and_needs_no_script(federation):
    federation.write("c", maker="<b>Acme</b>")
    page = federation.path / "survey.html"
    result = federation.survey("--html", page)
    assert f"page: {page}" in result.output
    text = page.read_text()
    assert "a, b and c can train together" in text
    assert "80 (160)" in text
    assert "&lt;b&gt;Acme&lt;/b&gt;" in text
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert federation.survey("--html", page).exit_code == 0


def test_the_page_replaces_no_other_file(federation):
    page = federation.path / "notes.html"
    page.write_text("mine")
    assert isinstance(federation.survey("--html", page).exception, OutputError)
    assert page.read_text() == "mine"

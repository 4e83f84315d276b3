"""Every object of a plan has one count, is asked for once, and is complete before it has a name."""

import csv

import pytest
from tests.unit.client.archive.memory import MemoryArchive, dicom_object

from mamfed_client.archive.objects import ObjectGone, ObjectRefused, Query, Unreachable
from mamfed_client.archive.plan import make_plan
from mamfed_client.archive.pull import Outcome, Puller, write_labels
from mamfed_client.archive.pull_folder import open_pull_folder
from mamfed_client.archive.throttle import Throttle
from mamfed_client.archive.worklist import read_worklist
from mamfed_client.sandbox.decoder import Decoder
from mamfed_common.errors import LinkError, OutputError

SECRET = bytes(32)
QUERY = Query("20240101", "20241231")


@pytest.fixture
def pull(tmp_path):
    def run(archive, worklist=None, secret=SECRET):
        plan = make_plan(archive, QUERY, worklist)
        throttle = Throttle(None, 1e9, None)
        with open_pull_folder(tmp_path / "out", secret) as folder, Decoder() as decoder:
            puller = Puller(archive, folder, throttle, decoder, pause=lambda _: None)
            result = puller.pull(plan, lambda done, rejected: None)
            if worklist is not None:
                write_labels(folder, plan, worklist.columns)
        return result

    return run


def images(tmp_path):
    return sorted((tmp_path / "out" / "images").glob("*/*"))


def test_each_kind_of_object_has_its_own_count(pull, tmp_path):
    kinds = {
        "1.1": (dicom_object("1.1"), Outcome.PULLED),
        "1.2": (dicom_object("1.2", Modality="CT"), Outcome.OTHER_MODALITY),
        "1.3": (dicom_object("9.9"), Outcome.OTHER_OBJECT),
        "1.4": (b"no DICOM at all", Outcome.UNREADABLE),
        "1.5": (ObjectGone(), Outcome.GONE),
        "1.6": (ObjectRefused("status 0xa900"), Outcome.REFUSED),
        "1.7": (dicom_object("1.7", Modality=""), Outcome.PULLED),
        "1.8": (dicom_object("1.8", Modality="", SOPClassUID="1.2.3"), Outcome.OTHER_MODALITY),
    }
    archive = MemoryArchive({"1.2.1": {uid: content for uid, (content, _) in kinds.items()}})
    result = pull(archive)
    assert result.outcomes == {uid: outcome for uid, (_, outcome) in kinds.items()}
    assert [path.read_bytes() for path in images(tmp_path)] == sorted(
        [kinds["1.1"][0], kinds["1.7"][0]],
        key=[path.read_bytes() for path in images(tmp_path)].index,
    )
    assert not (tmp_path / "out/.pull/incoming.dcm").exists()
    assert (result.why, result.to_repeat()) == ({"status 0xa900": 1}, 1)


def test_a_lost_archive_leaves_the_rest_for_a_second_call(pull, tmp_path):
    held = {f"1.{n}": dicom_object(f"1.{n}") for n in range(4)}
    held["1.2"] = Unreachable("the archive is down")
    archive = MemoryArchive({"1.2.1": held})
    result = pull(archive)
    assert list(result.outcomes.values()) == [*2 * [Outcome.PULLED], *2 * [Outcome.NOT_REACHED]]
    assert isinstance(result.stopped, LinkError)
    assert archive.asked == ["1.0", "1.1", "1.2", "1.2", "1.2"]
    held["1.2"] = dicom_object("1.2")
    archive.asked.clear()
    again = pull(archive)
    assert list(again.outcomes.values()) == [*2 * [Outcome.BEFORE], *2 * [Outcome.PULLED]]
    assert archive.asked == ["1.2", "1.3"]


def test_an_image_named_just_before_a_crash_is_not_fetched_again(pull, tmp_path):
    archive = MemoryArchive({"1.2.1": {"1.0": dicom_object("1.0")}})
    pull(archive)
    (tmp_path / "out/.pull/journal.jsonl").write_text('{"object": "cut sho')
    assert pull(archive).outcomes == {"1.0": Outcome.BEFORE}
    assert archive.asked == ["1.0"]


def test_a_file_that_is_not_what_the_journal_says_is_fetched_again(pull, tmp_path):
    archive = MemoryArchive({"1.2.1": {"1.0": dicom_object("1.0")}})
    pull(archive)
    (path,) = images(tmp_path)
    path.write_bytes(path.read_bytes() + dicom_object("1.0")[-20:])  # its header can be read
    assert pull(archive).outcomes == {"1.0": Outcome.PULLED}
    assert path.read_bytes() == archive.held["1.2.1"]["1.0"]


def test_names_and_journal_identify_nobody(pull, tmp_path):
    pull(MemoryArchive({"1.2.1": {"1.0": dicom_object("1.0")}}))
    for path in (tmp_path / "out").rglob("*"):
        said = path.name if path.is_dir() or path.suffix == ".dcm" else path.read_text()
        assert "secret" not in said
        assert "1.2.1" not in said


def test_labels_are_those_of_the_breast_and_an_edited_table_stays(pull, tmp_path):
    held = {"1.0": dicom_object("1.0"), "1.1": dicom_object("1.1", ImageLaterality="R")}
    archive = MemoryArchive({"1.2.1": held})
    table = tmp_path / "list.csv"
    table.write_text("study,laterality,birads,pathology\n1.2.1,L,4a,malignant\n1.2.1,,2,benign\n")
    worklist = read_worklist(table, QUERY)
    pull(archive, worklist)
    labels = tmp_path / "out/labels.csv"
    rows = list(csv.DictReader(labels.open()))
    assert {(row["birads"], row["pathology"]) for row in rows} == {
        ("4a|2", "malignant"),
        ("2", "benign"),
    }
    assert len({row["patient_id"] for row in rows}) == 1
    assert all((tmp_path / "out" / row["image"]).is_file() for row in rows)
    pull(archive, worklist)
    assert not (tmp_path / "out/labels.new.csv").exists()
    labels.write_text("mine")
    pull(archive, worklist)
    assert labels.read_text() == "mine"
    assert len(list(csv.DictReader((tmp_path / "out/labels.new.csv").open()))) == 2


def test_a_folder_of_others_or_of_another_secret_is_refused(pull, tmp_path):
    archive = MemoryArchive({"1.2.1": {"1.0": dicom_object("1.0")}})
    pull(archive)
    with pytest.raises(OutputError, match="another pull"):
        pull(archive, secret=bytes(31) + b"1")
    (tmp_path / "out/.pull/pull.json").unlink()
    (tmp_path / "out/.pull/journal.jsonl").unlink()
    (tmp_path / "out/.pull").rmdir()
    with pytest.raises(OutputError, match="holds other files"):
        pull(archive)


def test_other_kinds_and_studies_that_were_not_asked_for_are_not_planned():
    archive = MemoryArchive({"1.2.1": {"1.0": b""}, "1.2.2": {"1.1": b""}})
    ignores = archive.studies
    archive.studies = lambda query: ignores(Query())  # an archive that ignores a key
    plan = make_plan(archive, QUERY._replace(study="1.2.2"), None)
    assert list(plan.images) == ["1.1"]
    assert make_plan(archive, QUERY._replace(first="20240106"), None).studies == {}

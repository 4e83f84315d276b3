"""An object counts as sent when the archive confirms it, and is not sent twice."""

import pytest
from tests.unit.client.archive.memory import MemoryArchive, dicom_object

from mamfed_client.archive.objects import ObjectRefused, Unreachable
from mamfed_client.archive.send import JOURNAL, count_unsent, send_files


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / f"{number}.dcm" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(dicom_object(f"1.{number}"))
    return paths


def send(archive, folder, files, where="here"):
    return send_files(archive, where, folder, files, lambda *_: None, pause=lambda _: None)


def test_what_is_refused_is_named_and_only_what_is_missing_is_sent_again(tmp_path, files):
    archive = MemoryArchive({"1.1": ObjectRefused("status 0xa700")})
    result = send(archive, tmp_path, files)
    assert (result.sent, result.refused) == (2, {"1.dcm": "status 0xa700"})
    archive.held.clear()
    result = send(archive, tmp_path, files)
    assert (result.sent, result.sent_before, result.refused) == (1, 2, {})
    assert archive.stored == ["1.0", "1.2", "1.1"]
    assert (tmp_path / JOURNAL).stat().st_mode & 0o777 == 0o600


def test_a_lost_archive_ends_the_call(tmp_path, files):
    archive = MemoryArchive({"1.1": Unreachable("down")})
    result = send(archive, tmp_path, files)
    assert (result.sent, result.not_reached, str(result.stopped)) == (1, 2, "down")
    assert count_unsent("here", tmp_path, files) == 2


def test_another_archive_and_a_changed_object_are_sent(tmp_path, files):
    archive = MemoryArchive({})
    send(archive, tmp_path, files)
    assert send(archive, tmp_path, files, "elsewhere").sent == 3
    files[0].write_bytes(dicom_object("1.9"))
    assert send(archive, tmp_path, files).sent == 1

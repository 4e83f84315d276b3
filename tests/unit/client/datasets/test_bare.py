import os

import pytest

from mamfed_client.datasets import read_folder
from mamfed_client.imaging.rejections import Reason
from mamfed_client.tables.field_parsers import Label
from mamfed_common.errors import DataError


@pytest.fixture
def site(tmp_path):
    """Make files by name in a folder of their own."""

    def make(*names):
        for name in names:
            path = tmp_path / "site" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"some bytes")
        return tmp_path / "site"

    return make


def test_every_file_is_offered_in_the_order_of_paths(site):
    folder = site("b/2.dcm", "a.png", "b/10/IM1", "b/1.2.840.1", "DICOMDIR")
    manifest = read_folder(folder)
    listed = [(row.row_number, row.image) for row in manifest.rows]
    paths = ["DICOMDIR", "a.png", "b/1.2.840.1", "b/10/IM1", "b/2.dcm"]
    assert listed == list(enumerate(paths, start=1))
    assert [row.image_path for row in manifest.rows] == [folder / path for path in paths]


def test_a_file_without_a_table_says_nothing_yet(site):
    (row,) = read_folder(site("1.dcm")).rows
    assert (row.patient_id, row.label, row.annotations) == ("", Label(None, ()), ())
    assert (row.laterality, row.view, row.allow) == (None, None, frozenset())
    assert read_folder(site("1.dcm")).statements == []


def test_what_lies_beside_images_is_not_counted(site):
    folder = site(
        "1.dcm",
        "README",
        "notes.TXT",
        "table.xlsx",
        "all.zip",
        "report.pdf",
        ".DS_Store",
        ".cache/2.dcm",
        "__MACOSX/3.dcm",
        "x/._4.dcm",
    )
    manifest = read_folder(folder)
    assert [row.image for row in manifest.rows] == ["1.dcm"]
    assert manifest.rejected == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_link_out_of_the_folder_is_refused(site, tmp_path, kind):
    folder = site("b.dcm")
    outside = tmp_path / "elsewhere"
    outside.mkdir()
    (outside / "secret.dcm").touch()
    (folder / "a").symlink_to(outside / "secret.dcm" if kind == "file" else outside)
    manifest = read_folder(folder)
    (rejection,) = manifest.rejected
    assert (rejection.row_number, rejection.image) == (1, "a")
    assert rejection.reason is Reason.PATH_LEAVES_FOLDER
    assert "elsewhere" not in rejection.detail
    assert [row.row_number for row in manifest.rows] == [2]


def test_a_folder_beside_it_with_a_longer_name_is_outside(site, tmp_path):
    folder = site("b.dcm")
    (tmp_path / "site2").mkdir()
    (tmp_path / "site2" / "c.dcm").touch()
    (folder / "a.dcm").symlink_to(tmp_path / "site2" / "c.dcm")
    assert read_folder(folder).rejected[0].reason is Reason.PATH_LEAVES_FOLDER


def test_a_link_to_nothing_is_refused_and_one_to_a_listed_folder_is_passed_over(site):
    folder = site("b/1.dcm")
    (folder / "a.dcm").symlink_to(folder / "gone.dcm")
    (folder / "loop").symlink_to(folder)
    (folder / "ring.dcm").symlink_to(folder / "ring.dcm")
    manifest = read_folder(folder)
    assert [row.image for row in manifest.rows] == ["b/1.dcm"]
    assert [(r.image, r.reason) for r in manifest.rejected] == [
        ("a.dcm", Reason.MISSING_IMAGE),
        ("ring.dcm", Reason.MISSING_IMAGE),
    ]


def test_a_link_inside_the_folder_is_offered(site):
    folder = site("1.dcm")
    (folder / "2.dcm").symlink_to("1.dcm")
    assert [row.image for row in read_folder(folder).rows] == ["1.dcm", "2.dcm"]


def test_a_folder_reached_through_a_link_is_read(site, tmp_path):
    (tmp_path / "link").symlink_to(site("1.dcm"))
    assert [row.image for row in read_folder(tmp_path / "link").rows] == ["1.dcm"]


def test_a_pipe_is_no_file(site):
    folder = site("1.dcm")
    os.mkfifo(folder / "0.dcm")
    assert [row.image for row in read_folder(folder).rows] == ["1.dcm"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_that_cannot_be_listed_is_an_error_that_does_not_name_it(site):
    folder = site("1.dcm", "Smith/2.dcm")
    (folder / "Smith").chmod(0)
    try:
        with pytest.raises(DataError, match="cannot be listed") as caught:
            read_folder(folder)
    finally:
        (folder / "Smith").chmod(0o700)
    assert "Smith" not in str(caught.value)

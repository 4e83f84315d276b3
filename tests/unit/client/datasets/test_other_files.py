"""Every file below a folder falls into exactly one count, whatever the layout."""

import gzip
import os
import tarfile
import zipfile

import pytest

from mamfed_client.datasets import read_folder
from mamfed_client.datasets.other_files import OtherFile, count_other_files
from mamfed_client.preparation.prepared_folder import load_intake
from mamfed_common.errors import DataError

INBREAST = "Laterality;View;File Name;ACR;Bi-Rads\nR;CC;20586908;1;2\nL;CC;1;1;2\n"
VINDR = (
    "study_id,image_id,laterality,view_position,breast_birads,breast_density,xmin,ymin,xmax,ymax\n"
    "s1,i1,L,CC,BI-RADS 1,DENSITY A,,,,\n"
)
LAYOUTS = {
    "labels": {
        "LABELS.csv": "image,mask,patient_id,birads\na.png,m.png,P1,2\nb.png,,P2,9\nc.png,,,1\n",
        **dict.fromkeys(("a.png", "b.png", "c.png", "m.png")),
    },
    "inbreast": {
        "INbreast.csv": INBREAST,
        "AllDICOMs/20586908_6c613a14b80a8591_MG_R_CC_ANON.dcm": None,
        "AllXML/20586908.xml": None,
        "AllDICOMs/5_6c613a14b80a8591_MG_L_CC_ANON.dcm": None,
    },
    "vindr-mammo": {"finding_annotations.csv": VINDR, "images/s1/i1.dicom": None},
    "mini-mias": {"info.TXT": "mdb001 G CIRC B 535 425 197\n", "mdb001.pgm": None},
    "dicom": {"a": None, "b.dcm": None, "c/1.2.840.3": None},
}
EXPECTED = {  # images, then outlines, tables and other files of the layout itself
    "labels": (3, {OtherFile.OUTLINE: 1, OtherFile.TABLE: 1}),
    "inbreast": (2, {OtherFile.OUTLINE: 1, OtherFile.TABLE: 1}),
    "vindr-mammo": (1, {OtherFile.TABLE: 1}),
    "mini-mias": (1, {OtherFile.OTHER: 1}),
    "dicom": (3, {}),
}


def lay_out(folder, layout):
    for name, text in LAYOUTS[layout].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text or name)
    return folder


def litter(folder):
    """Add one file of each kind that no row names, and say what they are."""
    place = folder / "more"
    place.mkdir()
    (place / "1.dcm.gz").write_bytes(gzip.compress(b"a"))
    with zipfile.ZipFile(place / "STUDY.ZIP", "w") as archive:
        archive.writestr("a", "a")
    with tarfile.open(place / "a.tar", "w"):
        pass
    (place / "b.7z").touch()
    (place / "notes.TXT").touch()
    (place / "report.pdf").touch()
    (place / "README").touch()
    (place / "findings.xlsx").touch()
    (place / ".DS_Store").touch()
    (folder / ".git").mkdir()
    (folder / ".git/objects").touch()
    (place / "__MACOSX").mkdir()
    (place / "__MACOSX/x.png").touch()
    (place / "gone").mkdir()
    os.symlink(place / "gone", folder / "link")
    return {
        OtherFile.ARCHIVE: 4,
        OtherFile.OTHER: 3,
        OtherFile.TABLE: 1,
        OtherFile.HIDDEN: 3,
        OtherFile.LINK: 1,
    }


def files_and_links(folder):
    return sum(
        len(files) + sum(os.path.islink(os.path.join(parent, name)) for name in folders)
        for parent, folders, files in os.walk(folder)
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_file_is_an_image_or_of_one_kind_beside_them(tmp_path, layout):
    lay_out(tmp_path, layout)
    stray = litter(tmp_path)
    manifest = read_folder(tmp_path)
    counts = count_other_files(tmp_path, manifest.images, manifest.outlines)
    images, own = EXPECTED[layout]
    assert manifest.layout == layout
    assert len(manifest.images) == images
    kinds = {*stray, *own}
    assert dict(counts) == {kind: stray.get(kind, 0) + own.get(kind, 0) for kind in kinds}
    assert images + counts.total() == files_and_links(tmp_path)


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "dicom"])
def test_an_image_that_no_row_names_is_counted(tmp_path, layout):
    lay_out(tmp_path, layout)
    for name in ("x.png", "y.JPEG", "z.dcm"):
        (tmp_path / name).touch()
    (tmp_path / "IM0001").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "nothing").touch()
    manifest = read_folder(tmp_path)
    counts = count_other_files(tmp_path, manifest.images, manifest.outlines)
    assert counts[OtherFile.UNUSED_IMAGE] == 4
    assert counts[OtherFile.OTHER] == EXPECTED[layout][1].get(OtherFile.OTHER, 0) + 1


def test_a_pipe_and_links_to_nowhere_are_counted_under_a_table(tmp_path):
    lay_out(tmp_path, "labels")
    os.mkfifo(tmp_path / "pipe")
    os.symlink(tmp_path / "not there", tmp_path / "broken.png")
    os.symlink("/etc/hostname", tmp_path / "outside.png")
    counts = count_other_files(tmp_path, (), ())
    assert (counts[OtherFile.SPECIAL], counts[OtherFile.LINK]) == (1, 2)


def test_images_behind_a_link_that_rows_go_through_are_images(tmp_path):
    (tmp_path / "site").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.png").touch()
    os.symlink(tmp_path / "elsewhere", tmp_path / "site/images")
    (tmp_path / "site/labels.csv").write_text("image,patient_id,birads\nimages/a.png,P1,2\n")
    manifest = read_folder(tmp_path / "site")
    assert count_other_files(tmp_path / "site", manifest.images, manifest.outlines) == {
        OtherFile.TABLE: 1
    }


def test_check_counts_what_lies_beside_and_says_what_to_do(check, call, folder):
    folder.benign("P1").malignant("P2").write()
    (folder.path / "images/1.png.gz").touch()
    (folder.path / "images/unused.png").touch()
    found = check(folder.path)
    assert found["files"] == 2
    assert found["other_files"] == {
        "archive": 1,
        "image that no row names": 1,
        "mask or outline": 1,
        "table": 1,
    }
    said = call("check", folder.path).stderr
    assert "1 archive is not read" in said
    assert "1 image is not named by any row" in said


def test_a_row_that_names_an_archive_says_what_to_do(check, folder):
    folder.benign("P1").benign("P2").write()
    (folder.path / "images/1.png").rename(folder.path / "images/1.png.gz")
    table = folder.path / "labels.csv"
    table.write_text(table.read_text().replace("images/1.png", "images/1.png.gz"))
    found = check(folder.path, "--list")
    assert "unpack it" in found["items"][0]["detail"]
    assert (found["rejected"], found["other_files"]) == ({"unreadable image": 1}, {"table": 1})


@pytest.mark.parametrize("name", ["findings.xlsx", "labels.tsv", "labels.csv.txt", "Labels.json"])
def test_a_table_that_is_not_read_is_said(check, export, name):
    (export / name).touch()
    assert any("name it labels.csv" in note for note in check(export)["notes"])


def test_a_folder_of_archives_alone_says_so(tmp_path):
    (tmp_path / "all.tar.gz").touch()
    with pytest.raises(DataError, match=r"no data set.*1 archive is not read.*unpack"):
        read_folder(tmp_path)


def test_a_prepared_folder_remembers_what_lay_beside(prepare, folder, tmp_path):
    folder.benign("P1").malignant("P2").write()
    (folder.path / "a.zip").touch()
    prepare(folder.path, tmp_path / "out")
    intake, *_ = load_intake(tmp_path / "out")
    assert intake.other_files[OtherFile.ARCHIVE] == 1
    assert "1 archive is not read" in intake.notes[0]

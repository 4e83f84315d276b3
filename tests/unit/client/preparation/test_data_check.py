"""``mamfed-client data check`` on folders in real file formats."""

import csv
import json
import os

import cv2
import numpy as np

from mamfed_client.imaging.rejections import FileRejected, Reason
from mamfed_client.preparation.row_result import RowResult


def test_check_counts_what_each_stage_could_use_and_every_reject(check, mixed):
    found = check(mixed)
    assert (found["files"], found["accepted"], found["layout"]) == (7, 4, "labels")
    assert found["rejected"]["missing mask"] == 1
    assert sum(found["rejected"].values()) == 3
    assert found["stage1"] == {"images": 2, "patients": 2}
    assert found["stage2"] == {"images": 2, "patients": 2}
    assert found["densities"] == {"unknown": 3, "B": 1}


def test_check_changes_nothing_and_names_nobody(call, mixed, content_of):
    before = content_of(mixed)
    result = call("check", mixed)
    assert content_of(mixed) == before
    for word in ("P-one", "images/", ".png"):
        assert word not in result.output


def test_list_names_every_file_and_what_became_of_it(check, mixed):
    items = check(mixed, "--list")["items"]
    assert [item["file"] for item in items] == [f"images/{n}.png" for n in range(1, 8)]
    assert [item["status"] for item in items] == ["accepted"] * 4 + ["rejected"] * 3
    assert items[4]["reason"] == "missing mask"
    assert items[0].keys() >= {"reason", "laterality", "view", "vendor", "spacing_mm"}
    assert (items[0]["laterality"], items[0]["view"]) == ("L", "CC")


def test_a_folder_of_nothing_usable_ends_with_exit_code_3(check, folder):
    folder.benign("P-one").write()
    (folder.path / "images/1.png").write_bytes(b"")
    assert check(folder.path, code=3)["accepted"] == 0


def test_a_folder_without_a_table_is_read_by_its_dicom_files(check, export):
    found = check(export)
    assert (found["layout"], found["files"], found["accepted"]) == ("dicom", 2, 1)
    assert found["rejected"] == {"wrong modality": 1}
    assert found["views"] == {"MLO": 1}
    assert found["lateralities"] == {"R": 1}
    assert found["patients"] == 1
    assert found["left_out"] == {"no pathology and no BI-RADS category": 1}


def test_a_file_that_names_no_patient_is_rejected_where_no_table_does(check, export, drawing):
    breast = np.rint(drawing.breast(seed=1)[0] * 4095).astype(np.uint16)
    usual = {"Modality": "MG", "ImageLaterality": "R", "PatientID": "", "SOPInstanceUID": "1.2.3"}
    drawing.dicom(export / "c.dcm", breast, **usual)
    found = check(export)
    assert found["rejected"] == {"no patient": 1, "wrong modality": 1}
    assert (found["files"], found["accepted"]) == (3, 1)


def test_a_blank_table_of_a_folder_without_one_is_filled_in_and_read(call, check, export):
    result = call("check", export, "--table", export / "labels.csv")
    assert "no table says what the images show" in " ".join(result.output.split())
    with (export / "labels.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["image"], row["laterality"], row["view"]) == ("a", "R", "MLO")
    assert (row["vendor"], row["pathology"], row["mask"]) == ("Hologic", "", "")
    assert "secret" not in row["patient_id"]
    with (export / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row | {"birads": "2"})
    assert check(export)["stage1"] == {"images": 1, "patients": 1}
    result = call("check", export, "--table", export / "labels.csv", code=1)
    assert "exists; name another file" in str(result.exception)


def test_a_blank_table_lists_the_pictures_that_name_no_patient(call, check, tmp_path, drawing):
    export = tmp_path / "pictures"
    export.mkdir()
    for seed in (1, 2):
        breast = np.rint(drawing.breast(seed=seed)[0] * 255).astype(np.uint8)
        cv2.imwrite(str(export / f"picture{seed}.png"), breast)
    result = call("check", export, "--table", export / "labels.csv", "--format", "json", code=3)
    assert json.loads(result.stdout)["table_rows"] == 2
    with (export / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == ["picture1.png", "picture2.png"]
    assert {row["patient_id"] for row in rows} == {""}
    with (export / "labels.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(
            row | {"patient_id": f"P{number}", "laterality": "L", "birads": "2"}
            for number, row in enumerate(rows)
        )
    assert check(export)["accepted"] == 2


def test_a_reason_that_nothing_can_lift_is_refused(call, export):
    result = call("check", export, "--allow", "truncated", code=2)
    assert "files rejected as 'truncated' cannot be used; use one of wrong modality" in " ".join(
        result.output.replace("│", " ").split()
    )


def test_odd_names_and_texts_cost_nothing(call, export, drawing, tmp_path):
    breast = np.rint(drawing.breast(seed=1)[0] * 4095).astype(np.uint16)
    usual = {"Modality": "MG", "ImageLaterality": "L", "Manufacturer": "Acme [/x]"}
    drawing.dicom(tmp_path / "odd.dcm", breast, SOPInstanceUID="1.2.3", **usual)
    odd = os.fsencode(export) + b"/new\nline \xff.dcm"
    os.rename(tmp_path / "odd.dcm", odd)
    result = call("check", export, "--list", "--table", export / "labels.csv")
    assert "Acme [/x]" in result.stdout
    assert "new\\nline \\udcff.dcm" in result.stdout
    assert "1 file is not in the table" in " ".join(result.output.split())


def test_a_page_does_not_replace_an_image(call, export):
    result = call("check", export, "--html", export / "b.dcm", code=1)
    assert "is not a page of mamfed" in str(result.exception)
    assert (export / "b.dcm").read_bytes()[128:132] == b"DICM"


def test_a_split_that_leaks_is_found_before_training(call, folder):
    folder.benign("P1", split="test").benign("P1", split="train").write()
    result = call("check", folder.path, code=1)
    assert "two parts: rows 2, 3" in str(result.exception)


def test_a_decoder_that_died_is_tried_again(check, export, monkeypatch):
    def died(row, task, pool):
        return RowResult.rejected(FileRejected(Reason.DECODER_CRASHED, "SIGTERM"))

    with monkeypatch.context() as patch:
        patch.setattr("mamfed_client.preparation.ingest.read_row", died)
        assert check(export, code=3)["rejected"] == {"decoder crashed": 2}
    assert check(export)["accepted"] == 1


def test_the_same_picture_under_another_name_is_one(check, folder):
    folder.benign("P-one").benign("P-two").write()
    content = (folder.path / "images/1.png").read_bytes()
    (folder.path / "images/2.png").write_bytes(content)
    found = check(folder.path)
    assert (found["files"], found["accepted"]) == (2, 1)
    assert found["rejected"] == {"duplicate image": 1}
    assert found["patients_sharing_a_picture"] == 2


def test_an_allowed_reason_is_no_reason(check, tmp_path, drawing):
    breast = np.rint(drawing.breast()[0] * 4095).astype(np.uint16)
    usual = {"Modality": "MG", "ImageLaterality": "R", "BurnedInAnnotation": "YES"}
    (tmp_path / "export").mkdir()
    drawing.dicom(tmp_path / "export/a.dcm", breast, **usual)
    assert check(tmp_path / "export", code=3)["rejected"] == {"burned-in annotation": 1}
    assert check(tmp_path / "export", "--allow", "burned-in annotation")["accepted"] == 1


def test_a_second_check_reads_nothing_until_a_file_changes(check, mixed, monkeypatch):
    first = check(mixed)
    monkeypatch.setattr("mamfed_client.preparation.ingest.read_row", None)
    assert check(mixed) == first
    assert check(mixed, "--dry-run")["to_read"] == 0
    os.utime(mixed / "images/1.png", ns=(1, 1))
    assert check(mixed, "--dry-run")["to_read"] == 1


def test_images_of_suspicious_patients_count_false_alarms_and_not_for_stage_1(check, folder):
    folder.benign("P-one").benign("P-two").add("P-two", birads="3").write()
    found = check(folder.path)
    assert found["stage1"] == {"images": 1, "patients": 1}
    assert found["false_alarms"] == {"images": 2, "patients": 2}


def test_where_page_and_table_were_written_is_said(call, mixed, tmp_path):
    page = tmp_path / "check.html"
    assert f"\npage: {page}\n" in call("check", mixed, "--html", page).stdout
    found = json.loads(call("check", mixed, "--html", page, "--format", "json").stdout)
    assert found["page"] == str(page)

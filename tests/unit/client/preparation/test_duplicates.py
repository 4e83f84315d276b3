from mamfed_client.imaging.rejections import Reason
from mamfed_client.preparation.duplicates import Picture, find_duplicates, identifier_notes
from mamfed_client.tables.field_parsers import Label, Pathology

NORMAL, BENIGN, MALIGNANT = (Label(pathology, ()) for pathology in Pathology)


def picture(row, patient="A", label=BENIGN, outlined=False, instance="", pixels="", marked=0.0):
    return Picture(row, patient, label, outlined, instance, pixels or f"pixels of {row}", marked)


def refused(*pictures):
    found, pairs = find_duplicates(pictures)
    assert {refusal.reason for refusal in found.values()} <= {Reason.DUPLICATE_IMAGE}
    return sorted(found), pairs


def test_different_pictures_are_kept():
    assert refused(picture(1), picture(2, instance="u"), picture(3, instance="v")) == ([], [])


def test_images_without_an_identifier_are_not_taken_for_one():
    assert refused(picture(1, instance=""), picture(2, instance="")) == ([], [])


def test_the_first_of_equal_rows_is_kept():
    same = [picture(row, pixels="same") for row in (4, 7, 9)]
    assert refused(*same) == ([7, 9], [])


def test_one_identifier_on_different_pictures_is_said_and_costs_none():
    rows = [picture(1, "A", instance="u"), picture(2, "B", instance="u")]
    assert refused(*rows) == ([], [])
    (note,) = identifier_notes(rows)
    assert "rows 1, 2" in note


def test_one_identifier_on_one_picture_is_one_image():
    rows = [picture(n, instance="u", pixels="same") for n in (1, 2)]
    assert refused(*rows) == ([2], [])
    assert identifier_notes(rows) == ()


def test_the_message_names_the_rows_and_what_they_share():
    found, _ = find_duplicates([picture(4, pixels="same"), picture(7, pixels="same")])
    assert found[7].detail == "rows 4, 7 have the same pixels"


def test_of_one_patients_rows_the_most_suspicious_is_kept():
    rows = [
        picture(1, label=BENIGN, pixels="same"),
        picture(2, label=MALIGNANT, pixels="same"),
        picture(3, label=MALIGNANT, outlined=True, pixels="same"),
    ]
    assert refused(*rows) == ([1, 2], [])


def test_patients_who_share_a_picture_are_linked_and_one_row_is_kept():
    rows = [picture(1, "A", pixels="same"), picture(2, "B", pixels="same")]
    assert refused(*rows) == ([2], [("A", "B")])


def test_where_two_patients_rows_contradict_each_other_none_is_believed():
    rows = [
        picture(1, "A", label=NORMAL, pixels="same"),
        picture(2, "B", label=MALIGNANT, pixels="same"),
    ]
    assert refused(*rows) == ([1, 2], [("A", "B")])


def test_rows_that_outline_different_lesions_of_a_picture_leave_no_lesion_out():
    def outlined(row, marked):
        return picture(row, label=MALIGNANT, outlined=True, pixels="same", marked=marked)

    assert refused(outlined(1, 0.1), outlined(2, 0.2)) == ([1, 2], [])
    assert refused(outlined(1, 0.1), outlined(2, 0.1)) == ([2], [])
    found, _ = find_duplicates([outlined(1, 0.1), outlined(2, 0.2)])
    assert "name all of them in one row" in found[1].detail

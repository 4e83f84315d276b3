import pytest
from tests.unit.client.contradictions.matrix import BEGIN, END, PAGE, RIGHT, cases, page_with, table

from mamfed_client.imaging.rejections import FileRejected

ALL = cases()


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_a_contradiction_comes_out_right_or_is_refused_by_name(case):
    if case.outcome == RIGHT:
        assert case.run() > 0.99
    else:
        with pytest.raises(FileRejected) as caught:
            case.run()
        assert caught.value.reason == case.outcome


def test_the_table_of_the_page_is_that_of_the_cases():
    text = PAGE.read_text()
    assert BEGIN in text
    assert END in text
    assert page_with(text, table(ALL)) == text, (
        "run python -m tests.unit.client.contradictions.matrix"
    )

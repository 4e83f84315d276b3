import threading
from functools import partial

import pytest

from mamfed_common.training.prefetch import prefetch


class Calls:
    """Calls that return their number, and remember which of them began."""

    def __init__(self, count):
        self.began = []
        self.count = count

    def __iter__(self):
        return (partial(self._call, number) for number in range(self.count))

    def _call(self, number):
        self.began.append(number)
        return number


def threads_left():
    return [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 4, 30])
def test_results_come_in_order_and_no_thread_is_left(threads, count):
    assert list(prefetch(Calls(count), threads)) == list(range(count))
    assert not threads_left()


def test_a_result_waits_for_its_turn():
    second_is_done = threading.Event()

    def first():
        assert second_is_done.wait(60)
        return "first"

    def second():
        second_is_done.set()
        return "second"

    assert list(prefetch([first, second], 2)) == ["first", "second"]


def test_the_next_result_is_made_while_the_caller_works():
    second_is_done = threading.Event()
    results = prefetch([lambda: None, second_is_done.set], 1)
    next(results)
    assert second_is_done.wait(60)
    results.close()


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_than_the_threads_are_ahead_of_the_caller(threads):
    calls = Calls(20)
    for taken, _ in enumerate(prefetch(calls, threads), 1):
        assert len(calls.began) <= taken + threads


def test_nothing_begins_before_the_first_result_is_asked_for():
    calls = Calls(3)
    results = prefetch(calls, 2)
    assert calls.began == []
    assert not threads_left()
    next(results)
    results.close()


def test_an_exception_of_a_call_is_raised_itself_and_in_its_turn():
    mistake = ValueError("mine")

    def fail():
        raise mistake

    results = prefetch([lambda: 1, fail, lambda: 3], 3)
    assert next(results) == 1
    with pytest.raises(ValueError, match="mine") as raised:
        next(results)
    assert raised.value is mistake
    assert not threads_left()


def test_closing_early_starts_no_other_call_and_leaves_no_thread():
    calls = Calls(20)
    results = prefetch(calls, 2)
    next(results)
    results.close()
    assert not threads_left()
    assert len(calls.began) <= 3


def test_an_exception_of_the_caller_leaves_no_thread():
    def step():
        for _ in prefetch(Calls(20), 2):
            raise KeyError

    with pytest.raises(KeyError):
        step()
    assert not threads_left()

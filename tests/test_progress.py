"""Displays of progress: stages within a job, estimates, and messages beside bars."""

import logging
import sys

import pytest

from ddpm.base import progress
from ddpm.base.progress import ProgressDisplay, stage
from ddpm.evaluation.reference import show_progress


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Without displays that errors of other tests left open."""
    monkeypatch.setattr(ProgressDisplay, "opened", [])


@pytest.fixture
def now(monkeypatch):
    """The time in seconds, set by the test."""
    clock = [100.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: clock[0])
    return clock


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "150")


def test_a_line_labels_elapsed_and_remaining_time(now, capsys):
    display = ProgressDisplay("step", 40)
    now[0] += 20
    display.show(10, "loss 0.5")
    display.close()
    assert capsys.readouterr().out == "step 10 of 40: loss 0.5, 0:00:20 elapsed, 0:01:00 left\n"


def test_the_time_of_a_stage_does_not_count_in_the_rate(now):
    training = ProgressDisplay("step", 100)
    now[0] += 10
    assert training.rate(20) == pytest.approx(2)
    training.show(20, "")
    drawing = ProgressDisplay("sampling step", 50)
    now[0] += 30
    with stage("decoding"):
        now[0] += 30
    drawing.close()
    assert training.rate(20) == pytest.approx(2)
    assert training.left(20) == pytest.approx(40)
    assert not training.is_due(20), "the stage has not made a line due"
    training.close()


def test_lines_of_a_long_job_come_every_few_seconds_at_first(now):
    display, times = ProgressDisplay("image", 1000), []
    for second in range(1, 70):
        now[0] += 1
        if display.is_due(second):
            times.append(second)
            display.show(second, "")
    assert times == [2, 4, 8, 16, 31, 46, 61]


def test_a_long_job_states_its_remaining_time_after_its_first_seconds_and_a_short_one_does_not(now):
    long, short = ProgressDisplay("image", 1000), ProgressDisplay("image", 10)
    now[0] += 2.5
    assert long.is_due(5)
    assert not short.is_due(5)
    long.show(5, "")
    now[0] += 2
    assert not long.is_due(10)
    long.close()
    short.close()


def test_messages_and_stages_stand_beside_the_bar_and_logs_write_to_the_console_again_afterwards(terminal, capsys):
    handler = logging.StreamHandler(sys.stdout)
    root, stream = logging.getLogger(), sys.stdout
    root.addHandler(handler)
    try:
        display = ProgressDisplay("step", 10)
        display.show(3, "loss [0.5]")
        with stage("saving a checkpoint"):
            display.bar.refresh()
            root.warning("a message")
            assert handler.stream is not stream, "messages are printed above the bar"
        display.close()
        assert handler.stream is sys.stdout is stream
    finally:
        root.removeHandler(handler)
    output = capsys.readouterr().out
    for text in ("step 3/10", "loss [0.5]", "elapsed", "left", "saving a checkpoint", "a message\n"):
        assert text in output
    assert not ProgressDisplay.opened


def test_a_display_that_an_error_leaves_open_is_closed_with_the_outer_one(now):
    outer = ProgressDisplay("step", 10)
    ProgressDisplay("image", 10)
    outer.close()
    outer.close()
    assert not ProgressDisplay.opened


def test_an_error_within_a_display_closes_it_so_that_the_next_one_is_no_stage_of_it(terminal):
    with pytest.raises(ValueError, match="wrong"), ProgressDisplay("step", 10):
        raise ValueError("wrong")
    assert ProgressDisplay.opened == []
    batches = show_progress([{"image": [0]}] * 3, 9, "features")
    next(batches), next(batches)
    assert len(ProgressDisplay.opened) == 1
    batches.close()
    assert ProgressDisplay.opened == []

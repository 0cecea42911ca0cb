"""How often processes ask each other whether to stop."""

import math

import pytest

from zoo.callbacks import graceful_stop
from zoo.callbacks.graceful_stop import GracefulStop, _Pace


def due(pace, batches):
    """Of so many batches, the numbers of those before which it asks."""
    return [number for number in range(batches) if pace.is_due()]


def test_it_asks_before_each_batch_until_one_was_timed():
    pace = _Pace(0.25)
    assert pace.is_due()
    assert pace.measure() == math.inf
    pace.agree(math.inf, is_urgent=False)
    assert pace.is_due()


@pytest.mark.parametrize(("seconds", "every"), [(0.01, 25), (0.125, 2), (0.25, 1), (10.0, 1), (math.inf, 1)])
def test_as_many_batches_lie_between_as_the_interval_has_room_for(seconds, every):
    pace = _Pace(0.25)
    pace.agree(seconds, is_urgent=False)
    assert due(pace, 30)[0] == every - 1


def test_a_stop_that_could_not_be_made_yet_is_asked_for_again_at_once():
    pace = _Pace(3600.0)
    pace.agree(0.001, is_urgent=True)
    assert due(pace, 1) == [0]


@pytest.mark.parametrize(("interval", "seconds"), [(3600.0, 1e-9), (1e300, 1e-30)])
def test_batches_that_take_no_time_do_not_put_it_off_for_ever(interval, seconds):
    pace = _Pace(interval)
    pace.agree(seconds, is_urgent=False)
    assert due(pace, 1001)[0] == graceful_stop._MOST_BATCHES - 1


def test_the_time_of_a_batch_is_the_mean_since_the_last_question(monkeypatch):
    clock = [5.0]
    monkeypatch.setattr(graceful_stop.time, "monotonic", lambda: clock[0])
    pace = _Pace(1.0)
    pace.is_due()
    pace.measure()
    for _ in range(4):
        pace.is_due()
    clock[0] = 7.0
    assert pace.measure() == pytest.approx(0.5)


@pytest.mark.parametrize("interval", [-0.1, math.nan, math.inf])
def test_an_interval_is_no_less_than_nothing(interval):
    with pytest.raises(ValueError, match="interval must be at least 0 seconds"):
        GracefulStop(interval)

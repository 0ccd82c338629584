import numpy as np
import pytest

from neurodeploy.errors import EventError
from neurodeploy.events import EVENT_DTYPE, as_events, make_events


def test_any_field_order_and_width_is_accepted():
    loose = np.array([(1, 2, 5, True), (3, 0, 5, False)], [("x", "i4"), ("y", "i2"), ("t", "u8"), ("p", "?")])
    events = as_events(loose, sensor_size=(2, 3, 4))
    assert events.dtype == EVENT_DTYPE
    assert events.tolist() == [(5, 1, 2, 1), (5, 3, 0, 0)]
    assert as_events(events) is events


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        (([2, 1], [0, 0], [0, 0], [0, 0]), "event-unsorted"),
        (([-1, 1], [0, 0], [0, 0], [0, 0]), "event-time"),
        (([0.5, 1.0], [0, 0], [0, 0], [0, 0]), "event-dtype"),
        (([0, 1], [0, 4], [0, 0], [0, 0]), "event-outside-sensor"),
        (([0, 1], [0, 0], [3, 0], [0, 0]), "event-outside-sensor"),
        (([0, 1], [0, 0], [0, 0], [0, 2]), "event-outside-sensor"),
        (([0, 1], [0, 0], [0, 0], [-1, 0]), "event-outside-sensor"),
        (([0, 1], [0], [0, 0], [0, 0]), "event-shape"),
    ],
)
def test_malformed_events(columns, code):
    with pytest.raises(EventError) as error:
        make_events(*columns, sensor_size=(2, 3, 4))
    assert error.value.code == code


def test_addresses_beyond_the_dtype_are_refused_without_a_sensor():
    with pytest.raises(EventError, match="65536"):
        make_events([0], [65536], [0], [0])


def test_missing_field_and_rank():
    with pytest.raises(EventError, match="missing: p"):
        as_events(np.zeros(1, [("t", "i8"), ("x", "u2"), ("y", "u2")]))
    with pytest.raises(EventError, match="missing: t, x, y, p"):
        as_events(np.zeros(3))
    with pytest.raises(EventError, match="one axis"):
        as_events(np.zeros((1, 1), EVENT_DTYPE))

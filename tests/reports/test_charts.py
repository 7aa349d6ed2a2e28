"""Charts, and what prepares their values."""

import pytest

from fastreason.reports.charts import Series, line_chart, ticks
from fastreason.reports.study_page import trace_parts
from fastreason.studies.results import smooth


def test_steps_are_cut_by_bytes():
    steps = [{"status": "right", "begin": 3, "end": 8}]
    assert trace_parts({"completion": "é kö. x", "steps": steps}) == [(None, "é "), ("right", "kö. "), (None, "x")]


def test_smoothing_keeps_the_mean_and_the_end():
    points = [(float(i), float(i)) for i in range(120)]
    out = smooth(points, most=60)
    assert len(out) == 60
    assert out[-1] == (119.0, 118.5)
    assert sum(y for _, y in out) / 60 == 59.5


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-3.0, 7.0), (0.0, 1e-6), (10.0, 12345.0)])
def test_ticks_are_round_and_inside(low, high):
    found = ticks(low, high)
    assert 2 <= len(found) <= 11
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)


def test_charts_name_every_value():
    series = [
        Series("a & b", [(2, 0.5), (3, 0.25)], intervals=[(0.4, 0.6), (0.2, 0.3)]),
        Series("c", [(2, 1.0)], 1, True),
    ]
    chart = line_chart(series, title="t", x_label="x", y_label="y", y_range=(0.0, 1.0), integer_x=True)
    assert "a &amp; b: 0.5 at 2 (95 % interval 0.4 to 0.6)" in chart
    assert chart.count("<polyline") == 4
    assert "nan" not in chart
    assert "nothing to plot yet" in line_chart([], title="t", x_label="x", y_label="y")
    assert "nan" not in line_chart([Series("one", [(1.0, 1.0)])], title="t", x_label="x", y_label="y")

"""Charts, and what prepares their values."""

import re
import xml.etree.ElementTree as ET

import pytest

from fastreason.reports import charts
from fastreason.reports.charts import Row, Series, interval_chart, line_chart, share_chart
from fastreason.reports.samples import chosen_samples, trace_parts
from fastreason.studies.results import smooth
from fastreason.studies.study import Study

pytest.importorskip("matplotlib", reason="charts are drawn by matplotlib, which make setup installs")
SVG = "{http://www.w3.org/2000/svg}"


def labels(chart):
    """What the points of a chart say; it must be well-formed."""
    root = ET.fromstring(chart)
    return [group.get("aria-label") for group in root.iter(f"{SVG}g") if group.get("class") == "point"]


def y_ticks(chart):
    texts = [text.text for text in ET.fromstring(chart).iter(f"{SVG}text")]
    return [float(text) for text in texts if re.fullmatch(r"-?\d+(\.\d+)?", text or "")]


def test_steps_are_cut_by_bytes():
    steps = [{"status": "right", "begin": 3, "end": 8}]
    assert trace_parts({"completion": "é kö. x", "steps": steps}) == [(None, "é "), ("right", "kö. "), (None, "x")]


def test_smoothing_keeps_the_mean_and_the_end():
    points = [(float(i), float(i)) for i in range(120)]
    out = smooth(points, most=60)
    assert len(out) == 60
    assert out[-1] == (119.0, 118.5)
    assert sum(y for _, y in out) / 60 == 59.5


def test_lines_say_every_value():
    series = [
        Series("a & b", [(2, 0.5), (3, 0.25)], intervals=[(0.4, 0.6), (0.2, 0.3)]),
        Series("c", [(2, 1.0)], 1, note="mean of 2 seeds"),
    ]
    chart = line_chart(series, title="t <", x_label="x", y_label="y", share=True, integer_x=True)
    assert labels(chart) == [
        "a & b: 50 % at 2 (95 % interval 40 to 60)",
        "a & b: 25 % at 3 (95 % interval 20 to 30)",
        "c: 100 % at 2, mean of 2 seeds",
    ]
    texts = {text.text for text in ET.fromstring(chart).iter(f"{SVG}text")}
    assert {"a & b", "c", "x", "y, %", "2", "3"} <= texts
    assert "nan" not in chart and "nan" not in line_chart([Series("1", [(1, 1)])], title="t", x_label="x", y_label="y")
    assert line_chart([], title="t", x_label="x", y_label="y") == charts.NOTHING


def test_no_value_is_moved_or_left_out_of_the_axis():
    """Losses of the first steps, rewards beyond 0 .. 1, shares that a metric puts outside."""
    loss = [(1, 30.0), (2, 3.74), (3, 0.816), (4, 0.8)]
    chart = line_chart([Series("loss", loss)], title="t", x_label="x", y_label="y")
    assert labels(chart) == ["loss: 30 at 1", "loss: 3.74 at 2", "loss: 0.816 at 3", "loss: 0.8 at 4"]
    for values in ([-2.0, 1.5], [0.0, 3.0], [-0.5, 0.5]):
        for share in (False, True):
            line = Series("reward", list(enumerate(values)))
            chart = line_chart([line], title="t", x_label="x", y_label="y", share=share)
            assert len(labels(chart)) == 2
            height = float(ET.fromstring(chart).get("viewBox").split()[3])
            assert all(0 < float(y) < height for y in re.findall(r'class="hit" cx="[^"]*" cy="([^"]*)"', chart))
    assert max(y_ticks(line_chart([Series("s", [(0, 0.5)])], title="t", x_label="x", y_label="y", share=True))) == 100


def test_a_legend_shows_what_lines_are_drawn_with():
    """A long line has markers too, but not on each of its points, and each other style another."""
    series = [Series(f"line {i}", [(x, i + x / 100) for x in range(60)], i) for i in range(3)]
    chart = line_chart(series, title="t", x_label="x", y_label="y")
    root = ET.fromstring(chart)
    uses = [use for use in root.iter(f"{SVG}use") if re.search(r"var\(--s\d", use.get("style") or "")]
    colors = [re.search(r"var\(--s(\d)\)", use.get("style"))[1] for use in uses]
    for style in "012":
        # 20 on the line, its first point, and one in the legend
        shapes = [use.get("href") for use, color in zip(uses, colors, strict=True) if color == style]
        assert len(shapes) == 22
    assert len(labels(chart)) == 3 * 21


def test_colors_are_those_of_the_page():
    chart = line_chart([Series(f"{i}", [(1, i), (2, i)], i) for i in range(10)], title="t", x_label="x", y_label="y")
    assert {f"var(--s{i})" for i in range(10)} <= set(re.findall(r"var\(--\w+\)", chart))
    # black is what matplotlib leaves out, and would stay black on a dark page
    assert not re.findall(r"#[0-9a-f]{6}", chart)


def test_intervals_of_several_lines_stand_beside_each_other():
    series = [Series(f"{i}", [(1, 0.5), (8, 0.5)], i, [(0.4, 0.6), (0.3, 0.7)]) for i in range(3)]
    chart = line_chart(series, title="t", x_label="k", y_label="y", share=True, log_x=True)
    whiskers = re.findall(r'd="M ([\d.]+) [\d.]+\s+L ([\d.]+) [\d.]+\s+"[^>]*stroke-opacity', chart)
    assert all(begin == end for begin, end in whiskers)
    assert len({begin for begin, _ in whiskers}) == len(whiskers) == 6


def test_charts_of_a_page_share_no_ids():
    series = [Series("a", [(1, 0.5), (2, 0.25)], intervals=[(0.4, 0.6), (0.2, 0.3)])]
    page = "".join(line_chart(series, title=title, x_label="x", y_label="y") for title in ("one", "two"))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert ids and len(ids) == len(set(ids))
    assert set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", page)) <= set(ids)
    assert "clip-path" in page


def test_intervals_and_bounds_are_on_one_axis():
    rows = [Row("rises <", [("", 8.0, 2.0, 13.0, 0)], [5.0]), Row("same", [("a", -0.0, -3.0, 3.0, 1)], [-5.0, 5.0])]
    chart = interval_chart(rows, title="t", x_label="points")
    assert labels(chart) == ["rises <: 8 (95 % interval 2 to 13)", "same, a: 0 (95 % interval -3 to 3)"]
    assert interval_chart([], title="t", x_label="x") == charts.NOTHING


def test_shares_are_bars_of_percent():
    chart = share_chart([("a", [("x", 0.25), ("y", 0.5)]), ("b", [("y", 0.1)])], title="t")
    assert labels(chart) == ["a, x: 25 %", "a, y: 50 %", "b, y: 10 %"]
    assert share_chart([], title="t") == charts.NOTHING


def test_without_matplotlib_a_chart_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(charts, "matplotlib_is_installed", lambda: False)
    drawn = [
        line_chart([Series("a", [(1, 1)])], title="t", x_label="x", y_label="y"),
        interval_chart([Row("a", [("", 1, 0, 2, 0)])], title="t", x_label="x"),
        share_chart([("a", [("x", 0.5)])], title="t"),
    ]
    assert set(drawn) == {charts.NOT_INSTALLED} and "fastreason[report]" in charts.NOT_INSTALLED


def trace(op, failure, *, answer=False, text="t"):
    verified = failure == "none"
    said = {"op": op, "prompt": f"p{op}", "completion": text, "gold": "g", "steps": [], "failure": failure}
    return said | {"verified": verified, "answer_correct": answer or verified}


def test_samples_are_chosen_to_inform():
    class Scores:
        def entries(self, variant):
            traces = [
                trace(2, "none"),
                trace(4, "none"),
                trace(5, "wrong_parents", answer=True),
                trace(6, "unfinished"),
                trace(7, "wrong_value"),
                trace(8, "missing_step"),
            ]
            failures = {"NONE": 0.5, "WRONG_VALUE": 0.1, "MISSING_STEP": 0.2, "UNFINISHED": 0.2}
            return [{"traces": traces, "ops": {"2": {"failures": failures}}}]

    from fastreason.studies.recipe import load_recipe

    found = chosen_samples(Study.of(load_recipe("smoke")), Scores())
    assert [(sample["op"], sample["what"]) for sample in found] == [
        (4, "verified"),
        (5, "right answer, wrong process"),
        (6, "unfinished"),
        (8, "most frequent failure shown: missing step"),
    ]

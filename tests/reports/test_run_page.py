"""The report of runs that are not complete, and its charts."""

import json

import pytest

from fastreason.reports.charts import Series, line_chart, ticks
from fastreason.reports.page_parts import trace_parts
from fastreason.reports.run_page import write_report
from fastreason.studies.recipe import load_recipe
from fastreason.studies.results import smooth


def entry(p):
    return {
        "verified": {"1": p, "8": p},
        "verified_interval": {"1": [p, p], "8": [p, p]},
        "answer": {"1": p},
        "process_accuracy": p,
    }


def results(stages):
    return {
        "recipe": "mine <b>",
        "seed": 0,
        "ranges": {"in-distribution": [2], "edge": []},
        "stages": {s: {"ops": {"2": entry(0.25)}, "traces": [], "samples": 1, "tokens": 1} for s in stages},
        "seconds": dict.fromkeys(stages, 2.0),
        "tokens": dict.fromkeys(stages, 100),
        "evaluation_seconds": dict.fromkeys(stages, 1.0),
        "machine": {"cpu": "a <cpu>", "threads": 2, "fastreason": "0", "torch": "2"},
    }


@pytest.mark.parametrize("stages", [["pretrain"], ["pretrain", "rl"]])
def test_a_report_of_what_there_is(tmp_path, stages):
    load_recipe("smoke").save(tmp_path / "recipe.toml")
    (tmp_path / "results.json").write_text(json.dumps(results(stages)))
    page = write_report(tmp_path).read_text()
    assert "mine &lt;b&gt;" in page
    assert "a &lt;cpu&gt;" in page
    assert "25.0 %" in page
    assert "nothing to plot yet" in page


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"recipe\.toml does not exist"):
        write_report(tmp_path)


def test_model_output_is_text_not_markup(tmp_path):
    trace = {
        "op": 2,
        "prompt": "<script>",
        "completion": "Ba: 3. <img src=x> <b>",
        "gold": "g",
        "verified": False,
        "answer_correct": False,
        "steps": [{"status": "right", "begin": 0, "end": 6}],
    }
    content = results(["rl"])
    content["stages"]["rl"]["traces"] = [trace]
    load_recipe("smoke").save(tmp_path / "recipe.toml")
    (tmp_path / "results.json").write_text(json.dumps(content))
    page = write_report(tmp_path).read_text()
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;img src=x&gt;" in page


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

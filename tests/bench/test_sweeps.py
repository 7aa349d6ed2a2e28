"""Scaling plots: their records, and pictures that stand alone."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch

from bench.harness.charts import Axis, chart
from bench.harness.records import OURS, read_run
from bench.harness.svg_lines import Series
from bench.sweeps import points, sweeps
from bench.sweeps.charts import TITLES, pictures
from bench.sweeps.points import SWEEPS, Point

from .runs import record, run

SVG = "{http://www.w3.org/2000/svg}"


def swept(what, x, values, provider=OURS, **more):
    """Records whose points cost so many microseconds a unit."""
    shapes = more.pop("shape", {})
    return [
        record(
            f"{what}, by {more.get('by', '')}".removesuffix(", by "), provider, [0.9 * v, v, 1.2 * v], suite="sweep",
            work=1e6, flop=2e11, shape={x: at, **shapes},
        )
        for at, v in values
    ]  # fmt: skip


def test_points_take_turns_and_their_first_call_is_not_counted():
    calls = []

    def start(name):
        def work():
            calls.append((name, torch.get_num_threads()))
            return 10.0

        return lambda: work

    points = [
        Point("a", {"op": 2}, "problems", start("a")),
        Point("b", {"op": 2}, "tokens", start("b"), provider="peer", flop_per_unit=3.0, clock="wall", threads=2),
    ]
    found = list(sweeps.measured("op", points, turns=3, peaks={"matmul_one_core": 1e9}))
    assert calls == [("a", 1), ("b", 2)] * 4
    assert torch.get_num_threads() == 1
    assert [(r.suite, r.what, r.provider, r.clock, len(r.times_s)) for r in found] == [
        ("sweep", "a, by op", OURS, "cpu", 3),
        ("sweep", "b, by op", "peer", "wall", 3),
    ]
    assert found[0].flop is None and found[1].flop == 30.0
    # a peak of one core says nothing about two threads
    assert found[1].percent_of_peak is None


@pytest.fixture
def single(monkeypatch):
    """A small machine, so that a whole quick sweep takes seconds, and peaks that need no measuring."""
    monkeypatch.setattr(sweeps, "machine_peaks", lambda: {"matmul_one_core": 1e11})
    monkeypatch.setattr(points.os, "cpu_count", lambda: 1)


def test_every_sweep_runs_and_every_picture_is_drawn(tmp_path, single):
    assert sweeps.main(["op", "context", "size", "batch", "--quick", "--out", str(tmp_path)]) == 0
    found = read_run(tmp_path / "sweeps.json")
    assert {r.what.rpartition(" ")[2] for r in found.records} == {"op", "context", "size", "batch"}
    assert sorted(path.stem for path in tmp_path.glob("*.svg")) == sorted(set(TITLES) - {"threads"})
    for r in found.records:
        assert r.times_s and (r.percent_of_peak is not None) == (r.flop is not None)
    assert {r.provider for r in found.records} == {OURS, "torch SDPA"}


def test_the_points_of_every_sweep_have_keys_of_their_own():
    for name, all_points in SWEEPS.items():
        keys = [(p.what, p.provider, tuple(p.shape.items())) for p in all_points(True)]
        assert len(set(keys)) == len(keys) >= 4, name


def test_pictures_can_be_drawn_anew_without_measuring(tmp_path, single, capsys):
    assert sweeps.main(["op", "--quick", "--out", str(tmp_path)]) == 0
    before = (tmp_path / "op.svg").read_text()
    assert "processes running when it began; commit" in before
    (tmp_path / "op.svg").unlink()
    assert sweeps.main(["--draw", "--out", str(tmp_path)]) == 0
    assert (tmp_path / "op.svg").read_text() == before
    for wrong in (["nothing"], ["--turns", "0"]):
        with pytest.raises(SystemExit):
            sweeps.main([*wrong, "--out", str(tmp_path)])
    assert "no such sweep: nothing; there are op, context" in capsys.readouterr().err


def test_speed_up_is_by_turns_and_the_ideal_is_dashed():
    one = record("problems drawn as text, by threads", suite="sweep", shape={"op": 8, "threads": 1}, times_s=[1, 2, 4])
    two = record(
        "problems drawn as text, by threads", suite="sweep", shape={"op": 8, "threads": 2}, times_s=[0.5, 1, 2.5]
    )
    picture = pictures(run([one, two]))["threads"]
    assert 'aria-label="drawing problems: 2 at 2 (p20 to p80 ' in picture
    assert len(re.findall(r'<polyline class="s0 dashed"', picture)) == 2


def test_bounds_are_products_at_the_peak():
    records = swept("attention, by context", "length", [(64, 10.0), (128, 20.0)])
    records += swept("attention, by context", "length", [(64, 30.0), (128, 40.0)], provider="torch SDPA")
    picture = pictures(run(records))["attention"]
    # 2e11 FLOP of 1e6 units at 1e11 FLOP/s: 2 us a token, below ours of 10 and 20
    dashed = ET.fromstring(picture).findall(f".//{SVG}polyline[@class='s0 dashed']")[-1]
    heights = {float(point.split(",")[1]) for point in dashed.get("points").split()}
    markers = [float(m.get("cy")) for m in ET.fromstring(picture).iter(f"{SVG}circle") if "dot" in m.get("class")]
    assert len(heights) == 1 and heights.pop() > max(markers)
    without = pictures(run(records, peaks={}))["attention"]
    assert "dashed" not in without.partition("</style>")[2]


def test_a_chart_stands_alone_and_is_well_formed():
    lines = [
        Series("ours & theirs", [(1, 10), (10, 100)], 0, False, [(9, 12), (90, 130)], "spread"),
        Series("ideal", [(1, 5), (10, 50)], 1, dashed=True),
    ]
    x, y = Axis("tokens <at once>", log=True), Axis("µs a token", log=True)
    picture = chart(lines, x, y, title="Cost", note="a machine\nits spread")
    root = ET.fromstring(picture)
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"Cost", "ours & theirs", "ideal", "tokens <at once>", "µs a token", "a machine", "its spread"} <= set(texts)
    assert {"1", "2", "5", "10", "20", "50", "100"} <= set(texts)
    assert "prefers-color-scheme: dark" in picture
    assert not re.search(r"href|url\(|<script|@import", picture)
    # whiskers and markers, of the line that is not dashed alone
    assert len([line for line in root.iter(f"{SVG}line") if "whisker" in line.get("class")]) == 2
    assert len([dot for dot in root.iter(f"{SVG}circle") if "dot" in dot.get("class")]) == 2
    said = [group.get("aria-label") for group in root.iter(f"{SVG}g") if group.get("class") == "point"]
    assert said[:2] == ["ours & theirs: 10 at 1 (spread 9 to 12)", "ours & theirs: 100 at 10 (spread 90 to 130)"]
    # nothing outside of the picture
    numbers = [float(v) for p in root.iter(f"{SVG}polyline") for v in re.findall(r"[\d.]+", p.get("points"))]
    assert min(numbers) >= 0 and max(numbers) <= 720


def test_equal_factors_are_equal_distances():
    line = Series("a", [(1, 1), (10, 10), (100, 100)])
    root = ET.fromstring(chart([line], Axis("x", log=True), Axis("y", log=True), title="t"))
    *_, drawn = root.iter(f"{SVG}polyline")
    xs = [float(point.split(",")[0]) for point in drawn.get("points").split()]
    assert np.diff(xs)[0] == pytest.approx(np.diff(xs)[1], abs=0.11)


def test_charts_without_points_or_with_zero_on_a_logarithmic_axis_are_refused():
    with pytest.raises(ValueError, match="'t' has no points"):
        chart([], Axis("x"), Axis("y"), title="t")
    with pytest.raises(ValueError, match="y axis is logarithmic, so its values must be positive, got 0"):
        chart([Series("a", [(1, 0), (2, 1)])], Axis("x"), Axis("y", log=True), title="t")
    assert "<svg" in chart([Series("a", [(1, 0)])], Axis("x"), Axis("y"), title="one point")

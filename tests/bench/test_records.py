"""The JSON of benchmarks: it comes back as it went, and what is wrong in it is named."""

import json
from dataclasses import replace

import pytest

from bench.harness.records import Record, Run, key, ratio, read_run, write_run

RECORD = Record(
    suite="tasks",
    what="problems as text",
    provider="fastreason",
    shape={"theme": "zoo", "op": 5, "share": 0.5},
    unit="problems",
    work=8000,
    times_s=[0.5, 0.1, 0.3, 0.2, 0.4],
    clock="wall",
    bytes=2e9,
    peak="copy",
    percent_of_peak=12.5,
)
COUNT = Record("traffic", "rms_norm", "liger-kernel", {"width": 768}, "bytes a token", 7200.0, [], "count")
RUN = Run(
    schema=1,
    date="2026-01-31T12:00:00+00:00",
    machine={"cpu": "AMD EPYC", "class": "amd-epyc-2c", "gpu": None, "cores": 2},
    versions={"torch": "2.13.0"},
    commit="0123abc-dirty",
    threads=1,
    peaks={"matmul_one_core": 1e11},
    skipped={"trl": "not installed"},
    records=[RECORD, COUNT],
)


def test_a_run_comes_back_as_it_went(tmp_path):
    path = tmp_path / "new" / "run.json"
    write_run(path, RUN)
    assert read_run(path) == RUN
    # a line for each record, with the percentiles for readers that do not know how to take them
    line = next(line for line in path.read_text().splitlines() if '"problems as text"' in line)
    written = json.loads(line.rstrip(","))
    assert [written[name] for name in ("p20_s", "p50_s", "p80_s")] == pytest.approx([0.18, 0.3, 0.42])


def test_a_run_without_records_comes_back_too(tmp_path):
    write_run(tmp_path / "run.json", replace(RUN, records=[]))
    assert read_run(tmp_path / "run.json") == replace(RUN, records=[])


def test_cost_is_of_a_unit_and_of_a_count_the_count():
    assert RECORD.cost == pytest.approx(0.3 / 8000)
    assert COUNT.cost == 7200
    assert COUNT.p20_s is COUNT.p50_s is COUNT.p80_s is None


def test_ratio_says_how_many_times_cheaper_we_are():
    # twice the time for a quarter of the work
    peer = replace(RECORD, provider="peer", work=2000, times_s=[0.6])
    assert ratio(RECORD, peer) == pytest.approx(8.0)
    assert ratio(replace(COUNT, work=3600, provider="fastreason"), COUNT) == 2.0
    with pytest.raises(ValueError, match="of one question"):
        ratio(RECORD, replace(RECORD, shape={"theme": "zoo"}))


def test_the_key_does_not_depend_on_the_order_of_the_shape():
    turned = replace(RECORD, shape=dict(reversed(RECORD.shape.items())))
    assert key(turned) == key(RECORD)
    assert key(replace(RECORD, shape=RECORD.shape | {"op": 6})) != key(RECORD)


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("suite", "", "suite must be text that is not empty, got ''"),
        ("provider", None, "provider must be text that is not empty, got None"),
        ("shape", {"op": [2, 3]}, r"shape must be a dict of text to int, float or text, got {'op': \[2, 3\]}"),
        ("shape", {"op": float("nan")}, "shape must be"),
        ("work", 0, "work must be a positive number, got 0"),
        ("work", True, "work must be a positive number, got True"),
        ("times_s", [], "times_s must be a list of at least one positive number"),
        ("times_s", [0.1, -0.1], "times_s must be a list of at least one positive number"),
        ("times_s", "0.1", "times_s must be a list"),
        ("clock", "sun", "clock must be one of wall, cpu, count, got 'sun'"),
        ("bytes", -1, "bytes must be None or a number >= 0, got -1"),
        ("percent_of_peak", float("inf"), "percent_of_peak must be None or a number >= 0, got inf"),
        ("peak", "speed", "peak must be None or one of matmul, copy, got 'speed'"),
        ("peak", "matmul", "peak 'matmul' needs flop, got None"),
        ("percent_of_peak", None, "percent_of_peak and peak go together, got None and 'copy'"),
    ],
)
def test_a_wrong_field_of_a_record_is_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(RECORD, **{field: value})


def test_a_count_has_no_times():
    with pytest.raises(ValueError, match=r"times_s must be \[\], because the clock is 'count', got \[0.1\]"):
        replace(COUNT, times_s=[0.1])


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("schema", 2, "schema must be 1, the only version there is, got 2"),
        ("date", "yesterday", "date must be a UTC time in ISO 8601"),
        ("date", "2026-01-31T12:00:00+02:00", "date must be a UTC time"),
        ("machine", {"cpu": "x"}, "machine must be a dict of text with at least 'class'"),
        ("versions", {"torch": None}, "versions must be a dict of text to text"),
        ("commit", "", "commit must be text"),
        ("threads", 0, "threads must be an int >= 1, got 0"),
        ("peaks", {"matmul": 0}, "peaks must be a dict of text to positive numbers"),
        ("skipped", ["trl"], "skipped must be a dict of text to text"),
        ("records", [1], "records must be a list of Record"),
        ("records", None, "records must be a list of Record"),
        ("records", [RECORD, RECORD], "different \\(suite, what, provider, shape\\), twice"),
    ],
)
def test_a_wrong_field_of_a_run_is_named(field, value, message):
    with pytest.raises(ValueError, match=message):
        replace(RUN, **{field: value})


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda run: run.pop("commit"), "run.json: lacks commit; it has schema"),
        (lambda run: run.update(colour=1), "run.json: has no field colour; there are schema"),
        (lambda run: run["records"][1].pop("work"), r"records\[1\]: lacks work"),
        (lambda run: run["records"][0].update(p99_s=1), r"records\[0\]: has no field p99_s"),
        (lambda run: run["records"][0].update(clock="sun"), "'problems as text' 'fastreason': clock must be one of"),
        (lambda run: run.update(records={}), "records must be a list"),
        (lambda run: run["records"].append(3), r"records\[2\]: must be a JSON object, got 3"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, change, message):
    path, content = tmp_path / "run.json", RUN.to_dict()
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises((ValueError, TypeError), match=message):
        read_run(path)


@pytest.mark.parametrize("text, message", [("{", "run.json: must be JSON"), ("[]", "must be a JSON object")])
def test_a_file_that_is_no_run_is_refused(tmp_path, text, message):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises((ValueError, TypeError), match=message):
        read_run(tmp_path / "run.json")

"""`fastreason grade`: files of completions to files of verdicts, whatever is in them."""

import gzip
import json
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastreason as fr
from fastreason import StepStatus
from fastreason.cli.main import main
from fastreason.evaluation import completion_files
from fastreason.evaluation.grade_completions import COLUMNS, RELEASED_COLUMNS, grade_file
from fastreason.grading.failure_kinds import FailureKind

STREAM = fr.TaskStream(fr.Mixture.uniform(op=[2, 5, 11], themes=["zoo", "symbolic"]), seed=4, split="test")
BATCH = STREAM[0:12]
GOLD = BATCH.rows()
RIGHT = [
    document.removeprefix(prompt).removesuffix("[EOS]")
    for document, prompt in zip(BATCH.documents, BATCH.prompts, strict=True)
]


def samples_of(i: int) -> list[str]:
    """Right, answer alone right, answer wrong, nothing."""
    return [RIGHT[i], RIGHT[i].split("</solution>")[1], RIGHT[i].replace("<answer> ", "<answer> 1"), ""]


FAILURES = ["NONE", "NO_STEPS", "WRONG_ANSWER", "NO_ANSWER"]


@pytest.fixture
def files(tmp_path):
    def write(completions, gold=GOLD):
        paths = tmp_path / "gold.jsonl", tmp_path / "completions.jsonl"
        for path, rows in zip(paths, (gold, completions), strict=True):
            lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
            path.write_bytes(b"".join(line + b"\n" for line in lines))
        return paths

    return write


def verdicts_of(paths, **settings):
    out = paths[0].with_name("out.jsonl")
    summary = grade_file(*paths, out, **settings)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()], summary


@pytest.mark.parametrize("released", [False, True])
def test_a_line_says_all_of_a_completion(files, released):
    paths = files([{"row": i, "completions": samples_of(i)} for i in range(12)])
    rows, summary = verdicts_of(paths, released=released)
    assert [(row["row"], row["sample"]) for row in rows] == [(i, k) for i in range(12) for k in range(4)]
    assert [row["failure"] for row in rows] == FAILURES * 12
    wanted = fr.grade_texts(
        [BATCH.solutions[i] for i in range(12) for _ in range(4)], [text for i in range(12) for text in samples_of(i)]
    )
    assert [name for name in rows[0] if name.startswith("released")] == list(RELEASED_COLUMNS if released else ())
    for name in (*COLUMNS, *(RELEASED_COLUMNS if released else ())):
        got = np.array([row[name] for row in rows], dtype=float)  # null is no number
        np.testing.assert_allclose(got, getattr(wanted, name), atol=1e-6)
    assert rows[0]["verified"] is True
    offsets, status = wanted.steps.offsets, wanted.steps.status
    for i, row in enumerate(rows):
        assert row["id"] == GOLD[row["row"]]["id"]
        assert row["op"] == GOLD[row["row"]]["op"]
        assert row["steps"] == [StepStatus(s).name for s in status[offsets[i] : offsets[i + 1]]]
    assert (summary.problems, *summary.skipped.values()) == (12, 0, 0, 0)


def test_the_table_counts_by_op_and_by_kind(files, capsys):
    paths = files([{"row": i, "completions": samples_of(i)} for i in range(12)] + [b"{"])
    assert main(["grade", "--gold", str(paths[0]), "--completions", str(paths[1])]) == 0
    out, error = capsys.readouterr()
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["op", "completions", "share", "answer", "verified", "sound"]
    ops = np.unique(BATCH.ops)
    for line, op in zip(lines[1:], ops, strict=False):
        count = 4 * int((BATCH.ops == op).sum())
        assert line == [str(op), str(count), f"{100 * count / 48:.1f}", "50.0", "25.0", "25.0"]
    assert lines[1 + len(ops)] == ["all", "48", "100.0", "50.0", "25.0", "25.0"]
    assert lines[4 + len(ops) :][:4] == [
        ["none", "12", "25.0", "100.0", "100.0", "100.0"],
        ["no", "answer", "12", "25.0", "0.0", "0.0", "0.0"],
        ["no", "steps", "12", "25.0", "100.0", "0.0", "0.0"],
        ["wrong", "answer", "12", "25.0", "0.0", "0.0", "0.0"],
    ]
    assert out.splitlines()[-1] == "48 completions of 12 problems; 1 malformed lines skipped"
    assert f"{paths[1]}:13: not JSON: " in error
    assert not paths[0].with_name("out.jsonl").exists()


def test_pass_at_k_of_a_file(files, capsys, tmp_path):
    # of 2 to 4 completions of a row the first is right, and the answer of the next one, too
    paths = files([{"row": i, "completions": samples_of(i)[: i % 3 + 2]} for i in range(11)])
    out = tmp_path / "results.json"
    assert main(["grade", "--gold", str(paths[0]), "--completions", str(paths[1]), "--results", str(out)]) == 0
    text = capsys.readouterr().out
    results = json.loads(out.read_text())
    assert results["samples"] == sum(i % 3 + 2 for i in range(11))
    assert list(results["ops"]) == ["2", "5", "11"]
    assert list(results["themes"]) == sorted({row["template"] for row in GOLD})
    assert list(results["modes"]) == ["normalforward"]
    for op, entry in results["ops"].items():
        counts = [i % 3 + 2 for i in range(11) if GOLD[i]["op"] == int(op)]
        assert list(entry["verified"]) == ["1", "2"]  # up to the fewest completions of a row
        assert entry["verified"]["1"] == pytest.approx(np.mean([1 / n for n in counts]))
        assert entry["verified"]["2"] == pytest.approx(np.mean([2 / n for n in counts]))
        assert entry["answer"]["1"] == pytest.approx(np.mean([2 / n for n in counts]))
        assert entry["failures"]["NONE"] == pytest.approx(np.mean([1 / n for n in counts]))
        assert (entry["problems"], entry["samples"]) == (len(counts), sum(counts))
        assert "mean_length" not in entry
    assert "verified @1" in text
    assert f"{100 * results['ops']['5']['verified']['1']:.1f}" in text


def test_ranges_of_the_paper_where_a_file_has_their_ops(files):
    stream = fr.TaskStream(fr.Mixture.uniform(op=range(11, 16)), seed=0, split="test")[0:60]
    assert set(stream.ops) == set(range(11, 16))
    paths = files([{"row": i, "completions": [RIGHT[0], ""]} for i in range(60)], stream.rows())
    assert list(grade_file(*paths).results()["ranges"]) == ["edge"]


def test_parquet_holds_the_same(files):
    paths = files([{"row": i, "completions": samples_of(i)} for i in range(12)])
    rows, summary = verdicts_of(paths)
    same = grade_file(*paths, paths[0].with_name("new") / "out.parquet")
    table = pq.read_table(paths[0].with_name("new") / "out.parquet")
    assert table.column_names == list(rows[0])
    for found, wanted in zip(table.to_pylist(), rows, strict=True):
        assert {
            name: pytest.approx(value, abs=1e-6) if isinstance(value, float) else value
            for name, value in wanted.items()
        } == found
    np.testing.assert_array_equal(same.counts, summary.counts)


# --- what a completion answers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", completion_files.TEXT_FIELDS)
def test_texts_by_any_of_their_names(files, name):
    rows, _ = verdicts_of(files([{"row": 3, name: RIGHT[3]}]))
    assert [(row["row"], row["failure"]) for row in rows] == [(3, "NONE")]


@pytest.mark.parametrize("per_row", [1, 3])
def test_in_order(files, per_row):
    flat = [{"completion": samples_of(i)[k]} for i in range(12) for k in range(per_row)]
    rows, _ = verdicts_of(files(flat))
    assert [(row["row"], row["sample"]) for row in rows] == [(i, k) for i in range(12) for k in range(per_row)]
    assert [row["failure"] for row in rows] == FAILURES[:per_row] * 12
    lists, _ = verdicts_of(files([{"completions": samples_of(i)[:per_row]} for i in range(12)]))
    assert lists == rows


def test_a_line_that_cannot_be_used_keeps_its_place_in_the_order(files, capsys):
    lines = [{"completion": RIGHT[i]} for i in range(12) for _ in range(2)]
    lines[5] = b"\xff"
    rows, summary = verdicts_of(files(lines))
    assert all(row["failure"] == "NONE" for row in rows)
    assert [row["row"] for row in rows] == [i for k, i in enumerate(np.repeat(range(12), 2).tolist()) if k != 5]
    assert summary.skipped["malformed"] == 1
    assert "completions.jsonl:6: not UTF-8 at byte 0" in capsys.readouterr().err


def test_by_id_and_samples_are_counted(files):
    order = [7, 2, 7, 0, 2, 7]
    rows, _ = verdicts_of(files([{"id": GOLD[i]["id"], "completion": RIGHT[i]} for i in order]))
    assert [row["row"] for row in rows] == order
    assert [row["sample"] for row in rows] == [0, 0, 1, 0, 1, 2]
    assert all(row["failure"] == "NONE" for row in rows)


def test_rows_that_share_an_id_are_told_apart_by_op_and_template(files, capsys):
    gold = [{**row, "id": 10, "op": op} for row, op in zip(GOLD, [2, 3, 4, 4], strict=False)]
    gold[2]["template"], gold[3]["template"] = "a", "b"
    said = [{"id": "10", "op": "3"}, {"id": 10, "op": 4, "template": "b"}, {"id": 10, "op": 4}, {"id": 11}]
    rows, _ = verdicts_of(
        files([{**row, "completion": RIGHT[i]} for row, i in zip(said, [1, 3, 2, 0], strict=True)], gold)
    )
    assert [row["row"] for row in rows] == [1, 3]
    assert capsys.readouterr().err.count("completions.jsonl:3: id 10 matches 2 gold rows; use row") == 1


def released(i: int, index: int, text: str) -> dict:
    """A line of a generation file as the released evaluation writes it."""
    answer = str(BATCH.answers[i])
    return {
        "op": str(GOLD[i]["op"]),
        "__idx": index,
        "prompt": BATCH.prompts[i],
        "gold_answer": answer,
        "gen_answer": "",
        "gold_answer_raw": answer,
        "gen_answer_raw": "",
        "gen_solution_answer": text.split("</answer>")[0].strip(),
        "resp_tokens": 9,
        "exact_match": 1,
        "template": GOLD[i]["template"],
    }


def test_released_generation_files(files):
    lines = [released(i, i, samples_of(i)[k]) for i in range(12) for k in range(3)]
    rows, _ = verdicts_of(files(lines))
    assert [(row["row"], row["sample"]) for row in rows] == [(i, k) for i in range(12) for k in range(3)]
    assert [row["failure"] for row in rows] == FAILURES[:3] * 12


def test_released_numbers_count_within_an_op(files, capsys):
    """The gold rows of one op, or of more ops than were asked: numbers go round among the rows of the op."""
    mine = np.flatnonzero(BATCH.ops == 5).tolist()
    assert len(mine) > 2
    gold = [GOLD[i] for i in range(12) if i not in mine] + [GOLD[i] for i in mine]
    lines = [released(i, len(mine) * 3 + k, RIGHT[i]) for k, i in enumerate(mine)]
    wrong = {**lines[0], "gold_answer": "999"}
    rows, _ = verdicts_of(files([*lines, wrong, {**lines[0], "op": "99"}], gold))
    assert [row["row"] for row in rows] == list(range(12 - len(mine), 12))
    assert all(row["failure"] == "NONE" for row in rows)
    error = capsys.readouterr().err
    assert f"gold_answer '999' differs from that of gold row {12 - len(mine)}" in error
    assert "no gold row has op 99" in error


def test_the_reference_file_of_verdicts(reference, tmp_path):
    from ..conftest import REFERENCE

    paths = REFERENCE / "problems_hard.jsonl.gz", REFERENCE / "verdicts_hard.jsonl.gz"
    grade_file(*paths, tmp_path / "out.parquet", released=True)
    found, wanted = pq.read_table(tmp_path / "out.parquet").to_pylist(), reference("verdicts_hard.jsonl.gz")
    assert [row["row"] for row in found] == [row["row"] for row in wanted]
    assert [row["released_verified"] for row in found] == [row["verified"] for row in wanted]


def test_released_verdicts_need_a_file_to_go_to(files):
    paths = files([{"row": 0, "completion": ""}])
    with pytest.raises(ValueError, match="grade: released verdicts are written to `out`, which is None"):
        grade_file(*paths, released=True)


# --- what cannot be used ----------------------------------------------------------------------------------------------

UNUSABLE = [
    (b"{", "not JSON: "),
    (b"\xff\xfe", "not UTF-8 at byte 0"),
    (b"\x00", "not JSON: "),
    (b"[" * 100_000, "not JSON: "),
    (b"1" * 10_000, "not JSON: "),
    (b"[1]", "must be a JSON object, got list"),
    (b"null", "must be a JSON object, got NoneType"),
    ({"row": 12, "completion": ""}, "row must be in 0 .. 11, got 12"),
    ({"row": -1, "completion": ""}, "row must be in 0 .. 11, got -1"),
    ({"row": "3", "completion": ""}, "row must be an integer, got '3'"),
    ({"row": True, "completion": ""}, "row must be an integer, got True"),
    ({"id": "nobody", "completion": ""}, "id 'nobody' matches no gold row"),
    ({"row": 1}, "no text; must have completions, completion, response, output, text, gen_solution_answer"),
    ({"row": 1, "completion": 7}, "no text; must have"),
    ({"row": 1, "completions": ["a", None]}, "completions[1] must be a text, got None"),
    ({"row": 1, "completions": []}, "completions is empty"),
    ({"completion": "a"}, "has none of row, id and __idx, unlike earlier lines"),
]


def test_lines_that_cannot_be_used_are_told_and_nothing_else_is_lost(files, capsys):
    good = [{"row": i % 12, "completion": RIGHT[i % 12]} for i in range(len(UNUSABLE) + 1)]
    lines = [good[0]]
    for (bad, _), line in zip(UNUSABLE, good[1:], strict=True):
        lines += [bad, line]
    paths = files(lines)
    rows, summary = verdicts_of(paths)
    assert len(rows) == len(good)
    assert all(row["failure"] == "NONE" for row in rows)
    assert summary.skipped["malformed"] == len(UNUSABLE)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith(str(paths[1]))]
    for i, (line, (_, reason)) in enumerate(zip(told, UNUSABLE, strict=True)):
        assert line.startswith(f"{paths[1]}:{2 + 2 * i}: {reason}")


def test_gold_rows_that_cannot_be_used(files, capsys):
    gold = [GOLD[0], b"{", {**GOLD[2], "solution": ""}, {**GOLD[3], "op": "x"}, b" ", GOLD[4], {**GOLD[5], "op": 2**70}]
    gold += [{**GOLD[6], "solution": "Answer: 7."}, {**GOLD[7], "solution": GOLD[7]["solution"].split("Answer")[0]}]
    lines = [{"row": i, "completion": "a"} for i in (0, 1)] + [{"row": 4, "completion": RIGHT[4]}]
    lines.append({"row": 6, "completion": "Answer: 7."})
    paths = files(lines, gold)
    rows, summary = verdicts_of(paths)
    assert [row["row"] for row in rows] == [0, 4]
    assert rows[1]["failure"] == "NONE"
    error = capsys.readouterr().err
    for line in (
        "gold.jsonl:2: not JSON",
        "gold.jsonl:3: no solution",
        "gold.jsonl:4: op must be an integer, got 'x'",
        "gold.jsonl:7: op must be in 0 .. 2**31 - 1",
        "gold.jsonl:8: solution has no readable step",
        "gold.jsonl:9: solution has no readable answer",
        "completions.jsonl:2: gold row 1 has no readable solution",
        "completions.jsonl:4: gold row 6 has no readable solution",
    ):
        assert error.count(line) == 1
    assert list(summary.skipped.values()) == [0, 6, 2]


def test_a_gold_row_that_cannot_be_read_is_status_1(files, capsys):
    """The others have their verdicts; lines of completions that cannot be used alone are status 0."""
    gold = [*GOLD[:11], {**GOLD[11], "solution": "7"}]
    paths = files([{"row": i, "completion": RIGHT[i]} for i in range(12)] + [b"{"], gold)
    arguments = ["grade", "--gold", str(paths[0]), "--completions", str(paths[1])]
    results = paths[0].with_name("results.json")
    assert main([*arguments, "--results", str(results)]) == 1
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last[0] == "11 completions of 11 problems; 1 malformed lines skipped"
    assert last[1] == "1 gold rows are unreadable; 1 lines for them have no verdict"
    content = json.loads(results.read_text())
    assert [content[name] for name in ("samples", "malformed", "unreadable_gold", "without_gold")] == [11, 1, 1, 1]
    files([{"row": i, "completion": RIGHT[i]} for i in range(11)] + [b"{"])
    assert main(arguments) == 0


def test_gold_rows_need_only_a_solution(files):
    gold = [{"solution": row["solution"]} for row in GOLD]
    rows, summary = verdicts_of(files([{"completion": text} for text in RIGHT], gold))
    assert [(row["row"], row["id"], row["op"]) for row in rows] == [(i, None, None) for i in range(12)]
    assert summary.table().splitlines()[1].split()[:2] == ["?", "12"]


def test_gzip_whole_and_cut_off(files, capsys):
    paths = files([{"row": i % 12, "completion": RIGHT[i % 12]} for i in range(600)])
    wanted, _ = verdicts_of(paths)
    content = gzip.compress(paths[1].read_bytes(), mtime=0)
    paths[0].write_bytes(gzip.compress(paths[0].read_bytes()))
    paths[1].write_bytes(content)
    assert verdicts_of(paths)[0] == wanted
    capsys.readouterr()
    paths[1].write_bytes(content[: len(content) // 2])
    rows, summary = verdicts_of(paths)
    assert 0 < len(rows) < 600
    assert rows == wanted[: len(rows)]
    assert summary.skipped["malformed"] == 1
    assert f"completions.jsonl:{len(rows) + 1}: the file cannot be read further" in capsys.readouterr().err


@pytest.mark.parametrize("bomb", [b"0" * 10_000, b'{"row": 0, "completion": "' + b"a" * 999_999 + b'"}', b"0" * 1000])
def test_a_line_that_fills_the_memory_is_left_out(bomb, files, capsys, monkeypatch):
    """A few kB of gzip may be gigabytes of one line, which is read in pieces and kept nowhere."""
    monkeypatch.setattr(completion_files, "_LONGEST_LINE", 1000)
    rows = [{"row": i, "completion": "no idea"} for i in range(3)]
    paths = files([rows[0], bomb, *rows[1:], bomb])
    paths[1].write_bytes(gzip.compress(paths[1].read_bytes().removesuffix(b"\n")))
    monkeypatch.setattr(completion_files.GoldRows, "_forget_unreadable", lambda *_: None)
    gold = [{"solution": "short"}] * 3
    paths[0].write_text("".join(json.dumps(row) + "\n" for row in gold))
    found = list(completion_files.read_completions(paths[1], completion_files.GoldRows(paths[0], print), _told))
    assert [row for chunk in found for row in chunk.rows] == [0, 1, 2]
    told = [f"{number}: a line of 1,000 bytes or more" for number in (2, 5)]
    assert capsys.readouterr().out.splitlines() == told


def _told(path, line, reason, kind):
    print(f"{line}: {reason}")


@given(
    lines=st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.dictionaries(
                st.sampled_from(["row", "id", "__idx", "op", "completion", "completions", "gold_answer"]),
                st.one_of(
                    st.none(),
                    st.integers(),
                    st.floats(),
                    st.text(max_size=5),
                    st.lists(st.text(max_size=5), max_size=3),
                ),
            ).map(lambda row: json.dumps(row).encode()),
        ),
        max_size=8,
    )
)
def test_any_lines(lines, tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    (folder / "gold").write_text("".join(json.dumps(row) + "\n" for row in GOLD), encoding="utf-8")
    good = json.dumps({"row": 0, "completion": RIGHT[0]}).encode()
    (folder / "completions").write_bytes(b"\n".join([good, *lines]) + b"\n")
    grade_file(folder / "gold", folder / "completions", folder / "out.jsonl")
    first = json.loads((folder / "out.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert (first["row"], first["failure"]) == (0, "NONE")


# --- refusals and interruptions ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, message",
    [
        ({"--gold": "absent"}, "no file 'absent'"),
        ({"--completions": "absent"}, "no file 'absent'"),
        ({"--out": "gold.jsonl"}, "gold.jsonl would be overwritten by its own verdicts"),
        ({"--out": "sub/../completions.jsonl"}, "completions.jsonl would be overwritten by its own verdicts"),
        ({"--out": "sub"}, "--out must be a file, got the folder sub"),
        ({"--format": "parquet"}, "--format requires --out FILE"),
        ({"--released": None}, "--released requires --out FILE"),
        ({"--threads": "-1"}, "--threads must be at least 0, got -1"),
        ({"--gold": "empty"}, "empty has no row with a readable solution"),
        ({"--completions": "empty"}, "empty has no completion for any gold row"),
        ({"--completions": "five"}, "five has 5 lines without row, id or __idx"),
    ],
)
def test_bad_arguments_are_status_2(files, monkeypatch, tmp_path, capsys, flags, message):
    files([{"completion": text} for text in RIGHT])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "empty").touch()
    (tmp_path / "five").write_text('{"completion": "a"}\n' * 5, encoding="utf-8")
    arguments = {"--gold": "gold.jsonl", "--completions": "completions.jsonl", "--out": "out.jsonl", **flags}
    if "--format" in flags or "--released" in flags:
        del arguments["--out"]
    assert main(["grade", *(word for pair in arguments.items() for word in pair if word)]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("out.jsonl*"))
    assert main(["grade", "--format", "csv"]) == 2


def test_formats_by_name_and_by_choice(files):
    paths = files([{"completion": text} for text in RIGHT])
    with pytest.raises(ValueError, match="format must be one of jsonl, parquet, got 'csv'"):
        grade_file(*paths, paths[0].with_name("out"), format="csv")
    grade_file(*paths, paths[0].with_name("out"), format="parquet")
    assert pq.read_metadata(paths[0].with_name("out")).num_rows == 12


def test_an_interruption_leaves_what_was_there(files, monkeypatch):
    paths = files([{"completion": text} for text in RIGHT])
    rows, _ = verdicts_of(paths)
    calls = []

    def stop(*arguments, **settings):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return fr.grade_texts(*arguments, **settings)

    monkeypatch.setattr(completion_files, "_CHUNK_TEXTS", 5)
    monkeypatch.setattr("fastreason.evaluation.grade_completions.grade_texts", stop)
    for suffix in ("jsonl", "parquet"):
        calls.clear()
        with pytest.raises(KeyboardInterrupt):
            grade_file(*paths, paths[0].with_name(f"out.{suffix}"))
    kept = paths[0].with_name("out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in kept] == rows
    assert {path.name for path in paths[0].parent.iterdir()} == {"gold.jsonl", "completions.jsonl", "out.jsonl"}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_chunks_do_not_show(files, monkeypatch, suffix):
    paths = files([{"row": i, "completions": samples_of(i)} for i in range(12)])
    outs = [paths[0].with_name(f"{name}.{suffix}") for name in ("whole", "parts")]
    whole = grade_file(*paths, outs[0])
    monkeypatch.setattr(completion_files, "_CHUNK_TEXTS", 5)
    parts = grade_file(*paths, outs[1], threads=1)
    assert whole.table() == parts.table()
    if suffix == "parquet":
        assert pq.read_table(outs[0]) == pq.read_table(outs[1])
    else:
        assert outs[0].read_bytes() == outs[1].read_bytes()


MEASURE = """
import sys
from pathlib import Path
from fastreason.evaluation.grade_completions import grade_file
summary = grade_file(*sys.argv[1:])
# the peak of this process alone; getrusage would count the one that started it
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(summary.counts[..., 0].sum(), peak.split()[1])
"""


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_memory_does_not_grow_with_the_completions(files, tmp_path, suffix):
    """The larger file has many more bytes than the two peaks may differ by."""
    peaks_kib = {}
    for count in (20_000, 100_000):
        paths = files([])
        lines = [json.dumps({"row": i, "completion": RIGHT[i] + " so" * 160}) + "\n" for i in range(12)]
        with paths[1].open("w", encoding="utf-8") as file:
            file.writelines(lines[i % 12] for i in range(count))
        command = [sys.executable, "-c", MEASURE, *map(str, paths), str(tmp_path / f"out.{suffix}")]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        number, peak = done.stdout.split()
        assert int(number) == count
        peaks_kib[count] = int(peak)
    assert paths[1].stat().st_size > 60 << 20
    assert peaks_kib[100_000] - peaks_kib[20_000] < 16 << 10


def test_failure_names_are_those_of_the_enum(files):
    rows, _ = verdicts_of(files([{"completion": text} for text in RIGHT]))
    assert {row["failure"] for row in rows} <= set(FailureKind.__members__)

"""What an evaluation returns, whoever does it and however often it is stopped."""

import json
import os
import signal
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason.cli.main import main
from fastreason.evaluation.evaluate import (
    PRESETS,
    EvaluateSettings,
    _informative,
    evaluate,
    evaluate_sampler,
    open_folder,
    parts_of,
)
from fastreason.evaluation.op_ranges import covered, op_weights, parse_range
from fastreason.evaluation.pass_at_k import pass_at_ks
from fastreason.evaluation.pass_table import SCORES, failure_table, shown_ks, summarise, table
from fastreason.evaluation.sample_files import COLUMNS
from fastreason.evaluation.samplers import RolloutSampler, Samples
from fastreason.grading.failure_kinds import FailureKind
from fastreason.runtime.folder_lock import held
from fastreason.runtime.stop_request import StopRequest
from fastreason.studies.recipe import load_recipe, recipe_from_dict

from ..model.test_decoder import random_model
from ..processes import Command, wait_until
from ..ranks import run_on_ranks

PART = {"op": [2, 3], "themes": ["symbolic"], "max_value": 99}
RANGES = {"both": {"2": 0.25, "3": 0.75}}
SETTINGS = EvaluateSettings(mixture=[PART], problems=5, samples=4, k=[1, 4], max_new_tokens=16, traces=2, ranges=RANGES)


def untrained() -> tuple[fr.Decoder, fr.Tokenizer]:
    tokenizer = fr.Tokenizer.for_mixtures([fr.Mixture.from_dict(PART)])
    return random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)), torch.float32, seed=4), tokenizer


class Oracle:
    """Right with a chance that falls with op; no model, so that many samples cost nothing. Counts what it is asked."""

    def __init__(self, stop_after=None) -> None:
        self.asked: list[tuple[int, int]] = []
        self.stop_after = stop_after

    def check(self, problems) -> None:
        pass

    def sample(self, problems, n, seed):
        if self.stop_after is not None and len(self.asked) == self.stop_after:
            raise OSError("the disk is full")
        op, first = int(problems.ops[0]), int(problems.indices[0])
        self.asked.append((op, first))
        right = np.random.default_rng([seed, op, first]).random((len(problems), n)) < 1.5 / op
        texts = [
            gold(s) if good else "no idea" for s, row in zip(problems.solutions, right, strict=True) for good in row
        ]
        lengths = np.array([len(text) for text in texts])
        return Samples(fr.grade(problems, texts), lengths, right.reshape(-1), texts.__getitem__)


def gold(solution: str) -> str:
    return solution.replace(" Answer: ", " </solution> <answer> ").rstrip(".") + " </answer>"


def small_parts(monkeypatch) -> None:
    """Two problems a part, so that an evaluation has several."""
    monkeypatch.setattr("fastreason.evaluation.evaluate._PART_SAMPLES", 8)


def test_scores_of_known_verdicts():
    class Known(Oracle):
        def sample(self, problems, n, seed):
            a, b = (gold(solution) for solution in problems.solutions)
            # verified but not sound: something false is printed behind a whole solution
            c = b.replace(" </solution>", " Zq: 1 + 1 = 3. </solution>")
            texts = [a, "nonsense", b, c]
            return Samples(fr.grade(problems, texts), np.arange(4), np.array([1, 1, 0, 1], bool), texts.__getitem__)

    settings = EvaluateSettings(mixture=[PART | {"op": [2]}], problems=2, samples=2, k=[1, 2])
    result = evaluate_sampler(Known(), settings)
    entry = result["ops"]["2"]
    assert entry["verified"] == pytest.approx({"1": 0.75, "2": 1.0})
    assert entry["answer"] == pytest.approx({"1": 0.75, "2": 1.0})
    assert entry["sound"] == pytest.approx({"1": 0.5, "2": 1.0})
    assert entry["verified_interval"]["1"] == pytest.approx([0.5, 1.0])
    assert entry["process_accuracy"] == pytest.approx(0.75)
    assert sum(entry["failures"].values()) == pytest.approx(1.0)
    assert entry["failures"]["NONE"] == 0.5
    assert entry["failures"]["NO_ANSWER"] == 0.25
    assert (entry["problems"], entry["samples"], entry["mean_length"], entry["stopped"]) == (2, 4, 1.5, 0.75)
    assert result["tokens"] == 6


def test_an_evaluation_follows_from_seed_and_model_alone():
    model, tokenizer = untrained()
    a, b = (evaluate(model, tokenizer, SETTINGS, seed=1) for _ in range(2))
    assert a == b
    assert list(a["ops"]) == ["2", "3"]
    assert a["samples"] == 40
    assert len(a["traces"]) == 4
    for trace in a["traces"]:
        assert trace.keys() == {"op", "prompt", "completion", "gold", "verified", "answer_correct", "failure", "steps"}
    for entry in a["ops"].values():
        for value in (*entry["verified"].values(), *entry["answer"].values(), entry["process_accuracy"]):
            assert 0.0 <= value <= 1.0
    assert evaluate(model, tokenizer, SETTINGS, seed=2) != a


def test_problems_show_samples_of_different_kinds():
    """Verified, right without its steps, unfinished, failed, as op + problem say; the first where there is none."""
    kinds = {"failure": [0, FailureKind.WRONG_PARENTS, FailureKind.UNFINISHED, FailureKind.MISSING_STEP, 0]}
    columns = {name: np.array(values * 5) for name, values in kinds.items()}
    columns["answer_correct"] = np.array([True, True, False, False, True] * 5)
    columns["verified"] = np.array([True, False, False, False, True] * 5)
    columns["op"], columns["problem"] = np.full(25, 4), np.arange(5).repeat(5)
    assert [_informative(columns, p, 5) - 5 * p for p in range(5)] == [0, 1, 2, 3, 0]
    columns["verified"][:] = False
    assert _informative(columns, 0, 5) == 0


def test_it_draws_from_the_test_split_only(monkeypatch):
    seen = []
    real = fr.TaskStream.__init__

    def spy(self, mixture, seed=0, split="train"):
        seen.append((seed, split))
        real(self, mixture, seed=seed, split=split)

    monkeypatch.setattr(fr.TaskStream, "__init__", spy)
    model, tokenizer = untrained()
    evaluate(model, tokenizer, EvaluateSettings(mixture=[PART], problems=1, samples=1, k=[1], max_new_tokens=2), seed=7)
    assert seen == [(0, "test"), (0, "test")]


# --- groups ---


def scores_by_hand() -> np.ndarray:
    """Ops 2 and 3, two problems each of 4 samples, themes 0 and 1."""
    scores = np.zeros(4, dtype=SCORES)
    scores["op"], scores["problem"], scores["theme"] = [2, 2, 3, 3], [0, 1, 0, 1], [0, 1, 0, 1]
    scores["samples"], scores["verified"], scores["answer"] = 4, [4, 2, 0, 1], [4, 4, 0, 2]
    scores["process_accuracy"] = [1.0, 0.8, 0.0, 0.5]
    scores["failures"][:, FailureKind.NONE] = scores["verified"]
    scores["failures"][:, FailureKind.NO_STEPS] = 4 - scores["verified"]
    return scores


def test_groups_by_op_range_theme_and_mode():
    found = summarise(scores_by_hand(), ["zoo", "school", "festival"], ["forward"], [1, 2], RANGES)
    assert {name: list(entries) for name, entries in found.items()} == {
        "ops": ["2", "3"],
        "ranges": ["both"],
        "themes": ["zoo", "school"],
        "modes": ["forward"],
    }
    one = {name: entry["verified"]["1"] for entries in found.values() for name, entry in entries.items()}
    want = {"2": 0.75, "3": 0.125, "both": 0.25 * 0.75 + 0.75 * 0.125, "zoo": 0.5, "school": 0.375, "forward": 0.4375}
    assert one == pytest.approx(want)
    assert found["ops"]["2"]["verified"]["2"] == pytest.approx((1 + 5 / 6) / 2)
    assert found["ranges"]["both"]["process_accuracy"] == pytest.approx(0.25 * 0.9 + 0.75 * 0.25)
    assert found["ranges"]["both"]["problems"] == 4
    assert found["ops"]["3"]["failures"] == pytest.approx({"NONE": 1 / 8, "NO_STEPS": 7 / 8})


def test_the_order_of_problems_does_not_matter():
    scores = scores_by_hand()
    assert summarise(scores[::-1], ["a", "b"], ["c"], [1], {}) == summarise(scores, ["a", "b"], ["c"], [1], {})


def test_a_range_draws_the_problems_of_each_op_anew():
    # op 2 always passes, op 3 never: the mean of both is known exactly, while problems drawn across ops would spread
    scores = np.repeat(scores_by_hand()[:2], 20)
    scores["op"], scores["problem"] = np.repeat([2, 3], 20), np.arange(40)
    scores["verified"] = np.repeat([4, 0], 20)
    found = summarise(scores, ["a", "b"], ["c"], [1], {"both": {"2-3": 1}})
    assert found["ranges"]["both"]["verified_interval"]["1"] == [0.5, 0.5]


def test_weights_of_ranges():
    weights = op_weights({"2-4": 0.2, "5-7": 0.3, "8-10": 0.5})
    assert sum(weights.values()) == pytest.approx(1.0)
    assert weights[2] == pytest.approx(0.2 / 3)
    assert weights[10] == pytest.approx(0.5 / 3)
    assert op_weights({"11-14": 7}) == dict.fromkeys(range(11, 15), 0.25)
    assert covered({"a": {"2-3": 1}, "b": {"3-4": 1}}, [2, 3]) == {"a": {"2-3": 1}}
    assert parse_range("2-4,9") == [2, 3, 4, 9]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"k": [1, 9]}, r"every k must be in 1 \.\. samples = 8, got \[1, 9\]"),
        ({"k": []}, "every k must be"),
        ({"problems": 0}, "problems must be at least 1"),
        ({"temperature": -1.0}, "temperature must be 0 or at least 1e-06"),
        ({"top_p": 0.0}, "top_p must be in 0 < x <= 1"),
        ({"ranges": {"edge": {"3-4": 1.0}}}, "range edge has op 4, which is not in the mixture"),
        ({"ranges": {"edge": {"2": -1.0}}}, "range edge: must have a weight > 0"),
        ({"ranges": {"edge": {"two": 1.0}}}, "range edge must have the form 7, 2-10 or 3,5,9, got 'two'"),
        ({"ranges": {"edge": {"5-2": 1.0}}}, "range edge: '5-2' contains no op"),
    ],
)
def test_settings_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        EvaluateSettings(**({"mixture": [PART], "samples": 8, "k": [1]} | change))


def test_the_preset_of_the_paper():
    paper = PRESETS["paper"]
    assert fr.Mixture.from_dict(paper.mixture).ops == tuple(range(2, 21))
    assert (paper.problems, paper.samples, paper.temperature, paper.top_p) == (200, 128, 0.7, 1.0)
    assert paper.k == list(range(1, 129))
    assert paper.ranges["in-distribution"] == {"2-4": 0.2, "5-7": 0.3, "8-10": 0.5}
    assert sum(part.count for part in parts_of(paper)) * paper.samples == 486_400
    assert max(part.count for part in parts_of(paper)) * paper.samples <= 4096


def test_the_preset_of_the_paper_from_end_to_end():
    # every 10th problem of the paper's, all ops, ranges and ks
    result = evaluate_sampler(Oracle(), replace(PRESETS["paper"], problems=20, samples=16, k=list(range(1, 17))))
    ops = {int(op): entry["verified"]["1"] for op, entry in result["ops"].items()}
    assert list(ops) == list(range(2, 21))
    in_distribution = sum(
        w / 3 * ops[op] for first, w in ((2, 0.2), (5, 0.3), (8, 0.5)) for op in range(first, first + 3)
    )
    assert result["ranges"]["in-distribution"]["verified"]["1"] == pytest.approx(in_distribution)
    assert result["ranges"]["hard"]["verified"]["1"] == pytest.approx(np.mean([ops[op] for op in range(15, 21)]))
    assert list(result["themes"]) == ["zoo", "school", "festival"]
    text = table(result)
    for name in ("op 20", "in-distribution", "edge", "hard", "zoo", "@16"):
        assert name in text
    assert "no answer" in failure_table(result)
    # pass@k of all k is what the estimator says of the counts
    assert len(result["ops"]["7"]["sound"]) == 16


def test_a_table_shows_a_few_ks():
    assert shown_ks(list(range(1, 129))) == [1, 8, 32, 128]
    assert shown_ks([1, 2, 3, 4, 5]) == [1, 5]
    assert shown_ks([2, 7]) == [2, 7]


# --- on disk ---


def test_files_hold_the_verdict_of_every_sample(tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    small_parts(monkeypatch)
    settings = replace(SETTINGS, mixture=[PART | {"themes": ["zoo", "school"], "modes": ["forward", "reverse"]}])
    folder = open_folder(tmp_path / "e", settings, 3, resume=False, texts=True)
    result = evaluate_sampler(Oracle(), settings, seed=3, folder=folder)
    rows = pq.read_table(tmp_path / "e" / "samples").to_pylist()
    assert len(rows) == 2 * 5 * 4
    assert rows[0].keys() == {*COLUMNS, "finish_reason", "completion"} - {"stopped"}
    assert {(row["op"], row["problem"], row["sample"]) for row in rows} == {
        (op, problem, sample) for op in (2, 3) for problem in range(5) for sample in range(4)
    }
    stream = fr.TaskStream(fr.Mixture.from_dict(settings.mixture[0] | {"op": [3]}), seed=0, split="test")[0:5]
    verdicts = fr.grade(stream, [row["completion"] for row in rows if row["op"] == 3])
    assert verdicts.verified.tolist() == [row["verified"] for row in rows if row["op"] == 3]
    assert [row["theme"] for row in rows if row["op"] == 3] == np.repeat([c.theme for c in stream.cells], 4).tolist()
    assert [row["mode"] for row in rows if row["op"] == 3] == np.repeat([c.mode for c in stream.cells], 4).tolist()
    for row in rows:
        assert row["finish_reason"] == ("stop" if row["verified"] else "length")
        assert row["failure"] == ("NONE" if row["verified"] else "NO_ANSWER")
    counts = [sum(row["verified"] for row in rows if (row["op"], row["problem"]) == (2, p)) for p in range(5)]
    assert result["ops"]["2"]["verified"]["4"] == pytest.approx(pass_at_ks(np.array(counts), 4, [4]).mean())


def test_what_is_on_disk_is_not_done_again(tmp_path, monkeypatch):
    small_parts(monkeypatch)
    whole = evaluate_sampler(Oracle(), SETTINGS, seed=3)
    first = Oracle(stop_after=4)
    with pytest.raises(OSError, match="the disk is full"):
        evaluate_sampler(first, SETTINGS, seed=3, folder=open_folder(tmp_path / "e", SETTINGS, 3, resume=False))
    second = Oracle()
    folder = open_folder(tmp_path / "e", SETTINGS, 3, resume=True)
    assert evaluate_sampler(second, SETTINGS, seed=3, folder=folder) == whole
    assert first.asked + second.asked == [(op, at) for op in (2, 3) for at in (0, 2, 4)]
    third = Oracle()
    assert (
        evaluate_sampler(third, SETTINGS, seed=3, folder=open_folder(tmp_path / "e", SETTINGS, 3, resume=True)) == whole
    )
    assert third.asked == []
    # other ks and ranges are read from the same samples
    other = replace(SETTINGS, k=[1, 2, 3], ranges={})
    result = evaluate_sampler(third, other, seed=3, folder=open_folder(tmp_path / "e", other, 3, resume=True))
    assert list(result["ops"]["2"]["verified"]) == ["1", "2", "3"]
    # pass@1 is always there
    last = evaluate_sampler(third, replace(SETTINGS, k=[4, 2]), seed=3, folder=folder)
    assert list(last["ops"]["2"]["verified"]) == list(last["ops"]["2"]["answer"]) == ["1", "2", "4"]


def test_a_stop_request_ends_between_two_parts(tmp_path, monkeypatch):
    small_parts(monkeypatch)
    stop = StopRequest()

    class Stopping(Oracle):
        def sample(self, problems, n, seed):
            stop.requested = len(self.asked) == 1
            return super().sample(problems, n, seed)

    sampler = Stopping()
    with pytest.raises(KeyboardInterrupt):
        evaluate_sampler(sampler, SETTINGS, stop=stop, folder=open_folder(tmp_path, SETTINGS, 0, resume=False))
    assert len(sampler.asked) == 2
    assert len(list((tmp_path / "samples").iterdir())) == 2


def interrupted_behind(monkeypatch, places: int) -> None:
    """Ctrl-C as soon as so many problems of a batch are drawn."""
    stream = fr.Rollout.stream

    def interrupted(self, *arguments, **how):
        for count, drawn in enumerate(stream(self, *arguments, **how)):
            if count == places:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(30)  # ended by the signal
            yield drawn

    monkeypatch.setattr(fr.Rollout, "stream", interrupted)


@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize("places", [0, 2, 3])
def test_ctrl_c_keeps_what_is_finished(places, watched, tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    model, tokenizer = untrained()
    sampler = RolloutSampler(model, tokenizer, SETTINGS.sampling)
    how = {"seed": 3, "folder": open_folder(tmp_path / "whole", SETTINGS, 3, resume=False, texts=True)}
    whole = evaluate_sampler(sampler, SETTINGS, **how)
    with monkeypatch.context() as patches:
        interrupted_behind(patches, places)
        folder = open_folder(tmp_path / "e", SETTINGS, 3, resume=False, texts=True)
        with pytest.raises(KeyboardInterrupt), StopRequest.watch() if watched else nullcontext() as stop:
            evaluate_sampler(sampler, SETTINGS, seed=3, stop=stop, folder=folder)
    begun = list((tmp_path / "e" / "samples").iterdir())
    assert [path.name for path in begun] == (["op-02-0000.parquet.begun"] if places else [])
    assert not begun or len(folder.read_begun(2, 0).columns["problem"]) == places * SETTINGS.samples
    asked, sample = [], sampler.sample

    def counted(problems, *rest):
        asked.append(len(problems))
        return sample(problems, *rest)

    monkeypatch.setattr(sampler, "sample", counted)
    folder = open_folder(tmp_path / "e", SETTINGS, 3, resume=True, texts=True)
    assert evaluate_sampler(sampler, SETTINGS, seed=3, folder=folder) == whole
    assert asked == [5 - places, 5]
    tables = [pq.read_table(tmp_path / name / "samples") for name in ("e", "whole")]
    assert tables[0].equals(tables[1])
    assert len(list((tmp_path / "e" / "samples").iterdir())) == 2


def test_ctrl_c_in_transformers_keeps_what_is_finished(tmp_path, monkeypatch):
    from fastreason.evaluation.transformers_sampler import TransformersSampler

    settings = replace(SETTINGS, problems=3, samples=2, k=[1], max_new_tokens=3)
    sampler = TransformersSampler(saved_model(tmp_path / "model"), settings.sampling)
    whole = evaluate_sampler(sampler, settings, seed=3)
    generate, asked = sampler._generate, []

    def interrupted(prompt, *rest):
        asked.append(prompt)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return generate(prompt, *rest)

    monkeypatch.setattr(sampler, "_generate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate_sampler(sampler, settings, seed=3, folder=open_folder(tmp_path / "e", settings, 3, resume=False))
    folder = open_folder(tmp_path / "e", settings, 3, resume=True)
    assert evaluate_sampler(sampler, settings, seed=3, folder=folder) == whole
    assert len(asked) == 1 + 1 + 2 + 3


def test_one_process_evaluates_into_a_folder(tmp_path, capsys):
    """From Python, from the command line, and from Python while the command holds it."""
    model, tokenizer = untrained()
    how = {"problems": 1, "samples": 1, "max_new_tokens": 2, "tokenizer": tokenizer, "out": tmp_path / "e"}
    mixture = fr.Mixture.from_dict(PART | {"op": [2]})
    with held(tmp_path / "e" / ".lock", "a test"):
        with pytest.raises(ValueError, match=f"eval: .*e is in use by process {os.getpid()}"):
            fr.evaluate(model, mixture, **how)
        checkpoint = str(saved_model(tmp_path / "model"))
        assert main(["eval", checkpoint, "--op", "2", "--themes", "symbolic", "--out", str(tmp_path / "e")]) == 2
        assert f"is in use by process {os.getpid()}" in capsys.readouterr().err
    first = fr.evaluate(model, mixture, **how)
    (tmp_path / "e" / "results.json").write_text("")  # of a power cut
    assert fr.evaluate(model, mixture, **how).to_dict() == first.to_dict()
    assert json.loads((tmp_path / "e" / "results.json").read_text()) == first.to_dict()
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == ["evaluation.json", "results.json", "samples"]


def test_a_folder_of_something_else_is_refused(tmp_path, monkeypatch):
    open_folder(tmp_path / "e", SETTINGS, 3, resume=False)
    with pytest.raises(ValueError, match="holds an evaluation; continue it with --resume"):
        open_folder(tmp_path / "e", SETTINGS, 3, resume=False)
    with pytest.raises(ValueError, match="holds another evaluation: problems was 5, now it is 6"):
        open_folder(tmp_path / "e", replace(SETTINGS, problems=6), 3, resume=True)
    with pytest.raises(ValueError, match="seed was 3, now it is 4"):
        open_folder(tmp_path / "e", SETTINGS, 4, resume=True)
    with pytest.raises(ValueError, match="texts was False, now it is True"):
        open_folder(tmp_path / "e", SETTINGS, 3, resume=True, texts=True)
    with pytest.raises(ValueError, match="model was"):
        open_folder(tmp_path / "e", SETTINGS, 3, resume=True, model={"config.json": "0"})
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="not empty and not an evaluation"):
        open_folder(tmp_path / "full", SETTINGS, 3, resume=False)
    evaluate_sampler(Oracle(), SETTINGS, seed=3, folder=open_folder(tmp_path / "e", SETTINGS, 3, resume=True))
    (tmp_path / "e" / "samples" / "op-02-0000.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"op-02-0000.parquet cannot be read .* remove it, and --resume will redo it"):
        evaluate_sampler(Oracle(), SETTINGS, seed=3, folder=open_folder(tmp_path / "e", SETTINGS, 3, resume=True))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastreason\[parquet\]'"):
        open_folder(tmp_path / "new", SETTINGS, 3, resume=False)


def saved_model(folder: Path) -> Path:
    model, tokenizer = untrained()
    model.save_pretrained(folder, tokenizer)
    return folder


def test_killed_at_any_moment_it_goes_on_to_the_same_results(tmp_path, capsys):
    checkpoint = str(saved_model(tmp_path / "model"))
    flags = ["--op", "2-3", "--themes", "symbolic", "--max-value", "99", "--problems", "160", "--samples", "64"]
    command = ["eval", checkpoint, *flags, "--max-new-tokens", "8", "--threads", "1"]
    out = tmp_path / "killed"
    for wanted in (1, 3):
        resume = ["--resume"] if (out / "evaluation.json").exists() else []
        process = Command(*command, "--out", str(out), *resume)
        wait_until(lambda: len(list(out.glob("samples/*.parquet"))) >= wanted, process)  # noqa: B023
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert not (out / "results.json").exists()
    (out / "samples" / "op-03-0000.parquet.new").write_bytes(b"half")  # as a kill within a write leaves it
    assert main([*command, "--out", str(out), "--resume"]) == 0
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    results = [json.loads((folder / "results.json").read_text()) for folder in (out, tmp_path / "whole")]
    for result in results:
        assert result.pop("seconds") > 0
    assert results[0] == results[1]
    assert len(results[0]["ops"]["2"]["verified"]) == 64
    assert sorted(path.name for path in (out / "samples").iterdir()) == [
        f"op-{op:02}-{first:04}.parquet" for op in (2, 3) for first in (0, 64, 128)
    ]
    capsys.readouterr()


# --- ranks ---


def on_ranks(out: str) -> dict:
    """Run on every rank: in memory with a decoder, on disk with the oracle."""
    import fastreason.evaluation.evaluate

    fastreason.evaluation.evaluate._PART_SAMPLES = 8
    model, tokenizer = untrained()
    memory = evaluate(model, tokenizer, SETTINGS, seed=1)
    settings = replace(SETTINGS, problems=3)
    oracle = Oracle()
    disk = evaluate_sampler(oracle, settings, seed=2, folder=open_folder(out, settings, 2, resume=True))
    return {"memory": memory, "disk": disk, "asked": oracle.asked}


def test_two_ranks_are_one(tmp_path, monkeypatch):
    results = run_on_ranks(2, __name__, "on_ranks", str(tmp_path / "e"), out=tmp_path / "ranks")
    small_parts(monkeypatch)
    alone = json.loads(json.dumps(on_ranks(str(tmp_path / "alone"))))
    for result in results:
        assert result["memory"] == alone["memory"]
        assert result["disk"] == alone["disk"]
    asked = [[tuple(part) for part in result["asked"]] for result in (*results, alone)]
    assert asked[0] + asked[1] != asked[2]
    assert sorted(asked[0] + asked[1]) == asked[2]
    # one process goes on from what two have left
    again = on_ranks(str(tmp_path / "e"))
    assert again["asked"] == []
    assert json.loads(json.dumps(again["disk"])) == alone["disk"]


def test_problems_with_unknown_words_are_refused_before_the_work():
    model, tokenizer = untrained()
    with pytest.raises(ValueError, match=r"does not know every word of theme zoo with max_value 1000 \(op 2"):
        evaluate(model, tokenizer, EvaluateSettings(mixture=[{"op": [2]}], problems=1, samples=1, k=[1]))
    short = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), max_position_embeddings=8))
    with pytest.raises(ValueError, match=r"a prompt has \d+ tokens, but the model has only 8 positions"):
        evaluate(short, tokenizer, SETTINGS)


def test_a_run_keeps_its_samples_and_goes_on_within_an_evaluation(tmp_path, monkeypatch):
    small_parts(monkeypatch)
    changes = {
        "threads": 1,
        "pretrain.tokens": 2048,
        "evaluate.problems": 3,
        "evaluate.samples": 4,
        "evaluate.k": [1, 4],
    }
    values = load_recipe("smoke", changes | {"evaluate.files": True, "evaluate.max_new_tokens": 4}).to_dict()
    recipe = recipe_from_dict({k: v for k, v in values.items() if k not in ("midtrain", "rl")})
    sample, asked = RolloutSampler.sample, []

    def failing(self, problems, n, seed):
        asked.append(int(problems.ops[0]))
        if len(asked) == 3:
            raise OSError("the disk is full")
        return sample(self, problems, n, seed)

    monkeypatch.setattr(RolloutSampler, "sample", failing)
    with pytest.raises(OSError, match="the disk is full"):
        fr.run(recipe, tmp_path / "parts")
    resumed = fr.run(recipe, tmp_path / "parts", resume=True)
    assert asked == [2, 2, 3, 3, 3, 4, 4]  # the part that failed is done again, no other
    whole = fr.run(recipe, tmp_path / "whole")
    assert resumed["stages"] == whole["stages"]
    # the recipe's own ops, as far as they are evaluated
    assert list(whole["stages"]["pretrain"]["ranges"]) == ["in-distribution", "edge"]
    assert len(list((tmp_path / "parts" / "evaluation" / "pretrain" / "samples").iterdir())) == 6

"""The whole path: the contract of the run directory, and a run that is stopped or killed again and again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import fastreason as fr
from fastreason import runner
from fastreason.runtime.metrics_log import MetricsLog
from fastreason.runtime.stop_request import Interrupted, StopRequest
from fastreason.studies import run_study
from fastreason.studies.recipe import load_recipe
from fastreason.studies.run_study import format_results
from fastreason.studies.study import Study
from fastreason.training import checkpoint

from .processes import Command, wait_until
from .reports.test_study_page import read

STAGES = ["pretrain", "midtrain", "rl"]
# the smoke recipe: long enough to learn something, and shorter still
LEARNS = {"threads": 1, "pretrain.tokens": 150_000}
SHORT = {"threads": 1, "pretrain.tokens": 40_000, "midtrain.tokens": 10_000, "rl.steps": 3, "evaluate.problems": 4}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One uninterrupted run that learns."""
    folder = tmp_path_factory.mktemp("runs") / "smoke"
    return folder, fr.run("smoke", folder, overrides=LEARNS)


def comparable(results):
    """What must not depend on how often a run was stopped."""
    return {stage: scores["ops"] for stage, scores in results["stages"].items()}, results["tokens"]


def assert_unbroken(folder, short):
    """Results and weights of a run that was stopped are those of the unbroken one."""
    assert comparable(json.loads((folder / "results.json").read_text())) == short[1]
    for stage in STAGES:
        place = Path("checkpoints") / stage / "model.safetensors"
        assert (folder / place).read_bytes() == (short[0] / place).read_bytes()


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """The folder of an uninterrupted short run, and what must not depend on how often it was stopped."""
    folder = tmp_path_factory.mktemp("runs") / "short"
    return folder, comparable(fr.run("smoke", folder, overrides=SHORT))


def test_the_run_directory_keeps_its_contract(finished):
    folder, results = finished
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "code.json",
        "metrics.jsonl",
        "report.html",
        "results.json",
        "stages",
        "study.toml",
    ]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == sorted(STAGES)
    assert json.loads((folder / "results.json").read_text()) == results
    assert list(results["stages"]) == STAGES
    for scores in results["stages"].values():
        assert list(scores["ops"]) == ["2", "3", "4"]
        for entry in scores["ops"].values():
            values = [*entry["verified"].values(), entry["answer"]["1"], entry["process_accuracy"]]
            assert entry["verified"].keys() == {"1", "8"}
            assert all(0.0 <= value <= 1.0 for value in values)
            assert entry["verified"]["1"] <= entry["verified"]["8"]
            assert entry["verified"]["1"] <= entry["answer"]["1"] + 1e-12
    for table in ("seconds", "tokens", "evaluation_seconds"):
        assert list(results[table]) == STAGES
        assert all(value > 0 for value in results[table].values())
    assert results["machine"]["cores"] == os.cpu_count()
    assert (results["recipe"], results["seed"]) == ("smoke", 0)
    assert results["ranges"] == {"in-distribution": [2], "edge": [3]}
    assert Study.load(folder / "study.toml") == Study.of(load_recipe("smoke", LEARNS))


def test_a_run_is_a_study_of_one_variant(finished):
    """What a reader of studies looks for."""
    folder, results = finished
    assert (results["study"], results["seeds"], results["finished"]) == ("smoke", [0], True)
    keys = results["variants"]["smoke"]["runs"]["0"]
    for stage in STAGES:
        assert (folder / "checkpoints" / stage).resolve() == folder / "stages" / keys[stage]["unit"] / "checkpoint"
        assert results["units"][keys[stage]["unit"]]["tokens"] == results["tokens"][stage]
    assert Study.of(load_recipe("smoke", {"edge": [], "in_distribution": []})).ranges.keys() == {"all ops"}


def test_scores_are_told_apart_by_seen_and_unseen_graphs(finished):
    folder, results = finished
    for stage, scores in results["stages"].items():
        assert scores["graphs"].keys() == ({"training", "rl"} if stage == "rl" else {"training"})
        ops = scores["graphs"]["training"]["ops"]
        # op 2 and 3 have three graphs; op 4 was not trained on
        assert [list(ops[op]) for op in ("2", "3", "4")] == [["seen"], ["seen"], ["unseen"]]
        assert ops["4"]["unseen"]["verified"] == pytest.approx(scores["ops"]["4"]["verified"])
    lines = format_results(results).split("problems whose graph did not occur in training\n")[1].splitlines()
    number, share = lines[0].split(), lines[1].split()
    problems = results["stages"]["pretrain"]["ops"]["4"]["problems"]
    assert number == ["pretrain", "n", "0", "0", str(problems)]
    assert share[:4] == ["pretrain", "@1", "-", "-"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Seen and unseen graphs" in page and "seen in prompts" in page and f"% ({problems})" in page


def test_pretraining_learns(finished):
    _, results = finished
    assert results["stages"]["pretrain"]["ops"]["2"]["verified"]["1"] > 0.1


def test_every_checkpoint_is_finished_and_loads(finished):
    from transformers import PreTrainedTokenizerFast, Qwen2ForCausalLM

    folder, results = finished
    for stage in STAGES:
        place = folder / "checkpoints" / stage
        progress = checkpoint.load_progress(place)
        assert progress["finished"]
        assert progress["tokens"] == results["tokens"][stage]
        assert Qwen2ForCausalLM.from_pretrained(place).num_parameters() == checkpoint.load_model(place).num_parameters
        assert len(PreTrainedTokenizerFast.from_pretrained(place)) == len(fr.Tokenizer.from_pretrained(place))


def test_metrics_tell_the_whole_story(finished):
    folder, _ = finished
    lines = MetricsLog(folder / "metrics.jsonl").read()
    assert [line["stage"] for line in lines] == sorted((line["stage"] for line in lines), key=STAGES.index)
    rl = [line for line in lines if line["stage"] == "rl"]
    assert [line["step"] for line in rl] == list(range(1, 9))
    wanted = {"reward", "reward_by_op", "zero_advantage", "mean_length", "sample_s", "grade_s", "update_s"}
    assert wanted <= rl[0].keys()
    assert max(line.get("max_logprob_difference", 0.0) for line in rl) < 1e-3


def test_the_report_is_one_whole_page(finished):
    folder, results = finished
    page = read(folder)
    assert all(link.startswith("data:text/csv") for link in page.links.values())
    text = " ".join(" ".join(page.text).split())
    for heading in ("What each stage added", "Verified pass@k by range", "Reward", "Throughput", "Samples"):
        assert heading in text
    assert f"{100 * results['stages']['rl']['ops']['2']['verified']['1']:.1f} %" in text
    assert (folder / "report.html").read_text().count('class="trace"') >= 3


def test_a_finished_run_is_not_done_again(finished):
    folder, results = finished
    times = {path: path.stat().st_mtime_ns for path in (folder / "stages").rglob("*") if path.is_file()}
    assert len(times) > 20
    # settings that change no result may change
    assert fr.run("smoke", folder, resume=True, overrides=LEARNS | {"pretrain.prefetch": 0, "rl.keep": 2}) == results
    assert times == {path: path.stat().st_mtime_ns for path in times}


def test_a_missing_report_of_a_finished_run_is_written_again(finished):
    folder, results = finished
    (folder / "report.html").unlink()
    assert fr.run("smoke", folder, resume=True, overrides=LEARNS) == results
    assert (folder / "report.html").exists()


@pytest.mark.parametrize("stage", ["pretrain", "midtrain", "rl"])
def test_metrics_that_were_cut_behind_a_line_are_named_and_cost_nothing_else(finished, stage):
    folder, results = finished
    (path,) = folder.glob(f"stages/{stage}-*/metrics.jsonl")
    whole, joined = path.read_text(), (folder / "metrics.jsonl").read_text()
    lines = whole.splitlines(keepends=True)
    for kept in {0, len(lines) // 2, len(lines) - 1}:
        path.write_text("".join(lines[:kept]))
        with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: ends at step \d+ of \d+, so it was cut"):
            fr.run("smoke", folder, resume=True, overrides=LEARNS)
        assert (folder / "metrics.jsonl").read_text() == joined
    path.write_text(whole)
    assert fr.run("smoke", folder, resume=True, overrides=LEARNS) == results


def test_directories_that_do_not_fit_are_refused(finished, tmp_path):
    folder, _ = finished
    with pytest.raises(ValueError, match="holds a run; continue it with resume=True"):
        fr.run("smoke", folder)
    with pytest.raises(ValueError, match=r"started with another recipe; the first field that differs is rl\.steps"):
        fr.run("smoke", folder, resume=True, overrides=LEARNS | {"rl.steps": 9})
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="is not empty and not a run"):
        fr.run("smoke", tmp_path)
    with pytest.raises(ValueError, match="overrides require a recipe by name"):
        fr.run(load_recipe("smoke"), tmp_path / "x", overrides={"seed": 1})
    load_recipe("smoke").save(tmp_path / "recipe.toml")
    with pytest.raises(ValueError, match=r"holds a run of an earlier version .* finish it with that version"):
        fr.run("smoke", tmp_path, resume=True)


def test_stopping_at_every_step_changes_nothing(short, tmp_path, monkeypatch):
    begun = tmp_path / "parts" / "study.toml"
    stops = looks = 0

    def requested(self):
        nonlocal looks
        looks += 1
        return looks % 9 == 0

    monkeypatch.setattr(StopRequest, "requested", property(requested, lambda self, value: None), raising=False)
    while True:
        try:
            fr.run("smoke", tmp_path / "parts", resume=begun.exists(), overrides=SHORT)
            break
        except (Interrupted, KeyboardInterrupt):
            stops += 1
            assert stops < 200
    assert stops >= 5
    assert_unbroken(tmp_path / "parts", short)


def is_training(folder):
    return any(path.stat().st_size for path in folder.glob("stages/pretrain-*/metrics.jsonl"))


def start(folder, **more):
    flags = [text for name, value in (SHORT | more).items() for text in (f"--{name}", str(value))]
    return Command("run", "smoke", "--out", str(folder), "--resume", *flags)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_killed_again_and_again_is_the_unbroken_one(short, tmp_path, sent):
    """Signals at moments that do not follow the steps: before the first one, in training, evaluation and writing."""
    folder = tmp_path / "run"
    for delay in (0.0, 0.2, 0.4, 0.8):
        process = start(folder)
        time.sleep(delay)
        process.send_signal(sent)
        process.communicate()
        if sent == signal.SIGINT:
            # 130 from the command itself, -2 before it runs
            assert process.returncode in (0, 130, -signal.SIGINT)
    last = start(folder)
    _, errors = last.communicate()
    assert last.returncode == 0, errors
    assert_unbroken(folder, short)
    assert (folder / "report.html").exists()


@pytest.mark.parametrize("sent, status", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_in_training_leaves_a_checkpoint_and_its_status(tmp_path, sent, status):
    folder = tmp_path / "run"
    process = start(folder, **{"pretrain.tokens": 100_000_000, "pretrain.save-every-s": 1e9})
    wait_until(lambda: is_training(folder), process)
    assert not (folder / "checkpoints" / "pretrain").exists()
    process.send_signal(sent)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status
    assert "the same command with --resume to continue" in errors
    place = folder / "checkpoints" / "pretrain"
    assert checkpoint.find_checkpoint(place) == place
    assert checkpoint.load_progress(place)["step"] >= 10
    assert (folder / "metrics.jsonl").read_text() == next(folder.glob("stages/*/metrics.jsonl")).read_text()


def test_sigterm_ends_a_script_with_143(tmp_path):
    overrides = {"threads": 1, "pretrain.tokens": 10**9}
    code = f"import fastreason as fr; fr.run('smoke', {str(tmp_path / 'run')!r}, overrides={overrides})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    wait_until(lambda: is_training(tmp_path / "run"), process)
    process.terminate()
    assert process.wait(timeout=120) == 143


@pytest.mark.parametrize("every_s, stages", [(0.0, [["pretrain"], ["pretrain", "midtrain"], STAGES]), (1e9, [STAGES])])
def test_pages_are_written_between_stages_where_time_has_passed_and_once_at_the_end(
    short, tmp_path, monkeypatch, every_s, stages
):
    """And what a crash left before the recipe was written is no obstacle."""
    folder, seen = tmp_path / "run", []
    folder.mkdir()
    (folder / "study.toml.new-1").write_text("half a stu")
    monkeypatch.setattr(run_study, "_PAGE_EVERY_S", every_s)
    monkeypatch.setattr(
        runner, "write_report", lambda place: seen.append(json.loads((place / "results.json").read_text())["stages"])
    )
    fr.run("smoke", folder, resume=True, overrides=SHORT)
    assert [list(scores) for scores in seen] == stages
    assert_unbroken(folder, short)

"""Studies: variants and sizes, stages that are shared, processes that share the work, and what survives a crash."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tomli_w

import fastreason as fr
from fastreason.cli.main import main
from fastreason.evaluation.samplers import RolloutSampler, SamplingInterrupted
from fastreason.runtime import folder_lock
from fastreason.runtime.folder_lock import Lock
from fastreason.runtime.metrics_log import without_times
from fastreason.runtime.processes import this_process
from fastreason.runtime.stop_request import Interrupted, StopRequest
from fastreason.studies import run_study
from fastreason.studies.recipe import load_recipe
from fastreason.studies.study import Study, load_study
from fastreason.studies.work_units import code_version, distinct_units, study_runs

from ..processes import Command, wait_until
from ..ranks import run_on_ranks

TINY = str(Path(__file__).with_name("tiny.toml"))


def tiny(**more):
    return load_study(TINY, size="small", **more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The study, run by one process."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return folder, fr.run(TINY, folder, size="small")


def comparable(results):
    """What must not depend on who did what, when and how often."""
    scores = {
        key: {k: v for k, v in score.items() if not k.endswith("seconds")} for key, score in results["scores"].items()
    }
    claims = results["claims"]
    counts = {key: (unit["tokens"], unit.get("step")) for key, unit in results["units"].items()}
    return scores, claims, counts, results["variants"]


def weights(folder, results):
    return {
        key: (folder / "stages" / key / "checkpoint" / "model.safetensors").read_bytes()
        for key, unit in results["units"].items()
        if unit["kind"] != "evaluate"
    }


def test_a_variant_is_the_recipe_with_changes():
    study = tiny()
    assert list(study.variants) == ["none", "half", "all-rl"]
    assert [recipe.stage_names for recipe in study.variants.values()] == [
        ("pretrain",),
        ("pretrain", "midtrain", "rl"),
        ("pretrain", "rl"),
    ]
    half, all_rl = study.variants["half"], study.variants["all-rl"]
    # 5/3 tokens of supervised training for one of RL
    assert (half.midtrain.limit.tokens, half.rl.limit.tokens, all_rl.rl.limit.tokens) == (2000, 1200, 2400)
    assert half.pretrain.tokens == 4000
    assert load_study(TINY, size="large").variants["half"].pretrain.tokens == 40000
    assert half.rl.mixture == [
        {"op": [2, 3], "themes": ["symbolic", "symbolic-b"], "max_value": 99, "max_sentences": 4}
    ]
    assert tiny(seeds=[7]).seeds == [7]
    assert tiny(overrides={"pretrain.tokens": 9000}).variants["none"].pretrain.tokens == 9000


def test_a_resolved_study_survives_a_round_trip(tmp_path):
    study = tiny()
    study.save(tmp_path / "study.toml")
    assert Study.load(tmp_path / "study.toml") == study


def test_a_recipe_without_variants_is_one(tmp_path):
    recipe = load_recipe("smoke", {"seed": 3})
    study = load_study("smoke", {"seed": 3})
    assert study == Study.of(recipe) and study.is_run
    assert (study.variants, study.seeds) == ({"smoke": recipe}, [3])
    assert {name: [part.op for part in parts] for name, parts in study.ranges.items()} == {
        "in-distribution": [[2]],
        "edge": [[3]],
    }
    assert load_study("smoke", seeds=[0, 1]).seeds == [0, 1]
    text = tomli_w.dumps(recipe.to_dict() | {"seeds": [4, 5], "ranges": {"hard": [{"op": [4]}]}})
    (tmp_path / "seeds.toml").write_text(text)
    several = load_study(tmp_path / "seeds.toml", change=lambda base: replace(base, threads=1))
    assert (several.seeds, list(several.ranges), several.variants["smoke"].threads) == ([4, 5], ["hard"], 1)
    assert not several.is_run


def test_seeds_of_a_recipe_are_runs_of_their_own(tmp_path, capsys):
    short = replace(load_recipe("smoke", {"pretrain.tokens": 9000, "evaluate.problems": 2}), midtrain=None, rl=None)
    short.save(tmp_path / "short.toml")
    flags = ["--seeds", "1,2", "--threads", "1", "--pretrain.tokens", "2000"]
    assert main(["run", str(tmp_path / "short.toml"), "--out", str(tmp_path / "run"), *flags]) == 0
    out, error = capsys.readouterr()
    assert out.splitlines()[0].split() == ["verified", "pass@k,", "%", "op", "2", "op", "3", "op", "4"]
    assert "smoke, smoke, seed 2: evaluation after pretrain: done in " in error and "(4 of 4)" in error
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["finished"] and results["variants"]["smoke"]["runs"].keys() == {"1", "2"}
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_errors_name_what_is_wrong(tmp_path):
    def changed(old, new):
        text = Path(TINY).read_text()
        assert old in text
        (tmp_path / "changed.toml").write_text(text.replace(old, new))
        return load_study(tmp_path / "changed.toml", size="small")

    for old, new, message in [
        ('mixture = "easy"', 'mixture = "hard"', "mixture must be a list of parts or one of easy, both, pretrain, "),
        ('against = ["none", "all-rl"]', 'against = ["nine"]', "rises: no variant 'nine'; there are none, half, "),
        ('range = "easy"', 'range = "edge"', "rises: range must be one of .*easy.*, got 'edge'"),
        ("at_least = 0.05", "", "rises must have exactly one of at_least, at_most and within"),
        ("at_least = 0.05", "at_least = 0.05\nwithin = 0.1", "exactly one of at_least, at_most and within"),
        ("at_least = 0.05", "within = -0.1", r"within must be in 0 < x <= 1, got -0\.1"),
        ("at_least = 0.05", "at_least = 5", r"at_least must be in -1 \.\. 1, got 5"),
        ("k = 4\n", "k = []\n", "rises: k must be distinct numbers, at least one"),
        ("k = 4\n", "k = [1, 5]\n", r"k must be in 1 \.\. samples = 4, got 5"),
        ("at_least = 0.05", 'at_least = 0.05\ngraphs = "new"', "graphs"),
        ("k = 4\n", "k = 5\n", r"k must be in 1 \.\. samples = 4, got 5"),
        ("beta = 0.5", "beta = 1.5", r"beta must be in 0 \.\. 1, got 1.5"),
        ('compute = "4000 tokens"', "", "half has a beta, so the recipe must have compute"),
        ('compute = "4000 tokens"', 'compute = "many"', "budget: must be a number and one of"),
        ('remove = ["midtrain", "rl"]', 'remove = ["sft"]', "remove must be of pretrain, midtrain, rl, got 'sft'"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "seeds must be distinct numbers"),
        ('easy = [{ op = [2] }]', 'easy = [{ op = [5] }]', "op 5 of 'easy' is not evaluated"),
        ('against_stage = "pretrain"', 'against_stage = "midtrain"', "variant all-rl has no stage 'midtrain'"),
        ('name = "half"', 'name = "a/b"', "the name of a variant must be of letters"),
        ("beta = 0.5", "rl.stepz = 3", r"variants\.half\.rl\.stepz"),
    ]:  # fmt: skip
        with pytest.raises(ValueError, match=message):
            changed(old, new)
    with pytest.raises(ValueError, match=r"has sizes; set size \(--size\) to one of small, large"):
        load_study(TINY)
    with pytest.raises(ValueError, match="size must be one of small, large, got 'huge'"):
        load_study(TINY, size="huge")
    with pytest.raises(ValueError, match="it has variants; load it with load_study"):
        load_recipe(TINY, size="small")
    with pytest.raises(ValueError, match="size must be omitted, because it has only one, got 'laptop'"):
        load_study("smoke", size="laptop")


def test_stages_that_variants_share_are_one_unit():
    runs = study_runs(tiny())
    units = distinct_units(runs)
    # a seed: one pretrain, one midtrain, two rl, and the evaluations behind them
    assert [unit.kind for unit in units].count("pretrain") == 2
    assert len(units) == 2 * (1 + 1 + 2) * 2
    assert len(list(runs[0].units)) == 2 and len(list(runs[1].units)) == 6
    for i, unit in enumerate(units):
        assert unit.before is None or unit.before.key in {other.key for other in units[:i]}


@pytest.mark.parametrize("size", ["laptop", "paper"])
def test_findings_share_what_they_have_in_common(size):
    """1, 3 and 4 start from the same models; RL at the edge of 1 is the strict (laptop) or outcome reward of 4."""
    names = ("finding-1-edge", "finding-3-midtrain", "finding-4-process")
    runs = {name: study_runs(load_study(name, size=size, seeds=[0])) for name in names}
    assert len({run.stages["pretrain"][0].key for found in runs.values() for run in found}) == 1

    def rl_of(name, variant):
        return next(run.stages["rl"][0].key for run in runs[name] if run.variant == variant)

    assert rl_of("finding-1-edge", "edge") == rl_of("finding-4-process", "strict" if size == "laptop" else "outcome")


@pytest.mark.parametrize(
    "change",
    [
        {"pretrain.tokens": 4001},
        {"pretrain.optim.lr": 0.1},
        {"model.hidden_size": 64},
        {"pretrain.loss_on": "all"},
    ],
)
def test_whatever_determines_a_stage_changes_its_name(change):
    def keys(study):
        return {unit.key for unit in distinct_units(study_runs(study))}

    assert not keys(tiny()) & keys(tiny(overrides=change))


def test_what_does_not_determine_a_stage_leaves_its_name():
    def keys(study):
        return [unit.key for unit in distinct_units(study_runs(study))]

    aside = {"pretrain.save_every_s": 5.0, "rl.keep": 2, "threads": 2}
    aside |= {"rl.kv_memory_mb": 50.0, "evaluate.kv_memory_mb": 9.0}
    assert keys(tiny()) == keys(tiny(overrides=aside))
    later = tiny(overrides={"evaluate.problems": 5})
    a, b = distinct_units(study_runs(tiny())), distinct_units(study_runs(later))
    for one, other in zip(a, b, strict=True):
        assert (one.key == other.key) == (one.kind != "evaluate")
    seeds = [unit for unit in a if unit.kind == "pretrain"]
    assert seeds[0].key != seeds[1].key


def test_the_code_is_part_of_the_name(monkeypatch):
    before = distinct_units(study_runs(tiny()))[0].key
    monkeypatch.setattr("fastreason.studies.work_units.code_version", lambda: "another")
    assert distinct_units(study_runs(tiny()))[0].key != before


def test_the_study_directory_keeps_its_contract(finished):
    folder, results = finished
    assert sorted(path.name for path in folder.iterdir()) == [
        "code.json",
        "report.html",
        "results.json",
        "stages",
        "study.toml",
    ]
    assert results["finished"] and results["code"] == code_version()
    assert json.loads((folder / "results.json").read_text()) == results
    assert Study.load(folder / "study.toml") == tiny()
    units = distinct_units(study_runs(tiny()))
    assert set(results["units"]) == {unit.key for unit in units}
    for unit in units:
        names = {path.name for path in (folder / "stages" / unit.key).iterdir()}
        more = set() if unit.kind == "evaluate" else {"checkpoint", "graphs.npz", "metrics.jsonl"}
        assert names == {"unit.json", "done.json", "owner-0001"} | more
    assert [claim["verdict"] for claim in results["claims"]].count("not finished") == 0


def test_a_finished_study_is_not_done_again(finished, monkeypatch):
    folder, results = finished
    monkeypatch.setattr(run_study, "work", lambda *arguments: pytest.fail("a unit was done again"))
    again = fr.run(TINY, folder, size="small", resume=True)
    assert comparable(again) == comparable(results)


def test_what_a_power_failure_emptied_is_made_again(finished, tmp_path, capsys):
    folder, results = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    unit = next(key for key, unit in results["units"].items() if unit["kind"] == "midtrain")
    described = (copy / "stages" / unit / "unit.json").read_text()
    for cut in list((copy / "stages").glob("*/unit.json")):
        cut.write_bytes(cut.read_bytes()[:100])
    (copy / "stages" / unit / "done.json").write_text("")
    (copy / "results.json").write_text("")
    (copy / "report.html").unlink()
    assert comparable(fr.run(TINY, copy, size="small", resume=True)) == comparable(results)
    assert "done.json, line 1: incomplete" in capsys.readouterr().err
    assert comparable(json.loads((copy / "results.json").read_text())) == comparable(results)
    assert (copy / "report.html").exists()
    assert weights(copy, results) == weights(folder, results)
    assert (copy / "stages" / unit / "unit.json").read_text() == described
    for cut in (copy / "stages").glob("*/unit.json"):
        assert cut.read_bytes() == (folder / cut.relative_to(copy)).read_bytes()


def test_the_date_of_a_stage_is_that_of_its_end(finished, tmp_path):
    """A copy of a finished run, or its results made again on another day, keep it."""
    folder, results = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, copy_function=shutil.copyfile)
    for path in copy.glob("stages/*/done.json"):
        os.utime(path, (0, 0))
    again = fr.run(TINY, copy, size="small", resume=True)
    dates = {key: unit["date"] for key, unit in results["units"].items()}
    assert dates == {key: unit["date"] for key, unit in again["units"].items()}
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d UTC", date) for date in dates.values())


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer_config.json", "state/progress.json"])
def test_the_damaged_model_of_a_finished_stage_is_named(finished, tmp_path, file):
    folder, results = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    unit = next(key for key, unit in results["units"].items() if unit["kind"] == "rl")
    path = copy / "stages" / unit / "checkpoint" / file
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=rf"{file} has changed .* remove .*{unit}/done.json too"):
        fr.run(TINY, copy, size="small", resume=True)
    (copy / "stages" / unit / "done.json").unlink()
    path = copy / "stages" / unit / "checkpoint"
    path.rename(copy / "moved")
    assert comparable(fr.run(TINY, copy, size="small", resume=True)) == comparable(results)
    assert weights(copy, results) == weights(folder, results)


def test_an_evaluation_that_is_stopped_goes_on_within_it(finished, tmp_path, monkeypatch):
    """With Ctrl-C after one op and within the next; the samples are not kept, so nothing is left of them."""
    folder, results = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    unit = next(key for key, unit in results["units"].items() if unit["kind"] == "evaluate")
    (copy / "stages" / unit / "done.json").unlink()
    sampled, real = [], RolloutSampler.sample

    def sample(self, problems, count, seed):
        sampled.append(len(problems))
        if len(sampled) == 2:
            begun = real(self, problems[[0]], count, seed)
            raise SamplingInterrupted(np.array([0]), begun)
        return real(self, problems, count, seed)

    monkeypatch.setattr(RolloutSampler, "sample", sample)
    with pytest.raises(KeyboardInterrupt):
        fr.run(TINY, copy, size="small", resume=True)
    left = sorted(path.name for path in (copy / "stages" / unit / "unfinished" / "samples").iterdir())
    assert [name.split(".", 1)[1] for name in left] == ["npz", "npz.begun"]
    assert comparable(fr.run(TINY, copy, size="small", resume=True)) == comparable(results)
    assert sampled[2] == sampled[1] - 1  # not the problem that was finished, nor the op
    assert not (copy / "stages" / unit / "unfinished").exists()


def test_a_study_with_more_seeds_takes_over_what_is_there(finished, tmp_path, monkeypatch):
    """Studies that are given one folder for their stages share them."""
    folder, _ = finished
    done = []
    real = run_study.work
    monkeypatch.setattr(run_study, "work", lambda unit, *rest: (done.append(unit.seed), real(unit, *rest)))
    fr.run(TINY, tmp_path / "more", size="small", seeds=[1, 5], stages=folder / "stages")
    assert set(done) == {5}


def test_several_processes_give_what_one_gives(finished, tmp_path):
    folder, results = finished
    together = fr.run(TINY, tmp_path / "jobs", size="small", jobs=2)
    assert comparable(together) == comparable(results)
    assert weights(tmp_path / "jobs", together) == weights(folder, results)
    assert_each_was_done_once(tmp_path / "jobs")


def assert_each_was_done_once(folder):
    """By one owner each, and no step written down twice."""
    for place in (folder / "stages").iterdir():
        assert [path.name for path in place.glob("owner-*")] == ["owner-0001"], place
        lines = (
            [json.loads(line) for line in (place / "metrics.jsonl").read_text().splitlines()]
            if (place / "metrics.jsonl").exists()
            else []
        )
        steps = [without_times(line)["step"] for line in lines]
        assert len(steps) == len(set(steps))


def start(folder, *flags):
    return Command("run", TINY, "--size", "small", "--out", str(folder), *flags)


def test_shards_on_one_folder_give_what_one_process_gives(finished, tmp_path):
    folder, results = finished
    shards = [start(tmp_path / "run", "--shard", f"{i}/2") for i in range(2)]
    for shard in shards:
        _, errors = shard.communicate(timeout=300)
        assert shard.returncode == 0, errors
    assert_each_was_done_once(tmp_path / "run")
    # who was done first may have written results.json before the other was
    whole = fr.run(TINY, tmp_path / "run", size="small", resume=True)
    assert comparable(whole) == comparable(results)
    assert weights(tmp_path / "run", whole) == weights(folder, results)


def test_a_shard_does_its_part_only(tmp_path):
    results = fr.run(TINY, tmp_path / "run", size="small", shard="0/6")
    assert not results["finished"]
    assert sorted(unit["kind"] for unit in results["units"].values()) == ["evaluate", "pretrain"]
    assert {claim["verdict"] for claim in results["claims"]} == {"not finished"}
    assert "not finished" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_study_that_is_killed_goes_on_to_the_same_end(finished, tmp_path, jobs):
    """kill -9 as soon as some units are done and others begun; with several processes, of one that others outlive."""
    folder, results = finished
    process = start(tmp_path / "run", "--jobs", jobs)
    wait_until(lambda: len(list(tmp_path.glob("run/stages/*/done.json"))) >= 3, process)
    process.kill()
    process.communicate()
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("run/stages/*/done.json")}
    with pytest.raises(ValueError, match=r"holds a run; continue it with resume=True \(--resume\)"):
        fr.run(TINY, tmp_path / "run", size="small")
    whole = fr.run(TINY, tmp_path / "run", size="small", resume=True)
    assert comparable(whole) == comparable(results)
    assert weights(tmp_path / "run", whole) == weights(folder, results)
    assert done == {path: path.stat().st_mtime_ns for path in done}


def test_sigterm_stops_all_processes_with_143(tmp_path):
    process = start(tmp_path / "run", "--jobs", "2", "--pretrain.tokens", "100000000")
    wait_until(lambda: len(list(tmp_path.glob("run/stages/*/metrics.jsonl"))) == 2, process)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 143, errors
    assert "the same command with --resume to continue" in errors
    # both left a checkpoint and let go of their locks
    assert len(list(tmp_path.glob("run/stages/pretrain-*/checkpoint/state/progress.json"))) == 2
    assert len(list(tmp_path.glob("run/stages/pretrain-*/owner-0001/released"))) == 2


def test_a_request_to_stop_is_heard_between_stages(tmp_path):
    stop = StopRequest()
    stop.requested = True
    study = tiny()
    with pytest.raises(Interrupted):
        run_study.work_through(study, distinct_units(study_runs(study)), tmp_path, stop)


def test_directories_that_do_not_fit_are_refused(finished, tmp_path, monkeypatch):
    folder, _ = finished
    with pytest.raises(ValueError, match=r"another recipe; the first field that differs is variants\.all-rl\.pretrain"):
        fr.run(TINY, folder, size="small", resume=True, overrides={"pretrain.tokens": 5000})
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match="is not empty and not a run"):
        fr.run(TINY, tmp_path, size="small")
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        fr.run(TINY, folder, size="small", resume=True, jobs=0)
    with pytest.raises(ValueError, match="shard must have the form I/N with 0 <= I < N, got '2/2'"):
        fr.run(TINY, folder, size="small", resume=True, shard="2/2")
    monkeypatch.setattr(run_study, "code_version", lambda: "another")
    with pytest.raises(ValueError, match="was started with other code"):
        fr.run(TINY, folder, size="small", resume=True)


def test_a_process_that_fails_is_an_error(tmp_path, capfd):
    bad = {"pretrain.optim.matrix_lr": 10.0, "pretrain.optim.lr": 10.0, "pretrain.optim.weight_decay": 1.0}
    with pytest.raises(RuntimeError, match="of 2 processes failed"):
        fr.run(TINY, tmp_path / "run", size="small", overrides=bad | {"pretrain.tokens": 4_000_000}, jobs=2)
    # which of the two comes first depends on what overflows in tokens that pad a batch
    assert re.search("pretrain: the (loss is nan|gradient norm is not finite).* at step", capfd.readouterr().err)


def test_the_command_line_of_studies(capsys):
    assert (
        main(["run", TINY, "--size", "small", "--dry-run", "--jobs", "2", "--seeds", "3", "--pretrain.tokens", "9000"])
        == 0
    )
    plan = capsys.readouterr().out
    assert "tiny, size small: a decoder of" in plan
    assert "9 k tokens in 18 steps of 512" in plan
    assert "in 2 processes with a core each" in plan
    for arguments, message in [
        (["run", TINY], "has sizes; set size (--size) to one of small, large"),
        (["run", TINY, "--size", "small", "--shard", "3/2"], "shard must have the form I/N"),
        (["run", TINY, "--size", "small", "--seeds", "x"], "--seeds must have the form 7, 2-10 or 3,5,9, got 'x'"),
        (["run", "smoke", "--jobs", "0"], "jobs must be at least 1, got 0"),
        (["run", "smoke", "--seeds", "1,1"], "seeds must be distinct numbers"),
        (["run", "smoke", "--size", "laptop"], "size must be omitted"),
    ]:
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_the_table_has_a_line_for_each_stage_and_k():
    def scores(p):
        return {"ops": {"2": {"verified": {"1": p, "8": 1.0}}, "10": {"verified": {"1": 0.0, "8": 0.25}}}}

    runs = {seed: {"rl": {"evaluation": f"evaluate-{seed}"}} for seed in ("0", "1", "2")}
    results = {"variants": {"mine": {"runs": runs}}, "claims": []}
    # the third seed is not finished
    several = results | {"scores": {"evaluate-0": scores(0.25), "evaluate-1": scores(0.75)}}
    one = results | {"stages": {"rl": scores(0.5)}, "variants": {"mine": {"runs": {"0": runs["0"]}}}}
    for found in (one, several):
        lines = run_study.format_results(found).splitlines()
        assert lines[0].split() == ["verified", "pass@k,", "%", "op", "2", "op", "10"]
        assert lines[1].split() == ["rl", "@1", "50.0", "0.0"]
        assert lines[2].split() == ["rl", "@8", "100.0", "25.0"]


def ranks(folder):
    return fr.run(TINY, folder, size="small", seeds=[1])


def test_ranks_work_on_each_unit_together(finished, tmp_path):
    first, second = run_on_ranks(2, __name__, "ranks", str(tmp_path / "run"), out=tmp_path / "out")
    assert first == second == json.loads((tmp_path / "run" / "results.json").read_text())
    assert first["finished"] and (tmp_path / "run" / "report.html").exists()
    assert_each_was_done_once(tmp_path / "run")


# locks


def test_a_lock_has_one_owner(tmp_path):
    lock = Lock.acquire(tmp_path)
    assert lock is not None
    assert Lock.acquire(tmp_path) is None
    lock.release()
    again = Lock.acquire(tmp_path)
    assert again is not None and again.folder.name == "owner-0002"
    again.release()


def test_of_many_who_try_one_gets_the_lock(tmp_path):
    found, barrier = [], threading.Barrier(16)

    def attempt():
        barrier.wait()
        if (lock := Lock.acquire(tmp_path)) is not None:
            found.append(lock)

    threads = [threading.Thread(target=attempt) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    found[0].release()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["owner-0001"]


def dead_owner(tmp_path, **more):
    """A lock whose process was killed."""
    code = "from fastreason.runtime.folder_lock import Lock; "
    code += f"Lock.acquire(__import__('pathlib').Path({str(tmp_path)!r})); "
    process = subprocess.Popen([sys.executable, "-c", code + "print(flush=True); input()"], stdin=-1, stdout=-1)
    process.stdout.readline()
    assert Lock.acquire(tmp_path) is None
    process.kill()
    return process


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path):
    process = dead_owner(tmp_path)
    time.sleep(0.2)  # a zombie now: its parent has not asked how it ended
    lock = Lock.acquire(tmp_path)
    assert lock is not None and lock.folder.name == "owner-0002"
    lock.release()
    process.communicate()


def test_a_later_process_of_the_same_number_is_another(tmp_path):
    place = tmp_path / "owner-0001"
    place.mkdir()
    owner = this_process()
    (place / "owner.json").write_text(json.dumps(owner | {"start": "1"}))
    lock = Lock.acquire(tmp_path)
    assert lock is not None
    lock.release()


def test_an_owner_elsewhere_is_dead_when_its_heart_stops(tmp_path, monkeypatch):
    place = tmp_path / "owner-0001"
    place.mkdir()
    (place / "owner.json").write_text(json.dumps(this_process() | {"host": "elsewhere", "pid": 1}))
    now = 1000.0
    monkeypatch.setattr(folder_lock.time, "monotonic", lambda: now)
    assert Lock.acquire(tmp_path) is None
    now += folder_lock.STALE_S - 1
    assert Lock.acquire(tmp_path) is None
    (place / "heartbeat").write_text("1")  # it lives
    now += 2
    assert Lock.acquire(tmp_path) is None
    now += folder_lock.STALE_S + 1
    lock = Lock.acquire(tmp_path)
    assert lock is not None
    lock.release()


def test_an_owner_before_the_last_start_of_this_machine_is_dead(tmp_path):
    place = tmp_path / "owner-0001"
    place.mkdir()
    owner = this_process()
    if not owner["boot"]:
        pytest.skip("this system does not tell when it was started")
    (place / "owner.json").write_text(json.dumps(owner | {"boot": "before"}))
    lock = Lock.acquire(tmp_path)
    assert lock is not None
    lock.release()


def test_who_was_taken_for_dead_learns_it(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_lock, "BEAT_S", 0.05)
    lost = threading.Event()
    lock = Lock.acquire(tmp_path, on_lost=lost.set)
    assert lock is not None
    (tmp_path / "owner-0002").mkdir()
    assert lost.wait(10)
    lock.release()

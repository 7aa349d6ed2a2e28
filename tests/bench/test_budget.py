"""The bench of fixed budgets: which model a budget gets, what it buys on paper, and a miniature from end to end."""

import json
import re
import xml.etree.ElementTree as ElementTree

import pytest

from bench.flop_budget import run as budget_run
from bench.flop_budget.peers import Compared, missing
from bench.flop_budget.picture import picture
from bench.flop_budget.report import page, records
from bench.flop_budget.run import main
from bench.flop_budget.study import compute_optimal_weights, load_case
from bench.harness.environment import new_run
from bench.harness.records import read_run
from fastreason.runtime.stop_request import Interrupted
from fastreason.studies.dry_run import Rates
from fastreason.studies.work_units import distinct_units, study_runs
from fastreason.training.budget import Budget

pytestmark = pytest.mark.usefixtures("one_thread")
MINIATURE = {
    "model.hidden_size": 32,
    "model.num_hidden_layers": 1,
    "pretrain.batch_tokens": 512,
    "midtrain.batch_tokens": 512,
    "rl.prompts": 4,
    "rl.samples": 4,
    "rl.max_new_tokens": 12,
    "evaluate.problems": 4,
    "evaluate.samples": 4,
    "evaluate.k": [1, 4],
    "evaluate.max_new_tokens": 12,
}
PEAKS = {"matmul_one_core": 1e11}


@pytest.mark.parametrize(
    "flop, model", [(1e12, "tiny"), (1e13, "tiny"), (1e14, "1m"), (1e15, "3m"), (1e16, "10m"), (1e18, "100m")]
)
def test_a_budget_gets_the_model_nearest_to_the_compute_optimal_one(flop, model):
    case = load_case(flop)
    assert case.model == model
    # the table is no coarser than a factor of 2.5 above its least model
    assert model == "tiny" or 1 / 2.5 < case.weights / compute_optimal_weights(flop) < 2.5


def test_every_split_spends_the_budget_and_what_is_pre_trained_is_shared():
    case = load_case(1e13, seeds=[0])
    for split in case.splits:
        recipe = case.study.variants[split.name]
        spent = {stage: Budget.parse(getattr(recipe, stage).budget).flop for stage in recipe.stages}
        assert sum(spent.values()) == pytest.approx(1e13, rel=1e-6)
        assert spent == {stage: pytest.approx(split.share(stage) * 1e13, rel=1e-5) for stage in recipe.stages}
    units = distinct_units(study_runs(case.study))
    # all of the budget, and the 60 % that the other four splits begin with
    assert [unit.kind for unit in units].count("pretrain") == 2


def test_what_cannot_be_a_budget_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"--flop must be in 1e\+10 .. 1e\+19, got 1e\+20"):
        load_case(1e20)
    with pytest.raises(ValueError, match=r"--splits must be of 100-0-0, 60-40-0, .*, got 'half'"):
        load_case(1e13, only=["half"])
    changed = tmp_path / "budget.toml"
    changed.write_text(budget_run.RECIPE.read_text().replace("midtrain = 0.4", "midtrain = 0.5"))
    with pytest.raises(ValueError, match="the shares of 60-40-0 must be >= 0 and sum to 1"):
        load_case(1e13, recipe=changed)


def test_a_dry_run_says_what_every_budget_buys_up_to_1e19_and_does_nothing(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("fastreason.studies.dry_run.measured_rates", lambda *arguments: Rates(1e12, 5e11, 1e-5, 256))
    main(["--flop", "1e19", "1e13", "--splits", "100-0-0", "60-30-10", "--dry-run", "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
    small, large = capsys.readouterr().out.split("1e+19 FLOP")
    assert "1e+13 FLOP: tiny, 0.17 M parameters" in small and "100m, 103.43 M parameters" in large
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in large.splitlines() if " pretrain " in line]
    share, flop, tokens, documents, steps, time = rows[0][2:]
    assert (share, flop) == ("100 %", "1e+19")
    # 6 P and attention at 100m, a few hundred tokens a document: 1.5e10 tokens, in batches of 524,288
    count = float(tokens.replace(",", ""))
    assert 1.4e10 < count < 1.62e10
    assert float(steps.replace(",", "")) == pytest.approx(count / 524_288, abs=1)
    assert 100 < count / float(documents.replace(",", "")) < 500
    assert time == "231.5 days"  # 1e19 / 5e11 seconds
    assert re.search(r"60-30-10 \| +rl \| +10 % \| +1.*e\+18", large)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study of seconds: stopped behind its first seed, gone on with, and called once more.

    Returns its folder, its documents, the files before the last call, and the page of when it was stopped.
    """

    def stop(*_):
        raise Interrupted

    out, docs = (tmp_path_factory.mktemp(name) for name in ("out", "docs"))
    command = ["--flop", "1e10", "--seeds", "0,1", "--splits", "100-0-0", "60-30-10", "--peer-steps", "1"]
    command += ["--out", str(out / "budget"), "--docs", str(docs), "--set", json.dumps(MINIATURE)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(budget_run, "machine_peaks", lambda: PEAKS)
        with patch.context() as stopping:
            stopping.setattr(budget_run, "measure", stop)
            assert main(command) == 130
        stopped = (docs / "budget.md").read_text()
        assert main(command) == 0
        before = {path: path.stat().st_mtime_ns for path in (out / "budget").rglob("*") if path.is_file()}
        assert main(command) == 0
    return out / "budget", docs, before, stopped


def test_a_miniature_is_run_measured_and_written(finished):
    out, docs, *_ = finished
    facts = json.loads((docs / "budget" / "results.json").read_text())
    (results,) = facts["budgets"]
    assert (results["flop"], results["model"], results["clock"]) == (1e10, "tiny", "cpu")
    for name, entry in results["splits"].items():
        assert entry["seeds"] == [0, 1]
        spent = [sum(values) for values in zip(*(c["flop"] for c in entry["stages"].values()), strict=True)]
        # a stage ends with the step that passes its share
        assert all(1e10 <= flop < 1.15e10 for flop in spent), (name, spent)
        assert all(value > 0 for value in entry["seconds"])
        for effects in entry["scores"].values():
            low, high = effects["1"]["interval"]
            assert low <= effects["1"]["mean"] <= high
    assert set(results["splits"]["60-30-10"]["against"]) == {"in-distribution", "edge", "hard"}
    assert [one["kind"] for one in results["compared"]] == ["supervised", "rl", "evaluate"]
    text = (docs / "budget.md").read_text()
    assert "## 1e+10 FLOP: tiny" in text and "| 60-30-10 |     2 |" in text
    assert "seconds for a whole budget are an extrapolation of measured steps**" in " ".join(text.split())
    assert (docs / "budget" / "1e+10.toml").read_text() == (out / "1e+10" / "study.toml").read_text()
    ElementTree.parse(docs / "budget.svg")


def test_a_stopped_study_writes_what_is_finished(finished):
    *_, stopped = finished
    assert "| 60-30-10 |     1 |" in stopped and "| peer stack, s |" in stopped and "Steps of both" not in stopped


def test_its_records_hold_what_was_timed_and_nothing_extrapolated(finished):
    out, *_ = finished
    run = read_run(out / "run.json")
    whole = [record for record in run.records if record.what.startswith("a whole budget")]
    assert {record.provider for record in whole} == {"fastreason"}
    assert all(len(record.times_s) == 2 and record.flop >= 1e10 for record in whole)
    step = next(record for record in run.records if record.what == "a training step")
    assert (step.unit, step.work, step.clock, step.peak) == ("tokens", 512, "cpu", "matmul")
    peers = {record.provider for record in run.records} - {"fastreason"}
    kinds = {"supervised": "transformers.Trainer", "rl": "TRL GRPOTrainer", "evaluate": "transformers.generate"}
    assert peers == {name for kind, name in kinds.items() if missing(kind) is None}
    assert set(run.skipped) == {name for kind, name in kinds.items() if missing(kind) is not None}


def test_a_second_call_does_nothing_again(finished):
    out, _, before, _ = finished
    now = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.is_file()}
    changed = {path.name for path in now if now[path] != before.get(path)}
    assert changed <= {"run.json"}


def effect(mean, half=0.05):
    return {"mean": mean, "interval": [mean - half, mean + half], "by_seed": [mean]}


def made_up():
    """Two budgets of two splits; the second budget has not finished its second split."""
    column = {"tokens": [100.0, 120.0], "samples": [10.0, 12.0], "step": [5, 6], "flop": [6e12, 6e12]}
    all_results = []
    facts = {"mean_length": 9.0, "silent_groups": 0.5}
    compared = [
        Compared("supervised", "tokens", 64.0, [1.0, 2.0, 3.0], [6.0, 8.0, 10.0], 1e9, {"batch_tokens": 64}),
        Compared("rl", "steps", 1.0, [1.0], [10.0], 1e9, {"start": "60-0-40"}, facts),
    ]
    for flop, edge in ((1e13, 0.2), (1e14, 0.5)):
        scores = {
            "edge": {"1": effect(edge), "8": effect(edge + 0.2)},
            "hard": {"1": effect(0.0, 0), "8": effect(0, 0)},
        }
        pretrain, rl = column | {"seconds": [10.0, 30.0]}, column | {"seconds": [4.0, 8.0]}
        plain = {"note": "", "shares": {"pretrain": 1.0}, "seeds": [0, 1], "stages": {"pretrain": pretrain}}
        plain |= {"seconds": [10.0, 30.0], "evaluation_seconds": [1.0, 1.0], "scores": scores, "peer_seconds": 80.0}
        both = plain | {"stages": {"pretrain": pretrain, "rl": rl}, "seconds": [14.0, 38.0], "peer_seconds": 140.0}
        both |= {"against": {"edge": {"1": effect(0.1)}, "hard": {"1": effect(0.0, 0)}}}
        unfinished = {"note": "", "shares": {}, "seeds": []}
        splits = {"100-0-0": plain, "60-0-40": both if flop == 1e13 else unfinished}
        results = {"flop": flop, "model": "tiny", "weights": 165_568, "peak": 1e11, "code": "", "clock": "cpu"}
        results |= {
            "seeds": [0, 1, 2] if flop == 1e14 else [0, 1],
            "splits": splits,
            "ranges": {"edge": [{"op": [6, 7]}], "hard": [{"op": [8]}]},
        }
        results["compared"] = [vars(one) | {"ratio": one.ratio} for one in compared]
        all_results.append(results)
    return all_results, compared


def test_the_page_tells_floors_what_is_unfinished_and_the_peers_cost():
    all_results, compared = made_up()
    run = new_run(records(all_results[0], compared), threads=1, peaks=PEAKS)
    text = page(all_results, run, "budget", budget_run.on_paper(load_case(1e15, only=["60-0-40"])))
    small, large = text.split("## 1e+14 FLOP")
    large, paper = large.split("## Budgets that were not run")
    # 6e14 FLOP at 6 P = 14.5 MFLOP a token of 3m, attention more, logits of prompts less
    (row,) = [line for line in paper.splitlines() if line.startswith("| 1e+15")]
    assert "| 60-0-40 |" in row and 3.8e7 < float(row.split("|")[4]) < 4.3e7
    assert "- hard: every split is below 1 % at pass@1: the floor" in small and "- edge" not in small
    assert "Not finished when this was written: 60-0-40; seeds 2 of 100-0-0." in large and "Not finished" not in small
    row = next(line for line in small.splitlines() if line.startswith("| 60-0-40"))
    cells = [cell.strip() for cell in row.split("|")[1:-1]]
    # medians over seeds: 110 tokens, 11 documents; 5.5 steps of RL; 1.2e13 FLOP in 26 s of 1e11 a second
    assert cells[:5] == ["60-0-40", "2", "110", "11", "6"]
    assert cells[7:] == ["1.2e+13", "26", "462", "140", "5.4 x"]
    assert "20.0 [15.0, 25.0]" in small and "+10.0 [+5.0, +15.0]" in small
    assert "Scoring the end" not in small  # no evaluation was measured
    assert "training: 64 batch tokens" in small and "as 60-0-40 starts it (samples of 9 tokens, 50 %" in small


def test_the_picture_has_a_line_a_split_and_the_peers_dashed():
    all_results, _ = made_up()
    text = picture(all_results)
    ElementTree.fromstring(text)
    # edge alone: nothing happens on hard problems; two splits by FLOP, by seconds, and the peers'
    lines = re.findall(
        r'<polyline class="(s\d(?: dashed)?)" points="([^"]*)"', text.split('<text class="axis" x="52"')[0]
    )
    panels = [(style, len(points.split())) for style, points in lines][:-2]
    assert panels == [("s0", 2), ("s1", 1), ("s0", 2), ("s0 dashed", 2), ("s1", 1), ("s1 dashed", 1)]
    assert "prefers-color-scheme: dark" in text
    # powers of 10 and 3 times those, however many points there are: 20 to 140 seconds, and a margin
    ticks = re.findall(r'class="tick"[^>]*middle">([^<]*)<', text)
    assert ticks == ["1e+13", "3e+13", "1e+14", "30", "100"]

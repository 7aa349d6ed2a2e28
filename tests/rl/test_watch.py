"""The watch of reinforcement learning: what it warns of, once, in the log, on the terminal and on the page."""

import json
from dataclasses import replace

import numpy as np
import pytest

import fastreason as fr
from fastreason.rl.watch import RULES, WINDOW, Watch
from fastreason.runtime.metrics_log import MetricsLog
from fastreason.runtime.stop_request import Interrupted, StopRequest

from .test_loop import small_model
from .test_policy import MIX, run_stage, settings

LIMIT = 100
GOOD = {"finished": 1.0, "mean_length": 30.0, "entropy": 0.3, "true_reward": 0.6}


def told(lines, watch=None):
    """(number of the step from 1 on, name of the rule) of each warning."""
    watch = watch or Watch(LIMIT)
    return [(step, text.split(":")[0]) for step, line in enumerate(lines, 1) for text in watch.look(line)]


@pytest.mark.parametrize(
    "change, want",
    [
        # the mean of five steps passes the border at the second or fifth bad one
        ({"finished": 0.79}, [(15, "finished")]),
        ({"finished": 0.2}, [(12, "finished")]),
        ({"finished": 0.81}, []),
        ({"entropy": 0.02}, [(15, "entropy")]),
        ({"entropy": 0.04}, []),
        ({"true_reward": 0.45}, [(14, "true reward")]),
        ({"true_reward": 0.51}, []),
        ({"mean_length": 91.0}, [(15, "length at the limit")]),
        ({"mean_length": 88.0}, []),
        ({"mean_length": 14.0}, [(15, "length")]),
        ({"mean_length": 16.0}, []),
        ({"mean_length": 100.0, "finished": 0.0}, [(12, "finished"), (15, "length at the limit")]),
    ],
)
def test_each_rule_speaks_once_and_by_name(change, want):
    assert told([GOOD] * 10 + [GOOD | change] * 30) == want
    # one bad step among good ones is none
    assert told(([GOOD] * 9 + [GOOD | {"finished": 0.5}]) * 3) == []


def test_a_stage_is_compared_with_its_own_beginning():
    bad = {"finished": 0.1, "mean_length": 95.0, "entropy": 0.001}
    assert told([bad] * 40) == []
    assert told([bad] * 10 + [GOOD] * 10) == [(14, "length")]
    assert told([GOOD] * (WINDOW - 1)) == told([]) == []


def test_steps_without_an_update_have_no_entropy():
    silent = {"finished": 1.0, "mean_length": 30.0}
    assert told([silent] * 7 + [GOOD] * 5 + [silent] * 9 + [GOOD | {"entropy": 0.001}] * 5) == [(26, "entropy")]


def test_it_goes_on_where_it_was():
    lines = [GOOD] * 10 + [{"finished": 0.2, "mean_length": 99.0, "entropy": 0.001, "true_reward": 0.1}] * 10
    for stop in (0, 3, 11, 13, 16):
        first = Watch(LIMIT)
        found = told(lines[:stop], first)
        later = told(lines[stop:], Watch(LIMIT, json.loads(json.dumps(first.state()))))
        assert found + [(step + stop, name) for step, name in later] == told(lines)
    assert {name for _, name in told(lines)} == RULES.keys() - {"length"}


class Babbling:
    """A policy whose samples no longer end, from the seventh rollout on, and fill the limit."""

    def __init__(self, monkeypatch, done=0):
        self.calls, real = done, fr.Rollout.generate

        def generate(engine, *args, **kwargs):
            out = real(engine, *args, **kwargs)
            self.calls += 1
            lost = self.calls > 6
            lengths = np.minimum(out.lengths, 6 if lost else 2)
            return replace(out, lengths=lengths, finished=np.full(len(lengths), not lost))

        monkeypatch.setattr(fr.Rollout, "generate", generate)


def train(folder, monkeypatch, done=0, stop_after=None):
    tokenizer = fr.Tokenizer.for_mixtures([MIX])
    chosen = settings(prompts=2, samples=2, steps=14, max_new_tokens=6, save_every_s=0.0)
    stop = StopRequest()

    def reward(verdicts):
        stop.requested = len(MetricsLog(folder / "metrics.jsonl").read()) + 1 == stop_after
        return np.zeros(len(verdicts))

    with monkeypatch.context() as patch:
        Babbling(patch, done)
        run_stage(small_model(tokenizer), tokenizer, chosen, folder, stop, reward=reward)


def warnings_of(folder):
    lines = MetricsLog(folder / "metrics.jsonl").read()
    return {line["step"]: line["warnings"] for line in lines if "warnings" in line}


def test_a_policy_that_forgets_to_stop_is_told_of(tmp_path, monkeypatch, capsys):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    train(tmp_path / "whole", monkeypatch)
    said = capsys.readouterr().err
    found = warnings_of(tmp_path / "whole")
    assert found.keys() == {8, 11}
    assert found[8] == [
        "finished: fewer samples finish before the limit; finished went from 1 to 0.6 (means of 5 steps)"
    ]  # fmt: skip
    assert found[11][0].startswith("length at the limit: samples reach max_new_tokens; mean_length went from ")
    for step, texts in found.items():
        assert said.count(f"rl: warning at step {step}: {texts[0]}") == 1
    # a stage that was stopped between the fall and the warning says the same, and not twice
    with pytest.raises(Interrupted):
        train(tmp_path / "parts", monkeypatch, stop_after=9)
    train(tmp_path / "parts", monkeypatch, done=9)
    assert warnings_of(tmp_path / "parts") == found

"""The questions of the suites that ship: each contestant that needs no process of its own does its work once."""

from importlib import import_module

import pytest
import torch

pytest.importorskip("pytest_benchmark")
pytest.importorskip("triton")

from bench.__main__ import COUNTS, SUITES
from bench.harness.pytest_plugin import suite_module
from bench.harness.questions import Done, Settings, Unavailable
from bench.kernels.operations import OPS
from bench.suites import kernels, rl, rl_worker, train_worker
from fastreason.kernels.triton_support import INTERPRETED

natively = pytest.mark.skipif(INTERPRETED, reason="whole models are not for the interpreter")
TIMED = [name for name in SUITES if name not in COUNTS]
IN_PROCESS = ("tasks", "grade", "grade_files", "groups", "rollout", "kernels")


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("suite", TIMED)
def test_every_question_is_another_and_ours_comes_first(suite, quick):
    questions = list(import_module(suite_module(suite)).questions(Settings(quick=quick)))
    assert questions
    keys = [(q.what, tuple(sorted(q.shape.items()))) for q in questions]
    assert len(set(keys)) == len(keys)
    for question in questions:
        assert next(iter(question.contestants)) == "fastreason"
        # the time of a process that sleeps between its calls cannot be calibrated
        if any(each.clock and not question.gpu for each in question.contestants.values()):
            assert question.turn_s is None


@natively
@pytest.mark.parametrize("suite", IN_PROCESS)
def test_contestants_do_their_work(suite):
    answers = {}
    for question in import_module(suite_module(suite)).questions(Settings(quick=True)):
        for provider, contestant in question.contestants.items():
            # compilation takes seconds, and is torch's
            if contestant.missing() or provider == "torch.compile":
                continue
            try:
                work = contestant.start()
            except Unavailable:
                assert provider == "Liger-Kernel"
                continue
            done = work()
            answers[question.name, provider] = done.work if isinstance(done, Done) else done
            if isinstance(done, Done) and question.peak is not None:
                needed = {"matmul": done.flop, "copy": done.bytes}[question.peak]
                assert needed is not None
                assert needed > 0
    assert answers
    assert min(answers.values()) > 0


@natively
def test_what_all_sample_is_as_much():
    """Nobody ends early, so rates of tokens are of the same tokens."""
    question = next(import_module("bench.suites.rollout").questions(Settings(quick=True)))
    counted = set()
    for contestant in question.contestants.values():
        if not contestant.missing():
            done = contestant.start()()
            counted.add(done.work if isinstance(done, Done) else done)
    assert counted == {2 * 2 * 4}


def test_shapes_of_reinforcement_learning_are_those_of_its_workers():
    for name, size in rl_worker.SIZES.items():
        assert rl.SHAPE[name] == {"prompts": size.prompts, "samples": size.samples, "tokens": size.new_tokens}


@natively
def test_our_step_of_reinforcement_learning_reports_its_parts():
    report = rl_worker.Report()
    step = rl_worker.our_step(rl_worker.SIZES["quick"], kl_coef=0.04, threads=1)
    step(report)
    one = report.flop
    step(report)
    assert (report.work, report.parts.keys()) == (2, {"sampling", "grading", "updating"})
    assert 1.5 * one < report.flop < 2.5 * one
    without = rl_worker.Report()
    rl_worker.our_step(rl_worker.SIZES["quick"], kl_coef=0.0, threads=1)(without)
    # five passes with a reference model, four without
    assert without.flop == pytest.approx(0.8 * one)


@natively
def test_contestants_of_training_take_the_same_documents():
    setting = train_worker.Setting.of("tiny")
    report = train_worker.Report()
    train_worker.fastreason_step(setting)(report)
    assert report.parts["waiting"] > 0
    documents = setting.documents()
    ours = sum(len(next(documents)[0]) for _ in range(setting.size.batch_documents))
    # about as many tokens a step: ours are cut off by tokens, theirs by documents
    assert report.work == pytest.approx(ours, rel=0.2)
    batch = [
        {"input_ids": torch.ones(n, dtype=torch.int64), "labels": torch.ones(n, dtype=torch.int64)} for n in (3, 5)
    ]
    padded = train_worker.padded(batch, multiple=4)
    assert padded["input_ids"].shape == (2, 8)
    assert (padded["attention_mask"].sum(), (padded["labels"] == -100).sum()) == (8, 8)


def test_on_a_gpu_every_operation_is_timed_by_its_clock(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    questions = list(kernels.questions(Settings()))
    assert [q.what.partition(",")[0] for q in questions] == list(OPS)
    for question in questions:
        assert question.gpu
        assert question.shape["dtype"] == "bfloat16"
        assert {each.clock for each in question.contestants.values()} == {kernels.cuda_clock}
    assert "flash-attn" in questions[list(OPS).index("attention")].contestants

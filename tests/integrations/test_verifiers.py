"""The taskset of verifiers: its problems, and the verdicts on replies. Where the library is absent, as in make test, a
stand-in has the classes that the adapter derives from."""

import asyncio
import importlib
import importlib.util
import sys
import types
from itertools import islice
from typing import Generic, TypeVar

import pydantic
import pytest

import fastreason as fr
from fastreason.integrations.text_reward import questions

A, B, C = TypeVar("A"), TypeVar("B"), TypeVar("C")
MODULE = "fastreason.integrations.verifiers"


class Task(Generic[A, B, C]):
    def __init__(self, data, config=None):
        self.data, self.config = data, config


class Taskset(Generic[A, B]):
    def __init__(self, config):
        self.config = config


class TaskData(pydantic.BaseModel):
    id: str | None = None
    prompt: str | None = None


def stand_in():
    names = {"Task": Task, "Taskset": Taskset, "TaskData": TaskData, "State": object, "Trace": object}
    names |= {"TaskConfig": pydantic.BaseModel, "TasksetConfig": pydantic.BaseModel}
    module = types.ModuleType("verifiers.v1")
    vars(module).update(names, reward=lambda function: function, metric=lambda function: function)
    return module


@pytest.fixture
def adapter(monkeypatch):
    if importlib.util.find_spec("verifiers") is None:
        monkeypatch.setitem(sys.modules, "verifiers", types.ModuleType("verifiers"))
        monkeypatch.setitem(sys.modules, "verifiers.v1", stand_in())
        monkeypatch.setattr(sys.modules["verifiers"], "v1", sys.modules["verifiers.v1"], raising=False)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    yield importlib.import_module(MODULE)
    sys.modules.pop(MODULE, None)


def tasks(adapter, count, **settings):
    config = adapter.FastreasonConfig(op=[3, 4], themes=["zoo", "symbolic"], seed=5, **settings)
    return list(islice(adapter.FastreasonTaskset(config).load(), count))


def test_tasks_are_the_problems_of_the_stream(adapter):
    batch = fr.TaskStream(fr.Mixture.uniform([3, 4], ["zoo", "symbolic"]), seed=5, split="rl")[0:70]
    found = tasks(adapter, 70)  # more than are drawn at once
    assert [task.data.prompt for task in found] == questions(batch)
    assert [task.data.solution for task in found] == list(batch.solutions)
    assert len({task.key for task in found}) == 70
    assert adapter.FastreasonTaskset.INFINITE


def test_a_reply_is_graded_without_its_stop(adapter):
    task = tasks(adapter, 1)[0]
    steps, _, answer = task.data.solution.rstrip(".").rpartition(" Answer: ")
    for reply, verified, right in (
        (f" {steps}. </solution> <answer> {answer}", 1.0, 1.0),
        (f" </solution> <answer> {answer}", 0.0, 1.0),
        ("nothing", 0.0, 0.0),
    ):
        trace = types.SimpleNamespace(last_reply=reply)
        assert asyncio.run(task.score(trace)) == asyncio.run(task.verified(trace)) == verified
        assert asyncio.run(task.answer_correct(trace)) == right


def test_the_reward_is_a_setting_of_the_task(adapter):
    task = tasks(adapter, 1, task=adapter.FastreasonTaskConfig(reward="outcome"))[0]
    answer = task.data.solution.rstrip(".").rpartition(" Answer: ")[2]
    assert task.report(f" </solution> <answer> {answer}")["score"] == 1.0


def test_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "verifiers", None)
    monkeypatch.setitem(sys.modules, "verifiers.v1", None)
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastreason\[verifiers\]'"):
        importlib.import_module(MODULE)

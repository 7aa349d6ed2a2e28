"""What an adapter says where its library is not installed."""

import importlib
import sys

import pytest

import fastreason as fr


def test_datasets_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastreason\[datasets\]'"):
        fr.to_datasets(fr.TaskStream(fr.Mixture.uniform(op=[2])))


def test_reasoning_gym_says_what_to_install(monkeypatch):
    monkeypatch.delitem(sys.modules, "fastreason.integrations.reasoning_gym", raising=False)
    for name in ("reasoning_gym", "reasoning_gym.coaching", "reasoning_gym.factory"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastreason\[reasoning-gym\]'"):
        importlib.import_module("fastreason.integrations.reasoning_gym")

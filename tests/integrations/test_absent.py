"""What an adapter says where its library is not installed."""

import sys

import pytest

import fastreason as fr


def test_datasets_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastreason\[datasets\]'"):
        fr.to_datasets(fr.TaskStream(fr.Mixture.uniform(op=[2])))

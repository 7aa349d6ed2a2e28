"""The package as it is imported."""

import importlib
from pathlib import Path

import torch

from fastreason.kernels import swiglu


def test_a_copy_under_another_name_registers_no_operator(monkeypatch):
    """transformers imports `kernels` if it can; a second registration would free the operators of the first."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    copy = importlib.import_module("kernels")
    assert not hasattr(copy, "swiglu")
    assert swiglu(torch.zeros(3, 4)).shape == (3, 2)

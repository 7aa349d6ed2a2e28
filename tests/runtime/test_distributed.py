from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fastreason.runtime import distributed

from ..ranks import run_on_ranks


def exchange() -> dict[str, Any]:
    rank = distributed.rank()
    rows = np.arange(6, dtype=np.int32).reshape(3, 2)[: rank + 1] + 10 * rank
    share = distributed.share(5)
    return {
        "size": distributed.world_size(),
        "main": distributed.is_main(),
        "sum": distributed.sum_over_ranks(torch.tensor([1.0, rank])).tolist(),
        "any": [distributed.any_rank(rank == 1), distributed.any_rank(False)],
        "rows": [part.tolist() for part in distributed.gather_arrays(rows)],
        "share": [share.start, share.stop],
    }


def test_one_process_is_a_group_of_one():
    assert exchange() == {
        "size": 1, "main": True, "sum": [1.0, 0.0], "any": [False, False], "rows": [[[0, 1]]], "share": [0, 5],
    }  # fmt: skip


def test_ranks_of_a_machine_share_its_cores(monkeypatch):
    monkeypatch.setattr(distributed.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert [distributed.cpu_threads(wanted) for wanted in (0, 2, 16)] == [8, 2, 16]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert [distributed.cpu_threads(wanted) for wanted in (0, 1, 2, 16)] == [2, 1, 2, 2]


def test_two_ranks_tell_each_other(tmp_path):
    first, second = run_on_ranks(2, __name__, "exchange", out=tmp_path)
    same = {"size": 2, "sum": [2.0, 1.0], "any": [True, False], "rows": [[[0, 1]], [[10, 11], [12, 13]]]}
    assert first == same | {"main": True, "share": [0, 2]}
    assert second == same | {"main": False, "share": [2, 5]}

from __future__ import annotations

import gc
import socket
import weakref
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


def test_what_holds_the_group_in_a_cycle_goes_before_it(monkeypatch):
    """Gloo's threads must not outlive the interpreter, as they would with a DDP model in a cycle of references."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    names = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    gone: list[bool] = []
    gc.disable()  # nothing else may collect it
    try:
        with distributed.process_group():
            model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
            model.itself = [model]  # type: ignore[assignment]
            weakref.finalize(model, lambda: gone.append(torch.distributed.is_initialized()))
            del model
            assert not gone
    finally:
        gc.enable()
    assert gone == [True]

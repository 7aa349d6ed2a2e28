"""Runs a function of a test module on several ranks."""

from __future__ import annotations

import importlib
import json
import os
import socket
from pathlib import Path
from typing import Any

from fastreason.runtime import distributed

from .processes import forked, redirect

ROOT = Path(__file__).parent.parent


def run_on_ranks(num_ranks: int, module: str, function: str, *arguments: Any, out: Path) -> list[Any]:
    """What `module.function(*arguments)` returns on every rank of a gloo group, with the environment that torchrun
    gives its ranks; JSON both ways."""
    out.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        forked(_run_rank, rank, num_ranks, port, module, function, json.dumps(arguments), out)
        for rank in range(num_ranks)
    ]
    for process in processes:
        process.join(300)
    for rank, process in enumerate(processes):
        process.kill()  # where it still waits
        assert process.exitcode == 0, (out / f"{rank}.err").read_text()[-4000:]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(num_ranks)]


def _run_rank(rank: int, num_ranks: int, port: int, module: str, function: str, arguments: str, out: Path) -> None:
    redirect([out / f"{rank}.out", out / f"{rank}.err"])
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_ranks, "LOCAL_WORLD_SIZE": num_ranks}
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
    os.environ.update({name: str(value) for name, value in (ranks | address).items()})
    with distributed.process_group():
        result = getattr(importlib.import_module(module), function)(*json.loads(arguments))
        (out / f"{rank}.json").write_text(json.dumps(result))

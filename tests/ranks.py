"""Runs a function of a test module on several ranks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_SCRIPT = """
import importlib, json, sys
from fastreason.runtime import distributed
module, function, out, arguments = sys.argv[1:]
with distributed.process_group():
    result = getattr(importlib.import_module(module), function)(*json.loads(arguments))
    open(f"{out}/{distributed.rank()}.json", "w").write(json.dumps(result))
"""


def run_on_ranks(num_ranks: int, module: str, function: str, *arguments: Any, out: Path) -> list[Any]:
    """What `module.function(*arguments)` returns on every rank of a gloo group, started by torchrun; JSON both ways."""
    out.mkdir(parents=True, exist_ok=True)
    script = out / "rank.py"
    script.write_text(_SCRIPT)
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}", str(script)]
    done = subprocess.run(
        [sys.executable, *launch, module, function, str(out), json.dumps(arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads((out / f"{rank}.json").read_text()) for rank in range(num_ranks)]

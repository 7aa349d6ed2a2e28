"""Ahead-of-time compilation for sm_90: every kernel stays within its budget."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")


def test_kernels_stay_within_their_budgets():
    # in a process of its own, because the interpreter decorates kernels for good when they are imported
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "bench.audit", "--arch", "90"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("\n") >= 5


def test_figures_are_read_from_the_tools_text():
    from bench.audit import over_budget, read_figures

    usage = "Function k:\n  REG:40 STACK:0 SHARED:32 LOCAL:16 CONSTANT[0]:592"
    code = """
        /*0000*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0010*/                   STL [R1], R4 ;
        /*0020*/                   STG.E desc[UR4][R2.64], R4 ;
    """
    figures = read_figures(usage, code, 32)
    assert (figures.registers, figures.spilled_bytes, figures.shared_bytes) == (40, 20, 32)
    assert (figures.widest_access_bits, figures.scalar_accesses, figures.instructions) == (128, 1, 3)
    assert figures.occupancy(num_warps=4) == 0.75
    budget = {
        "registers": 32, "spilled_bytes": 0, "shared_bytes": 32, "widest_access_bits": 128, "scalar_accesses": 1,
    }  # fmt: skip
    assert over_budget(figures, budget) == ["registers 40 > 32", "spilled_bytes 20 > 0"]

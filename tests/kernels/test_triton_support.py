"""The package where Triton is not installed: imports, runs its definitions, and says what a kernel needs."""

import os
import subprocess
import sys

import pytest

ABSENT = (
    "import sys; sys.modules['triton'] = None; import torch; import fastreason.kernels as k; x = torch.ones(2, 8); "
)


def run(code):
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", ABSENT + code]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.parametrize(
    "code",
    [
        "k.swiglu(x)",
        "k.rms_norm(x, torch.ones(8))",
        "k.cross_entropy(x, torch.tensor([1, 2]))",
        "k.policy_loss(x, torch.tensor([1, 2]), torch.ones(2)).statistics()",
        "k.attention(x.view(2, 2, 4), x.view(2, 2, 4), x.view(2, 2, 4), k.Segments.from_lengths([2]))",
    ],
)
def test_definitions_run_without_triton(code):
    done = run(code)
    assert done.returncode == 0, done.stderr


def test_a_kernel_says_what_it_needs():
    done = run("from fastreason.kernels.swiglu import _forward_kernel; _forward_kernel[(1,)](x)")
    assert done.returncode == 1
    assert "RuntimeError: fastreason.kernels: Triton is not installed; `pip install triton`" in done.stderr

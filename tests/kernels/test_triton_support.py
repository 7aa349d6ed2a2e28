"""The package where Triton is not installed: imports, runs its definitions, and says what a kernel needs."""

from ..processes import run_in_forks

ABSENT = (
    "import sys; sys.modules['triton'] = None; import torch; import fastreason.kernels as k; x = torch.ones(2, 8); "
    "one = x.view(2, 2, 4)"
)
DEFINITIONS = [
    "k.swiglu(x)",
    "k.rms_norm(x, torch.ones(8))",
    "k.cross_entropy(x, torch.tensor([1, 2]))",
    "k.policy_loss(x, torch.tensor([1, 2]), torch.ones(2)).statistics()",
    "k.attention(one, one, one, k.Segments.from_lengths([2]))",
]
KERNEL = "from fastreason.kernels.swiglu import _forward_kernel; _forward_kernel[(1,)](x)"


def test_definitions_run_without_triton_and_a_kernel_says_what_it_needs():
    *definitions, kernel = run_in_forks(ABSENT, [*DEFINITIONS, KERNEL])
    assert definitions == [""] * len(DEFINITIONS)
    assert "RuntimeError: fastreason.kernels: Triton is not installed; `pip install triton`" in kernel

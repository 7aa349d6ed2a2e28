"""Where kernels run: on a GPU where there is one; on CPU their definitions, or under TRITON_INTERPRET=1 the kernels."""

from __future__ import annotations

import pytest
import torch

from fastreason.kernels.triton_support import INTERPRETED

from . import interpreted_bfloat16, interpreted_index


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


# neither kernels nor what runs where they do: the same under the interpreter as without it
WITHOUT = ["test_audit.py", "test_cpu_kernels.py", "test_cpu_tiles.py", "test_sample.py", "test_triton_support.py"]
collect_ignore = WITHOUT if INTERPRETED else []
if INTERPRETED:
    interpreted_bfloat16.repair()
    interpreted_index.repair()


needs_triton = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="needs TRITON_INTERPRET=1 or a GPU"
)

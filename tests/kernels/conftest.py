"""Where kernels run: on a GPU where there is one; on CPU their definitions, or under TRITON_INTERPRET=1 the kernels."""

from __future__ import annotations

import pytest
import torch
from fastreason.kernels.triton_support import INTERPRETED


@pytest.fixture(scope="session")
def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


needs_triton = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="needs TRITON_INTERPRET=1 or a GPU"
)

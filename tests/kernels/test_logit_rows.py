"""Tiles of rows, and sums over rows in a fixed order."""

import pytest
import torch

from fastreason.kernels.logit_rows import alignment, reduce_rows, row_class, row_tiles

from .conftest import needs_triton


# 2,200 in one warp of bf16: 2,048 and a tail of 8 elements a thread; powers of two have no tail
@pytest.mark.parametrize(
    "width, warps, size, tiles",
    [
        (2200, 1, 2, (2048, 256)), (2200, 4, 2, (2048, 1024)), (2200, 1, 4, (2048, 256)), (2199, 1, 2, (2048, 256)),
        (2048, 1, 2, (2048, 0)), (1, 1, 2, (1, 0)), (3, 1, 2, (2, 2)), (257, 1, 2, (256, 256)),
        (8191, 8, 2, (4096, 4096)),
    ],
)  # fmt: skip
def test_tiles_of_a_row(width, warps, size, tiles):
    assert row_tiles(width, warps, size) == tiles


def test_tiles_cover_every_row_and_little_more():
    for width in range(1, 8193):
        body, tail = row_tiles(width, 1, 2)
        assert width <= body + tail
        assert body + tail <= 2 * width
        assert 0.625 < width / row_class(width) <= 1.25


def test_alignment():
    assert [alignment(n) for n in (2200, 2199, 768, 72, 2)] == [8, 1, 16, 8, 2]
    assert alignment(2304, 2200) == 8


@needs_triton
@pytest.mark.parametrize("N", [1, 2048, 2049, 5000])
def test_sums_and_maxima_over_rows(N, device):
    values = torch.randn(3, N, generator=torch.Generator().manual_seed(0)).to(device)
    values[2, 0] = -float("inf")
    found = reduce_rows(values, 2)
    torch.testing.assert_close(found[:2].double(), values[:2].double().sum(1), atol=1e-4, rtol=1e-6)
    assert found[2] == values[2].max()
    assert torch.equal(reduce_rows(values, 2), found)

"""The simulated cache under attention: what it must count by hand, and that the order of tiles suits it."""

import numpy as np
import pytest

from bench.kernels.l2_cache import lengths_between, simulated, traffic
from fastreason.kernels import attention_tiles


def test_traffic_by_hand():
    """Two heads of three programs, one at a time; a cache of two blocks, and one of none."""
    programs = [[0, 1], [0, 1], [2, 0]]
    found = simulated(programs, 10, 0, 20, together=1)
    assert (found.programs, found.floor) == (2 * 60, 2 * 30)
    # of each head: 0 and 1 from memory, 0 and 1 from the cache, 2 and then 0, which had to go
    assert found.memory == 2 * 40
    assert simulated(programs, 10, 0, 0, together=1).memory == 2 * 60
    assert simulated(programs, 10, 0, 1e9, together=6).of_floor == 1.0
    # what a program alone reads or writes takes the place of two blocks
    assert simulated(programs, 10, 20, 20, together=1).memory == 2 * 60


@pytest.mark.parametrize("kernel", ["attention_forward", "attention_backward_dkv"])
def test_tiles_of_a_segment_meet_in_the_cache(kernel, monkeypatch):
    """At most 1.3 times the floor, where tiles sorted by their work alone need far more."""
    tokens, cache_mb = (65_536, 8.0) if kernel == "attention_forward" else (65_536, 30.0)
    assert traffic(lengths_between(300, 700, tokens), kernel, cache_mb).of_floor <= 1.3

    def longest_first(columns, segment, prefix, work):
        return np.ascontiguousarray(np.stack(columns, axis=1)[np.argsort(-work, kind="stable")].astype(np.int32))

    monkeypatch.setattr(attention_tiles, "_in_order", longest_first)
    assert traffic(lengths_between(300, 700, tokens), kernel, cache_mb).of_floor > 1.5

"""The CUDA sampler, compiled for the CPU with tests/cuda in CUDA's place: the bits of the core for every setting.

What a GPU adds (its scheduling, its memory) is left to the same comparison on a GPU; a missing barrier shows here too,
because the threads of a block run in several orders.
"""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from fastreason import _core
from fastreason.kernels import sample

from ..kernels.test_sample import SETTINGS, keys, random_logits

ROOT = Path(__file__).parents[2]
FORWARDS, BACKWARDS, SHUFFLED = 0, 1, 7


@pytest.fixture(scope="module")
def emulated(tmp_path_factory):
    compiler = shutil.which("c++")
    assert compiler, "a C++20 compiler is what the package is built with"
    library = tmp_path_factory.mktemp("cuda") / "emulated.so"
    flags = ["-std=c++20", "-O1", "-shared", "-fPIC", "-ffp-contract=off", f"-I{ROOT}/tests/cuda", f"-I{ROOT}/csrc"]
    subprocess.run([compiler, *flags, ROOT / "tests/cuda/emulated_sampler.cpp", "-o", library], check=True)
    function = ctypes.CDLL(str(library)).emulated_sample

    def run(logits_NV, seed, key, *, order=FORWARDS, shared_limit=227 * 1024, **settings):
        logits_NV = torch.as_tensor(logits_NV)
        N, V = logits_NV.shape
        arrays = [np.ascontiguousarray(x, dtype=np.int64) for x in key.values()]
        out = (np.zeros(N, np.int64), np.zeros(N, np.float32), np.zeros(N, np.float32))
        chosen = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0} | settings
        status = function(
            order, shared_limit, ctypes.c_void_p(logits_NV.data_ptr()),
            [torch.float32, torch.float16, torch.bfloat16].index(logits_NV.dtype), ctypes.c_int64(N), V,
            ctypes.c_int64(logits_NV.stride(0)), ctypes.c_uint64(seed),
            *(ctypes.c_void_p(x.ctypes.data) for x in arrays),
            ctypes.c_double(chosen["temperature"]), chosen["top_k"], ctypes.c_double(chosen["top_p"]),
            ctypes.c_double(chosen["min_p"]), *(ctypes.c_void_p(x.ctypes.data) for x in out),
        )  # fmt: skip
        assert status == 0
        return out

    return run


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
# one token, part of a tile, a tile, an odd tail, the vocabulary of the model class
@pytest.mark.parametrize(
    "V, order", [(1, FORWARDS), (300, BACKWARDS), (512, SHUFFLED), (1025, SHUFFLED), (2200, BACKWARDS)]
)
def test_every_bit_is_the_cores(emulated, settings, V, order):
    logits_NV, key = random_logits(4, V, seed=V), keys(4)
    want = _core.sample(logits_NV.numpy(), 4, *key.values(), **settings)
    for a, b in zip(emulated(logits_NV, 4, key, order=order, **settings), want, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("settings", [SETTINGS[0], SETTINGS[-1]], ids=str)
def test_half_precision_counts_as_float32(emulated, dtype, settings):
    logits_NV, key = random_logits(6, 900).to(dtype)[:, 3:], keys(6)
    want = sample(logits_NV, seed=4, **key, **settings)
    for a, b in zip(emulated(logits_NV, 4, key, **settings), want, strict=True):
        np.testing.assert_array_equal(a, b.numpy())


def test_a_row_that_shared_memory_cannot_hold_is_read_again(emulated):
    logits_NV, key = random_logits(4, 1500), keys(4)
    want = _core.sample(logits_NV.numpy(), 4, *key.values(), **SETTINGS[-1])
    for a, b in zip(emulated(logits_NV, 4, key, shared_limit=4096, **SETTINGS[-1]), want, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_row_without_a_distribution_is_token_minus_one(emulated):
    logits_NV, key = random_logits(4, 600), keys(4)
    logits_NV[1, 3], logits_NV[2], logits_NV[3, 5] = torch.nan, -torch.inf, torch.inf
    tokens, logprobs, full = emulated(logits_NV, 4, key, top_k=3)
    assert tokens[0] >= 0 and (tokens[1:] == -1).all()
    assert np.isnan(logprobs[1:]).all() and np.isnan(full[1:]).all()

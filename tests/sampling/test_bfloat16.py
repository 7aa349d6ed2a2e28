"""The core in bfloat16: nearer to float64 than torch and transformers in bfloat16, at any size, in any memory."""

import copy
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason import _core
from fastreason.kernels import Segments
from fastreason.sampling.cpp_backend import CoreDecoder

from ..qwen2_oracle import qwen2
from .test_cpp_backend import SHAPES, flat, sequences_of, tamed, torch_logits

KERNELS = _core.decode_kernels("bfloat16")


def in_core(model: fr.Decoder, kernel: str = "auto", dtype: torch.dtype = torch.bfloat16) -> CoreDecoder:
    decoder = CoreDecoder(model, kernel, dtype)
    decoder.load()
    return decoder


def core_logits(decoder: CoreDecoder, prompts: list[np.ndarray], answers: list[np.ndarray]) -> np.ndarray:
    """Behind the last token of the answers, one behind each prompt, decoded token by token."""
    core, count = decoder.core, len(prompts)
    core.reserve(count, len(answers[0]))
    numbers, logits = core.prefill(*flat(prompts))
    for step, tokens in enumerate(np.transpose(answers)):
        logits = core.decode(np.arange(count), numbers, np.full(count, step), tokens)
    return logits


def rounded(model: fr.Decoder) -> fr.Decoder:
    return copy.deepcopy(model).to(torch.bfloat16)


def errors(logits: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.sqrt(np.mean((logits - wanted) ** 2)))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_nearer_to_float64_than_those_of_torch(shape, kernel):
    model = tamed(SHAPES[shape])
    narrow = rounded(model)
    # prompts and answers of odd lengths too, over blocks of 16 and 32 tokens and tiles of 96 and 192 rows
    prompts = sequences_of(model.config, [1, 200, 16, 97, 30])
    answers = sequences_of(model.config, [37] * 5, seed=1)
    whole = [np.concatenate(pair) for pair in zip(prompts, answers, strict=True)]
    wanted = torch_logits(copy.deepcopy(narrow).double(), whole)
    with torch.no_grad():
        segments = Segments.from_lengths([len(sequence) for sequence in whole])
        hidden = narrow(torch.from_numpy(np.concatenate(whole)).long(), segments)
        torchs = narrow.logits(hidden[segments.start + segments.length - 1]).double().numpy()
    found = errors(core_logits(in_core(model, kernel), prompts, answers), wanted)
    # worst seen: 0.58 of it
    assert 0 < found < 0.8 * errors(torchs, wanted)


def test_the_instruction_computes_what_two_of_float32_do():
    """Where the processor has it: its products and sums are those of the AVX-512 kernel, to the bit."""
    model = tamed(SHAPES["head dim 72"])
    prompts, answers = sequences_of(model.config, [33, 150]), sequences_of(model.config, [9, 9], seed=1)
    logits = [core_logits(in_core(model, k), prompts, answers) for k in KERNELS if k.startswith("avx512")]
    assert all(np.array_equal(other, logits[0]) for other in logits[1:])


def test_tiles_are_used_where_the_processor_has_them():
    info = Path("/proc/cpuinfo")
    flags = info.read_text().split() if info.exists() else []
    assert (KERNELS[0] == "amx_bf16") == ("amx_bf16" in KERNELS) == ("amx_bf16" in flags)
    assert "amx_bf16" not in _core.decode_kernels("float32")


REFUSED = """
import ctypes, mmap, sys

class Stack(ctypes.Structure):
    _fields_ = [("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("bytes", ctypes.c_size_t)]

memory = mmap.mmap(-1, 8192)
start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert ctypes.CDLL(None).sigaltstack(ctypes.byref(Stack(start, 0, 8192)), None) == 0
from fastreason import _core
print(*_core.decode_kernels("bfloat16"))
"""


def test_without_tiles_where_a_stack_for_signals_could_not_hold_them():
    """The system then refuses them; what a sampler runs with is the next kernel."""
    kernels = subprocess.run([sys.executable, "-c", REFUSED], check=True, capture_output=True, text=True).stdout.split()
    assert kernels == [k for k in KERNELS if k != "amx_bf16"]


def test_weights_are_rounded_as_torch_rounds_them():
    model = tamed(SHAPES["nothing fits"])
    with torch.no_grad():
        weight = model.blocks[0].down.weight
        # three ties, which go to the even one, and just above one
        weight[0, :4] = torch.tensor([1 + 2**-8, 1 + 3 * 2**-8, -1 - 2**-8, 1 + 2**-8 + 2**-20])
    prompts, answers = sequences_of(model.config, [20, 5]), sequences_of(model.config, [3, 3], seed=1)
    logits = core_logits(in_core(model), prompts, answers)
    assert np.array_equal(logits, core_logits(in_core(rounded(model)), prompts, answers))
    assert np.array_equal(logits, core_logits(in_core(rounded(model).float()), prompts, answers))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("value", [math.nan, math.inf, 3.4e38])
def test_weights_that_are_no_numbers(kernel, value):
    """What they reach is what torch says, the rest as without them; bfloat16 has no 3.4e38, which becomes infinity."""
    model = tamed(SHAPES["nothing fits"])
    prompts = [np.array([1, 2, 3], np.int32), np.array([1, 2, 16], np.int32)]
    clean = core_logits(in_core(model, kernel), prompts, [np.array([5], np.int32)] * 2)
    with torch.no_grad():
        # of the second prompt, and as the head's row in a panel of its own
        model.embedding.weight[16, 0] = value
    logits = core_logits(in_core(model, kernel), prompts, [np.array([5], np.int32)] * 2)
    assert np.array_equal(logits[0, :16], clean[0, :16])
    assert not np.isfinite(logits[0, 16])
    assert np.isnan(logits[1]).all()


class Raw:
    """A decoder of sizes that no model has, with random weights."""

    def __init__(self, precision: str, kernel: str = "auto", **sizes: int) -> None:
        s, rng = (
            dict(hidden=25, heads=3, kv_heads=1, head_dim=6, intermediate=7, vocab=37) | sizes,
            np.random.default_rng(0),
        )
        angles = rng.uniform(0, 6, (64, s["head_dim"] // 2))
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
        self.core = _core.CpuDecoder(**s, layers=1, eps=1e-6, precision=precision, kernel=kernel, cos=cos, sin=sin)
        qkv, attended = (s["heads"] + 2 * s["kv_heads"]) * s["head_dim"], s["heads"] * s["head_dim"]

        def matrix(outputs: int, inputs: int) -> np.ndarray:
            return (rng.standard_normal((outputs, inputs)) * inputs**-0.5).astype(np.float32)

        self.ends = [matrix(s["vocab"], s["hidden"]), matrix(s["vocab"], s["hidden"]), np.ones(s["hidden"], np.float32)]
        self.layer = [
            np.ones(s["hidden"], np.float32),
            matrix(qkv, s["hidden"]),
            np.zeros(qkv, np.float32),
            matrix(s["hidden"], attended),
            np.ones(s["hidden"], np.float32),
            matrix(2 * s["intermediate"], s["hidden"]),
            matrix(s["hidden"], s["intermediate"]),
        ]
        self.core.load(*self.ends, [self.layer])

    def logits(self, steps: int = 5) -> np.ndarray:
        vocab = len(self.ends[0])
        (prompt,), first = self.core.prefill(np.array([3, 1, 4, 1, 5]) % vocab, [0, 5])
        return np.concatenate([first, *(self.core.decode([0], [prompt], [i], [i % vocab]) for i in range(steps))])


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(
    "sizes",
    [{}, {"hidden": 1, "intermediate": 1}, {"intermediate": 33, "vocab": 1}, {"hidden": 33, "head_dim": 2}],
    ids=str,
)
def test_sizes_that_are_odd(kernel, sizes):
    """The last k of a product has no partner in its pair."""
    narrow, wide = Raw("bfloat16", kernel, **sizes), Raw("float32", **sizes)
    for raw in (narrow, wide):
        raw.core.reserve(1, 16)
    # of logits around 1; worst seen: 0.008
    assert errors(narrow.logits(), wide.logits()) < 0.02


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_a_slot_held_before_counts_for_nothing(kernel):
    """Keys and values that are infinite lie where those of the next token will be, beside those of this one."""
    raw = Raw("bfloat16", kernel)
    raw.core.reserve(1, 16)
    wanted = raw.logits()
    raw.core.reserve(1, 16)
    biased = [*raw.layer[:2], np.full_like(raw.layer[2], math.inf), *raw.layer[3:]]
    raw.core.load(*raw.ends, [biased])
    assert np.isnan(raw.logits(16)).all()
    raw.core.load(*raw.ends, [raw.layer])
    raw.core.reserve(1, 16)
    assert np.array_equal(raw.logits(), wanted)


def test_logprobs_are_as_near_to_float64_as_those_of_transformers():
    model = tamed(fr.ModelConfig.preset("tiny"))
    narrow = rounded(model)
    tokens = sequences_of(model.config, [60] * 8)
    theirs, exact = qwen2(narrow), qwen2(copy.deepcopy(narrow).double())
    ids = torch.from_numpy(np.stack(tokens)).long()
    with torch.no_grad():
        wanted, found = (x(ids).logits[:, -1].double().log_softmax(-1).numpy() for x in (exact, theirs))
    ours = core_logits(in_core(model), [t[:41] for t in tokens], [t[41:] for t in tokens])
    ours = torch.from_numpy(ours).double().log_softmax(-1).numpy()
    # worst seen: 0.51 of it
    assert 0 < errors(ours, wanted) < errors(found, wanted)


def test_keys_and_values_take_half_the_memory():
    model = tamed(SHAPES["tiny"])
    narrow, wide = (in_core(model, dtype=dtype).core for dtype in (torch.bfloat16, torch.float32))
    assert 2 * narrow.kv_bytes(100) == wide.kv_bytes(100) > 0


@pytest.mark.parametrize(
    "how, message",
    [
        ({"precision": "half"}, "precision must be 'float32' or 'bfloat16', got 'half'"),
        ({"precision": "bfloat16", "kernel": "mmx"}, "no kernel 'mmx' in bfloat16"),
        # whose products of float32 are those of another kernel
        ({"precision": "float32", "kernel": "avx512_bf16"}, "no kernel 'avx512_bf16' in float32"),
    ],
    ids=str,
)
def test_refusals(how, message):
    with pytest.raises(ValueError, match=message):
        Raw(**how)
    with pytest.raises(ValueError, match="precision must be 'float32' or 'bfloat16', got 'int8'"):
        _core.decode_kernels("int8")

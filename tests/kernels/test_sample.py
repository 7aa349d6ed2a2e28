"""ops.sample: distribution, log-probabilities, filters and draws."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fastreason import _core, kernels
from fastreason.kernels.sample import sample_ref, uniform_ref
from fastreason.kernels.triton_support import tl, triton

from .conftest import needs_triton

# every filter alone, pairs in which the earlier one matters to the later, all together
SETTINGS = [
    {},
    {"temperature": 0.0},
    {"temperature": 0.7},
    {"top_k": 1},
    {"top_k": 5, "temperature": 2.0},
    {"top_p": 0.9},
    {"top_p": 1e-9},
    {"min_p": 0.1},
    {"min_p": 1.0},
    {"top_k": 8, "top_p": 0.8},
    {"top_p": 0.95, "min_p": 0.02, "temperature": 1.3},
    {"top_k": 20, "top_p": 0.9, "min_p": 0.05, "temperature": 0.6},
]
# one token, less than a tile, a tile, one more than two tiles, the vocabulary of the model class
WIDTHS = [1, 7, 512, 1025, 2200]


def random_logits(N: int, V: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    logits = torch.randn(N, V, generator=g) * torch.tensor([0.0, 1.0, 4.0, 12.0])[torch.arange(N) % 4, None]
    return torch.where(torch.arange(N)[:, None] % 3 == 0, logits.round(), logits)  # every third row has ties


def keys(N: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return dict(
        prompts_N=rng.integers(0, 2**40, N), samples_N=rng.integers(0, 64, N), positions_N=rng.integers(0, 9999, N)
    )


def brute_force(z: list[float], u: float, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0) -> dict[str, object]:
    """One row in Python's floats: what is kept, the inclusive sums in order of token id, log-probabilities."""
    highest = max(z)
    weight = [math.exp(x - highest) for x in z]
    order = sorted(range(len(z)), key=lambda v: (-z[v], v))
    if top_k:
        order = order[:top_k]
    total, before, kept = math.fsum(weight[v] for v in order), 0.0, []
    for v in order:
        if before < top_p * total * (1 - 1e-12) and weight[v] >= min_p * (1 - 1e-6):
            kept.append(v)
        before += weight[v]
    mass = math.fsum(weight[v] for v in kept)
    sums, running = {}, 0.0
    for v in sorted(kept):
        running += weight[v]
        sums[v] = running / mass
    token = next((v for v, c in sums.items() if c >= u), max(sums))
    near = min(abs(c - u) for c in sums.values())
    full = [x - highest - math.log(math.fsum(weight)) for x in z]
    return {"kept": set(kept), "token": token, "near": near, "sampled": lambda v: z[v] - highest - math.log(mass),
            "full": full}  # fmt: skip


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("V", WIDTHS)
def test_each_row_against_brute_force(settings, V):
    N = 12 if V < 1000 else 4
    logits_NV = random_logits(N, V, seed=V)
    tokens, logprobs, full = kernels.sample(logits_NV, seed=5, **keys(N), **settings)
    assert (tokens.dtype, logprobs.dtype, full.dtype) == (torch.int64, torch.float32, torch.float32)
    uniform = _core.uniform(5, *keys(N).values())
    filters = {name: value for name, value in settings.items() if name != "temperature"}
    temperature = settings.get("temperature", 1.0)
    for n in range(N):
        if temperature == 0:
            row = logits_NV[n].tolist()
            want = brute_force(row, 0.0)
            assert tokens[n] == row.index(max(row))
            assert logprobs[n] == 0
        else:
            row = (logits_NV[n] * (1 / temperature)).tolist()
            want = brute_force(row, float(uniform[n]), **filters)
            assert int(tokens[n]) in want["kept"]
            assert int(tokens[n]) == want["token"] or want["near"] < 1e-6
            assert float(logprobs[n]) == pytest.approx(want["sampled"](int(tokens[n])), abs=2e-6)
        # worst seen 5e-7: exp in float32, and one rounding of a number up to 90
        assert float(full[n]) == pytest.approx(want["full"][int(tokens[n])], abs=2e-6, rel=1e-6)


# 8,400 rows a setting, 100,800 in all
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_core_gives_the_bits_of_the_definition(settings):
    for N, V in [(500, 1), (3000, 7), (3000, 300), (1000, 512), (500, 1025), (400, 2200)]:
        logits_NV, key = random_logits(N, V, seed=V + 1), keys(N, V)
        uniform_N = torch.from_numpy(_core.uniform(9, *key.values()))
        want = sample_ref(logits_NV, uniform_N, **settings)
        got = _core.sample(logits_NV.numpy(), 9, *key.values(), **settings, threads=1 + N % 3)
        for a, b in zip(got, want, strict=True):
            np.testing.assert_array_equal(a, b.numpy())


def test_the_core_takes_rows_with_a_stride_and_any_number_of_threads():
    logits_NV, key = random_logits(300, 4096), keys(300)
    cut = logits_NV[::2, 5:905]
    half = [x[::2] for x in key.values()]
    whole = _core.sample(cut.contiguous().numpy(), 1, *half, top_p=0.9, threads=1)
    for threads in (1, 3, 7):
        for a, b in zip(whole, _core.sample(cut.numpy(), 1, *half, top_p=0.9, threads=threads), strict=True):
            np.testing.assert_array_equal(a, b)
    for bad in (logits_NV.T.numpy(), logits_NV[0].numpy(), logits_NV[:, :0].numpy()):
        with pytest.raises(ValueError, match=r"sample: logits must be float32 \[N, V\], 1 <= V <= 2.23, contiguous"):
            _core.sample(bad, 1, *key.values())
    with pytest.raises(ValueError, match=r"must be \[N\] = \[300\], got 300, 300 and 1"):
        _core.sample(logits_NV.numpy(), 1, key["prompts_N"], key["samples_N"], np.zeros(1, dtype=np.int64))


def test_without_filters_both_logprobs_are_the_same():
    _, logprobs, full = kernels.sample(random_logits(64, 700), seed=1, **keys(64), temperature=0.8)
    assert torch.equal(logprobs, full)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_row_does_not_depend_on_the_others(settings):
    logits_NV, key = random_logits(40, 600), keys(40)
    whole = kernels.sample(logits_NV, seed=3, **key, **settings)
    order = np.random.default_rng(0).permutation(40)[:17]
    part = kernels.sample(logits_NV[order], seed=3, **{name: x[order] for name, x in key.items()}, **settings)
    for a, b in zip(whole, part, strict=True):
        assert torch.equal(a[order], b)


def test_seed_prompt_sample_and_position_all_matter():
    logits_NV = torch.zeros(1, 100_000)
    key = dict(prompts_N=[1], samples_N=[2], positions_N=[3])
    tokens = {int(kernels.sample(logits_NV, seed=0, **key)[0]), int(kernels.sample(logits_NV, seed=1, **key)[0])}
    for name in key:
        tokens.add(int(kernels.sample(logits_NV, seed=0, **{**key, name: [9]})[0]))
    assert len(tokens) == 5


@pytest.mark.parametrize("V", [5, 300])
@pytest.mark.parametrize("settings", [{}, {"temperature": 1.5}, {"top_k": 3}, {"top_p": 0.7}, {"min_p": 0.3}], ids=str)
def test_draws_have_the_probabilities_that_are_returned(V, settings):
    """Pearson's chi-square over the tokens expected at least 5 times, the rest in one cell; fixed seed."""
    N = 20_000
    logits_V = 2 * torch.randn(V, generator=torch.Generator().manual_seed(3))
    key = dict(prompts_N=np.arange(N) // 8, samples_N=np.arange(N) % 8, positions_N=np.full(N, 6))
    tokens, logprobs, _ = kernels.sample(logits_V.expand(N, V).contiguous(), seed=11, **key, **settings)
    counts = torch.bincount(tokens, minlength=V).double()
    probability = torch.zeros(V, dtype=torch.float64)
    probability[tokens] = logprobs.double().exp()
    frequent = probability * N >= 5
    observed = torch.cat([counts[frequent], counts[~frequent].sum()[None]])
    expected = torch.cat([probability[frequent], (1 - probability[frequent].sum())[None]]) * N
    shown = expected > 1
    chi_square, freedom = float(((observed - expected)[shown] ** 2 / expected[shown]).sum()), int(shown.sum()) - 1
    assert abs(chi_square - freedom) <= 4 * math.sqrt(2 * freedom)


@triton.jit
def _words_kernel(seed_ptr, prompts_ptr, samples_ptr, positions_ptr, plain_ptr, keyed_ptr, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    seed = tl.load(seed_ptr)
    position = tl.load(positions_ptr + i)
    plain, _, _, _ = tl.randint4x(seed, position.to(tl.int32))
    tl.store(plain_ptr + i, plain.to(tl.int64))
    prompt = tl.load(prompts_ptr + i).to(tl.uint64)
    low, high = (prompt & 0xFFFFFFFF).to(tl.uint32), (prompt >> 32).to(tl.uint32)
    keyed, _, _, _ = tl.philox(seed, position.to(tl.uint32), tl.load(samples_ptr + i).to(tl.uint32), low, high)
    tl.store(keyed_ptr + i, keyed.to(tl.int64))


@needs_triton
@pytest.mark.parametrize("seed", [0, 12345, 2**62 + 99])
def test_triton_draws_the_same_tokens(device, seed):
    """tl.randint4x(seed, position) is the stream of sample 0 of prompt 0; tl.philox takes the whole key."""
    N, key = 256, keys(256)
    inputs = [torch.from_numpy(x).to(device) for x in key.values()]
    plain, keyed = torch.zeros(2, N, dtype=torch.int64, device=device)
    _words_kernel[(1,)](torch.tensor([seed], device=device), *inputs, plain, keyed, BLOCK=N)
    logits_NV, zeros = random_logits(N, 900), np.zeros(N, dtype=np.int64)
    for words, ours in ((plain, key | {"prompts_N": zeros, "samples_N": zeros}), (keyed, key)):
        # float32 by steps, as the core does it: above 1/2 the addition rounds
        uniform_N = ((words.cpu() & 0xFFFFFFFF) >> 8).float().add(0.5).mul(2.0**-24)
        want = sample_ref(logits_NV, uniform_N, top_p=0.9)
        for a, b in zip(kernels.sample(logits_NV, seed=seed, **ours, top_p=0.9), want, strict=True):
            assert torch.equal(a, b)


def test_masked_tokens_are_never_drawn():
    logits_NV = random_logits(200, 1100)
    logits_NV[:, ::2] = -torch.inf
    logits_NV[:, :600] = -torch.inf  # a whole tile
    for settings in SETTINGS:
        tokens, logprobs, full = kernels.sample(logits_NV, seed=0, **keys(200), **settings)
        assert (tokens % 2 == 1).all() and (tokens >= 600).all()
        assert logprobs.isfinite().all() and full.isfinite().all()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_row_without_a_distribution_is_named(value):
    logits_NV = random_logits(6, 600)
    logits_NV[4, 555] = value
    with pytest.raises(ValueError, match="row 4 of the logits holds NaN or infinity"):
        kernels.sample(logits_NV, seed=0, **keys(6))
    logits_NV[4] = -torch.inf
    with pytest.raises(ValueError, match="row 4 of the logits"):
        kernels.sample(logits_NV, seed=0, **keys(6), top_k=3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_count_as_float32(dtype):
    logits_NV = random_logits(30, 600).to(dtype)
    got = kernels.sample(logits_NV, seed=2, **keys(30), top_p=0.9)
    for a, b in zip(got, kernels.sample(logits_NV.float(), seed=2, **keys(30), top_p=0.9), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("shift", [-64.0, 256.0])
def test_a_shift_of_all_logits_changes_nothing(shift):
    logits_NV = (random_logits(60, 600) * 64).round() / 64  # sums without rounding
    for settings in SETTINGS:
        if settings.get("temperature", 1.0) in (0.0, 1.0, 2.0):
            a = kernels.sample(logits_NV, seed=2, **keys(60), **settings)
            b = kernels.sample(logits_NV + shift, seed=2, **keys(60), **settings)
            assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"temperature": -1.0}, "temperature must be a number >= 0, got -1.0"),
        ({"temperature": math.inf}, "temperature must be a number >= 0, got inf"),
        ({"temperature": math.nan}, "temperature must be a number >= 0, got nan"),
        ({"temperature": 1e-7}, "temperature must be 0 or at least 1e-06, got 1e-07"),
        ({"top_k": -1}, "top_k must be an integer >= 0, got -1"),
        ({"top_k": 2.5}, "top_k must be an integer >= 0, got 2.5"),
        ({"top_p": 0.0}, "top_p must be a number > 0 and <= 1, got 0.0"),
        ({"top_p": 1.5}, "top_p must be a number > 0 and <= 1, got 1.5"),
        ({"min_p": -0.1}, "min_p must be a number in 0 .. 1, got -0.1"),
        ({"seed": -1}, r"seed must be an integer in 0 .. 2\*\*64 - 1, got -1"),
        ({"seed": True}, "seed must be an integer in .*, got True"),
        ({"positions_N": [0.0, 1.0, 2.5]}, r"positions_N must be integers, got float64"),
        ({"samples_N": [1]}, r"samples_N must be int64 \[N\] = \[3\], got torch.int64 \[1\]"),
        ({"prompts_N": torch.zeros(3)}, r"prompts_N must be int64 \[N\] = \[3\], got torch.float32 \[3\]"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = {"seed": 0, **keys(3)} | change
    with pytest.raises(ValueError, match=message):
        kernels.sample(torch.zeros(3, 5), **arguments)


@pytest.mark.parametrize("logits", [torch.zeros(3), torch.zeros(3, 0), torch.zeros(3, 5, dtype=torch.int64)])
def test_logits_that_do_not_fit_are_refused(logits):
    with pytest.raises(ValueError, match=r"logits must be floating point \[N, V\] with V >= 1"):
        kernels.sample(logits, seed=0, **keys(3))


@pytest.mark.parametrize("seed", [0, 7, 2**63 + 12345, 2**64 - 1])
def test_uniform_numbers_of_a_device_are_those_of_the_core(seed):
    rng = np.random.default_rng(seed % 1000)
    keys = [rng.integers(-(2**62), 2**62, 20_000) for _ in range(3)]
    keys[0][:3] = 2**63 - 1, -(2**63) + 1, -1
    assert np.array_equal(uniform_ref(seed, *map(torch.from_numpy, keys)).numpy(), _core.uniform(seed, *keys))

"""The engine that stays on the device: what may not change a sample, its edges, its memory, its graphs."""

import gc
import itertools
import weakref

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason import kernels
from fastreason.sampling import device_batching, device_decoding
from fastreason.sampling.device_batching import DeviceBatch
from fastreason.sampling.device_decoding import DeviceDecoding, kv_bytes, size_within, slot_bytes, widths

from ..model.test_decoder import random_model
from .test_rollout import MIX

PROBLEMS = fr.TaskStream(MIX, seed=9)[0:7]


@pytest.fixture(scope="module")
def tokenizer():
    return fr.Tokenizer.for_mixtures([MIX])


def flat_model(vocab_size, dtype, **shape):
    config = fr.ModelConfig.preset("tiny", vocab_size=vocab_size, num_hidden_layers=1, **shape)
    model = random_model(config, dtype, seed=4)
    with torch.no_grad():
        model.embedding.weight *= 0.4
    return model


@pytest.fixture(scope="module")
def model(tokenizer):
    """In float64, whose last bits no draw comes near."""
    return flat_model(len(tokenizer), torch.float64)


def samples(model, tokenizer, *, steps=None, n=3, engine=None, problems=PROBLEMS, **settings):
    """With as many steps between looks as is said, or as the engine finds right."""
    rollout = fr.Rollout(model, tokenizer, backend="torch", **engine or {})
    with pytest.MonkeyPatch.context() as patch:
        if steps is not None:
            patch.setattr(device_batching, "MOST_STEPS", steps)
            patch.setattr(DeviceBatch, "steps", property(lambda self: steps, lambda self, value: None), raising=False)
        return rollout.generate(problems, n, **{"max_new_tokens": 12, "seed": 1} | settings)


def same(a, b):
    width = a.lengths.max()
    assert np.array_equal(a.tokens[:, :width], b.tokens[:, :width])
    assert np.array_equal(a.lengths, b.lengths)
    assert np.array_equal(a.finished, b.finished)
    for name in ("logprobs", "sampled_logprobs"):
        np.testing.assert_allclose(getattr(a, name)[:, :width], getattr(b, name)[:, :width], rtol=0, atol=1e-12)


def test_neither_looks_nor_slots_nor_prefixes_change_a_sample(model, tokenizer, monkeypatch):
    stop = list(range(20, 40))
    want = samples(model, tokenizer, stop=stop)
    assert 0 < want.finished.sum() < 21 and len(set(want.lengths)) > 4
    for steps, slots in ((1, 1), (3, 5), (32, 2), (7, None), (32, 21)):
        same(want, samples(model, tokenizer, steps=steps, engine={"max_sequences": slots}, stop=stop))
    # as little memory as there may be: one prefix at a time; and prompts one by one through the model
    of_slot, of_prefix = slot_bytes(model.config, 12, torch.float64), kv_bytes(model.config, 60, torch.float64)
    monkeypatch.setattr(device_decoding, "PREFILL_TOKENS", 1)
    same(want, samples(model, tokenizer, engine={"kv_memory_mb": (3 * of_slot + 3 * of_prefix) / 1e6}, stop=stop))


@pytest.mark.parametrize("steps", [1, 4, 32])
def test_stop_strings_end_a_sample_where_they_do_in_the_core(tokenizer, steps):
    model = flat_model(len(tokenizer), torch.float32)
    free = fr.Rollout(model, tokenizer).generate(PROBLEMS, 3, max_new_tokens=12, seed=1, stop=[])
    stop = [tokenizer.decode(free.tokens[5, 7:9]), tokenizer.decode(free.tokens[8, 2:3]), int(free.tokens[2, 4])]
    want = fr.Rollout(model, tokenizer).generate(PROBLEMS, 3, max_new_tokens=12, seed=1, stop=stop)
    assert 3 <= want.finished.sum() < 21
    found = samples(model, tokenizer, steps=steps, engine={"max_sequences": 5}, stop=stop)
    assert np.array_equal(found.tokens, want.tokens) and np.array_equal(found.finished, want.finished)
    np.testing.assert_allclose(found.logprobs, want.logprobs, rtol=0, atol=1e-5)


def test_edges(tokenizer):
    """All end at once; a limit longer than the positions; a prompt that leaves one; a prompt of one token."""
    lengths = [len(tokenizer.encode(prompt)) for prompt in PROBLEMS.prompts]
    model = flat_model(len(tokenizer), torch.float64, max_position_embeddings=max(lengths) + 1)
    for steps in (1, 32):
        together = samples(model, tokenizer, steps=steps, stop=[], max_new_tokens=2, engine={"max_sequences": 4})
        assert (together.lengths <= 2).all() and not together.finished.any()
        out = samples(model, tokenizer, steps=steps, stop=[], max_new_tokens=10**6)
        assert np.array_equal(out.lengths, np.repeat(max(lengths) + 1 - np.array(lengths), 3))
    assert out.lengths.min() == 1
    one = tokenizer.decode([30])
    assert len(tokenizer.encode(one)) == 1
    prompts = [one, PROBLEMS.prompts[0], one]
    out = samples(model, tokenizer, problems=prompts, stop=[], max_new_tokens=4, n=2, prompt_ids=np.array([5, 0, 5]))
    assert np.array_equal(out.tokens[:2], out.tokens[4:])
    core = fr.Rollout(model.float(), tokenizer).generate(
        prompts, 2, stop=[], max_new_tokens=4, seed=1, prompt_ids=np.array([5, 0, 5])
    )
    assert np.array_equal(out.tokens, core.tokens)


def test_draws_are_distributed_as_those_of_the_core(tokenizer):
    """The second of two tokens, with other seeds: two samples of one distribution, by chi-squared."""
    model, n = flat_model(len(tokenizer), torch.float32), 8_000
    settings = {"max_new_tokens": 2, "stop": [], "top_k": 8}
    core = fr.Rollout(model, tokenizer).generate(PROBLEMS.prompts[:1], n, seed=2, **settings)
    device = samples(model, tokenizer, n=n, problems=PROBLEMS.prompts[:1], seed=3, **settings)
    assert not np.array_equal(core.tokens, device.tokens)
    counts = np.stack([np.bincount(out.tokens[:, 1], minlength=len(tokenizer)) for out in (core, device)])
    likely = counts.sum(0) > 20
    counts = np.concatenate([counts[:, likely], counts[:, ~likely].sum(1, keepdims=True)], axis=1)
    counts = counts[:, counts.sum(0) > 0]
    degrees = counts.shape[1] - 1
    statistic = ((counts[0] - counts[1]) ** 2 / counts.sum(0)).sum()
    assert degrees > 10 and statistic < degrees + 5 * np.sqrt(2 * degrees)


def test_logits_that_are_no_distribution_are_an_error(model, tokenizer, monkeypatch):
    """A GPU says so with token -1; it ends the sample, so that nothing is looked up with it."""
    real = kernels.sample

    def sample(logits, **settings):
        token, *logprobs = real(logits, **settings)
        return torch.where(settings["positions_N"] == 3, -1, token), *logprobs

    monkeypatch.setattr(kernels, "sample", sample)
    with pytest.raises(ValueError, match="generate: the logits of a sample hold NaN or infinity"):
        samples(model, tokenizer, steps=32, stop=[])


def test_the_memory_of_a_rollout_is_free_when_it_ends(model, tokenizer, monkeypatch):
    made, real = [], DeviceDecoding.__init__
    monkeypatch.setattr(
        DeviceDecoding, "__init__", lambda self, *arguments: made.append(weakref.ref(self)) or real(self, *arguments)
    )
    gc.disable()
    try:
        samples(model, tokenizer, max_new_tokens=2)
        assert [reference() for reference in made] == [None]
    finally:
        gc.enable()


@pytest.mark.parametrize("prompts, n", [(1, 1), (1, 500), (1000, 1), (1000, 6), (3, 128)])
def test_what_is_reserved_fits_into_the_budget(prompts, n):
    config, dtype = fr.ModelConfig.preset("100m"), torch.bfloat16
    of_slot, of_prefix = slot_bytes(config, 1024, dtype), kv_bytes(config, 399, dtype)
    for budget in (of_slot, 2 * of_slot + 2 * of_prefix, 1e9, 40e9, 1e15):
        size = size_within(budget, config, dtype, prompts=prompts, n=n, longest=400, capacity=1024, most=None)
        if size is None:
            assert budget < 2 * of_slot + 3 * of_prefix
            continue
        assert (size.slots + 1) * of_slot + (size.prefixes + 1) * of_prefix <= budget
        assert 1 <= size.slots <= prompts * n and 1 <= size.prefixes <= prompts
        # the slots can be filled from the prefixes, unless there are as many as prompts
        assert size.prefixes == prompts or size.prefixes * n >= size.slots
        # not much is left of a budget that all samples do not fit into
        if size.slots < prompts * n:
            assert budget - size.slots * of_slot - size.prefixes * of_prefix < 3 * (of_slot + of_prefix)
    assert size.slots == prompts * n
    assert size_within(1e15, config, dtype, prompts=9, n=9, longest=9, capacity=9, most=5).slots == 5


def test_the_memory_of_a_gpu_is_what_is_free(monkeypatch):
    config, dtype, device = fr.ModelConfig.preset("100m"), torch.bfloat16, torch.device("cuda", 0)
    for name, value in (("mem_get_info", (50e9, 80e9)), ("memory_reserved", 20e9), ("memory_allocated", 15e9)):
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    free = device_decoding.free_bytes(config, dtype, device)
    assert 45e9 < free < 0.9 * 55e9


def test_widths():
    assert widths(1, 16) == [1]
    assert widths(20, 16) == [16, 20]
    assert widths(4096, 16) == [16 * 2**i for i in range(9)]
    assert widths(4096, 128) == [128, 256, 512, 1024, 2048, 4096]
    for slots in (100, 1000, 4095):
        found = widths(slots, 16)
        assert found[-1] == slots and all(width % 16 == 0 for width in found[:-1])
        assert all(wide <= 2 * narrow + 32 for narrow, wide in itertools.pairwise(found))


class FakeGraph:
    """What a torch.cuda.CUDAGraph is asked for."""

    def __init__(self, log):
        self.log = log

    def capture_begin(self, pool, capture_error_mode):
        assert (pool, capture_error_mode) == ("pool", "thread_local")
        self.log.append("begin")

    def capture_end(self):
        self.log.append("end")

    def replay(self):
        self.log.append("replay")


def test_a_width_runs_once_before_it_is_captured(monkeypatch):
    log = []

    class Nothing:
        def __init__(self, *arguments):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *arguments):
            pass

        def wait_stream(self, other):
            pass

    for name, value in (
        ("Stream", Nothing), ("stream", Nothing), ("current_stream", Nothing), ("graph_pool_handle", lambda: "pool"),
        ("CUDAGraph", lambda: FakeGraph(log)),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, value)
    graphs = device_decoding._Graphs(torch.device("cuda", 0))
    for width in (32, 32, 32, 16, 32, 16):
        graphs.run(width, log.append)
    assert log == [32, "begin", 32, "end", "replay", "replay", 16, "replay", "begin", 16, "end", "replay"]

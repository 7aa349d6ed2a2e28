"""The core's forward pass against the torch model, in every instruction set, and to the bit whatever the batch."""

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason import _core
from fastreason.kernels import Segments
from fastreason.sampling.cpp_backend import PRECISIONS, CoreDecoder

from ..model.test_decoder import random_model

# sizes that do and do not fill panels of 16: width, vocabulary, feed-forward, head dim (72, 24, 6)
SHAPES = {
    "tiny": fr.ModelConfig.preset("tiny"),
    "head dim 72": fr.ModelConfig(
        vocab_size=301, hidden_size=144, num_attention_heads=2, num_key_value_heads=1, intermediate_size=200
    ),
    "nothing fits": fr.ModelConfig(
        vocab_size=17, hidden_size=72, num_attention_heads=3, num_key_value_heads=3, intermediate_size=50
    ),
    "small": fr.ModelConfig(
        vocab_size=5, hidden_size=24, num_attention_heads=4, num_key_value_heads=2, intermediate_size=7
    ),
}


def tamed(config: fr.ModelConfig) -> fr.Decoder:
    """Random weights of which logits come out around 1."""
    model = random_model(config, torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter *= 3 * parameter.shape[1] ** -0.5
    return model


def torch_logits(model: fr.Decoder, sequences: list[np.ndarray]) -> np.ndarray:
    """Behind the last token of each sequence, in float64."""
    double = fr.Decoder(model.config).double()
    double.load_state_dict(model.state_dict())
    segments = Segments.from_lengths([len(s) for s in sequences])
    with torch.no_grad():
        hidden = double(torch.from_numpy(np.concatenate(sequences)).long(), segments)
        return double.logits(hidden[segments.start + segments.length - 1]).numpy()


def sequences_of(config: fr.ModelConfig, lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(config.vocab_size, size=n).astype(np.int32) for n in lengths]


def flat(sequences: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate(sequences), np.concatenate([[0], np.cumsum([len(s) for s in sequences])])


@pytest.mark.parametrize("kernel", _core.decode_kernels())
@pytest.mark.parametrize("shape", SHAPES)
def test_logits_are_those_of_the_model(shape, kernel):
    # prompts within and over a block of 16 and a tile of 96 rows; groups of 1 to 40, and own lengths over blocks of 16
    model, groups, steps = tamed(SHAPES[shape]), [1, 40, 2, 3], 18
    decoder = CoreDecoder(model, kernel)
    decoder.load()
    core, prompts = decoder.core, sequences_of(model.config, [1, 200, 16, 97])
    core.reserve(sum(groups), steps)
    numbers, logits = core.prefill(*flat(prompts))
    np.testing.assert_allclose(logits, torch_logits(model, prompts), rtol=0, atol=2e-6)  # worst seen: 6.4e-7
    owner = np.repeat(np.arange(4), groups)
    answers = sequences_of(model.config, [steps] * len(owner), seed=1)
    for step in range(steps):
        tokens = np.array([a[step] for a in answers])
        logits = core.decode(np.arange(len(owner)), numbers[owner], np.full(len(owner), step), tokens)
    whole = [np.concatenate([prompts[p], answer]) for p, answer in zip(owner, answers, strict=True)]
    np.testing.assert_allclose(logits, torch_logits(model, whole), rtol=0, atol=2e-6)


# AMX multiplies queries and keys where 32 divides the head dim
@pytest.mark.parametrize("shape", ["head dim 72", "tiny"])
@pytest.mark.parametrize("precision, kernel", [(p, k) for p in PRECISIONS.values() for k in _core.decode_kernels(p)])
def test_the_same_bits_in_any_batch(precision, kernel, shape):
    model, n, steps = tamed(SHAPES[shape]), 300, 5
    decoder = CoreDecoder(model, kernel, getattr(torch, precision))
    decoder.load()
    core, rng = decoder.core, np.random.default_rng(0)
    # one by one the second takes two tiles of any kernel, all together they share some
    prompts = sequences_of(model.config, [33, 250, 97, 16, 40])
    core.reserve(n, steps)
    numbers, first = core.prefill(*flat(prompts), threads=1)
    owner = np.sort(rng.integers(5, size=n))
    tokens = rng.integers(model.config.vocab_size, size=(steps, n)).astype(np.int32)
    logits = [core.decode(np.arange(n), numbers[owner], np.full(n, s), tokens[s], threads=1) for s in range(steps)]

    # in other slots, order and company, at different lengths, on two threads, behind prompts that came one by one
    core.reserve(n + 7, steps + 40)
    again = np.zeros(5, dtype=np.int64)
    for p in (3, 0, 4, 1, 2):
        (again[p],), other = core.prefill(prompts[p], [0, len(prompts[p])])
        assert np.array_equal(other[0], first[p])
    slots, length = rng.permutation(n + 7)[:n], np.zeros(n, dtype=np.int64)
    while (length < steps).any():
        who = rng.permutation(np.flatnonzero(length < steps))[: rng.integers(1, 200)]
        out = core.decode(slots[who], again[owner[who]], length[who], tokens[length[who], who], threads=2)
        for i, row in zip(who, out, strict=True):
            assert np.array_equal(row, logits[length[i]][i])
        length[who] += 1


@pytest.mark.parametrize("shape", ["nothing fits", "tiny"])
@pytest.mark.parametrize("precision, kernel", [(p, k) for p in PRECISIONS.values() for k in _core.decode_kernels(p)])
def test_the_same_bits_for_any_number_of_rows(precision, kernel, shape):
    """Whatever is left of a tile, and of the registers that hold a part of one."""
    model, most = tamed(SHAPES[shape]), 98
    decoder = CoreDecoder(model, kernel, getattr(torch, precision))
    decoder.load()
    core, rng = decoder.core, np.random.default_rng(0)
    core.reserve(most, 1)
    (prompt,), _ = core.prefill(sequences_of(model.config, [19])[0], [0, 19])
    tokens = rng.integers(model.config.vocab_size, size=most)
    prompts, lengths = np.full(most, prompt), np.zeros(most, np.int64)
    alone = [core.decode([i], [prompt], [0], tokens[i : i + 1])[0] for i in range(most)]
    for n in range(2, most + 1):
        logits = core.decode(np.arange(n), prompts[:n], lengths[:n], tokens[:n], threads=1)
        assert np.array_equal(logits, alone[:n]), n


def test_weights_are_taken_when_asked():
    model = tamed(SHAPES["small"])
    decoder, prompt = CoreDecoder(model), np.array([1, 2, 3], dtype=np.int32)
    decoder.load()
    decoder.core.reserve(1, 1)
    (number,), before = decoder.core.prefill(prompt, [0, 3])
    decoder.core.release(number)
    with torch.no_grad():
        model.final_norm *= 2.0
    assert np.array_equal(decoder.core.prefill(prompt, [0, 3])[1], before)
    decoder.load()
    np.testing.assert_allclose(decoder.core.prefill(prompt, [0, 3])[1], 2 * before, rtol=1e-6)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda c: c.prefill([1, 9], [0, 2]), "tokens must be in 0 .. 4, got 9"),
        (lambda c: c.prefill([1, 2], [0, 1]), "offsets must go from 0"),
        (lambda c: c.prefill([1, 2], [0, 0, 2]), "prompts must have 1 .. 2048 tokens"),
        (lambda c: c.decode([0], [7], [0], [1]), "sequence 0 has no slot, no prompt or no room"),
        (lambda c: c.decode([2], [0], [0], [1]), "no slot"),
        (lambda c: c.decode([0], [0], [32], [1]), "no room"),
        (lambda c: c.decode([0, 1], [0], [0], [1]), "of one length"),
        (lambda c: c.release(3), "no prompt 3"),
        (lambda c: CoreDecoder(tamed(SHAPES["small"]), "mmx"), "no kernel 'mmx'"),
        (lambda c: c.load(*[np.zeros(2, np.float32)] * 3, []), "need 4 layers, got 0"),
    ],
)
def test_bad_calls(call, message):
    decoder = CoreDecoder(tamed(SHAPES["small"]))
    decoder.load()
    decoder.core.reserve(2, 9)
    assert decoder.core.prefill([1, 2], [0, 2])[0].tolist() == [0]
    with pytest.raises(ValueError, match=message):
        call(decoder.core)

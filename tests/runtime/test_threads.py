"""Objects of the core in several threads: they work, or the error names the cause."""

import os
import signal
import threading
import warnings

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason import _core
from fastreason.sampling.cpp_backend import CoreDecoder

from ..model.test_decoder import random_model

MIX = fr.Mixture.uniform(op=[2, 3], themes=["symbolic"], max_value=99)
STREAM = fr.TaskStream(MIX, seed=1)


@pytest.fixture(scope="module")
def tokenizer():
    return fr.Tokenizer.for_mixtures([MIX])


@pytest.fixture(scope="module")
def model(tokenizer):
    return random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer)), torch.float32, seed=4)


def in_threads(*calls):
    """What each call returned or raised, all of them at once."""
    found = [None] * len(calls)
    gate = threading.Barrier(len(calls))

    def work(i):
        gate.wait()
        try:
            found[i] = calls[i]()
        except Exception as error:
            found[i] = error

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("backend", ["cpp", "torch"])
def test_threads_take_turns_at_one_engine(model, tokenizer, backend):
    engine = fr.Rollout(model, tokenizer, backend=backend)
    sizes = [(STREAM[0:3], 1, 5), (STREAM[3:9], 3, 12), (STREAM[0:20], 2, 20)]
    wanted = [engine.generate(problems, n, max_new_tokens=m, stop=[]) for problems, n, m in sizes]
    for _ in range(2):
        calls = [lambda s=s: engine.generate(s[0], s[1], max_new_tokens=s[2], stop=[]) for s in sizes]
        for got, want in zip(in_threads(*calls), wanted, strict=True):
            assert np.array_equal(got.tokens, want.tokens) and np.array_equal(got.logprobs, want.logprobs)


def test_a_stream_says_that_another_thread_took_its_engine(model, tokenizer):
    engine = fr.Rollout(model, tokenizer, max_sequences=2)
    stream = engine.stream(STREAM[0:8], max_new_tokens=20)
    next(stream)
    (other,) = in_threads(lambda: engine.generate(STREAM[0:1], max_new_tokens=5))
    assert len(other.tokens) == 1
    with pytest.raises(RuntimeError, match="another generate or stream began"):
        list(stream)


@pytest.mark.parametrize(
    "call",
    [
        lambda core: core.reserve(1, 1),
        lambda core: core.prefill([1], [0, 1], threads=1),
        lambda core: core.decode([0], [0], [0], [1], threads=1),
        lambda core: core.release(0),
    ],
    ids=["reserve", "prefill", "decode", "release"],
)
def test_a_decoder_in_use_refuses_a_second_thread(model, call):
    decoder = CoreDecoder(model)
    decoder.load()
    decoder.core.reserve(1, 1)
    decoder.core.prefill([1], [0, 1], threads=1)
    tokens, offsets = np.ones(400 * 100, np.int32), np.arange(0, 400 * 101, 400)
    busy = threading.Thread(target=decoder.core.prefill, args=(tokens, offsets), kwargs={"threads": 1})
    busy.start()
    refused = None
    while busy.is_alive() and refused is None:
        try:
            call(decoder.core)
            decoder.core.reserve(1, 1)  # what was just let in may have come before the other
            decoder.core.prefill([1], [0, 1], threads=1)
        except RuntimeError as error:
            refused = error
    busy.join()
    assert "CpuDecoder: another thread is using it" in str(refused)


def test_two_sequences_in_one_slot_and_a_decoder_without_weights_are_refused(model):
    decoder = CoreDecoder(model)
    decoder.core.reserve(2, 4)
    with pytest.raises(ValueError, match="load weights first"):
        decoder.core.prefill([1], [0, 1])
    decoder.load()
    decoder.core.prefill([1], [0, 1])
    with pytest.raises(ValueError, match="two sequences in slot 1"):
        decoder.core.decode([1, 1], [0, 0], [0, 0], [1, 2])
    with pytest.raises(ValueError, match="slots must be in 0 "):
        decoder.core.reserve(2**60, 4)
    with pytest.raises(ValueError, match=r"no slot, no prompt or no room"):
        decoder.core.decode([0], [0], [32], [1])


def test_texts_are_graded_whatever_becomes_of_their_list():
    batch = STREAM[0:50]
    texts = [text + " " for text in batch.solutions for _ in range(40)]
    want = fr.grade(batch, texts).sound
    for _ in range(3):
        held = [text[:-1] + " " for text in texts]  # each with no other owner
        reading, got = threading.Event(), []

        def grade(held=held, reading=reading, got=got):
            reading.set()  # the next thing that lets another thread run is grading itself
            got.append(_core.grade_batch(batch.core, held, threads=1)["sound"])

        thread = threading.Thread(target=grade)
        thread.start()
        reading.wait()
        held.clear()
        thread.join()
        assert len(got[0]) == 0 or np.array_equal(got[0], want)


def test_a_forked_child_has_threads_of_its_own():
    """Those of its parent are not in it: whatever it asked them to do would never end."""
    want = STREAM[0:400].documents
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a child may deadlock, newer interpreters say
        pid = os.fork()
    if not pid:
        signal.alarm(60)
        os._exit(0 if STREAM[0:400].documents == want else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert STREAM[0:400].documents == want


def test_what_does_not_change_is_shared(tokenizer):
    """A stream, a batch, a tokenizer with its cache, a packer: as one thread has them."""
    problems = STREAM[0:64]
    calls = [
        lambda: STREAM[0:64].documents,
        lambda: tokenizer.core.encode_batch(problems.documents)[0],
        lambda: STREAM.packed(0, 8, 512, tokenizer, threads=1).tokens,
        lambda: fr.grade(problems, problems.solutions, threads=1).sound,
    ]
    for a, b in zip(in_threads(*calls, *calls), [call() for call in calls] * 2, strict=True):
        assert np.array_equal(a, b)

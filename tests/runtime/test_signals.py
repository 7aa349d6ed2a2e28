"""Ctrl-C ends long work of the core; what cannot be heard, because another thread works, waits for nothing."""

import os
import signal
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason import _core
from fastreason.sampling.cpp_backend import CoreDecoder

from ..model.test_decoder import random_model

SYMBOLIC = fr.Mixture.uniform(op=[2], themes=["symbolic"], max_value=99)
SLOW = fr.TaskStream(fr.Mixture.uniform(op=[16], max_value=20, themes=["symbolic"]))  # 5,000 problems a second and core
TOKENIZER = fr.Tokenizer.for_mixtures([SYMBOLIC])
TEXT = fr.TaskStream(SYMBOLIC)[0].documents[0] * 1000


class Heard(Exception):
    """What the handler raises."""


@contextmanager
def signal_soon():
    """SIGINT from another thread, whose handler raises. Work that takes minutes must be gone before it is done."""
    heard, never_heard = threading.Event(), []

    def send():
        os.kill(os.getpid(), signal.SIGINT)
        if not heard.wait(30):
            never_heard.append(True)

    def handle(signum, frame):
        heard.set()
        raise Heard

    before = signal.signal(signal.SIGINT, handle)
    timer = threading.Timer(0.2, send)
    timer.start()
    try:
        yield
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert not never_heard


def byte_pairs():
    return _core.BytePairTokenizer(
        words=[bytes([i]) for i in range(256)],
        byte_ids=list(range(256)),
        merges=[],
        specials=[],
        patterns=["(?:[a-z]|[A-Z])+"],
        padding_id=0,
        end_id=1,
    )


# Each would take minutes at least, and little memory.
ENDLESS = {
    "draw": lambda threads: SLOW.batch(np.arange(2_000_000), threads=threads),
    "pack": lambda threads: SLOW.packed(0, 1 << 12, 1 << 12, TOKENIZER, threads=threads),
    "encode documents": lambda threads: SLOW.encoded(0, 2_000_000, TOKENIZER, threads=threads),
    "grade": lambda threads: fr.grade_texts(["no step"] * 200_000, [TEXT] * 200_000, threads=threads),
    "grade one problem": lambda threads: fr.grade_texts(["no step"], [TEXT] * 200_000, threads=threads),
    "encode": lambda threads: TOKENIZER.core.encode_batch([TEXT] * 200_000),
    "encode bytes": lambda threads: byte_pairs().encode_batch([TEXT] * 200_000),
    "match": lambda threads: _core.split_pattern(r"(?:a+)+b", "a" * 100_000_000),
    "count": lambda threads: _core.count_attempts(SLOW_CELL, 10**10),
    "prefill": lambda threads: DECODER.core.prefill(
        np.ones(500 * 3000, np.int32), np.arange(0, 500 * 3001, 500), threads=threads
    ),
}
SLOW_CELL = _core.Cell(
    op=16,
    theme=0,
    mode="forward",
    depth=2,
    weight=1.0,
    number_range=5,
    max_value=20,
    max_sentences=50,
    circular_distractors=True,
    context=0,
)
MODEL = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(TOKENIZER)), torch.float32, seed=4)
DECODER = CoreDecoder(MODEL)
DECODER.load()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("work", ENDLESS.values(), ids=ENDLESS)
def test_ctrl_c_ends_it(work, threads):
    with signal_soon(), pytest.raises(Heard):
        work(threads)


def test_waiting_for_a_batch_ends():
    with SLOW.batches(0, 1 << 12, 1 << 12, TOKENIZER) as batches, signal_soon(), pytest.raises(Heard):
        next(batches)


def test_an_engine_goes_on_behind_an_interruption():
    engine, problems = fr.Rollout(MODEL, TOKENIZER), fr.TaskStream(SYMBOLIC)[0:3]
    want = engine.generate(problems, 2, max_new_tokens=8)
    with signal_soon(), pytest.raises(Heard):
        engine.generate(problems, 100_000, stop=[])
    assert np.array_equal(engine.generate(problems, 2, max_new_tokens=8).tokens, want.tokens)


def test_a_handler_that_returns_stops_nothing():
    """What the stages install only notes that a stop was asked for."""
    noted = []
    before = signal.signal(signal.SIGALRM, lambda *_: noted.append(len(noted)))
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.06)
    try:
        batch = SLOW.batch(np.arange(3000), threads=2)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert noted and np.array_equal(batch.answers, SLOW.batch(np.arange(3000)).answers)


def test_signals_leave_other_threads_alone():
    """Handlers run in the main thread alone, which may be waiting for the one that works."""
    found = []
    worker = threading.Thread(target=lambda: found.append(SLOW.batch(np.arange(3000), threads=2)))
    worker.start()
    with signal_soon(), pytest.raises(Heard):
        threading.Event().wait()
    worker.join()
    assert np.array_equal(found[0].answers, SLOW.batch(np.arange(3000)).answers)


def test_encoding_lets_other_threads_run():
    thread = threading.Thread(target=TOKENIZER.core.encode_batch, args=([TEXT] * 200,))
    thread.start()
    turns = 0
    while thread.is_alive():
        time.sleep(0.01)
        turns += 1
    assert turns > 3  # one that keeps the GIL lets another run when it begins and when it is done

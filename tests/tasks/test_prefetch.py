"""Batches drawn ahead by a thread: the same ones, and a thread that always ends."""

import gc
import os
import subprocess
import sys
import threading
import time
from dataclasses import fields

import numpy as np
import pytest

import fastreason as fr

MIXTURE = fr.Mixture.uniform(op=range(2, 7), themes=["zoo", "symbolic"])
TOKENIZER = fr.Tokenizer.for_mixtures([MIXTURE])


def stream():
    return fr.TaskStream(MIXTURE, seed=7)


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def assert_threads(count: int) -> None:
    """Who joins a thread is woken a moment before the kernel takes it off the list (twice in 30,000 threads)."""
    deadline = time.monotonic() + 10
    while threads() != count and time.monotonic() < deadline:
        time.sleep(0.001)
    assert threads() == count


def assert_same(batch, other):
    for field in fields(batch):
        np.testing.assert_array_equal(getattr(batch, field.name), getattr(other, field.name))


@pytest.mark.parametrize("rows, length, step, ahead", [(1, 700, 1, 1), (3, 512, 1, 4), (1, 512, 5, 2), (2, 64, 3, 1)])
def test_batches_are_those_of_packed(rows, length, step, ahead):
    index = 11
    with stream().batches(index, rows, length, TOKENIZER, step=step, ahead=ahead) as batches:
        for batch, _ in zip(batches, range(12), strict=False):
            assert_same(batch, stream().packed(index, rows, length, TOKENIZER, step=step))
            index = batch.next_index


def test_lanes_take_turns_and_share_the_stream_out():
    lanes, seen = [0, 1, 2], []
    indices = list(lanes)
    with stream().batches(lanes, 1, 600, TOKENIZER, step=3) as batches:
        for i in range(9):
            batch, lane = next(batches), i % 3
            assert_same(batch, stream().packed(indices[lane], 1, 600, TOKENIZER, step=3))
            seen += range(indices[lane], batch.next_index, 3)
            indices[lane] = batch.next_index
    assert len(seen) == len(set(seen)) and set(range(min(indices))) <= set(seen)


def test_a_batch_outlives_its_iterator():
    batches = stream().batches(0, 1, 512, TOKENIZER)
    batch = next(batches)
    batches.close()
    del batches
    gc.collect()
    assert_same(batch, stream().packed(0, 1, 512, TOKENIZER))


def test_the_thread_ends_with_close_with_the_block_and_with_the_iterator():
    before = threads()
    batches = stream().batches(0, 1, 512, TOKENIZER)
    assert_threads(before + 1)
    batches.close()
    batches.close()
    assert_threads(before)
    with pytest.raises(ValueError, match="step >= 1"), stream().batches(0, 1, 512, TOKENIZER):
        stream().packed(0, 1, 512, TOKENIZER, step=0)
    assert_threads(before)
    dropped = stream().batches(0, 1, 512, TOKENIZER)
    del dropped
    gc.collect()
    assert_threads(before)
    with pytest.raises(RuntimeError, match="the batches were closed"):
        next(batches)


def test_who_waits_when_another_thread_closes_gets_the_error():
    # a row of 8 million tokens takes long enough that `close` finds `next` waiting
    batches, errors = stream().batches(0, 1, 8_000_000, TOKENIZER), []

    def wait():
        try:
            next(batches)
        except RuntimeError as error:
            errors.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    batches.close()
    waiting.join()
    assert errors == ["the batches were closed"]


@pytest.mark.parametrize(
    "start, rows, length, how, message",
    [
        (-1, 1, 64, {}, "got start -1, step 1, rows 1, length 64"),
        (0, 0, 64, {}, "got start 0, step 1, rows 0, length 64"),
        (0, 1, 64, {"step": 0}, "got start 0, step 0, rows 1, length 64"),
        (0, 2**16, 2**16, {}, "got start 0, step 1, rows 65536, length 65536"),
        ([0, -5], 1, 64, {}, "got start -5, step 1, rows 1, length 64"),
        ([], 1, 64, {}, "got 0 starts and ahead 2"),
        (0, 1, 64, {"ahead": 0}, "got 1 starts and ahead 0"),
    ],
)
def test_bad_arguments_name_their_value(start, rows, length, how, message):
    with pytest.raises(ValueError, match=f"batches: need .*{message}"):
        stream().batches(start, rows, length, TOKENIZER, **how)


IN_USE = """
import os, sys
import fastreason as fr
mixture = fr.Mixture.uniform(op=[3], themes=["symbolic"])
batches = fr.TaskStream(mixture).batches(0, 1, 512, fr.Tokenizer.for_mixtures([mixture]))
next(batches)
"""
IN_A_FORK = """
pid = os.fork()
if not pid:
    try:
        next(batches)
    except RuntimeError as error:
        os._exit(3 if "another process" in str(error) else 4)
    os._exit(5)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
pid = os.fork()
if not pid:
    batches.close()
    del batches
    sys.exit(6)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 6
next(batches)
"""


# the interpreter ends while the iterator lives; by an error; in a forked child, which has no thread
@pytest.mark.parametrize(
    "more, code", [("", 0), ("raise SystemExit(9)", 9), (IN_A_FORK, 0)], ids=["end", "error", "fork"]
)
def test_processes_end(more, code):
    done = subprocess.run([sys.executable, "-c", IN_USE + more], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, "")

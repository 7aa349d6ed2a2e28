"""Whether `--compare` sees a slow-down here and no other: `python -m bench.regressions.compare --self-test`.

Small operations of every part are timed by the machinery of the suites, beside peers: five runs as they are, and two
in which one operation does 20 % more work than it says. Each of the five is compared with the others, the two with all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from fastreason.kernels import Segments

import fastreason as fr
from fastreason import _core, kernels

from ..harness.environment import new_run
from ..harness.questions import Contestant, Question, Settings, Work
from ..harness.records import OURS, Run, write_run
from ..harness.run_suite import run_suite
from .compare import ALLOWED, Compared, compare

__all__ = ["PLANTED", "questions", "self_test", "verdict"]

PLANTED = 1.2
RUNS, SLOWED = 5, 2
_PLANT = "FASTREASON_BENCH_PLANT"


def questions(settings: Settings) -> Iterator[Question]:
    """Ours alone, or with the peer that does the same; what is planted says less work than it does."""
    for name, unit, ours, peer in (
        ("drawing problems", "problems", _draw, {}),
        ("grading", "verdicts", _grade, {}),
        ("packing", "tokens", _pack, {}),
        ("encoding", "documents", _encode, {"tokenizers": _encode_theirs}),
        ("attention", "tokens", _attention, {"torch": _attention_theirs}),
        ("product", "rows", _product, {"torch": _product_theirs}),
        ("gate", "rows", _gate, {"torch": _gate_theirs}),
        ("norm", "rows", _norm, {"torch": _norm_theirs}),
        ("loss", "rows", _loss, {"torch": _loss_theirs}),
    ):
        contestants = {OURS: Contestant(_started(ours, planted=os.environ.get(_PLANT) == name))}
        contestants |= {provider: Contestant(_started(start)) for provider, start in peer.items()}
        yield Question(name, {}, unit, contestants, turns=settings.size(9, 2), turn_s=0.04)


Sized = Callable[[float], Callable[[], float]]


def _started(start: Sized, planted: bool = False) -> Callable[[], Work]:
    def begin() -> Work:
        # else a call of a millisecond takes twice as long in a process whose allocator gives pages back
        _core.keep_freed_memory()
        work = start(PLANTED if planted else 1.0)
        return (lambda: work() / PLANTED) if planted else work

    return begin


@cache
def _stream() -> fr.TaskStream:
    return fr.TaskStream(fr.Mixture.uniform(op=range(2, 11), themes=["zoo"]), seed=0)


@cache
def _tokenizer() -> fr.Tokenizer:
    return fr.Tokenizer.build(["zoo"])


def _draw(size: float) -> Callable[[], float]:
    indices = np.arange(round(2000 * size))
    return lambda: float(len(_stream().batch(indices, threads=1)))


def _grade(size: float) -> Callable[[], float]:
    batch = _stream()[0 : round(500 * size)]
    return lambda: float(len(fr.grade(batch, batch.solutions, threads=1)))


def _pack(size: float) -> Callable[[], float]:
    rows = round(40 * size)
    return lambda: float(_stream().packed(0, rows, 4096, _tokenizer(), threads=1).lengths.sum())


def _encode(size: float) -> Callable[[], float]:
    documents = _stream()[0 : round(500 * size)].documents
    return lambda: float(len(_tokenizer().core.encode_batch(documents)[1]) - 1)


def _encode_theirs(size: float) -> Callable[[], float]:
    import tokenizers

    with TemporaryDirectory() as folder:
        _tokenizer().save_pretrained(folder)
        theirs = tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    documents = _stream()[0:50].documents
    return lambda: float(sum(bool(theirs.encode(text, add_special_tokens=False).ids) for text in documents))


def _rows(n: float, *widths: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(round(n), width, generator=generator).requires_grad_() for width in widths]


def _with_gradient(forward: Callable[[], torch.Tensor], rows: int) -> Callable[[], float]:
    def work() -> float:
        forward().sum().backward()
        return float(rows)

    return work


def _attention(size: float) -> Callable[[], float]:
    lengths = [100] * round(10 * size)
    q, k, v = (x.view(len(x), -1, 32) for x in _rows(sum(lengths), 128, 64, 64))
    return _with_gradient(lambda: kernels.attention(q, k, v, Segments.from_lengths(lengths)), sum(lengths))


def _attention_theirs(size: float) -> Callable[[], float]:
    q, k, v = (x.view(10, 4, 100, 32) for x in _rows(1000, 128, 128, 128))
    return _with_gradient(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True), 1000)


def _product(size: float) -> Callable[[], float]:
    (x,), (weight,) = _rows(1000 * size, 256), _rows(512, 256)
    return _with_gradient(lambda: kernels.linear(x, weight), len(x))


def _product_theirs(size: float) -> Callable[[], float]:
    (x,), (weight,) = _rows(1000, 256), _rows(512, 256)
    return _with_gradient(lambda: F.linear(x, weight), len(x))


def _gate(size: float) -> Callable[[], float]:
    (x,) = _rows(4000 * size, 512)
    return _with_gradient(lambda: kernels.swiglu(x), len(x))


def _gate_theirs(size: float) -> Callable[[], float]:
    (x,) = _rows(4000, 512)
    return _with_gradient(lambda: F.silu(x[:, :256]) * x[:, 256:], len(x))


def _norm(size: float) -> Callable[[], float]:
    (x,), weight = _rows(4000 * size, 256), torch.ones(256, requires_grad=True)
    return _with_gradient(lambda: kernels.rms_norm(x, weight), len(x))


def _norm_theirs(size: float) -> Callable[[], float]:
    (x,), weight = _rows(4000, 256), torch.ones(256, requires_grad=True)
    return _with_gradient(lambda: F.rms_norm(x, (256,), weight), len(x))


def _loss(size: float) -> Callable[[], float]:
    (x,) = _rows(4000 * size, 300)
    labels = torch.arange(len(x)) % 300
    return _with_gradient(lambda: kernels.cross_entropy(x, labels), len(x))


def _loss_theirs(size: float) -> Callable[[], float]:
    (x,) = _rows(4000, 300)
    labels = torch.arange(len(x)) % 300
    return _with_gradient(lambda: F.cross_entropy(x, labels), len(x))


def self_test(plant: str | None = None, keep: Path | None = None) -> int:
    """Makes the runs, prints what the comparisons say, and returns 0 if that is right, 1 if not, 2 for a wrong name.

    Args:
        plant: the operation that is slowed down; default: the first.
        keep: where the runs are left.
    """
    names = [question.what for question in questions(Settings())]
    plant = names[0] if plant is None else plant
    if plant not in names:
        print(f"compare: --plant must be one of {', '.join(names)}, got {plant!r}", file=sys.stderr)
        return 2
    runs = []
    for number in range(RUNS + SLOWED):
        slowed = number >= RUNS
        print(f"run {number + 1} of {RUNS + SLOWED}{f', {plant} slower by 20 %' if slowed else ''}", flush=True)
        runs.append(_timed(plant if slowed else ""))
        if keep is not None:
            write_run(keep / (f"planted-{number - RUNS + 1}.json" if slowed else f"plain-{number + 1}.json"), runs[-1])
    right, text = verdict(runs[:RUNS], runs[RUNS:], plant)
    print(text)
    return int(not right)


def _timed(plant: str) -> Run:
    with _set(_PLANT, plant):
        done = run_suite(__name__, Settings(), {})
    if done.failure:
        raise RuntimeError(f"bench.regressions.self_test: a contestant failed\n{done.failure}")
    return new_run(done.records, threads=1, peaks={}, skipped=done.skipped, modules=["tokenizers"])


@contextmanager
def _set(name: str, value: str) -> Iterator[None]:
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def verdict(plain: Sequence[Run], planted: Sequence[Run], plant: str) -> tuple[bool, str]:
    """Whether each plain run has no alarm against the others and the planted ones have just one against all of them.

    Also says, without judging, how comparisons of single runs end.
    """
    lines, right = [], True
    for i, run in enumerate(plain):
        slow = _slow([*plain[:i], *plain[i + 1 :]], [run])
        right &= not slow
        lines.append(f"run {i + 1} against the other {len(plain) - 1}: {', '.join(slow) or 'nothing'} slower")
    found, _ = compare(plain, planted)
    slow = [one.new.what for one in found if one.change.slower_by(ALLOWED)]
    right &= slow == [plant]
    lines.append(f"the {len(planted)} planted runs against all {len(plain)}: {', '.join(map(_said, found))}")
    lines.append(f"  {', '.join(slow) or 'nothing'} slower by more than {100 * ALLOWED:.0f} % beyond noise")
    pairs = [(a, b) for a in plain for b in plain if a is not b]
    false = sum(bool(_slow([a], [b])) for a, b in pairs)
    against = [(a, b) for a in plain for b in planted]
    caught = sum(plant in _slow([a], [b]) for a, b in against)
    lines.append(f"single runs: {false} of {len(pairs)} plain pairs raise an alarm, {caught} of {len(against)} see it")
    return right, "\n".join([*lines, "as it should be" if right else "NOT as it should be"])


def _said(one: Compared) -> str:
    return f"{one.new.what} {100 * np.expm1(one.change.change):+.1f} ± {100 * np.expm1(one.change.band):.1f} %"


def _slow(base: Sequence[Run], new: Sequence[Run]) -> list[str]:
    return [one.new.what for one in compare(base, new)[0] if one.change.slower_by(ALLOWED)]

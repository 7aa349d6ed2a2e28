"""Self-training: what is kept, that it is learnt, and that it does not depend on stops and ranks."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason.grading.erring_verifier import VerifierErrors
from fastreason.rl.self_settings import SelfSettings
from fastreason.rl.self_training import PolicyTraces, self_train
from fastreason.runtime import distributed
from fastreason.runtime.metrics_log import MetricsLog, without_times
from fastreason.runtime.stop_request import Interrupted, StopRequest
from fastreason.training.optimizer import OptimSettings
from fastreason.training.supervised_settings import Phase

from ..ranks import run_on_ranks

PART = {"op": [2, 3], "themes": ["symbolic"], "max_value": 99, "max_sentences": 4}
MIX = fr.Mixture.from_dict([PART])
TOKENIZER = fr.Tokenizer.for_mixtures([MIX])


def new_model() -> fr.Decoder:
    model = fr.Decoder(fr.ModelConfig(len(TOKENIZER), 32, 2, 4, 2, 64))
    model.reset_parameters(0)
    return model


def settings(**changes) -> SelfSettings:
    optim = OptimSettings(matrices="adamw", matrix_lr=5e-3, lr=5e-3)
    given = {"tokens": 2000, "batch_tokens": 512, "prompts": 8, "samples": 4, "max_new_tokens": 6, "optim": optim}
    given |= {"level": f"{__name__}:arm", "phases": [Phase(1.0, [PART])], "prefetch": 0}
    return SelfSettings(**(given | changes))


def arm(problems, samples, verdicts) -> np.ndarray:
    """A bandit with four arms, of which each problem pays for another: nothing can be guessed from other problems."""
    group = len(samples.tokens) // len(problems)
    return ((samples.tokens[:, 0] * 7 + (problems.hashes % 4).astype(np.int64).repeat(group)) % 4 == 0).astype(float)


def some(problems, samples, verdicts) -> np.ndarray:
    return (samples.tokens[:, 0] % 2).astype(float)


def traces(own: SelfSettings, length: int = 512) -> tuple[PolicyTraces, dict]:
    source = PolicyTraces(new_model(), TOKENIZER, own, 0, length, StopRequest(), "self")
    line = source.refill(0.0)
    assert line is not None
    return source, line


def split(source: PolicyTraces) -> list[tuple[bytes, bytes]]:
    """(prompt, sample) of each trace."""
    ends = source.sizes[:, 0].cumsum()
    return [
        (source.tokens[end - size : end - size + prompt].tobytes(), source.tokens[end - size + prompt : end].tobytes())
        for end, (size, prompt) in zip(ends, source.sizes, strict=True)
    ]


def test_a_model_that_learns_its_traces_rises_to_pass_at_n(tmp_path):
    """The bandit's p is 1/4: of n = 4 samples at least one is right with 68 %, and that arm is learnt by heart."""
    model = new_model()
    num, n = 96, 4
    stage = settings(prompts=num, samples=n, max_new_tokens=1, tokens=400_000, batch_tokens=2048)

    def pass_at_1() -> np.ndarray:
        problems = fr.TaskStream(MIX, seed=0, split="rl")[0:num]
        samples = fr.Rollout(model, TOKENIZER).generate(problems, 64, max_new_tokens=1, seed=9)
        return arm(problems, samples, None).reshape(num, 64).mean(1)

    before = pass_at_1()
    log = tmp_path / "metrics.jsonl"
    progress = self_train(model, TOKENIZER, stage, folder=tmp_path / "c", log=log)
    line = json.loads(log.read_text().splitlines()[0])
    solved = (1 - (1 - before) ** n).mean()
    assert 0.55 < solved < 0.8
    assert abs(line["problems"] / num - solved) < 3 * np.sqrt(solved * (1 - solved) / num)
    want = line["problems"] / num + (1 - line["problems"] / num) * before.mean()
    assert abs(pass_at_1().mean() - want) < 0.1 and pass_at_1().mean() > before.mean() + 0.3
    assert progress["flop"] > line["flop"] > 0 and progress["sampled"] == line["sampled"] == num * n


def test_what_is_kept():
    everything, line = traces(settings(level="outcome", at_least=0.0, samples=6, max_new_tokens=1, prompts=80))
    pairs = split(everything)
    assert len(pairs) == len(set(pairs)) < 80 * 6 and line["kept"] == 1.0  # equal traces once
    assert line["traces"] == len(pairs) and line["problems"] == 80 and line["max_op"] == 3
    assert 1 < line["graphs"] < 80 and 1.0 <= line["mean_length"] < 1.1  # an answer that ends gets [EOS]

    half, _ = traces(settings(level=f"{__name__}:some", samples=6, max_new_tokens=1, prompts=80))
    assert set(split(half)) == {(p, s) for p, s in pairs if np.frombuffer(s, np.int32)[0] % 2}
    one, _ = traces(settings(level=f"{__name__}:some", samples=6, max_new_tokens=1, prompts=80, most=1))
    assert len({p for p, _ in split(one)}) == len(one.sizes) == len({p for p, _ in split(half)})
    edge, _ = traces(settings(level=f"{__name__}:some", samples=2, max_new_tokens=1, prompts=80, only_edge=True))
    both, _ = traces(settings(level=f"{__name__}:some", samples=2, max_new_tokens=1, prompts=80))
    assert set(split(edge)) < set(split(both))
    assert max(np.unique([p for p, _ in split(edge)], return_counts=True)[1]) == 1  # one of two passed

    with pytest.raises(ValueError, match="self: none of 320 samples was kept in round 1, so there is nothing"):
        traces(settings(level="verified", prompts=80))
    erring, line = traces(settings(level="verified", prompts=80, verifier=VerifierErrors(false_positive=0.5)))
    assert 0.4 < line["kept"] < 0.6 and line["verified"] == 0.0
    assert len(erring.sizes) > 100


def test_a_gold_sample_is_the_training_document():
    source = PolicyTraces(new_model(), TOKENIZER, settings(), 0, 512, StopRequest(), "self")
    stream = fr.TaskStream(MIX, seed=0, split="rl")
    tokens, bounds, prompts = stream.encoded(0, 5, TOKENIZER)
    gold = [tokens[a + p : b - 1] for a, b, p in zip(bounds[:-1], bounds[1:], prompts, strict=True)]  # no [EOS]
    padded = np.zeros((5, max(map(len, gold))), np.int32)
    for row, each in zip(padded, gold, strict=True):
        row[: len(each)] = each
    heads = [tokens[a : a + p] for a, p in zip(bounds[:-1], prompts, strict=True)]
    samples = fr.RolloutOutput(
        padded, np.array([*map(len, gold)]), padded * 0.0, np.ones(5, bool), np.concatenate(heads),
        np.concatenate([[0], prompts.cumsum()]), padded * 0.0, TOKENIZER,
    )  # fmt: skip
    assert fr.grade(stream[0:5], samples).sound.all()
    one = PolicyTraces(new_model(), TOKENIZER, settings(samples=1), 0, 512, StopRequest(), "self")
    _, (source.tokens, source.sizes) = one._distinct(samples, np.ones(5, dtype=bool))
    assert source.tokens.tolist() == tokens.tolist()
    source.round = 0
    batch, following = source.draw(0, [0, 1])
    counts = np.bincount([len(each) for each in split(source)])
    assert counts.sum() == 5 and following == [following[0] // 2 * 2, following[1] // 2 * 2 + 1]
    documents = {tokens[a:b].tobytes() for a, b in pairwise(bounds)}
    drawn = [batch.tokens[s : s + n] for s, n in zip(batch.starts, batch.lengths, strict=True)]
    assert {each.tobytes() for each in drawn} == documents
    masks = [batch.loss_mask[s : s + n].sum() for s, n in zip(batch.starts, batch.lengths, strict=True)]
    assert set(masks) == set((np.diff(bounds) - prompts).tolist())


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"level": "right"}, "self: level must be one of verified, sound, outcome"),
        ({"level": "sound", "at_least": 0.5}, "at_least has no effect with level 'sound'"),
        ({"rounds": 0}, "self: rounds must be at least 1, got 0"),
        ({"temperature": 0.0}, "self: temperature must be at least 1e-06, got 0.0"),
        ({"tokens": 5, "budget": "1e9 flop"}, "tokens and budget exclude each other"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


class StopAtCall(StopRequest):
    """Asks to stop at the n-th question, whether between steps or while sampling."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def on_any_rank(self) -> bool:
        self.number -= 1
        return self.number == 0


def run(folder: Path, stop: StopRequest | None = None) -> tuple[list, dict, list]:
    stage = settings(rounds=3, prompts=65, samples=2, max_new_tokens=2, batch_tokens=1024, rows=2, budget="1e9 flop",
                     tokens=None, verifier=VerifierErrors(false_positive=0.1))  # fmt: skip
    model, log = new_model(), MetricsLog(folder / "metrics.jsonl")
    progress = self_train(model, TOKENIZER, stage, seed=1, folder=folder / "c", log=log, stop=stop)
    lines = [without_times(line) for line in log.read()] if distributed.is_main() else []
    weights = torch.cat([weight.detach().flatten() for weight in model.parameters()]).tolist()
    return lines, without_times(progress), weights


def test_a_stage_that_is_stopped_goes_on_bit_for_bit(tmp_path):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    want = run(tmp_path / "whole")
    assert [line["round"] for line in want[0] if "round" in line] == [1, 2, 3]
    number, stops = 1, 0
    while True:  # before the first round, in its middle, between steps
        try:
            got = run(tmp_path / "parts", StopAtCall(number))
            break
        except Interrupted:
            number, stops = number % 5 + 1, stops + 1
    assert stops > 3
    rounds = [line for line in got[0] if "round" in line]
    assert rounds == [line for line in want[0] if "round" in line]
    assert got[1:] == want[1:]


def test_two_ranks_draw_the_same_traces(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    both, other = run_on_ranks(2, __name__, "run_here", str(tmp_path / "two"), out=tmp_path / "out")
    alone = run(tmp_path / "one")
    assert both[2] == other[2]
    np.testing.assert_allclose(both[2], alone[2], atol=1e-4, rtol=0)
    rounds = [[line for line in lines if "round" in line] for lines in (both[0], alone[0])]
    assert rounds[0][0] == rounds[1][0]  # later ones are of other roundings
    assert both[1]["next_index"] == alone[1]["next_index"]


def run_here(folder: str):
    return run(Path(folder))

"""What two ranks of real steps send is what the formulas say, collective by collective and byte by byte; and each does
half of the work."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fastreason as fr
from bench.scaling.collectives_model import (
    Collective,
    Links,
    all_gather_bytes,
    all_reduce_bytes,
    checkpoint_bytes,
    checkpoint_exchange,
    evaluation_exchange,
    policy_step,
    sent_bytes,
    shapes_of,
    supervised_step,
)
from bench.scaling.gloo_meter import HEADER_BYTES, CollectiveCounter
from fastreason.evaluation import evaluate
from fastreason.evaluation.evaluate import EvaluateSettings
from fastreason.model.flop import train_flop
from fastreason.rl import loop
from fastreason.rl.loop import PolicySettings, reinforce
from fastreason.runtime import distributed
from fastreason.runtime.metrics_log import MetricsLog
from fastreason.runtime.stop_request import StopRequest
from fastreason.training import supervised
from fastreason.training.optimizer import OptimSettings
from fastreason.training.parallel import Replica
from fastreason.training.supervised import train
from fastreason.training.supervised_settings import Phase, SupervisedSettings

from ..ranks import run_on_ranks

PART = {"op": [2, 3], "themes": ["symbolic"], "max_value": 99, "max_sentences": 4}
# 301 and 49 rows are not shared out evenly
SIZE: dict[str, Any] = dict(hidden_size=64, num_hidden_layers=3, num_attention_heads=4, intermediate_size=49)
ROWS, PROMPTS, SAMPLES, PROBLEMS = 4, 6, 4, 5
OPTIM = {"muon": OptimSettings(), "adamw": OptimSettings(matrices="adamw", matrix_lr=1e-3)}
# parallel, matrices, parts of a rank's step, whether every step saves
CASES = {
    "ddp": ("ddp", "adamw", 1, False),
    "ddp in parts": ("ddp", "muon", 3, False),
    "ddp saves": ("ddp", "adamw", 1, True),
    "fsdp": ("fsdp", "adamw", 1, False),
    "fsdp muon in parts": ("fsdp", "muon", 3, False),
    "fsdp muon saves": ("fsdp", "muon", 1, True),
}
RL = {"rl": {}, "rl minibatches": {"minibatches": 2, "epochs": 2}}


class Meter(StopRequest):
    """Counts one step: from the end of the second, where every loop asks whether to stop, to the end of the third."""

    def __init__(self) -> None:
        super().__init__()
        self.counter, self.step = CollectiveCounter(), 0

    def on_any_rank(self) -> bool:
        asked, self.step = super().on_any_rank(), self.step + 1
        if self.step == 2:
            self.counter.start()
        if self.step == 3:
            self.counter.stop()
        return asked

    def found(self) -> dict[str, Any]:
        seen = sorted([kind, size, count] for (kind, size), count in self.counter.seen.items())
        return {"seen": seen, "written": self.counter.written_bytes}


def tokenizer_of() -> fr.Tokenizer:
    return fr.Tokenizer.for_mixtures([fr.Mixture.from_dict([PART])])


def model_of() -> fr.Decoder:
    model = fr.Decoder(fr.ModelConfig(301, **SIZE))
    model.reset_parameters(0)
    return model


def supervised_case(folder: Path, case: str) -> dict[str, Any]:
    """A short stage; what its third step sent, and what this rank computed in all steps."""
    parallel, matrices, parts, saves = CASES[case]
    settings = SupervisedSettings(
        phases=[Phase(1.0, [PART])], budget="110 samples", batch_tokens=1024, rows=ROWS, parallel=parallel,
        accumulate=parts, save_every_s=0.0 if saves else 1e9, optim=OPTIM[matrices],
    )  # fmt: skip
    meter, work = Meter(), {"tokens": 0, "flop": 0.0}
    model, real = model_of(), supervised.supervised_loss

    def counted_loss(replica: Any, batch: fr.PackedBatch, *how: Any) -> torch.Tensor:
        work["tokens"] += int(batch.lengths.sum())
        work["flop"] += train_flop(model.config, batch.lengths)
        return real(replica, batch, *how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Replica, "settle", lambda self, loss: None)  # a pass in front of the first step
        patch.setattr(supervised, "supervised_loss", counted_loss)
        log = MetricsLog(folder / "metrics.jsonl")
        progress = train("pretrain", model, tokenizer_of(), settings, seed=0, folder=folder / "c", log=log, stop=meter)
    return meter.found() | work | {"steps": progress["step"], "all_tokens": progress["tokens"]}


def rl_case(folder: Path, case: str) -> dict[str, Any]:
    settings = PolicySettings(
        mixture=[PART], prompts=PROMPTS, samples=SAMPLES, steps=4, max_new_tokens=8, truncated="keep",
        save_every_s=1e9, optim=OPTIM["adamw"], **RL[case],
    )  # fmt: skip
    meter, work = Meter(), {"samples": 0, "tokens": 0, "flop": 0.0}
    real = loop._advance

    def counted_advance(progress: Any, batch: Any, cost: Any, *others: Any) -> Any:
        work["samples"] += len(batch.groups.lengths)
        work["tokens"] += batch.total_tokens
        work["flop"] += batch.flop + cost[0]
        return real(progress, batch, cost, *others)

    def reward(problems: Any, samples: Any, verdicts: Any) -> np.ndarray:
        return (np.arange(len(samples.lengths)) % SAMPLES == 0).astype(np.float32)  # every group has a gradient

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_advance", counted_advance)
        reinforce(
            model_of(), tokenizer_of(), settings, seed=1, folder=folder / "c", log=MetricsLog(folder / "metrics.jsonl"),
            stop=meter, reward=reward,
        )  # fmt: skip
    return meter.found() | work


def evaluate_case() -> dict[str, Any]:
    """What an evaluation sends, and the arrays that it gathers."""
    settings = EvaluateSettings([PART], problems=PROBLEMS, samples=2048, k=[1], max_new_tokens=2, traces=1)
    counter, gathered, real = CollectiveCounter(), [], distributed.gather_arrays
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate.distributed, "gather_arrays", lambda x: gathered.append(x) or real(x))
        counter.start()
        result = evaluate.evaluate(model_of(), tokenizer_of(), settings)
        counter.stop()
    meter = Meter()
    meter.counter = counter
    problems, traces = gathered
    return meter.found() | {"problems": len(problems), "traces": len(traces), "samples": result["samples"]}


def everything(folder: str) -> dict[str, Any]:
    cases = dict.fromkeys(CASES, supervised_case) | dict.fromkeys(RL, rl_case)
    found = {}
    for name, run in cases.items():
        place = Path(folder) / name.replace(" ", "-")
        place.mkdir(exist_ok=True)
        distributed.barrier()
        found[name] = run(place, name)
    return found | {"evaluate": evaluate_case()}


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    """The folder of two ranks, what one process found, and what each of two ranks did."""
    folder = tmp_path_factory.mktemp("communication")
    (folder / "one").mkdir()
    (folder / "two").mkdir()
    two = run_on_ranks(2, __name__, "everything", str(folder / "two"), out=folder / "out")
    return folder, everything_alone(folder / "one"), two


def everything_alone(folder: Path) -> dict[str, Any]:
    """What is needed of one process: its work."""
    found = {}
    for name, run in {"ddp": supervised_case, "rl": rl_case}.items():
        (folder / name).mkdir()
        found[name] = run(folder / name, name)
    return found


def expected(case: str) -> list[Collective]:
    config = model_of().config
    if case in RL:
        updates = RL[case].get("minibatches", 1) * RL[case].get("epochs", 1)
        return policy_step(config, 2, prompts=PROMPTS, samples=SAMPLES, updates=updates)
    parallel, matrices, parts, saves = CASES[case]
    how: dict[str, Any] = dict(parallel=parallel, matrices=matrices)
    step = supervised_step(config, 2, rows=ROWS, parts=parts, accumulate=parts, **how)
    return step + (checkpoint_exchange(config, 2, **how) if saves else [])


@pytest.mark.parametrize("case", [*CASES, *RL])
def test_a_step_of_two_ranks_has_exactly_these_collectives(found, case):
    want = Counter((one.kind, one.size_bytes) for one in expected(case))
    for rank in found[2]:
        assert Counter({(kind, size): count for kind, size, count in rank[case]["seen"]}) == want


@pytest.mark.parametrize("case", [*CASES, *RL])
def test_the_kernel_counts_these_bytes_and_headers(found, case):
    want = sent_bytes(expected(case), 2, backend="gloo")
    written = sum(rank[case]["written"] for rank in found[2]) / 2
    files = checkpoint_bytes(model_of().config, matrices=CASES[case][1]) / 2 if "saves" in case else 0  # by rank 0
    room = HEADER_BYTES * len(expected(case)) + (50_000 if files else 0)  # headers of tensors, tokenizer, counters
    assert want + files <= written <= want + files + room
    if not files:
        assert room < 0.05 * want


def test_an_evaluation_of_two_ranks(found):
    ranks = [rank["evaluate"] for rank in found[2]]
    # parts of 4,096 samples are 2 problems: 3 of each op, which the ranks take in turns
    assert [rank["problems"] for rank in ranks] == [5, 5]
    want = evaluation_exchange(2, problems=5, trace_bytes=max(rank["traces"] for rank in ranks))
    for rank in ranks:
        counted = Counter({(kind, size): count for kind, size, count in rank["seen"]})
        assert counted == Counter((one.kind, one.size_bytes) for one in want)
        assert rank["samples"] == 2 * PROBLEMS * 2048


def test_two_ranks_do_half_of_the_work_each(found):
    _, one, two = found
    alone, ranks = one["ddp"], [rank["ddp"] for rank in two]
    assert alone["tokens"] == alone["all_tokens"] == sum(rank["tokens"] for rank in ranks)
    assert sum(rank["flop"] for rank in ranks) == pytest.approx(alone["flop"], rel=1e-12)
    for rank in ranks:  # rows hold whole documents, so not all are equally full
        assert rank["tokens"] == pytest.approx(alone["tokens"] / 2, rel=0.05)
        assert rank["flop"] == pytest.approx(alone["flop"] / 2, rel=0.05)


def test_two_ranks_of_reinforcement_learning_sample_half_each(found):
    _, one, two = found
    alone, ranks = one["rl"], [rank["rl"] for rank in two]
    assert alone["samples"] == 4 * PROMPTS * SAMPLES
    assert [rank["samples"] for rank in ranks] == [alone["samples"] / 2] * 2
    # the weights of ranks and of one process drift apart in rounding alone, and what is drawn with them hardly ever
    assert sum(rank["tokens"] for rank in ranks) == pytest.approx(alone["tokens"], rel=0.01)
    for rank in ranks:
        assert rank["flop"] == pytest.approx(alone["flop"] / 2, rel=0.15)  # prompts have different lengths


def test_one_rank_sends_nothing(found):
    _, one, _ = found
    assert one["ddp"]["seen"] == one["rl"]["seen"] == []
    config = model_of().config
    assert supervised_step(config, 1, parallel="fsdp") == policy_step(config, 1, prompts=4, samples=2) == []
    assert evaluation_exchange(1, problems=9) == checkpoint_exchange(config, 1, parallel="fsdp") == []


@pytest.mark.parametrize("case", ["ddp saves", "fsdp muon saves"])
def test_a_checkpoint_has_the_bytes_of_its_tensors(found, case):
    config, matrices = model_of().config, CASES[case][1]
    place = found[0] / "two" / case.replace(" ", "-") / "c"
    size = sum(path.stat().st_size for path in place.rglob("*.safetensors"))
    want = checkpoint_bytes(config, matrices=matrices, finished=True)
    assert want <= size <= want + 10_000  # the last one holds no optimizer
    assert checkpoint_bytes(config, matrices=matrices) > want


def test_the_optimizer_keeps_as_many_numbers_as_are_counted():
    from fastreason.training.optimizer import Optimizer

    for matrices in ("muon", "adamw"):
        model = model_of()
        optimizer = Optimizer(model, OPTIM[matrices])
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step(0.5)
        tensors = optimizer.state_tensors()
        kept = sum(t.numel() * t.element_size() for t in tensors.values()) + 4 * model.num_parameters
        assert kept == checkpoint_bytes(model.config, matrices=matrices)


def test_shapes_are_those_of_the_model():
    model = model_of()
    assert sorted(shapes_of(model.config).all) == sorted(tuple(p.shape) for p in model.parameters())


def test_volumes_of_rings():
    assert all_reduce_bytes(80, 1) == all_gather_bytes(80, 1) == 0
    assert all_reduce_bytes(80, 2) == 80
    assert all_gather_bytes(80, 2) == 40
    assert all_reduce_bytes(80, 10**6) == pytest.approx(160)


def test_links_take_what_their_narrowest_part_takes():
    gradients = Collective("all_reduce", "gradients", 10**9)
    links = Links(per_node=4, node_bytes_per_s=100e9, network_bytes_per_s=10e9, share=0.5, tree=False)
    assert links.bytes_per_s(4) == 50e9
    assert links.bytes_per_s(5) == 20e9  # four adapters
    assert links.seconds(gradients, 4) == pytest.approx(1.5e9 / 50e9 + 6 * links.node_latency_s)
    mean_s = (6 * links.node_latency_s + 2 * links.network_latency_s) / 8
    assert links.seconds(gradients, 8) == pytest.approx(1.75e9 / 20e9 + 14 * mean_s)
    # what is small goes faster up and down a tree of 2 + 7 levels than round a ring of 512
    small = Collective("all_reduce", "norm", 4)
    assert links.seconds(small, 512) > 10 * Links(per_node=4, tree=True).seconds(small, 512)
    # counters take the way between CPUs, and the ring there
    stop = Collective("all_reduce", "stop", 16, on_host=True)
    assert Links(host_latency_s=1e-3).seconds(stop, 512) == pytest.approx(1.022, rel=1e-3)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: all_reduce_bytes(-1, 2), "all_reduce_bytes: size_bytes must be at least 0 and finite, got -1"),
        (lambda: all_gather_bytes(1, 0), "all_gather_bytes: ranks must be at least 1 and finite, got 0"),
        (lambda: sent_bytes([], 2, backend="mpi"), "sent_bytes: backend must be .*, got 'mpi'"),
        (lambda: supervised_step(model_of().config, 2, rows=3), "rows must be a multiple of the 2 ranks, got 3"),
        (lambda: supervised_step(model_of().config, 2, parts=2), "parts must be at most accumulate = 1, got 2"),
        (lambda: supervised_step(model_of().config, 2, parallel="tp"), "parallel must be one of ddp, fsdp, got 'tp'"),
        (lambda: policy_step(model_of().config, 2, prompts=0, samples=1), "policy_step: prompts must be at least 1"),
        (lambda: checkpoint_bytes(model_of().config, matrices="sgd"), "matrices must be one of muon, adamw, got 'sgd'"),
        (lambda: Links(share=1.5), "Links: share must be in 0 .. 1, got 1.5"),
        (lambda: Links(node_latency_s=0), "Links: node_latency_s must be positive and finite, got 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_an_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()

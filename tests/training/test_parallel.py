"""Supervised training on two ranks: the losses of one process on the same rows, whatever shares the work, and a stage
that changes its number of ranks on the way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import fastreason as fr
from fastreason.runtime import distributed
from fastreason.runtime.metrics_log import MetricsLog, without_times
from fastreason.runtime.stop_request import Interrupted, StopRequest
from fastreason.training import checkpoint, supervised
from fastreason.training.optimizer import OptimSettings
from fastreason.training.parallel import Replica
from fastreason.training.supervised import train
from fastreason.training.supervised_settings import Phase, SupervisedSettings

from ..ranks import ROOT, run_on_ranks

PART = {"op": [2], "themes": ["symbolic"], "max_sentences": 3, "max_value": 99}
OPTIM = {"muon": OptimSettings(weight_decay=0.1), "adamw": OptimSettings(matrices="adamw", matrix_lr=3e-3)}


class StopAt(StopRequest):
    """Is asked to stop at step `at`, on rank 1 alone where there is one."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def on_any_rank(self) -> bool:
        self.at -= 1
        self.requested = self.terminated = self.at == 0 and distributed.rank() == distributed.world_size() - 1
        return super().on_any_rank()


def stage(folder: str, stop_at: int = -1, seed: int = 0, **changes: Any) -> list[float]:
    """The loss of every step of a small stage: two phases, validation, accumulation, a vocabulary of odd size."""
    settings = SupervisedSettings(
        **{
            "phases": [Phase(0.5, [PART]), Phase(1.0, [PART | {"op": [3]}])],
            "budget": "520 samples",
            "batch_tokens": 512,
            "rows": 2,
            "accumulate": 2,
            "optim": OPTIM[changes.pop("optimizer", "muon")],
            "validate_every": 12,
            "validation_tokens": 1500,
            **changes,
        }
    )
    tokenizer = fr.Tokenizer.for_mixtures(settings.mixtures)
    model = fr.Decoder(fr.ModelConfig(len(tokenizer), 32, 2, 4, 2, 48))
    model.reset_parameters(seed)
    losses: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        real = supervised.step_loss
        patch.setattr(supervised, "step_loss", lambda *a: losses.append(real(*a)) or losses[-1])
        log = MetricsLog(Path(folder) / "metrics.jsonl")
        try:
            train(
                "pretrain", model, tokenizer, settings, seed=0, folder=Path(folder) / "c", log=log, stop=StopAt(stop_at)
            )
        except Interrupted:
            assert stop_at > 0
    saved = checkpoint.load_model(Path(folder) / "c")
    # the caller's model is trained, whole, on every rank
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), saved.parameters(), strict=True))
    return losses


def all_at_once(folder: str) -> dict[str, list[float]]:
    """Every case that needs two ranks, in one start of them."""
    place = Path(folder)
    return {
        "ddp": stage(place / "ddp"),
        "fsdp": stage(place / "fsdp", parallel="fsdp"),
        "fsdp adamw": stage(place / "fsdp-adamw", parallel="fsdp", optimizer="adamw"),
        # each way to share the work stopped and continued by another seed's weights, so that all come from the file
        "ddp in parts": stage(place / "ddp-parts", 13) + stage(place / "ddp-parts", seed=1),
        "fsdp in parts": stage(place / "fsdp-parts", 13, parallel="fsdp")
        + stage(place / "fsdp-parts", seed=1, parallel="fsdp"),
        # begun by one process, before
        "one then ddp": stage(place / "one-ddp", seed=1),
        "one then fsdp": stage(place / "one-fsdp", seed=1, parallel="fsdp"),
        # more parts than a rank has documents, and not as many on every rank
        "uneven parts": stage(place / "uneven", parallel="fsdp", accumulate=1000, budget="50 samples"),
        # every rank must end at the same step
        "seconds": stage(place / "seconds", budget="0.5 seconds"),
        # to be continued by one process, behind
        "ddp then one": stage(place / "ddp-one", 16),
        "fsdp then one": stage(place / "fsdp-one", 16, parallel="fsdp"),
    }


@pytest.fixture(scope="module")
def losses(tmp_path_factory) -> tuple[Path, dict[str, list[float]]]:
    """The losses of all cases, those of one process among them."""
    folder = tmp_path_factory.mktemp("ranks")
    for name in ("ddp", "fsdp", "fsdp-adamw", "ddp-parts", "fsdp-parts", "one-ddp", "one-fsdp", "ddp-one", "fsdp-one"):
        (folder / name).mkdir()
    for name in ("uneven", "seconds", "one", "one-adamw", "one-uneven"):
        (folder / name).mkdir()
    one = {"one uneven": stage(folder / "one-uneven", budget="50 samples")}
    one |= {"one": stage(folder / "one"), "one adamw": stage(folder / "one-adamw", optimizer="adamw")}
    begun = {"one then ddp": stage(folder / "one-ddp", 16), "one then fsdp": stage(folder / "one-fsdp", 16)}
    first, second = run_on_ranks(2, __name__, "all_at_once", str(folder), out=folder / "out")
    assert first == second
    for name, before in begun.items():
        first[name] = before + first[name]
    first["ddp then one"] += stage(folder / "ddp-one", seed=1)
    first["fsdp then one"] += stage(folder / "fsdp-one", seed=1)
    return folder, first | one


def test_gradients_of_parts_are_summed_whether_a_part_has_them_or_not():
    first, second, third = weights = torch.nn.ParameterList(torch.nn.Parameter(torch.ones(2)) for _ in range(3))
    replica = Replica(weights, "ddp")
    for number, loss in enumerate((lambda: (2 * first + 3 * second).sum(), lambda: (5 * first + 7 * third).sum())):
        with replica.reducing(number == 1):
            loss().backward()
    assert [x.grad.tolist() for x in weights] == [[7.0, 7.0], [3.0, 3.0], [7.0, 7.0]]


@pytest.mark.parametrize(
    "case", ["ddp", "fsdp", "one then ddp", "one then fsdp", "ddp then one", "fsdp then one", "fsdp adamw"]
)
def test_two_ranks_give_the_losses_of_one_process(losses, case):
    want = losses[1]["one adamw" if "adamw" in case else "one"]
    got = losses[1][case]
    assert len(got) == len(want) >= 30
    assert want[-1] < 0.7 * want[0]
    worst = max(abs(a - b) for a, b in zip(got, want, strict=True))
    assert worst < 1e-5


def test_ranks_with_different_numbers_of_parts_wait_for_each_other(losses):
    got, want = losses[1]["uneven parts"], losses[1]["one uneven"]
    assert len(got) == len(want) >= 3
    assert max(abs(a - b) for a, b in zip(got, want, strict=True)) < 1e-5


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_a_stop_and_a_resume_on_as_many_ranks_change_no_bit(losses, kind):
    folder, values = losses
    assert values[f"{kind} in parts"] == values[kind]
    lines = [MetricsLog(folder / name / "metrics.jsonl").read() for name in (kind, f"{kind}-parts")]
    assert [without_times(line) for line in lines[0]] == [without_times(line) for line in lines[1]]
    assert any("val_loss" in line for line in lines[0])
    places = [folder / name / "c" for name in (kind, f"{kind}-parts")]
    assert len({(place / "model.safetensors").read_bytes() for place in places}) == 1
    progress = [without_times(checkpoint.load_progress(place)) for place in places]
    assert progress[0] == progress[1]


def four_ranks(folder: str) -> list[list[float]]:
    whole, parts = str(Path(folder) / "whole"), str(Path(folder) / "parts")
    short = {"rows": 4, "budget": "200 samples", "validate_every": 0}
    return [stage(whole, **short), stage(parts, 4, **short) + stage(parts, seed=1, **short)]


def test_sums_over_more_than_two_ranks_round_alike_before_and_behind_a_stop(tmp_path):
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole, parts = run_on_ranks(4, __name__, "four_ranks", str(tmp_path), out=tmp_path)[0]
    assert whole == parts
    assert len(whole) > 7


def test_what_is_written_does_not_tell_how_many_ranks_wrote_it(losses):
    """Counters and the steps of metrics.jsonl, each of which stands there once, and no file that one process lacks."""
    folder, _ = losses
    want = [
        (line["step"], line["tokens"], line["flop"]) for line in MetricsLog(folder / "one" / "metrics.jsonl").read()
    ]
    one = without_times(checkpoint.load_progress(folder / "one" / "c"))
    for name in ("ddp", "fsdp"):
        lines = MetricsLog(folder / name / "metrics.jsonl").read()
        assert [(line["step"], line["tokens"], line["flop"]) for line in lines] == want
        progress = without_times(checkpoint.load_progress(folder / name / "c"))
        assert progress.pop("best_loss") == pytest.approx(one["best_loss"], abs=1e-5)
        assert progress == {key: value for key, value in one.items() if key != "best_loss"}
        files, wanted = (
            sorted(path.relative_to(folder / run).as_posix() for path in (folder / run).rglob("*"))
            for run in (name, "one")
        )
        assert files == wanted


def failures(folder: str) -> dict[str, str]:
    """What goes wrong on one rank, and what each rank hears of it."""
    place, heard = Path(folder), {}

    def hear(name: str, **changes: Any) -> None:
        try:
            stage(str(place / name), **changes)
        except Exception as error:
            heard[name] = f"{type(error).__name__}: {error}"

    hear("rows", rows=3)
    for kind in ("ddp", "fsdp"):
        with pytest.MonkeyPatch.context() as patch:
            real, rank = supervised.supervised_loss, distributed.rank()
            calls = iter(range(1000))
            # the third step of rank 1, in the second of its two parts
            patch.setattr(
                supervised,
                "supervised_loss",
                lambda *a: real(*a) * (torch.inf if next(calls) == 5 and rank == 1 else 1.0),  # noqa: B023
            )
            hear(f"{kind}-loss", parallel=kind, validate_every=0)
        with pytest.MonkeyPatch.context() as patch:
            if distributed.is_main():
                patch.setattr(checkpoint, "flush", lambda path: (_ for _ in ()).throw(OSError("disk full")))
            hear(f"{kind}-disk", parallel=kind)
    return heard


def test_what_goes_wrong_on_one_rank_stops_all(tmp_path):
    for name in ("rows", "ddp-loss", "fsdp-loss", "ddp-disk", "fsdp-disk"):
        (tmp_path / name).mkdir()
    first, second = run_on_ranks(2, __name__, "failures", str(tmp_path), out=tmp_path / "out")
    assert "3 rows per step cannot be divided evenly among 2 ranks" in first["rows"]
    assert first["rows"] == second["rows"]
    for kind in ("ddp", "fsdp"):
        assert "the loss is inf at step 3, whose batch begins at problem" in first[f"{kind}-loss"]
        assert first[f"{kind}-loss"] == second[f"{kind}-loss"]
        assert "disk full" in first[f"{kind}-disk"]
        assert second[f"{kind}-disk"] == "OtherRankFailed: another rank stopped with an error"
        # the step of both ranks, repeated by one process
        model, batch, loss = supervised.replay(tmp_path / f"{kind}-loss" / "c-failed")
        assert batch.rows == 2
        assert 0 < loss < 6
        assert model.embedding.weight.grad.isfinite().all()


def test_torchrun_runs_a_recipe_and_one_process_goes_on_with_it(tmp_path):
    """SIGTERM reaches rank 1 alone; both ranks save and exit with 143, and one process finishes the run."""
    from ..test_runner import SHORT

    folder = tmp_path / "run"
    chosen = SHORT | {"threads": 1, "pretrain.tokens": 60_000, "pretrain.parallel": "fsdp"}
    flags = [text for name, value in chosen.items() for text in (f"--{name}", str(value))]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "fastreason", "run", "smoke"]
    started = subprocess.Popen(
        [sys.executable, *launch, "--out", str(folder), *flags],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while started.poll() is None and not any(
        len(MetricsLog(path).read()) >= 2 for path in folder.glob("stages/pretrain-*/metrics.jsonl")
    ):
        time.sleep(0.05)
    children = Path(f"/proc/{started.pid}/task/{started.pid}/children").read_text().split()
    (second,) = (pid for pid in children if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes())
    os.kill(int(second), signal.SIGTERM)
    _, err = started.communicate(timeout=120)
    assert err.count("stopped; run the same command with --resume to continue") == 2
    assert "exitcode  : 143" in err  # of the rank that is first; torchrun ends the other one
    place = folder / "checkpoints" / "pretrain"
    progress = checkpoint.load_progress(place)
    assert not progress["finished"]
    assert len(progress["next_index"]) == 2
    results = fr.run("smoke", folder, resume=True, overrides=chosen | {"pretrain.parallel": "ddp"})
    assert list(results["stages"]) == ["pretrain", "midtrain", "rl"]
    lines = [line for line in MetricsLog(folder / "metrics.jsonl").read() if line["stage"] == "pretrain"]
    assert [line["step"] for line in lines[:-1]] == list(range(10, lines[-1]["step"], 10))
    assert json.loads((folder / "results.json").read_text()) == results

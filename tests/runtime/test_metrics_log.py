"""metrics.jsonl, trackers that are imported only when asked for, and signals."""

import os
import signal
import subprocess
import sys
import types

import pytest

import fastreason as fr
from fastreason.runtime.metrics_log import MetricsLog, without_times
from fastreason.runtime.stop_request import Interrupted, StopRequest
from fastreason.runtime.trackers import TRACKERS


def test_the_folder_of_a_log_is_made_at_once_by_the_rank_that_writes(tmp_path):
    for number, log in enumerate([MetricsLog, MetricsLog.of]):
        log(tmp_path / f"{number}" / "deep" / "metrics.jsonl").write("pretrain", step=1)
    assert len(list(tmp_path.glob("*/deep/metrics.jsonl"))) == 2
    MetricsLog(None)
    assert len(list(tmp_path.iterdir())) == 2


def test_lines_are_written_read_and_forgotten(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2, 3):
        log.write("pretrain", step=step, loss=1 / 3, seconds=0.5, tokens_per_s=9.0, peak_percent=50.0)
    log.write("rl", step=9, reward=0.5)
    with log.path.open("a") as file:
        file.write('{"stage": "pre')  # a crash in the middle of a line
    log.forget_after("pretrain", 2)
    assert [(line["stage"], line["step"]) for line in log.read()] == [("pretrain", 1), ("pretrain", 2), ("rl", 9)]
    assert without_times(log.read()[0]) == {"stage": "pretrain", "step": 1, "loss": 0.333333}


class Hosted(types.ModuleType):
    """Stands in for wandb and trackio, whose interface it has."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    def init(self, **named):
        self.calls.append(("init", named))

    def log(self, numbers):
        self.calls.append(("log", numbers))

    def finish(self):
        self.calls.append(("finish", None))


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_hosted_trackers_get_every_number_under_its_stage(tmp_path, monkeypatch, name):
    module = Hosted(name)
    monkeypatch.setitem(sys.modules, name, module)
    log = MetricsLog(tmp_path / "metrics.jsonl", [name], "mine")
    log.write("pretrain", step=10, loss=2.5, reward_by_op={"2": 1.0})
    log.close()
    assert module.calls == [
        ("init", {"project": "fastreason", "name": "mine"}),
        ("log", {"pretrain/loss": 2.5, "pretrain/step": 10}),
        ("finish", None),
    ]
    assert len(log.read()) == 1


def test_tensorboard_gets_every_number_under_its_stage(tmp_path, monkeypatch):
    scalars = []

    class SummaryWriter:
        def __init__(self, folder):
            scalars.append(folder)

        def add_scalar(self, tag, value, step):
            scalars.append((tag, value, step))

        def close(self):
            scalars.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    log = MetricsLog(tmp_path / "metrics.jsonl", ["tensorboard"])
    log.write("rl", step=3, reward=0.25)
    log.close()
    assert scalars == [str(tmp_path / "tensorboard"), ("rl/reward", 0.25, 3), "closed"]


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_that_is_not_installed_says_what_to_do(tmp_path, monkeypatch, name):
    for module in ("torch.utils.tensorboard", "tensorboard", "wandb", "trackio"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        ModuleNotFoundError, match=f"metrics: '{name}' needs a package .*pip install .fastreason.{name}"
    ):
        MetricsLog(tmp_path / "metrics.jsonl", [name])
    with pytest.raises(ValueError, match="must be of tensorboard, trackio, wandb, got 'mlflow'"):
        MetricsLog(tmp_path / "metrics.jsonl", ["mlflow"])


def test_nothing_is_imported_that_was_not_asked_for():
    code = (
        "import sys, pathlib, tempfile; from fastreason.runtime.metrics_log import MetricsLog\n"
        "MetricsLog(pathlib.Path(tempfile.mkdtemp()) / 'm.jsonl').write('pretrain', step=1, loss=1.0)\n"
        "print([m for m in ('tensorboard', 'torch.utils.tensorboard', 'wandb', 'trackio') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_run_that_is_stopped_closes_its_trackers(tmp_path, monkeypatch):
    module = Hosted("wandb")
    monkeypatch.setitem(sys.modules, "wandb", module)
    looks = iter(range(1000))
    stopped = property(lambda self: next(looks) > 0, lambda self, value: None)  # not before the first stage
    monkeypatch.setattr(StopRequest, "requested", stopped, raising=False)
    with pytest.raises(Interrupted):
        fr.run("smoke", tmp_path / "run", overrides={"metrics": ["wandb"]})
    assert module.calls == [("init", {"project": "fastreason", "name": "smoke"}), ("finish", None)]


def test_signals_ask_to_stop_and_a_second_interrupt_stops(capsys):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with StopRequest.watch() as stop:
        assert not stop.requested and not stop.on_any_rank()
        for _ in range(3):  # a scheduler may repeat itself
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested and stop.terminated
        assert stop.on_any_rank() and stop.terminated
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with StopRequest.watch() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.requested and stop.on_any_rank() and not stop.terminated
    assert before == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    assert "terminated: stopping at the next step" in capsys.readouterr().err

"""kill -9 at random moments, saving included: the run goes on as if it had never been stopped, to the last bit, with or
without a thread that draws batches ahead.

6 kills by default; FASTREASON_KILLS asks for another number.
"""

import os
import random
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import fastreason as fr
from fastreason.runtime.metrics_log import MetricsLog, without_times
from fastreason.runtime.stop_request import StopRequest
from fastreason.training import checkpoint
from fastreason.training.optimizer import OptimSettings
from fastreason.training.supervised import train
from fastreason.training.supervised_settings import Phase, SupervisedSettings

from ..kills import kill_at_flush
from ..processes import forked

KILLS = int(os.environ.get("FASTREASON_KILLS", "6"))
PART = {"op": [2], "themes": ["symbolic"], "max_sentences": 3, "max_value": 99}
# every step is saved, so that most moments lie inside a save; phases, validation and older checkpoints take part
SETTINGS = SupervisedSettings(
    phases=[Phase(0.5, [PART]), Phase(1.0, [PART | {"op": [3]}])],
    tokens=3000,
    batch_tokens=128,
    rows=2,
    accumulate=2,
    optim=OptimSettings(schedule="wsd"),
    save_every_s=0.0,
    keep=2,
    validate_every=4,
    validation_tokens=128,
)


def run(folder: Path, kill_at: int, prefetch: int) -> None:
    """Trains to the end in this process, which kills itself at the `kill_at`-th flush to disk, if there are so many."""
    settings = replace(SETTINGS, prefetch=prefetch)
    kill_at_flush(kill_at)
    tokenizer = fr.Tokenizer.for_mixtures(settings.mixtures)
    config = fr.ModelConfig(len(tokenizer), 16, 1, 2, 1, 16)
    model = fr.Decoder(config)
    model.reset_parameters(0)
    log = MetricsLog(folder / "metrics.jsonl")
    train("pretrain", model, tokenizer, settings, seed=0, folder=folder / "c", log=log, stop=StopRequest())


def outcome(folder: Path) -> tuple[list[dict], list[dict], list[bytes]]:
    """Everything that must not depend on kills: metrics and counters without times, and the bytes of all weights."""
    lines = [without_times(line) for line in MetricsLog(folder / "metrics.jsonl").read()]
    places = [folder / "c", checkpoint.best_checkpoint(folder / "c"), *checkpoint.kept_checkpoints(folder / "c")]
    for place in places:
        checkpoint.check_files(place)
    counters = [without_times(checkpoint.load_progress(place)) for place in places]
    weights = [(place / "model.safetensors").read_bytes() for place in places]
    return lines, [{"folder": place.name, **c} for place, c in zip(places, counters, strict=True)], weights


def test_a_run_that_is_killed_at_random_moments_is_the_unbroken_run(tmp_path):
    (tmp_path / "whole").mkdir()
    started = time.monotonic()
    whole = forked(run, tmp_path / "whole", 0, 2)
    whole.join()
    whole_s = time.monotonic() - started
    assert whole.exitcode == 0
    want = outcome(tmp_path / "whole")
    assert len(want[0]) >= 5

    chance, killed, finished, folder = random.Random(0), 0, 0, tmp_path / "parts"
    inside_a_save = 0
    while killed < KILLS or finished == 0:
        folder.mkdir(exist_ok=True)
        # by turns: somewhere in the flushes of a save, anywhere at all, and, when enough were killed, not
        more = killed < KILLS
        by_flush = more and killed % 2 == 0
        # whether a thread draws ahead, and how far, changes nothing
        prefetch = chance.choice([0, 1, 3])
        process = forked(run, folder, chance.randint(1, 60) if by_flush else 0, prefetch)
        if more and not by_flush:
            process.join(chance.uniform(0.0, whole_s / 2))
            process.kill()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            killed += 1
            inside_a_save += any((folder / name).exists() for name in ("c.new", "c.old", "c-best.new", "c-best.old"))
            continue
        assert process.exitcode == 0
        assert outcome(folder) == want
        finished += 1
        shutil.rmtree(folder)
    assert inside_a_save > 0

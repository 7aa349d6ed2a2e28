"""A whole step of reinforcement learning (sample, grade, update) beside TRL's GRPOTrainer: same weights, prompts,
reward and numbers of samples and tokens, one of ours after each of theirs in one run.

Seconds are CPU time of this process, so that neighbours on the machine count little; with one thread they are the time
that a quiet machine takes. TRL is left out where it is not installed.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fastreason as fr
from fastreason.advantages import advantages
from fastreason.optim import Optimizer, OptimSettings
from fastreason.policy import Groups, PolicySettings, update

from .timing import Row

MIXTURE = {"op": [2, 3, 4, 5], "themes": ["zoo"]}
PROMPTS, SAMPLES, NEW_TOKENS = 16, 16, 64
LEARNING_RATE, BETA = 1e-4, 0.04
# of TRL's steps; the first of either is not counted
STEPS = 4
# sequences of one backward pass of TRL: all of a step at once, or a quarter (the same gradient); the better one counts
TRL_PARTS = (1, 4)


def rows() -> Iterator[Row]:
    for name, kl_coef in (("on-policy, no reference", 0.0), ("KL to a reference", BETA)):
        ours, theirs = compare(kl_coef)
        whole = [sum(phases) for phases in ours]
        peer = ("TRL", 1.0 / statistics.median(theirs)) if theirs else None
        what = f"RL step, {PROMPTS} x {SAMPLES} x {NEW_TOKENS} tokens, {bench_model()[0].num_parameters / 1e6:.2f} M"
        yield Row(f"{what}, {name}", 1.0 / statistics.median(whole), "steps/s", (1 / max(whole), 1 / min(whole)), peer)
        for phase, seconds in zip(("sample", "grade", "update"), zip(*ours, strict=True), strict=True):
            share = [100.0 * part / all_ for part, all_ in zip(seconds, whole, strict=True)]
            yield Row(f"of it {phase}", statistics.median(share), "%", (min(share), max(share)))


def bench_model() -> tuple[fr.Decoder, fr.Tokenizer, fr.TaskStream]:
    """Hidden 128, 4 layers, 4 query and 2 key-value heads, feed-forward 256, random weights: no sample ends early."""
    mixture = fr.Mixture.from_dict(MIXTURE)
    tokenizer = fr.Tokenizer.for_mixtures([mixture])
    model = fr.Decoder(fr.ModelConfig(len(tokenizer), 128, 4, 4, 2, 256))
    model.reset_parameters(0)
    return model, tokenizer, fr.TaskStream(mixture, seed=0, split="rl")


def compare(kl_coef: float) -> tuple[list[tuple[float, float, float]], list[float]]:
    """Seconds of (sample, grade, update) of each of our steps, and of each of TRL's."""
    model, tokenizer, stream = bench_model()
    step = our_step(model, tokenizer, stream, kl_coef)
    if find_spec("trl") is None:
        return [step(i) for i in range(STEPS + 1)][1:], []
    found = []
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(Path(folder) / "model", tokenizer)
        for parts in TRL_PARTS:
            found.append(trl_steps(Path(folder), tokenizer, stream, kl_coef, parts, step))
    ours = [seconds for each, _ in found for seconds in each]
    return ours, min((theirs for _, theirs in found), key=statistics.median)


def our_step(
    model: fr.Decoder, tokenizer: fr.Tokenizer, stream: fr.TaskStream, kl_coef: float
) -> Callable[[int], tuple[float, float, float]]:
    """What `reinforce` does in a step, with times between its phases."""
    optim = OptimSettings(matrices="adamw", matrix_lr=LEARNING_RATE, lr=LEARNING_RATE, schedule="constant")
    settings = PolicySettings(mixture=[MIXTURE], prompts=PROMPTS, samples=SAMPLES, optim=optim, kl_coef=kl_coef)
    engine, optimizer, reference = fr.Rollout(model, tokenizer), Optimizer(model, optim), None
    if kl_coef:
        reference = fr.Decoder(model.config).requires_grad_(False)
        reference.load_state_dict(model.state_dict())

    def step(number: int) -> tuple[float, float, float]:
        begin = time.process_time()
        problems = stream[number * PROMPTS : (number + 1) * PROMPTS]
        samples = engine.generate(problems, SAMPLES, max_new_tokens=NEW_TOKENS, prompt_ids=problems.indices)
        sampled = time.process_time()
        verdicts = fr.grade(problems, samples.tokens, tokenizer=tokenizer, threads=1)
        rewards = torch.from_numpy(speaking_reward(fr.rewards.strict(verdicts)))
        graded = time.process_time()
        groups, advantages_S = Groups.of(samples, rewards), advantages(rewards, SAMPLES)
        update(model, optimizer, groups, advantages_S, settings, 0.5, reference=reference)
        return sampled - begin, graded - sampled, time.process_time() - graded

    return step


def speaking_reward(strict: np.ndarray) -> np.ndarray:
    """Random weights solve nothing: every other sample earns something, so that every group has a gradient."""
    return (strict + np.arange(len(strict)) % 2).astype(np.float32)


def trl_steps(
    folder: Path,
    tokenizer: fr.Tokenizer,
    stream: fr.TaskStream,
    beta: float,
    parts: int,
    our: Callable[[int], tuple[float, float, float]],
) -> tuple[list[tuple[float, float, float]], list[float]]:
    """Trains with TRL for some steps, each followed by one of ours; seconds of both."""
    warnings.simplefilter("ignore")
    import transformers

    from fastreason.integrations.trl import prompts, reward

    trl: Any = import_module("trl")

    transformers.logging.set_verbosity_error()
    ours: list[tuple[float, float, float]] = []
    theirs: list[float] = []

    class Alternate(transformers.TrainerCallback):
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            self.begin = time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            theirs.append(time.process_time() - self.begin)
            ours.append(our(len(ours)))

    config = trl.GRPOConfig(
        output_dir=str(folder / "trl"), per_device_train_batch_size=PROMPTS * SAMPLES // parts,
        gradient_accumulation_steps=parts, num_generations=SAMPLES, max_completion_length=NEW_TOKENS,
        max_steps=STEPS + 1, beta=beta, learning_rate=LEARNING_RATE, use_cpu=True, bf16=False, save_strategy="no",
        logging_steps=1, report_to=[], disable_tqdm=True, shuffle_dataset=False, gradient_checkpointing=False,
    )  # fmt: skip
    scored = reward("strict", tokenizer=tokenizer, threads=1)
    processor = transformers.PreTrainedTokenizerFast.from_pretrained(folder / "model")

    def reward_function(**given: Any) -> list[float]:
        return speaking_reward(np.asarray(scored(**given), dtype=np.float32)).tolist()

    trainer = trl.GRPOTrainer(
        str(folder / "model"), reward_function, config, prompts(stream, stop=PROMPTS * (STEPS + 1)),
        processing_class=processor, callbacks=[Alternate()],
    )  # fmt: skip
    trainer.train()
    return ours[1:], theirs[1:]

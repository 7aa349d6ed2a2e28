"""A step of reinforcement learning in a process: `python -m bench.suites.rl_worker CONTESTANT SIZE KL_COEF THREADS`.

Ours and TRL's GRPOTrainer: same weights, prompts, reward, numbers of samples and tokens.
bench/harness/worker_process.py says what the process is asked and answers.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch

import fastreason as fr
from fastreason import _core
from fastreason.rl.advantages import advantages
from fastreason.rl.loop import Groups, PolicySettings, update
from fastreason.rl.statistics import pass_flop
from fastreason.training.optimizer import Optimizer, OptimSettings

from ..harness.worker_process import Report, rounds_of, serve

MIXTURE = {"op": [2, 3, 4, 5], "themes": ["zoo"]}
LEARNING_RATE = 1e-4
# steps that are not counted
WARM_UP = 1


@dataclass(frozen=True)
class Size:
    """Of a step: prompts, samples of each and tokens of each sample."""

    prompts: int
    samples: int
    new_tokens: int

    @property
    def sequences(self) -> int:
        return self.prompts * self.samples


SIZES = {"full": Size(8, 8, 64), "quick": Size(2, 4, 8)}


def bench_model() -> tuple[fr.Decoder, fr.Tokenizer, fr.TaskStream]:
    """Hidden 128, 4 layers, 4 query and 2 key-value heads, feed-forward 256, random weights: no sample ends early."""
    mixture = fr.Mixture.from_dict(MIXTURE)
    tokenizer = fr.Tokenizer.for_mixtures([mixture])
    model = fr.Decoder(fr.ModelConfig(len(tokenizer), 128, 4, 4, 2, 256))
    model.reset_parameters(0)
    return model, tokenizer, fr.TaskStream(mixture, seed=0, split="rl")


def our_step(size: Size, kl_coef: float, threads: int) -> Callable[[Report], None]:
    """What `reinforce` does in a step, with times between its phases."""
    _core.keep_freed_memory()
    model, tokenizer, stream = bench_model()
    optim = OptimSettings(matrices="adamw", matrix_lr=LEARNING_RATE, lr=LEARNING_RATE, schedule="constant")
    settings = PolicySettings(
        mixture=[MIXTURE], prompts=size.prompts, samples=size.samples, optim=optim, kl_coef=kl_coef
    )
    engine, optimizer, reference = fr.Rollout(model, tokenizer), Optimizer(model, optim), None
    if kl_coef:
        reference = fr.Decoder(model.config).requires_grad_(False)
        reference.load_state_dict(model.state_dict())
    done = [0]
    clock = time.process_time if threads == 1 else time.perf_counter

    def step(report: Report) -> None:
        begin = clock()
        problems = stream[done[0] : done[0] + size.prompts]
        samples = engine.generate(problems, size.samples, max_new_tokens=size.new_tokens, prompt_ids=problems.indices)
        sampled = clock()
        verdicts = fr.grade(problems, samples.tokens, tokenizer=tokenizer, threads=threads)
        rewards = torch.from_numpy(speaking_reward(fr.rewards.strict(verdicts)))
        graded = clock()
        groups, advantages_S = Groups.of(samples, rewards), advantages(rewards, size.samples)
        update(model, optimizer, groups, advantages_S, settings, 0.5, reference=reference)
        seconds = {"sampling": sampled - begin, "grading": graded - sampled, "updating": clock() - graded}
        lengths_PG = groups.lengths.reshape(size.prompts, -1)
        # one pass samples, three update, one is the reference's
        flop = (5 if kl_coef else 4) * pass_flop(model.config, np.diff(groups.prompt_offsets), lengths_PG)
        report.add(1, flop, **seconds)
        done[0] += size.prompts

    return step


def speaking_reward(strict: np.ndarray) -> np.ndarray:
    """Random weights solve nothing: every other sample earns something, so that every group has a gradient."""
    return (strict + np.arange(len(strict)) % 2).astype(np.float32)


def run_trl(size: Size, beta: float, threads: int, parts: int) -> None:
    """TRL's GRPOTrainer, with all samples of a step in one backward pass, or in several."""
    warnings.simplefilter("ignore")
    import transformers

    from fastreason.integrations.trl import prompts, reward

    trl: Any = import_module("trl")
    transformers.logging.set_verbosity_error()
    model, tokenizer, stream = bench_model()
    report = Report()
    rounds = rounds_of(transformers.TrainerCallback, report, WARM_UP)

    class Counting(type(rounds)):  # type: ignore[misc]
        def on_step_end(self, *given: Any, **named: Any) -> None:
            report.add(1)
            super().on_step_end(*given, **named)

    scored = reward("strict", tokenizer=tokenizer, threads=threads)

    def reward_function(**given: Any) -> list[float]:
        return speaking_reward(np.asarray(scored(**given), dtype=np.float32)).tolist()

    with TemporaryDirectory() as folder:
        saved = Path(folder) / "model"
        model.save_pretrained(saved, tokenizer)
        config = trl.GRPOConfig(
            output_dir=str(Path(folder) / "trl"), per_device_train_batch_size=size.sequences // parts,
            gradient_accumulation_steps=parts, num_generations=size.samples, max_completion_length=size.new_tokens,
            max_steps=10**6, beta=beta, learning_rate=LEARNING_RATE, use_cpu=True, bf16=False, save_strategy="no",
            report_to=[], disable_tqdm=True, shuffle_dataset=False, gradient_checkpointing=False,
        )  # fmt: skip
        processor = transformers.PreTrainedTokenizerFast.from_pretrained(saved)
        trainer = trl.GRPOTrainer(
            str(saved), reward_function, config, prompts(stream, stop=100 * size.prompts),
            processing_class=processor, callbacks=[Counting()],
        )  # fmt: skip
        trainer.train()


def main() -> None:
    contestant, name, kl_coef, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    size = SIZES[name]
    if contestant == "fastreason":
        serve(our_step(size, float(kl_coef), int(threads)), WARM_UP)
    else:
        run_trl(size, float(kl_coef), int(threads), parts={"trl": 1, "trl-parts": 4}[contestant])


if __name__ == "__main__":
    main()

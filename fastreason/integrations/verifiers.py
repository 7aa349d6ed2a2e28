"""verifiers: problems and their verdicts as a taskset of `verifiers.v1`.

verifiers finds a taskset by the name of a top-level module, so write one, my_taskset.py, and name that:

    from fastreason.integrations.verifiers import FastreasonTaskset
    __all__ = ["FastreasonTaskset"]

    vf-eval my_taskset --env.taskset.op '[2,3,4]' --env.taskset.task.reward strict

The model's server must apply a chat template that writes our prompts, as the folders do that fastreason saves.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from ..tasks.mixture import Mixture
from ..tasks.stream import Split, TaskStream
from .text_reward import TextReward, questions

try:
    import verifiers.v1 as vf
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "fastreason.integrations.verifiers needs verifiers: pip install 'fastreason[verifiers]'"
    ) from error

__all__ = ["FastreasonTaskset"]

_CHUNK = 64  # problems drawn per call


class FastreasonTaskConfig(vf.TaskConfig):
    reward: str = "strict"
    """outcome, blended, strict, steps or the reward of an installed package."""


class FastreasonConfig(vf.TasksetConfig):
    """The arguments of `Mixture.uniform` and of the stream; tasks are endless, so select or limit them."""

    op: list[int] = [2, 3, 4, 5, 6, 7, 8, 9, 10]
    themes: list[str] = ["zoo"]
    modes: list[str] = ["forward"]
    depths: list[int] = [2]
    max_value: int | None = None
    split: Split = "rl"
    seed: int = 0
    task: FastreasonTaskConfig = FastreasonTaskConfig()


class FastreasonData(vf.TaskData):
    solution: str
    """The gold solution."""
    op: int
    """Its number of operations."""


class FastreasonTask(vf.Task[FastreasonData, vf.State, FastreasonTaskConfig]):
    """A problem without tags, which the chat template adds."""

    @property
    def key(self) -> str:
        return self.data.id or self.hash

    def report(self, text: str) -> dict[str, float]:
        """The reward of a reply as `score`, and the verdict; servers remove the stop string `</answer>`."""
        reward = TextReward(self.config.reward, threads=1, answer_may_end_text=True)
        return reward.report_one(self.data.solution, text)

    @vf.reward
    async def score(self, trace: vf.Trace) -> float:
        return self.report(trace.last_reply)["score"]

    @vf.metric
    async def answer_correct(self, trace: vf.Trace) -> float:
        return self.report(trace.last_reply)["answer_correct"]

    @vf.metric
    async def verified(self, trace: vf.Trace) -> float:
        return self.report(trace.last_reply)["verified"]

    @vf.metric
    async def process_accuracy(self, trace: vf.Trace) -> float:
        return self.report(trace.last_reply)["process_accuracy"]


class FastreasonTaskset(vf.Taskset[FastreasonTask, FastreasonConfig]):
    """The problems of a stream in order, without end."""

    INFINITE = True

    def load(self) -> Iterator[FastreasonTask]:
        config = self.config
        given = {} if config.max_value is None else {"max_value": config.max_value}
        mixture = Mixture.uniform(config.op, config.themes, config.modes, config.depths, **given)
        stream = TaskStream(mixture, seed=config.seed, split=config.split)
        for first in count(0, _CHUNK):
            batch = stream[first : first + _CHUNK]
            for row, question in zip(batch.rows(), questions(batch), strict=True):
                data = FastreasonData(id=row["id"], prompt=question, solution=row["solution"], op=row["op"])
                yield FastreasonTask(data, config.task)

"""fastreason: study how pre-training, mid-training and reinforcement learning make a language model reason.

Names are imported on first use: `import fastreason` loads neither torch nor the compiled core.
"""

from importlib import import_module
from typing import TYPE_CHECKING

_HOME = {
    "Budget": "training.budget",
    "Cell": "tasks.mixture",
    "Mixture": "tasks.mixture",
    "PackedBatch": "tasks.packed",
    "Problem": "tasks.stream",
    "ProblemBatch": "tasks.stream",
    "TaskStream": "tasks.stream",
    "StreamDataset": "integrations.torch_data",
    "StreamShard": "tasks.stream",
    "Theme": "text.theme",
    "available_themes": "text.theme",
    "available_mixtures": "tasks.mixture",
    "Tokenizer": "text.tokenizer",
    "to_datasets": "integrations.datasets",
    "Ending": "grading.verdicts",
    "StepStatus": "grading.verdicts",
    "Steps": "grading.verdicts",
    "Verdicts": "grading.verdicts",
    "grade": "grading.verdicts",
    "grade_texts": "grading.verdicts",
    "Decoder": "model.decoder",
    "ModelConfig": "model.config",
    "Rollout": "sampling.rollout",
    "RolloutOutput": "sampling.rollout",
    "train": "training.supervised",
    "reinforce": "rl.loop",
    "OptimSettings": "training.optimizer",
    "Phase": "training.supervised_settings",
    "PolicySettings": "rl.settings",
    "SupervisedSettings": "training.supervised_settings",
    "Edge": "evaluation.scores",
    "Estimate": "evaluation.scores",
    "Scores": "evaluation.scores",
    "evaluate": "evaluation.measure",
    "find_edge": "evaluation.measure",
    "pass_at_k": "evaluation.pass_at_k",
    "Recipe": "studies.recipe",
    "load_recipe": "studies.recipe",
    "run": "runner",
}
_MODULES = {"cuda": "runtime.cuda", "rewards": "grading.rewards", "kernels": "kernels"}

__all__ = [*_HOME, *_MODULES]


if TYPE_CHECKING:
    # what type checkers and editors read; tests/test_public_names.py holds it against the table above
    from . import kernels as kernels
    from .evaluation.measure import evaluate as evaluate
    from .evaluation.measure import find_edge as find_edge
    from .evaluation.pass_at_k import pass_at_k as pass_at_k
    from .evaluation.scores import Edge as Edge
    from .evaluation.scores import Estimate as Estimate
    from .evaluation.scores import Scores as Scores
    from .grading import rewards as rewards
    from .grading.verdicts import Ending as Ending
    from .grading.verdicts import Steps as Steps
    from .grading.verdicts import StepStatus as StepStatus
    from .grading.verdicts import Verdicts as Verdicts
    from .grading.verdicts import grade as grade
    from .grading.verdicts import grade_texts as grade_texts
    from .integrations.datasets import to_datasets as to_datasets
    from .integrations.torch_data import StreamDataset as StreamDataset
    from .model.config import ModelConfig as ModelConfig
    from .model.decoder import Decoder as Decoder
    from .rl.loop import reinforce as reinforce
    from .rl.settings import PolicySettings as PolicySettings
    from .runner import run as run
    from .runtime import cuda as cuda
    from .sampling.rollout import Rollout as Rollout
    from .sampling.rollout import RolloutOutput as RolloutOutput
    from .studies.recipe import Recipe as Recipe
    from .studies.recipe import load_recipe as load_recipe
    from .tasks.mixture import Cell as Cell
    from .tasks.mixture import Mixture as Mixture
    from .tasks.mixture import available_mixtures as available_mixtures
    from .tasks.packed import PackedBatch as PackedBatch
    from .tasks.stream import Problem as Problem
    from .tasks.stream import ProblemBatch as ProblemBatch
    from .tasks.stream import StreamShard as StreamShard
    from .tasks.stream import TaskStream as TaskStream
    from .text.theme import Theme as Theme
    from .text.theme import available_themes as available_themes
    from .text.tokenizer import Tokenizer as Tokenizer
    from .training.budget import Budget as Budget
    from .training.optimizer import OptimSettings as OptimSettings
    from .training.supervised import train as train
    from .training.supervised_settings import Phase as Phase
    from .training.supervised_settings import SupervisedSettings as SupervisedSettings

    __version__: str
else:

    def __getattr__(name):
        if name in _HOME:
            value = getattr(import_module(f".{_HOME[name]}", __name__), name)
            globals()[name] = value
            return value
        if name == "__version__":
            # pyproject.toml holds it, and the metadata of the installation a copy
            from importlib.metadata import version

            return version(__name__)
        if name in _MODULES:
            return import_module(f".{_MODULES[name]}", __name__)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

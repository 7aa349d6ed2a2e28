"""fastreason: study how pre-training, mid-training and reinforcement learning make a language model reason.

Names are imported on first use: `import fastreason` loads neither torch nor the compiled core.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Budget": "training.budget",
    "Cell": "tasks.stream",
    "Mixture": "tasks.stream",
    "PackedBatch": "tasks.stream",
    "ProblemBatch": "tasks.stream",
    "TaskStream": "tasks.stream",
    "StreamDataset": "integrations.torch_data",
    "StreamShard": "tasks.shards",
    "Theme": "text.theme",
    "available_themes": "text.theme",
    "available_mixtures": "tasks.stream",
    "Tokenizer": "text.tokenizer",
    "to_datasets": "integrations.datasets",
    "StepStatus": "grading.verdicts",
    "Steps": "grading.verdicts",
    "Verdicts": "grading.verdicts",
    "grade": "grading.verdicts",
    "grade_texts": "grading.verdicts",
    "Decoder": "model.decoder",
    "ModelConfig": "model.decoder",
    "Rollout": "sampling.rollout",
    "RolloutOutput": "sampling.rollout",
    "train": "training.supervised",
    "reinforce": "rl.loop",
    "pass_at_k": "evaluation.pass_at_k",
    "Recipe": "studies.recipe",
    "load_recipe": "studies.recipe",
    "run": "runner",
}
_MODULES = {"cuda": "runtime.cuda", "rewards": "grading.rewards", "kernels": "kernels"}

__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str) -> Any:
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

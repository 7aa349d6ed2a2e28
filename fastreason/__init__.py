"""fastreason: study how pre-training, mid-training and reinforcement learning make a language model reason.

Names are imported on first use: `import fastreason` loads neither torch nor the compiled core.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "Budget": "budget",
    "Cell": "tasks",
    "Mixture": "tasks",
    "PackedBatch": "tasks",
    "ProblemBatch": "tasks",
    "TaskStream": "tasks",
    "StreamDataset": "integrations.torch_data",
    "StreamShard": "shards",
    "Theme": "theme",
    "available_themes": "theme",
    "available_mixtures": "tasks",
    "Tokenizer": "tokenizer",
    "to_datasets": "integrations.datasets",
    "Ending": "grading",
    "StepStatus": "grading",
    "Steps": "grading",
    "Verdicts": "grading",
    "grade": "grading",
    "grade_texts": "grading",
    "Decoder": "model",
    "ModelConfig": "model",
    "Rollout": "rollout",
    "RolloutOutput": "rollout",
    "train": "supervised",
    "reinforce": "policy",
    "pass_at_k": "passk",
    "Recipe": "recipe",
    "load_recipe": "recipe",
    "run": "runner",
}
_MODULES = ("cuda", "rewards", "kernels")

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
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

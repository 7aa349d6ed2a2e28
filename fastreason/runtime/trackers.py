"""Optional trackers in addition to metrics.jsonl: TensorBoard, trackio, Weights & Biases.

Each is imported only when a recipe asks for it (`metrics = ["tensorboard"]`).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

TrackerName = Literal["tensorboard", "trackio", "wandb"]
TRACKERS: tuple[str, ...] = get_args(TrackerName)


class Tracker(Protocol):
    """Receives the numbers of a step; `close` flushes pending data."""

    def write(self, numbers: Mapping[str, float], stage: str, step: int) -> None: ...
    def close(self) -> None: ...


def open_tracker(name: str, folder: Path, run_name: str) -> Tracker:
    """Opens a tracker for this run.

    Args:
        name: one of `TRACKERS`.
        folder: the run directory; TensorBoard writes below it.
        run_name: name of the run in trackio and W&B, in the project `fastreason`.
    Raises:
        ValueError: there is no such tracker.
        ModuleNotFoundError: its package is not installed.
    """
    require_tracker(name)
    return _TensorBoard(folder / "tensorboard") if name == "tensorboard" else _Hosted(name, folder, run_name)


def require_tracker(name: str) -> None:
    """Imports the package of a tracker.

    Raises:
        ValueError, ModuleNotFoundError: see `open_tracker`.
    """
    if name not in TRACKERS:
        raise ValueError(f"metrics: must be of {', '.join(TRACKERS)}, got {name!r}")
    try:
        import_module("torch.utils.tensorboard" if name == "tensorboard" else name)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"metrics: {name!r} needs a package that is not installed ({error.name}); "
            f"pip install 'fastreason[{name}]', or remove it from `metrics`"
        ) from None


class _TensorBoard:
    """Event files; the step counter restarts at every stage, whose name prefixes every tag."""

    def __init__(self, folder: Path) -> None:
        self.writer = import_module("torch.utils.tensorboard").SummaryWriter(str(folder))

    def write(self, numbers: Mapping[str, float], stage: str, step: int) -> None:
        for tag, value in numbers.items():
            self.writer.add_scalar(tag, value, step)

    def close(self) -> None:
        self.writer.close()


class _Hosted:
    """trackio and W&B, which share an interface. They require non-decreasing steps, so each stage has its own step."""

    def __init__(self, name: str, folder: Path, run_name: str) -> None:
        self.module: Any = import_module(name)
        self.run: Any = self.module.init(project="fastreason", name=run_name)

    def write(self, numbers: Mapping[str, float], stage: str, step: int) -> None:
        self.module.log({**numbers, f"{stage}/step": step})

    def close(self) -> None:
        self.module.finish()

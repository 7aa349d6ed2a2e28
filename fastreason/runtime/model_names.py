"""Where a model lies: a local folder, one that ships with the package, or one on the Hugging Face Hub.

A name is looked up in this order, so a local folder hides a shipped model of the same name:

    runs/mine/checkpoints/rl       a folder
    tiny-base, fastreason/tiny-base    one that ships (`shipped_models`)
    hf://OWNER/NAME[@REVISION]     downloaded by huggingface_hub into its cache
"""

from __future__ import annotations

import os
import re
from importlib import resources
from pathlib import Path
from typing import Any

HUB = "hf://"
_HUB_NAME = r"\w[\w.-]*/\w[\w.-]*"


def shipped_models() -> tuple[str, ...]:
    """The names of the trained models that ship."""
    folder = _shipped()
    return tuple(sorted(path.name for path in folder.glob("*") if (path / "config.json").is_file()))


def _shipped() -> Path:
    return Path(str(resources.files("fastreason.model").joinpath("shipped")))


def model_folder(name: str | Path) -> Path:
    """The folder of a model by name; a name that is none of the three is returned as the path that it is.

    Raises:
        ValueError: a name on the Hub is malformed, or cannot be downloaded.
        ModuleNotFoundError: huggingface_hub is needed and not installed.
    """
    text = str(name)
    if text.startswith(HUB):
        return _download(text.removeprefix(HUB))
    if not os.path.exists(text) and (short := text.removeprefix("fastreason/")) in shipped_models():
        return _shipped() / short
    return Path(name)


def _download(name: str) -> Path:
    repository, _, revision = name.partition("@")
    if not re.fullmatch(_HUB_NAME, repository):
        raise ValueError(f"model: a name on the Hub must have the form hf://OWNER/NAME, got {HUB + name!r}")
    hub = _hub()
    patterns = ["*.json", "*.safetensors", "README.md"]  # never code or pickles
    try:
        return Path(hub.snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        raise ValueError(f"model: {HUB}{name} could not be downloaded: {str(error).splitlines()[0][:200]}") from None


def push(folder: str | Path, repository: str, *, private: bool = True) -> str:
    """Uploads a model folder to the Hub, without the state of its training, and returns its address.

    Args:
        folder: with config.json.
        repository: OWNER/NAME, created if missing.
        private: of a repository that is created.
    Raises:
        ValueError: there is no such folder, or the name is malformed.
        ModuleNotFoundError: huggingface_hub is not installed.
        OSError: the upload failed.
    """
    if not (Path(folder) / "config.json").is_file():
        raise ValueError(f"push: no model folder {str(folder)!r}: it has no config.json")
    if not re.fullmatch(_HUB_NAME, repository):
        raise ValueError(f"push: the repository must have the form OWNER/NAME, got {repository!r}")
    hub = _hub()
    try:
        hub.create_repo(repository, private=private, exist_ok=True)
        ignored = ["state/*", "*.new*"]
        return str(hub.upload_folder(repo_id=repository, folder_path=str(folder), ignore_patterns=ignored))
    except (OSError, ValueError, hub.errors.HfHubHTTPError) as error:
        raise OSError(f"push: {repository}: {str(error).splitlines()[0][:200]}") from None


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("the Hub needs huggingface_hub: pip install 'fastreason[hub]'") from error
    return huggingface_hub

"""Models by name: a folder, one that ships, one on the Hub."""

import sys
import types
from pathlib import Path

import pytest

import fastreason as fr
from fastreason.cli.main import main
from fastreason.runtime import model_names
from fastreason.runtime.model_names import model_folder, push

from ..qwen2_oracle import drawn_model

MIX = fr.Mixture.uniform(op=[2], themes=["symbolic"], max_value=9)


@pytest.fixture
def saved(tmp_path):
    tokenizer = fr.Tokenizer.for_mixtures([MIX])
    folder = tmp_path / "saved"
    drawn_model(fr.ModelConfig(len(tokenizer), num_hidden_layers=1)).save_pretrained(folder, tokenizer)
    (folder / "state").mkdir()
    return folder


@pytest.fixture
def hub(monkeypatch, saved):
    """A Hub that answers from memory: what it was asked, and what it should raise."""
    asked: dict = {"raises": None}

    def answer(name, result):
        def call(*given, **named):
            asked[name] = given, named
            if asked["raises"] is not None:
                raise asked["raises"]
            return result

        return call

    class HfHubHTTPError(Exception):
        pass

    errors = types.ModuleType("huggingface_hub.errors")
    errors.HfHubHTTPError = HfHubHTTPError
    module = types.ModuleType("huggingface_hub")
    module.errors, module.snapshot_download = errors, answer("download", str(saved))
    module.create_repo, module.upload_folder = answer("create", None), answer("upload", "https://hub/me/mine")
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    return asked


def test_a_model_that_ships_has_a_name(saved, tmp_path, monkeypatch):
    monkeypatch.setattr(model_names, "_shipped", lambda: saved.parent)
    monkeypatch.chdir(tmp_path / "saved" / "state")
    for name in ("saved", "fastreason/saved"):
        assert model_folder(name) == saved
        assert fr.Decoder.from_pretrained(name).config == fr.ModelConfig.from_pretrained(saved)
        assert fr.Tokenizer.from_pretrained(name) == fr.Tokenizer.from_pretrained(saved)
    Path("saved").mkdir()  # a local folder hides it
    assert model_folder("saved") == Path("saved")
    assert model_folder("fastreason/saved") == saved
    assert model_folder("nothing") == Path("nothing")


def test_a_model_on_the_hub(hub, saved):
    assert fr.Decoder.from_pretrained("hf://me/mine@v1").config == fr.ModelConfig.from_pretrained(saved)
    (name,), named = hub["download"]
    assert (name, named["revision"]) == ("me/mine", "v1")
    assert not [pattern for pattern in named["allow_patterns"] if pattern.endswith((".py", ".bin", "*"))]


def test_a_model_is_pushed_without_the_state_of_its_training(hub, saved, capsys):
    assert main(["export", "hub", str(saved), "me/mine"]) == 0
    assert capsys.readouterr().out == "https://hub/me/mine\n"
    assert hub["create"] == (("me/mine",), {"private": True, "exist_ok": True})
    assert hub["upload"][1]["folder_path"] == str(saved) and "state/*" in hub["upload"][1]["ignore_patterns"]


@pytest.mark.parametrize("name", ["hf://mine", "hf://me/mine/more", "hf://", "hf://me/../mine"])
def test_a_name_that_is_none_on_the_hub(hub, name):
    with pytest.raises(ValueError, match="must have the form hf://OWNER/NAME, got 'hf://"):
        model_folder(name)
    assert "download" not in hub


def test_what_the_hub_refuses(hub, saved):
    hub["raises"] = OSError("no network\nat all")
    with pytest.raises(ValueError, match=r"hf://me/mine could not be downloaded: no network$"):
        model_folder("hf://me/mine")
    with pytest.raises(OSError, match=r"push: me/mine: no network$"):
        push(saved, "me/mine")
    with pytest.raises(ValueError, match=r"no model folder '/nowhere': it has no config.json"):
        push("/nowhere", "me/mine")


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastreason\[hub\]'"):
        model_folder("hf://me/mine")

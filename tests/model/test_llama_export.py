"""Folders for vLLM: as Llama the same function, whatever the width of the heads; transformers is the judge."""

import json

import pytest
import torch

import fastreason as fr
from fastreason.cli.main import main
from fastreason.model.llama_export import HEAD_DIMS, head_dim_for, reads_as_is

from ..qwen2_oracle import deviation, drawn_model

MIX = fr.Mixture.uniform(op=[2], themes=["symbolic"], max_value=9)


def config(**shape):
    return fr.ModelConfig(len(fr.Tokenizer.for_mixtures([MIX])), num_hidden_layers=2, **shape)


@pytest.mark.parametrize(
    "shape, kind, head_dim",
    [
        ({"num_attention_heads": 4, "num_key_value_heads": 2}, "llama", 32),  # tiny: 16
        ({"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 64}, "llama", 64),  # not hidden / heads
        (
            {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "tie_word_embeddings": False},
            "llama",
            32,
        ),
        ({"num_attention_heads": 2, "num_key_value_heads": 1}, "qwen2", 32),
    ],
)
def test_the_folder_computes_what_the_model_does(tmp_path, capsys, shape, kind, head_dim):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = drawn_model(config(**shape)), fr.Tokenizer.for_mixtures([MIX])
    model.save_pretrained(tmp_path / "model", tokenizer)
    assert main(["export", "vllm", str(tmp_path / "model"), "--out", str(tmp_path / "served")]) == 0
    assert ("Llama" in capsys.readouterr().out) == (kind == "llama")
    written = json.loads((tmp_path / "served" / "config.json").read_text())
    assert (written["model_type"], written["head_dim"], written["eos_token_id"]) == (kind, head_dim, tokenizer.eos_id)
    theirs, info = AutoModelForCausalLM.from_pretrained(tmp_path / "served", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    tokens = torch.arange(20)
    ours = model.logits(model(tokens, fr.kernels.Segments.from_lengths([20]))).detach()
    with torch.no_grad():
        assert deviation(ours, theirs.eval()(tokens[None]).logits[0]) < 1e-5  # worst seen: 7.4e-7
    prompt = fr.TaskStream(MIX, seed=0)[0:1].prompts[0]
    words = AutoTokenizer.from_pretrained(tmp_path / "served")
    assert words(prompt)["input_ids"] == tokenizer.encode(prompt).tolist()


def test_what_vllm_reads_as_it_is():
    assert all(reads_as_is(fr.ModelConfig.preset(name)) for name in ("10m", "100m"))
    assert not reads_as_is(config(num_attention_heads=1, num_key_value_heads=1, head_dim=32))
    assert head_dim_for(config(num_attention_heads=2, head_dim=24)) == 96
    with pytest.raises(ValueError, match=f"head_dim must be, or divide, one of 32, .*{HEAD_DIMS[-1]}, got 34"):
        head_dim_for(config(num_attention_heads=2, head_dim=34))


def test_a_folder_in_use_is_left_alone(tmp_path, capsys):
    drawn_model(config()).save_pretrained(tmp_path, fr.Tokenizer.for_mixtures([MIX]))
    before = (tmp_path / "config.json").read_bytes()
    assert main(["export", "vllm", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "--out must be a new or empty folder" in capsys.readouterr().err
    assert (tmp_path / "config.json").read_bytes() == before

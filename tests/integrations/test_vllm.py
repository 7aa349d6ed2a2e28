"""Exported folders in vLLM itself, in the environment of the Python that FASTREASON_VLLM names: `make test-vllm`."""

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason.cli.main import main
from fastreason.kernels import Segments

from ..qwen2_oracle import drawn_model

needs_vllm = pytest.mark.skipif(
    "FASTREASON_VLLM" not in os.environ, reason="needs vLLM in an environment: make test-vllm"
)
MIX = fr.Mixture.uniform([6, 7, 8, 9], ["symbolic"], max_value=199)
COUNT = 200


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """By case: the model, and what vLLM samples of 200 prompts; one process for all, as its start takes longest."""
    place = tmp_path_factory.mktemp("vllm")
    tokenizer = fr.Tokenizer.from_pretrained("fastreason/tiny-base")
    wide = fr.ModelConfig(len(tokenizer), 64, 2, 2, 1, 64, head_dim=64)  # not hidden_size / num_attention_heads
    models = {"tiny-base": fr.Decoder.from_pretrained("fastreason/tiny-base"), "wide": drawn_model(wide)}
    for name, model in models.items():
        model.save_pretrained(place / name, tokenizer)
        assert main(["export", "vllm", str(place / name), "--out", str(place / f"{name}-served")]) == 0
    prompts = [tokenizer.encode(text).tolist() for text in fr.TaskStream(MIX, split="test")[0:COUNT].prompts]
    cases = [("tiny-base", 0.0, "raw_logprobs"), ("wide", 0.0, "raw_logprobs")]
    cases += [("tiny-base", 0.7, mode) for mode in ("raw_logprobs", "processed_logprobs")]
    jobs = [
        {"folder": str(place / f"{name}-served"), "prompts": prompts, "temperature": t, "logprobs_mode": mode}
        for name, t, mode in cases
    ]
    worker, out = Path(__file__).with_name("vllm_worker.py"), place / "samples.json"
    done = subprocess.run(
        [os.environ["FASTREASON_VLLM"], worker, out], input=json.dumps(jobs), text=True, capture_output=True, cwd=place
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = dict(zip(cases, json.loads(out.read_text()), strict=True))
    return models, tokenizer, prompts, found


@needs_vllm
@pytest.mark.parametrize("name", ["tiny-base", "wide"])
def test_greedy_samples_are_ours(samples, name):
    models, tokenizer, _, found = samples
    theirs = found[name, 0.0, "raw_logprobs"]
    problems = fr.TaskStream(MIX, split="test")[0:COUNT]
    ours = fr.Rollout(models[name], tokenizer).generate(problems, temperature=0.0, max_new_tokens=96)
    for row, (tokens, logprobs) in enumerate(theirs):
        length = int(ours.lengths[row])
        assert ours.tokens[row, :length].tolist() == tokens
        np.testing.assert_allclose(logprobs, ours.logprobs[row, :length], atol=1e-4, rtol=0)


@needs_vllm
@pytest.mark.parametrize("mode, divided_by", [("raw_logprobs", 1.0), ("processed_logprobs", 0.7)])
def test_log_probabilities_of_samples_are_of_the_tempered_distribution_only_if_asked(samples, mode, divided_by):
    """vLLM's default, raw, is softmax(logits) at any temperature; ours is softmax(logits / temperature)."""
    models, _, prompts, found = samples
    model = models["tiny-base"]
    worst = 0.0
    for prompt, (tokens, logprobs) in zip(prompts, found["tiny-base", 0.7, mode], strict=True):
        ids = torch.tensor([*prompt, *tokens])
        with torch.no_grad():
            logits = model.logits(model(ids, Segments.from_lengths([len(ids)])))[len(prompt) - 1 : -1]
        want = (logits / divided_by).log_softmax(-1).gather(1, torch.tensor(tokens)[:, None]).squeeze(1)
        worst = max(worst, float((want - torch.tensor(logprobs)).abs().max()))
    assert worst < 1e-4

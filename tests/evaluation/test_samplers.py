"""Who answers: our decoder and transformers' models are asked the same and graded the same."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import fastreason as fr
from fastreason.evaluation.evaluate import EvaluateSettings, evaluate_sampler
from fastreason.evaluation.load_sampler import load_sampler
from fastreason.evaluation.sample_files import model_identity
from fastreason.evaluation.samplers import RolloutSampler, Sampling, sample_ids

from ..byte_tokenizer import byte_tokenizer
from ..model.test_decoder import random_model

transformers = pytest.importorskip("transformers")

MIXTURE = fr.Mixture.uniform(op=[2, 3], themes=["symbolic"], max_value=99)
SHAPE = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48)


@pytest.fixture(scope="module")
def problems():
    return fr.TaskStream(MIXTURE, seed=0, split="test")[0:6]


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A folder of our decoder. Not trained: what it writes is nonsense, and must be the same nonsense."""
    folder = tmp_path_factory.mktemp("ours")
    tokenizer = fr.Tokenizer.for_mixtures([MIXTURE])
    model = random_model(fr.ModelConfig.preset("tiny", vocab_size=len(tokenizer), **SHAPE), torch.float32, seed=1)
    model.save_pretrained(folder, tokenizer)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """Another architecture with our tokenizer, saved by transformers; its generation config asks for something else."""
    folder = tmp_path_factory.mktemp("llama")
    tokenizer = fr.Tokenizer.for_mixtures([MIXTURE])
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=128, eos_token_id=3, initializer_range=0.4, **SHAPE
    )
    model = transformers.LlamaForCausalLM(config)
    model.generation_config = transformers.GenerationConfig(do_sample=True, top_k=1, max_new_tokens=3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_folder_of_ours_is_read_by_our_decoder(ours):
    assert isinstance(load_sampler(ours, Sampling()), RolloutSampler)
    assert model_identity(ours).keys() == {"config.json", "model.safetensors", "tokenizer.json"}


def test_both_engines_write_the_same_without_chance(ours, problems):
    texts = []
    for engine in ("fastreason", "transformers"):
        samples = load_sampler(ours, Sampling(temperature=0, max_new_tokens=24), engine).sample(problems, 2, seed=0)
        texts.append([samples.text(row) for row in range(12)])
        assert samples.lengths.max() <= 24
        assert len(samples.verdicts) == 12
    assert texts[0] == texts[1]


def test_samples_of_our_decoder_do_not_depend_on_the_batch(ours, problems):
    sampler = load_sampler(ours, Sampling(max_new_tokens=12))
    assert sample_ids(problems).tolist() == [(int(op) << 32) + i for i, op in enumerate(problems.ops)]
    together = sampler.sample(problems, 3, seed=5)
    stream = problems.stream
    for p in range(6):
        alone = sampler.sample(stream[p : p + 1], 3, seed=5)
        assert [alone.text(i) for i in range(3)] == [together.text(3 * p + i) for i in range(3)]


def test_another_architecture_is_evaluated_through_transformers(llama, problems, capsys):
    with pytest.raises(ValueError, match="llama"):
        load_sampler(llama, Sampling(), "fastreason")
    for ours in ({"precision": "bfloat16"}, {"kv_memory_mb": 100.0}):
        with pytest.raises(ValueError, match=f"{next(iter(ours))} has no effect with transformers"):
            load_sampler(llama, Sampling(**ours), "transformers")
    sampler = load_sampler(llama, Sampling(temperature=1.0, max_new_tokens=10))
    assert "loaded by transformers, because our decoder does not support it" in capsys.readouterr().err
    a, b, other = (sampler.sample(problems, 4, seed=seed) for seed in (1, 1, 2))
    assert [a.text(i) for i in range(24)] == [b.text(i) for i in range(24)]
    assert [a.text(i) for i in range(24)] != [other.text(i) for i in range(24)]
    assert a.lengths.max() == 10  # not the 3 of its generation config, and more than one token is likely
    assert len({a.text(i) for i in range(4)}) > 1
    settings = EvaluateSettings(
        mixture=[{"op": [2, 3], "themes": ["symbolic"], "max_value": 99}], problems=2, samples=2, k=[1, 2]
    )
    result = evaluate_sampler(sampler, settings)
    assert result["samples"] == 8
    # parts do not matter, since every prompt has a seed of its own
    assert evaluate_sampler(sampler, replace(settings, traces=0))["ops"] == result["ops"]


def test_transformers_samples_what_its_probabilities_say(llama, problems):
    sampler = load_sampler(llama, Sampling(temperature=0.7, max_new_tokens=1), "transformers")
    prompt = problems.prompts[0]
    with torch.no_grad():
        ids = sampler.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        p = (sampler.model(**ids).logits[0, -1] / 0.7).softmax(-1).numpy()
    drawn = np.concatenate([sampler._generate(prompt, 128, (0, 0, i))[:, 0] for i in range(12)])
    counts = np.bincount(drawn, minlength=len(p))
    likely = p * len(drawn) >= 5
    chi2 = ((counts - p * len(drawn)) ** 2 / (p * len(drawn)))[likely].sum()
    # mean = degrees of freedom, variance = twice them: within 5 standard deviations
    assert abs(chi2 - likely.sum()) < 5 * np.sqrt(2 * likely.sum())


def test_generation_by_transformers_stops_behind_the_answer(llama, problems, monkeypatch):
    sampler = load_sampler(llama, Sampling(max_new_tokens=20), "transformers")
    tokenizer = fr.Tokenizer.from_pretrained(llama)
    close, eos = tokenizer.answer_close_id, tokenizer.eos_id
    script = torch.tensor([*tokenizer.encode(" Ba: 3. </solution> <answer> 3"), close, 7, 7, 7])
    at = {}

    def forced(_, scores):
        """Row 0 closes its answer, row 1 ends without one, row 2 goes on."""
        at["step"] = at.get("step", -1) + 1
        step = min(at["step"], len(script) - 1)
        rows = torch.tensor([script[step], eos if step == 4 else 7, 7])
        return torch.full_like(scores, -1e9).scatter(1, rows[:, None].to(scores.device), 0.0)

    real = sampler.model.generate
    monkeypatch.setattr(sampler.model, "generate", lambda **k: real(**k, logits_processor=[forced]))
    samples = sampler.sample(problems.stream[0:1], 3, seed=0)
    assert samples.lengths.tolist() == [len(script) - 3, 5, 20]
    assert samples.stopped.tolist() == [True, True, False]
    assert samples.text(0) == " Ba: 3. </solution> <answer> 3 </answer>"
    assert "[EOS]" not in samples.text(1)


def test_a_stop_string_of_several_tokens(tmp_path, problems):
    tokenizer = byte_tokenizer(tmp_path)
    shape = dict(n_positions=600, n_embd=16, n_layer=1, n_head=2, bos_token_id=None, eos_token_id=None)
    torch.manual_seed(0)
    transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=258, **shape)).save_pretrained(tmp_path)
    sampler = load_sampler(tmp_path, Sampling(max_new_tokens=30))
    script = tokenizer.encode("so a > b </answer> and on").ids
    at = {"step": -1}

    def forced(_, scores):
        at["step"] += 1
        return torch.full_like(scores, -1e9).index_fill_(1, torch.tensor([script[min(at["step"], 24)]]), 0.0)

    real = sampler.model.generate
    sampler.model.generate = lambda **k: real(**k, logits_processor=[forced])
    samples = sampler.sample(problems.stream[0:1], 1, seed=0)
    assert samples.text(0) == "so a > b </answer>"
    assert samples.stopped.tolist() == [True]


def test_our_decoder_reads_byte_level_tokenizers_of_others(tmp_path, problems):
    byte_tokenizer(tmp_path)
    config = fr.ModelConfig.preset("tiny", vocab_size=258, **SHAPE)
    random_model(config, torch.float32, seed=2).save_pretrained(tmp_path)
    texts = []
    for engine in ("auto", "transformers"):
        sampler = load_sampler(tmp_path, Sampling(temperature=0, max_new_tokens=16), engine)
        samples = sampler.sample(problems, 1, seed=0)
        texts.append([samples.text(row) for row in range(6)])
    assert isinstance(load_sampler(tmp_path, Sampling()), RolloutSampler)
    assert load_sampler(tmp_path, Sampling()).stop == ["</answer>", 257]
    assert texts[0] == texts[1]
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ValueError, match="the vocabulary has no token"):
        load_sampler(tmp_path, Sampling(), "fastreason")


@pytest.mark.parametrize(
    "change, message",
    [
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"top_k": -1}, "top_k must be at least 0, got -1"),
        ({"min_p": 2.0}, r"min_p must be in 0 \.\. 1, got 2.0"),
        ({"temperature": float("nan")}, "temperature must be 0 or at least 1e-06, got nan"),
    ],
)
def test_sampling_out_of_range(change, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**change)


@pytest.mark.parametrize("engine", ["fastreason", "transformers"])
@pytest.mark.parametrize("change", [{"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1.0}])
def test_filters_reach_both_engines(ours, problems, engine, change):
    # each of them leaves the most likely token alone, whatever the temperature
    greedy = load_sampler(ours, Sampling(temperature=0, max_new_tokens=8), engine).sample(problems, 1, seed=0)
    found = load_sampler(ours, Sampling(temperature=2.0, max_new_tokens=8, **change), engine).sample(
        problems, 1, seed=0
    )
    assert [found.text(i) for i in range(6)] == [greedy.text(i) for i in range(6)]


def test_folders_that_cannot_be_read(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"it has no config\.json"):
        load_sampler(tmp_path, Sampling())
    with pytest.raises(ValueError, match="engine must be one of auto, fastreason, transformers, got 'vllm'"):
        load_sampler(tmp_path, Sampling(), "vllm")
    with pytest.raises(ValueError, match="device must be one of auto, cpu, cuda, cuda only with a GPU, got 'tpu'"):
        load_sampler(tmp_path, Sampling(), device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="cuda only with a GPU, got 'cuda'"):
            load_sampler(tmp_path, Sampling(), device="cuda")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **SHAPE, "vocab_size": 9}))
    with pytest.raises(ValueError, match="transformers cannot load"):
        load_sampler(tmp_path, Sampling())
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'fastreason\[transformers\]'"):
        load_sampler(tmp_path, Sampling())

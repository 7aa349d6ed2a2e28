"""Public functions and settings given arguments of the wrong kind: each has a meaning, or an error names the argument.

What is allowed beside the documented values is listed, so a value that is silently taken for another one is seen.
"""

import re
from typing import Any

import numpy as np
import pytest
import torch

import fastreason as fr

MIX = fr.Mixture.uniform(op=[2, 3], themes=["symbolic"], max_value=99)
STREAM = fr.TaskStream(MIX, seed=0)
PROBLEMS = STREAM[0:3]
TOKENIZER = fr.Tokenizer.for_mixtures([MIX])
MODEL = fr.Decoder(fr.ModelConfig.preset("tiny", vocab_size=len(TOKENIZER)))
MODEL.reset_parameters(0)
ENGINE = fr.Rollout(MODEL, TOKENIZER)
PARTS = [{"op": [2], "themes": ["symbolic"], "max_value": 99}]
PHASES = [fr.Phase(1.0, PARTS)]

NONSENSE: dict[str, Any] = {
    "nan": float("nan"), "inf": float("inf"), "-1": -1, "0": 0, "2.5": 2.5, "True": True, "2**70": 2**70, "str": "no",
    "bytes": b"no", "None": None, "[]": [], "[nan]": [float("nan")], "{}": {}, "float64": np.float64(2.5),
    "tensor": torch.tensor([1.5]), "object": object(), "-0.5": -0.5, "1e300": 1e300, "[-1]": [-1], "['x']": ["x"],
    "[2**40]": [2**40], "ragged": [[1, 2], [3]],
}  # fmt: skip
# what an error may say in place of the argument's name
OTHER_WORDS = {
    "parts": "op", "completions": "token ids", "gold_solutions": "gold solutions", "name_or_path": "theme",
    "model": "folder",
}  # fmt: skip


def settings(kind: Any, **always: Any) -> Any:
    return lambda **given: kind(**(always | given))


# callable, arguments that are right, and of each the nonsense that is none
CASES: dict[str, tuple[Any, dict[str, Any], dict[str, str]]] = {
    "Mixture.uniform": (fr.Mixture.uniform, {
        "op": [2, 3], "themes": ["symbolic"], "modes": ["forward"], "depths": [2], "max_value": 99, "number_range": 5,
        "max_sentences": 50, "circular_distractors": True, "context": 0,
    }, {"circular_distractors": "True", "context": "0"}),
    "Mixture.from_dict": (fr.Mixture.from_dict, {"parts": {"op": [2]}}, {}),
    "TaskStream": (fr.TaskStream, {"mixture": MIX, "seed": 0, "split": "train", "split_by": "problem"}, {"seed": "0"}),
    "encoded": (STREAM.encoded, {"start": 0, "count": 3, "tokenizer": TOKENIZER, "step": 1, "threads": 1},
                {"start": "0", "count": "0", "threads": "0"}),
    "packed": (STREAM.packed, {"start": 0, "rows": 1, "length": 256, "tokenizer": TOKENIZER, "step": 1, "threads": 1},
               {"start": "0", "threads": "0"}),
    "graph_hashes": (STREAM.graph_hashes, {"first": 0, "count": 3, "step": 1, "threads": 1},
                     {"first": "0", "count": "0", "threads": "0"}),
    "shard": (STREAM.shard, {"rank": 0, "world_size": 2}, {"rank": "0"}),
    "encode": (TOKENIZER.encode, {"text": "a"}, {"text": "str bytes"}),
    "decode": (TOKENIZER.decode, {"ids": [1, 2]}, {"ids": "-1 0 [] [-1]"}),
    "for_mixtures": (fr.Tokenizer.for_mixtures, {"mixtures": [MIX]}, {}),
    "Rollout": (fr.Rollout, {
        "model": MODEL, "tokenizer": TOKENIZER, "max_sequences": 8, "kv_memory_mb": 10.0, "backend": "auto",
        "precision": "auto",
    }, {"max_sequences": "None", "kv_memory_mb": "None 2.5 2**70 float64 1e300 tensor"}),
    "generate": (ENGINE.generate, {
        "prompts": PROBLEMS, "n": 2, "max_new_tokens": 4, "temperature": 1.0, "seed": 0, "top_k": 0, "top_p": 1.0,
        "min_p": 0.0, "stop": None, "prompt_ids": None,
    }, {"prompts": "['x']", "temperature": "0 2.5 2**70 float64 1e300 tensor", "seed": "0", "top_k": "0",
        "min_p": "0", "stop": "0 str None [] ['x']", "prompt_ids": "None"}),
    "grade": (fr.grade, {
        "batch": PROBLEMS, "completions": PROBLEMS.solutions, "tokenizer": None, "finished": None,
        "answer_may_end_text": False, "threads": 1,
    }, {"completions": "[]", "tokenizer": "None", "finished": "None", "answer_may_end_text": "True", "threads": "0"}),
    "grade_texts": (fr.grade_texts, {
        "gold_solutions": PROBLEMS.solutions, "completions": PROBLEMS.solutions, "unreadable_gold": "error",
        "finished": None, "answer_may_end_text": False, "threads": 1,
    }, {"completions": "[]", "finished": "None", "answer_may_end_text": "True", "threads": "0"}),
    "pass_at_k": (fr.pass_at_k, {"num_correct": [1, 2], "n": 4, "k": 2}, {"num_correct": "[]"}),
    "Budget": (fr.Budget, {"tokens": 5}, {"tokens": "2.5 2**70 float64 1e300 tensor"}),
    "ModelConfig.preset": (fr.ModelConfig.preset, {
        "name": "tiny", "vocab_size": 30, "hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 64,
        "rope_theta": 1000.0, "rms_norm_eps": 1e-6, "max_position_embeddings": 512, "tie_word_embeddings": True,
    }, {"rope_theta": "2.5 2**70 float64 1e300 tensor", "rms_norm_eps": "2.5 2**70 float64 1e300 tensor",
        "tie_word_embeddings": "True"}),
    "Theme.load": (fr.Theme.load, {"name_or_path": "zoo"}, {}),
    "StreamDataset": (fr.StreamDataset, {"stream": STREAM, "start": 0, "stop": 10, "block": 1},
                      {"start": "0", "stop": "0 None"}),
    "Phase": (fr.Phase, {"until": 1.0, "mixture": PARTS}, {"mixture": "[] {}"}),
    "SupervisedSettings": (settings(fr.SupervisedSettings, phases=PHASES), {
        "phases": PHASES, "tokens": 600, "batch_tokens": 200, "rows": None, "parallel": "ddp", "precision": "auto",
        "prefetch": 1, "accumulate": 1, "checkpoint_activations": False, "loss_on": "all", "optim": fr.OptimSettings(),
        "save_every_s": 100.0, "keep": 1, "validate_every": 0, "validation_tokens": 200,
    }, {"tokens": "None", "rows": "None", "prefetch": "0", "checkpoint_activations": "True",
        "save_every_s": "0 2.5 inf 2**70 float64 1e300", "validate_every": "0"}),
    "OptimSettings": (fr.OptimSettings, {
        "matrices": "adamw", "matrix_lr": 0.01, "lr": 0.01, "betas": (0.9, 0.95), "weight_decay": 0.1,
        "decay_embeddings": False, "clip": 1.0, "schedule": "cosine", "warmup": 0.1, "floor": 0.1,
    }, {"matrix_lr": "0 2.5 float64", "lr": "0 2.5 float64", "weight_decay": "0", "decay_embeddings": "True",
        "clip": "inf 2.5 2**70 float64 1e300", "warmup": "0", "floor": "0"}),
    "PolicySettings": (settings(fr.PolicySettings, mixture=PARTS), {
        "mixture": PARTS, "curriculum": "fixed", "steps": 1, "prompts": 2, "samples": 2, "reward": "strict",
        "truncated": "zero", "credit": None, "loss": "grpo", "baseline": "group", "advantage_scale": "std",
        "aggregation": "token", "clip_low": 0.2, "clip_high": 0.2, "clip_dual": None, "max_draws": 1,
        "count_zero_advantage": False, "kl_coef": 0.1, "kl": "k3", "entropy_coef": 0.0, "epochs": 1, "minibatches": 1,
        "accumulate": 1, "checkpoint_activations": False, "precision": "auto", "mismatch": "ignore", "temperature": 1.0,
        "max_new_tokens": 4, "kv_memory_mb": None, "optim": fr.OptimSettings(), "save_every_s": 100.0, "keep": 1,
    }, {"mixture": "[] {}", "steps": "None", "credit": "None", "baseline": "None", "advantage_scale": "None",
        "aggregation": "None", "clip_low": "0 2.5 inf 2**70 float64 1e300 None",
        "clip_high": "0 2.5 inf 2**70 float64 1e300 None", "clip_dual": "2.5 2**70 float64 1e300 None",
        "max_draws": "None", "count_zero_advantage": "True", "kl_coef": "0 2.5 2**70 float64 1e300",
        "entropy_coef": "0 2.5 2**70 float64 1e300", "checkpoint_activations": "True",
        "temperature": "2.5 2**70 float64 1e300", "kv_memory_mb": "None 2.5 2**70 float64 1e300",
        "save_every_s": "0 2.5 inf 2**70 float64 1e300", "curriculum": "str"}),
    "evaluate": (fr.evaluate, {
        "model": MODEL, "mixture": MIX, "tokenizer": TOKENIZER, "problems": 1, "samples": 2, "k": [1],
        "temperature": 0.7, "precision": "auto", "ranges": None, "traces": 1, "max_new_tokens": 2, "seed": 0,
        "engine": "auto", "device": "auto", "out": None, "seen": None,
    }, {"k": "None", "temperature": "0 2.5 2**70 float64 1e300", "ranges": "None {}", "traces": "0", "seed": "0",
        "seen": "None {}", "out": "None str"}),
    "find_edge": (fr.find_edge, {
        "model": MODEL, "mixture": MIX, "tokenizer": TOKENIZER, "samples": 2, "mastered": 0.8, "reach": 0.1,
        "confidence": 0.95, "first": 1, "problems": 1, "budget": 0, "temperature": 0.7, "max_new_tokens": 2, "seed": 0,
        "engine": "auto", "device": "auto",
    }, {"budget": "0", "temperature": "0 2.5 2**70 float64 1e300", "seed": "0"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_nonsense_is_refused_by_the_name_of_the_argument(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    function, right, allowed = CASES[name]
    function(**right)
    wrong = []
    for argument in right:
        for label, value in NONSENSE.items():
            is_allowed = label in allowed.get(argument, "").split()
            try:
                function(**(right | {argument: value}))
                problem = "" if is_allowed else "is accepted"
            except (ValueError, TypeError) as error:
                words = f"{argument}|{argument.removesuffix('s')}|{OTHER_WORDS.get(argument, argument)}"
                named = re.search(rf"\b({words})\b", str(error))
                problem = f"is refused: {error}" if is_allowed else "" if named else f"is not named: {error}"
            except Exception as error:
                problem = f"ends in {type(error).__name__}: {error}"
            if problem:
                wrong.append(f"{argument} = {label} {problem}")
    assert not wrong, "\n".join(wrong)

"""Samples of any causal language model that transformers loads.

Prompts and completions are passed as text, so any tokenizer will do. Slower than `Rollout` by design: prompts are
processed one at a time, and each waits for its longest sample.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..grading.verdicts import grade
from ..runtime.json_files import MAX_MB, read_regular
from ..runtime.tensor_files import read_tensors
from ..tasks.stream import ProblemBatch
from .samplers import Samples, Sampling, SamplingInterrupted, sample_ids

STOP = "</answer>"
_TAIL = 16  # tokens, more than any tokenizer needs for STOP
MAX_SEQUENCES = 128
_FEW_LAYERS = 1000  # few enough to build quickly, whatever the weights


class TransformersSampler:
    """`AutoModelForCausalLM.generate` on the prompts of problems.

    Args:
        folder: a model with a tokenizer, in Hugging Face's layout.
        sampling: overrides the folder's generation_config.json.
    Raises:
        ValueError: transformers cannot load the model or its tokenizer.
        ModuleNotFoundError: transformers is not installed.
    """

    def __init__(self, folder: str | Path, sampling: Sampling, device: str = "cpu") -> None:
        try:
            import transformers
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "this model needs transformers: pip install 'fastreason[transformers]'"
            ) from error
        self.device = device
        try:
            _check_layers(Path(folder))
            self.tokenizer = _load_tokenizer(Path(folder))
            loader: Any = transformers.AutoModelForCausalLM
            model, info = loader.from_pretrained(folder, dtype="auto", output_loading_info=True)
        except Exception as error:  # a damaged folder may raise any exception
            text = " ".join(str(error).split())[:500]
            raise ValueError(f"transformers cannot load {folder}: {type(error).__name__}: {text}") from error
        if missing := sorted(info["missing_keys"]):  # which transformers would initialize randomly
            raise ValueError(f"transformers cannot load {folder}: it has no weight {missing[0]}")
        self.model: Any = model.to(self.device).eval()
        self.model.generation_config = transformers.GenerationConfig()
        pad_id, self.eos_ids = _special_ids(self.tokenizer, self.model.config)
        chosen: dict[str, Any] = {"do_sample": False}
        if sampling.temperature > 0:
            chosen = {"do_sample": True, "temperature": sampling.temperature, "top_k": sampling.top_k}
            chosen |= {"top_p": sampling.top_p, "min_p": sampling.min_p or None}
        self.config = transformers.GenerationConfig(
            max_new_tokens=sampling.max_new_tokens, pad_token_id=pad_id, eos_token_id=self.eos_ids or None, **chosen
        )
        self.criteria = transformers.StoppingCriteriaList([self._at_stop])
        names = self.tokenizer.convert_ids_to_tokens(list(range(len(self.tokenizer))))
        # few tokens can end the tag, so few rows need to be decoded at each step
        size = max(len(names), self.model.config.get_text_config().vocab_size)
        self.may_stop = torch.zeros(size, dtype=torch.bool, device=self.device)
        self.may_stop[: len(names)] = torch.tensor([name is not None and ">" in name for name in names])

    def check(self, problems: ProblemBatch) -> None:
        """Accepts all problems, since any text can be a prompt."""

    def sample(self, problems: ProblemBatch, n: int, seed: int) -> Samples:
        drawn: list[list[np.ndarray]] = []
        try:
            for prompt, sample_id in zip(problems.prompts, sample_ids(problems).tolist(), strict=True):
                rows: list[np.ndarray] = []
                for first in range(0, n, MAX_SEQUENCES):
                    rows.extend(self._generate(prompt, min(MAX_SEQUENCES, n - first), (seed, sample_id, first)))
                drawn.append(rows)
        except KeyboardInterrupt:
            if not drawn:
                raise
            places = range(len(drawn))
            raise SamplingInterrupted(places, self._graded(problems[: len(drawn)], drawn)) from None
        return self._graded(problems, drawn)

    def _graded(self, problems: ProblemBatch, drawn: list[list[np.ndarray]]) -> Samples:
        """Of the rows of each problem."""
        rows = [row for of_problem in drawn for row in of_problem]
        ends = [self._end(row) for row in rows]
        # the end token is not part of the text, a stop string is
        kept = [row[:end] for row, (end, _) in zip(rows, ends, strict=True)]
        kept = [row[:-1] if len(row) and row[-1] in self.eos_ids else row for row in kept]
        texts = [self._decode(row) for row in kept]
        lengths, stopped = (np.array(column) for column in zip(*ends, strict=True))
        return Samples(grade(problems, texts, finished=stopped), lengths, stopped, texts.__getitem__)

    def _generate(self, prompt: str, count: int, key: tuple[int, ...]) -> np.ndarray:
        """New tokens [count, length] of `count` samples of one prompt, determined by the key."""
        # not with num_return_sequences, which greedy generation rejects
        encoded = self.tokenizer([prompt] * count, return_tensors="pt", return_token_type_ids=False).to(self.device)
        with torch.random.fork_rng(), torch.inference_mode():
            torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1)))
            out = self.model.generate(**encoded, generation_config=self.config, stopping_criteria=self.criteria)
        return out[:, encoded["input_ids"].shape[1] :].cpu().numpy()

    def _at_stop(self, tokens: Tensor, scores: Any, **_: Any) -> Tensor:
        """bool [sequences]: the text ends in STOP."""
        done = self.may_stop[tokens[:, -1]]
        for i in done.nonzero().flatten().tolist():
            done[i] = STOP in self._decode(tokens[i, -_TAIL:])
        return done

    def _end(self, row: np.ndarray) -> tuple[int, bool]:
        """The length up to and including the stop string or end token, and whether there is one."""
        for at in np.flatnonzero(self.may_stop.cpu().numpy()[row] | np.isin(row, self.eos_ids)).tolist():
            if row[at] in self.eos_ids or STOP in self._decode(row[max(0, at + 1 - _TAIL) : at + 1]):
                return at + 1, True
        return len(row), False

    def _decode(self, tokens: Any) -> str:
        return self.tokenizer.decode(tokens, clean_up_tokenization_spaces=False)


def _check_layers(folder: Path) -> None:
    """Raises ValueError if config.json claims more layers than there are weights: transformers would build them all."""
    config = json.loads(read_regular(folder / "config.json", MAX_MB))
    files = sorted(folder.glob("*.safetensors"))
    most = max(_FEW_LAYERS, sum(len(read_tensors(file)) for file in files))
    for part in (config, config.get("text_config") or {}):
        for name in ("num_hidden_layers", "n_layer", "n_layers", "num_layers"):
            if isinstance(value := part.get(name), int) and value > most:
                raise ValueError(f"config.json: {name} is {value}, but there are not that many weights")


def _load_tokenizer(folder: Path) -> Any:
    import transformers

    # from the file: AutoTokenizer of transformers 5 gives some models their family's vocabulary instead
    kind = transformers.PreTrainedTokenizerFast if (folder / "tokenizer.json").is_file() else transformers.AutoTokenizer
    return kind.from_pretrained(folder)


def _special_ids(tokenizer: Any, config: Any) -> tuple[int, list[int]]:
    """The padding token and the end tokens."""
    candidates = [tokenizer.eos_token_id, getattr(config, "eos_token_id", None)]
    eos_ids = sorted({i for value in candidates if value is not None for i in np.atleast_1d(value).tolist()})
    pad_ids = [tokenizer.pad_token_id, getattr(config, "pad_token_id", None), *eos_ids, 0]
    return next(i for i in pad_ids if i is not None), eos_ids

"""Types of the compiled core (csrc/bindings); `make check` compares them with the built module."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__version__: str
# kernels on addresses, for fastreason.kernels.cpu_kernels alone
cpu: Any

class Theme:
    def __init__(
        self,
        name: str,
        style: str,
        places: Sequence[Sequence[str]],
        kinds: Sequence[Sequence[str]],
        total: str,
        average: str,
        average_total: str,
        padding_places: Sequence[Sequence[str]],
        padding_kinds: Sequence[Sequence[str]],
    ) -> None: ...
    @property
    def name(self) -> str: ...
    def pieces(self) -> list[str]: ...

class Cell:
    def __init__(
        self,
        *,
        op: int,
        theme: int,
        mode: str,
        depth: int,
        weight: float,
        number_range: int,
        max_value: int,
        max_sentences: int,
        circular_distractors: bool,
        context: int,
    ) -> None: ...

def count_attempts(cell: Cell, attempts: int, seed: int = 0) -> dict[str, Any]: ...
def graph_law(cell: Cell, max_paths: int) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.float64]] | None: ...
def bias_probabilities(counts: Sequence[int]) -> list[float]: ...

class TaskStream:
    def __init__(
        self, themes: Sequence[Theme], cells: Sequence[Cell], seed: int, split: str, split_by: str
    ) -> None: ...
    def batch(self, indices: npt.ArrayLike, *, threads: int = 0) -> ProblemBatch: ...
    def graph_hashes(self, first: int, *, step: int = 1, count: int, threads: int = 0) -> npt.NDArray[np.uint64]: ...

class ProblemBatch:
    def __len__(self) -> int: ...
    def problems(self) -> list[str]: ...
    def questions(self) -> list[str]: ...
    def solutions(self) -> list[str]: ...
    def prompts(self) -> list[str]: ...
    def documents(self) -> list[str]: ...
    def indices(self) -> npt.NDArray[np.int64]: ...
    def answers(self) -> npt.NDArray[np.int64]: ...
    def hashes(self) -> npt.NDArray[np.uint64]: ...
    def graph_hashes(self) -> npt.NDArray[np.uint64]: ...
    def cells(self) -> npt.NDArray[np.int32]: ...
    def ops(self) -> npt.NDArray[np.int32]: ...
    def graph(self, i: int) -> list[dict[str, Any]]: ...

class Tokenizer:
    def __len__(self) -> int: ...
    def encode(self, text: str | bytes) -> npt.NDArray[np.int32]: ...
    def encode_batch(self, texts: Sequence[str | bytes]) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]: ...
    def encode_prompts(self, batch: ProblemBatch) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64]]: ...
    def decode(self, ids: npt.ArrayLike) -> str: ...

class WordTokenizer(Tokenizer):
    def __init__(self, words: Sequence[str]) -> None: ...
    def find(self, word: str) -> int | None: ...

class BytePairTokenizer(Tokenizer):
    def __init__(
        self,
        *,
        words: Sequence[bytes],
        byte_ids: Sequence[int],
        merges: Sequence[Sequence[int]],
        specials: Sequence[int],
        patterns: Sequence[str],
        padding_id: int,
        end_id: int,
    ) -> None: ...

class Packer:
    def __init__(self, stream: TaskStream, tokenizer: Tokenizer) -> None: ...
    def pack(self, start: int, rows: int, length: int, *, step: int = 1, threads: int = 0) -> dict[str, Any]: ...
    def encode(
        self, start: int, count: int, *, step: int = 1, threads: int = 0
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int64], npt.NDArray[np.int32]]: ...

class Prefetcher:
    def __init__(
        self, packer: Packer, starts: Sequence[int], rows: int, length: int, *, step: int = 1, ahead: int = 2
    ) -> None: ...
    def next(self) -> dict[str, Any]: ...
    def close(self) -> None: ...

def keep_freed_memory() -> bool: ...
def split_words(text: str) -> list[str]: ...
def split_pattern(pattern: str, text: str | bytes) -> list[bytes]: ...
def grade_batch(
    batch: ProblemBatch,
    completions: Sequence[str | bytes],
    *,
    finished: npt.ArrayLike | None = None,
    answer_may_end_text: npt.ArrayLike | None = None,
    threads: int = 0,
) -> dict[str, Any]: ...
def grade_tokens(
    batch: ProblemBatch,
    tokens: npt.ArrayLike,
    tokenizer: Tokenizer,
    *,
    finished: npt.ArrayLike | None = None,
    answer_may_end_text: npt.ArrayLike | None = None,
    threads: int = 0,
) -> dict[str, Any]: ...
def grade_texts(
    gold_solutions: Sequence[str | bytes],
    completions: Sequence[str | bytes],
    *,
    finished: npt.ArrayLike | None = None,
    answer_may_end_text: npt.ArrayLike | None = None,
    threads: int = 0,
) -> dict[str, Any]: ...
def gold_traces(batch: ProblemBatch, *, from_text: bool) -> list[Any]: ...
def philox4x32(counter: Sequence[int], key: Sequence[int]) -> list[int]: ...
def sample(
    logits: npt.NDArray[np.float32],
    seed: int,
    prompts: npt.ArrayLike,
    samples: npt.ArrayLike,
    positions: npt.ArrayLike,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    min_p: float = 0.0,
    threads: int = 0,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.float32]]: ...
def uniform(
    seed: int, prompts: npt.ArrayLike, samples: npt.ArrayLike, positions: npt.ArrayLike
) -> npt.NDArray[np.float32]: ...
def decode_kernels(precision: str = "float32") -> list[str]: ...

class CpuDecoder:
    def __init__(
        self,
        *,
        hidden: int,
        layers: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        intermediate: int,
        vocab: int,
        eps: float,
        precision: str = "float32",
        kernel: str = "auto",
        cos: npt.NDArray[np.float32],
        sin: npt.NDArray[np.float32],
    ) -> None: ...
    def load(
        self,
        embedding: npt.NDArray[np.float32],
        head: npt.NDArray[np.float32],
        final_norm: npt.NDArray[np.float32],
        layers: Sequence[Sequence[npt.NDArray[np.float32]]],
    ) -> None: ...
    def reserve(self, slots: int, capacity: int) -> None: ...
    def kv_bytes(self, tokens: int) -> int: ...
    def prefill(
        self, tokens: npt.ArrayLike, offsets: npt.ArrayLike, *, threads: int = 0
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]: ...
    def release(self, prompt: int) -> None: ...
    def decode(
        self,
        slots: npt.ArrayLike,
        prompts: npt.ArrayLike,
        lengths: npt.ArrayLike,
        tokens: npt.ArrayLike,
        *,
        threads: int = 0,
    ) -> npt.NDArray[np.float32]: ...

"""Our ids against those of Hugging Face `tokenizers`.

    python -m bench.checks.tokenizer_agreement [--documents 1000000]

Documents of all shipped themes, both modes and both depths, op 2-20, through our own tokenizer and through that of the
released model, where its tokenizer.json is at hand. `tokenizers` reads the files that `save_pretrained` writes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tokenizers
from tqdm import tqdm

import fastreason as fr

WORD_THEMES = ("zoo", "school", "festival")
RELEASED = Path(__file__).parents[2] / ".." / "shared" / "reference" / "tokenizer.json"


def every_kind() -> fr.Mixture:
    """Word themes in both modes and depths, and a tenth of symbolic problems."""
    words = fr.Mixture.uniform(op=range(2, 21), themes=WORD_THEMES, modes=["forward", "reverse"], depths=[2, 3])
    return 0.9 * words + 0.1 * fr.Mixture.uniform(op=range(2, 21), themes=["symbolic"])


def judge_of(tokenizer: fr.Tokenizer) -> tokenizers.Tokenizer:
    """The same tokenizer as `tokenizers` reads it from the files that we write."""
    with TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return tokenizers.Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))


def disagreements(tokenizer: fr.Tokenizer, judge: tokenizers.Tokenizer, documents: list[str]) -> list[str]:
    """The documents whose ids differ, or whose ids do not decode to the same text."""
    ids, offsets = tokenizer.core.encode_batch(documents)
    wrong = []
    for i, encoding in enumerate(judge.encode_batch_fast(documents)):
        ours = ids[offsets[i] : offsets[i + 1]]
        if not np.array_equal(ours, np.array(encoding.ids)) or tokenizer.decode(ours) != documents[i]:
            wrong.append(documents[i])
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--released", type=Path, default=RELEASED, help="a byte-level BPE tokenizer.json")
    options = parser.parse_args()
    ours: dict[str, Any] = {"our own": fr.Tokenizer.build([*WORD_THEMES, "symbolic"])}
    if options.released.is_file():
        ours["released"] = fr.Tokenizer.from_pretrained(options.released)
    judges = {name: judge_of(tokenizer) for name, tokenizer in ours.items()}
    stream = fr.TaskStream(every_kind(), seed=0)
    wrong, tokens, begin = dict.fromkeys(ours, 0), dict.fromkeys(ours, 0), time.perf_counter()
    for start in tqdm(range(0, options.documents, 1000), unit="k", mininterval=10):
        documents = stream[start : min(start + 1000, options.documents)].documents
        for name, tokenizer in ours.items():
            wrong[name] += len(disagreements(tokenizer, judges[name], documents))
            tokens[name] += len(tokenizer.core.encode_batch(documents)[0])
    print(f"tokenizers {tokenizers.__version__}, {time.perf_counter() - begin:.0f} s")
    for name in ours:
        print(f"{name}: {options.documents:,} documents, {tokens[name]:,} tokens, {wrong[name]} documents differ")


if __name__ == "__main__":
    main()

"""A tokenizer without words: any text is its bytes, and a tag is many tokens."""

import json
from pathlib import Path
from typing import Any


def byte_tokenizer(folder: Path) -> Any:
    """A byte-level vocabulary without merges: `</answer>` is nine tokens."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
    from tokenizers.decoders import ByteLevel

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in ("<pad>", "<end>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>", "eos_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return tokenizer

"""The tokenizer: one token per word, built from the themes, saved as a Hugging Face tokenizer.json.

`fastreason._core` encodes and decodes; `tokenizers` and transformers give the same ids from the saved file. Foreign
byte-level BPE tokenizers can be read too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .. import _core
from ..runtime.arguments import integer, integers, listed
from ..runtime.json_files import check_fields, read_json, shown
from ..runtime.model_names import model_folder
from .theme import load_theme
from .tokenizer_json import (
    _SPLIT,
    MAX_FILE_MB,
    SPECIALS,
    TokenizerFile,
    _added_tokens,
    _check_words,
    byte_characters,
    check_byte_pair,
    in_order,
    merges,
    named_specials,
    need,
    split_patterns,
    word_bytes,
    write_files,
)

TAGS = ("<question>", " </question>", " <solution>", " </solution>", " <answer>", " </answer>")


class Written(Protocol):
    """The properties of a `Mixture` that determine a vocabulary."""

    @property
    def themes(self) -> tuple[str, ...]: ...

    @property
    def max_value(self) -> int: ...


class Tokenizer:
    """Encodes words as ids and decodes them; a word includes its leading space, so decoding is concatenation.

    Create one with `build`, `for_mixtures` or `from_pretrained`.

    >>> tokenizer = Tokenizer.build(["symbolic"], max_value=99)
    >>> tokenizer.decode(tokenizer.encode("<question> B ? Ba: 3. </question> <solution>"))
    '<question> B ? Ba: 3. </question> <solution>'
    """

    def __init__(self, words: Sequence[str]) -> None:
        words = tuple(listed("Tokenizer: words", words))
        self.core: _core.Tokenizer = _core.WordTokenizer(words)
        self.words = words

    @classmethod
    def build(cls, themes: Iterable[str], max_value: int = 1000) -> Tokenizer:
        """Builds the vocabulary of these themes: special tokens, tags, words in order of first use, numbers.

        Args:
            themes: names or paths of themes.
            max_value: the largest number in a symbolic text; numbers up to 999 get a token each. Published texts get
                all groups of 1-3 digits, with and without a leading space.
        """
        max_value = integer("Tokenizer.build: max_value", max_value, 0)
        words = dict.fromkeys(SPECIALS + TAGS)
        published = max_value > 999
        for name in listed("Tokenizer.build: themes", themes):
            theme = load_theme(name)
            published |= theme.style == "published"
            for piece in theme.core.pieces():
                words.update(dict.fromkeys(_core.split_words(piece)))
        words.update(dict.fromkeys(f" {n}" for n in range(1000 if published else max_value + 1)))
        if published:
            for digits in (1, 2, 3):
                words.update(dict.fromkeys(f"{n:0{digits}}" for n in range(10**digits)))
        return cls(tuple(words))

    @classmethod
    def for_mixtures(cls, mixtures: Iterable[Written]) -> Tokenizer:
        """Builds the vocabulary that all of these mixtures need."""
        mixtures = listed("for_mixtures: mixtures", mixtures)
        if not mixtures or not all(hasattr(each, "themes") and hasattr(each, "max_value") for each in mixtures):
            raise ValueError(f"for_mixtures: mixtures must be a list of at least one Mixture, got {shown(mixtures)}")
        themes = dict.fromkeys(theme for mixture in mixtures for theme in mixture.themes)
        return cls.build(list(themes), max(mixture.max_value for mixture in mixtures))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Tokenizer:
        """Loads a tokenizer written by `save_pretrained`, or any byte-level BPE tokenizer.

        Args:
            folder: a folder with a tokenizer.json, or that file; or the name of a model, as for
                `Decoder.from_pretrained`.
        Raises:
            ValueError: the file does not exist or uses an unsupported feature.
        """
        found = model_folder(folder)
        path = found if os.path.isfile(found) else found / "tokenizer.json"
        beside = path.with_name("tokenizer_config.json")
        content = read_json(path, MAX_FILE_MB)
        config = read_json(beside) if beside.exists() else None
        try:
            return tokenizer_of(content, config)
        except ValueError as error:
            raise ValueError(f"{path.parent}: {error}") from error

    def save_pretrained(self, folder: str | Path, max_length: int | None = None) -> None:
        """Writes tokenizer.json and tokenizer_config.json, for tokenizers, transformers and vLLM.

        Args:
            folder: must exist.
            max_length: number of positions of the model it is saved for (`model_max_length`).
        """
        tokenizer = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": _added_tokens(),
            "normalizer": None,
            "pre_tokenizer": _SPLIT,
            "post_processor": None,
            "decoder": {"type": "Fuse"},
            "model": {
                "type": "WordLevel",
                "vocab": {word: i for i, word in enumerate(self.words)},
                "unk_token": SPECIALS[0],
            },
        }
        named = {f"{word[1:-1].lower()}_token": word for word in SPECIALS}
        write_files(folder, tokenizer, named, max_length)

    def __len__(self) -> int:
        return len(self.words)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self):,} tokens)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokenizer) and self.words == other.words

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        return Tokenizer, (self.words,)

    def id_of(self, *names: str) -> int:
        """The id of the first of these tokens in the vocabulary; "pad", "eos" and "bos" name its special tokens.

        Raises:
            ValueError: the vocabulary has none of them.
        """
        for name in names:
            name = f"[{name.upper()}]" if name in ("pad", "eos", "bos") else name
            if name in self.words:
                return self.words.index(name)
        raise ValueError(f"tokenizer: the vocabulary has no token {names[0]!r}")

    @property
    def pad_id(self) -> int:
        """The padding token; the end token if the vocabulary has no padding token."""
        return self.id_of("pad", "eos")

    @property
    def eos_id(self) -> int:
        """The token that ends a document."""
        return self.id_of("eos")

    @property
    def bos_id(self) -> int:
        """The beginning-of-text token, which fastreason itself never writes."""
        return self.id_of("bos")

    @property
    def answer_close_id(self) -> int:
        """The id of ` </answer>` or, if tags have no leading space, `</answer>`: where generation stops."""
        return self.id_of(" </answer>", "</answer>")

    def encode(self, text: str | bytes) -> np.ndarray:
        """Encodes a text as int32 ids [n]; unknown words of a closed vocabulary become [UNK]. Bytes need not be
        UTF-8."""
        if not isinstance(text, str | bytes):
            raise TypeError(f"encode: text must be str or bytes, got {type(text).__name__}")
        return self.core.encode(text)

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """Decodes ids to text; invalid UTF-8, such as half of a character, becomes U+FFFD.

        Ids outside the vocabulary, which a model with more tokens may draw, become [UNK], or U+FFFD in an open
        vocabulary.

        Raises:
            ValueError: the ids are not integers of 32 bits.
        """
        return self.core.decode(integers("decode: ids", ids, -(2**31), 2**31 - 1).astype(np.int32))


def tokenizer_of(content: Mapping[str, Any], config: Mapping[str, Any] | None) -> Tokenizer:
    """The tokenizer described by a tokenizer.json and tokenizer_config.json; ValueError for unsupported features."""
    check_fields(TokenizerFile, dict(content), "tokenizer.json")
    kind = content["model"]["type"]
    if kind == "BPE":
        return BytePairTokenizer(content, config)
    if kind != "WordLevel":
        raise ValueError(
            "tokenizer.json: model.type must be 'BPE' (byte-level) or 'WordLevel' as fastreason writes it, "
            f"got {shown(kind)}"
        )
    _check_words(content)
    words = in_order(content["model"]["vocab"])
    try:
        return Tokenizer(words)
    except ValueError as error:
        raise ValueError(f"tokenizer.json: model.vocab: {error}") from None


class BytePairTokenizer(Tokenizer):
    """A byte-level BPE tokenizer from a tokenizer.json, created by `Tokenizer.from_pretrained`.

    Special tokens are recognized by their text: padding and end are `[PAD]` and `[EOS]` unless tokenizer_config.json
    names others.

    Args:
        content: the parsed tokenizer.json.
        config: the parsed tokenizer_config.json, if there is one.
    Raises:
        ValueError: names the file and a field that is not supported or has the wrong type.
    """

    def __init__(self, content: Mapping[str, Any], config: Mapping[str, Any] | None = None) -> None:
        check_fields(TokenizerFile, dict(content), "tokenizer.json")
        check_byte_pair(content)
        for name in ("add_bos_token", "add_eos_token", "add_prefix_space"):
            need(name, (config or {}).get(name) or False, False, file="tokenizer_config.json")
        self.content, self.config = dict(content), dict(config) if config else None
        self._names = {"pad": "[PAD]", "eos": "[EOS]", "bos": "[BOS]"} | named_specials(self.config or {})
        vocabulary: dict[str, int] = dict(content["model"]["vocab"])
        for added in content["added_tokens"] or []:
            if vocabulary.setdefault(added["content"], added["id"]) != added["id"]:
                raise ValueError(f"tokenizer.json: added_tokens: {shown(added['content'])} has two ids")
        self.words = in_order(vocabulary)
        self._vocabulary = vocabulary
        characters = byte_characters()
        bytes_of = {character: byte for byte, character in enumerate(characters)}
        end_id = vocabulary.get(self._names["eos"], -1)
        pairs, patterns = merges(content["model"], vocabulary), split_patterns(content["pre_tokenizer"])
        try:
            self.core = _core.BytePairTokenizer(
                words=[word_bytes(word, bytes_of) for word in self.words],
                byte_ids=[vocabulary.get(character, -1) for character in characters],
                merges=pairs,
                specials=[added["id"] for added in content["added_tokens"] or []],
                patterns=patterns,
                padding_id=vocabulary.get(self._names["pad"], end_id),
                end_id=end_id,
            )
        except ValueError as error:
            raise ValueError(f"tokenizer.json: pre_tokenizer: {error}") from error

    def save_pretrained(self, folder: str | Path, max_length: int | None = None) -> None:
        """Writes the original tokenizer.json, and a tokenizer_config.json that names the padding token."""
        named = {f"{name}_token": word for name, word in self._names.items() if word in self._vocabulary}
        if "pad_token" not in named and "eos_token" in named:
            named["pad_token"] = named["eos_token"]
        given = {name: value for name, value in (self.config or {}).items() if value is not None}
        write_files(folder, self.content, named | given, max_length)

    def __reduce__(self) -> tuple[Any, ...]:
        return BytePairTokenizer, (self.content, self.config)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BytePairTokenizer) and self.content == other.content

    __hash__ = None

    def id_of(self, *names: str) -> int:
        for name in names:
            name = self._names.get(name, name)
            if name in self._vocabulary:
                return self._vocabulary[name]
        wanted = " or ".join(repr(self._names.get(name, name)) for name in names)
        raise ValueError(f"tokenizer: the vocabulary has no token {wanted}")

"""Our tokenizer: one token a word, built from the themes, saved as a Hugging Face tokenizer.json.

`fastreason._core` encodes and decodes; `tokenizers` and transformers give the same ids from the saved file. Other
people's byte-level BPE files are read too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .. import _core
from ..runtime.arguments import integer, integers, listed
from ..runtime.json_files import check_fields, read_json, shown
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
    """What a vocabulary depends on of a `Mixture`."""

    @property
    def themes(self) -> tuple[str, ...]: ...

    @property
    def max_value(self) -> int: ...


class Tokenizer:
    """Words to ids and back; a word keeps its leading blank, so decoding is plain concatenation.

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
        """The vocabulary of these themes: specials, tags, words in order of first use, numbers.

        Args:
            themes: names or paths of themes.
            max_value: the largest number that a symbolic text may hold; at most 999 get a token of their own. Published
                texts get all groups of 1-3 digits, with and without leading blank.
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
        """The vocabulary that all these mixtures (`Mixture`) need."""
        mixtures = list(mixtures)
        themes = dict.fromkeys(theme for mixture in mixtures for theme in mixture.themes)
        return cls.build(themes, max(mixture.max_value for mixture in mixtures))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Tokenizer:
        """Reads what `save_pretrained` wrote, or a byte-level BPE tokenizer of anybody.

        Args:
            folder: one with a tokenizer.json, or that file.
        Raises:
            ValueError: there is no such file, or it asks for something that is not supported.
        """
        path = Path(folder) if Path(folder).is_file() else Path(folder) / "tokenizer.json"
        beside = path.with_name("tokenizer_config.json")
        content = read_json(path, MAX_FILE_MB)
        config = read_json(beside) if beside.exists() else None
        try:
            return tokenizer_of(content, config)
        except ValueError as error:
            raise ValueError(f"{path.parent}: {error}") from error

    def save_pretrained(self, folder: str | Path, max_length: int | None = None) -> None:
        """Writes tokenizer.json and tokenizer_config.json, which tokenizers, transformers and vLLM read.

        Args:
            max_length: positions of the model that it is saved for.
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
        """The id of the first of these tokens that the vocabulary has; "pad", "eos" and "bos" stand for its own.

        Raises:
            ValueError: it has none of them.
        """
        for name in names:
            name = f"[{name.upper()}]" if name in ("pad", "eos", "bos") else name
            if name in self.words:
                return self.words.index(name)
        raise ValueError(f"tokenizer: the vocabulary has no token {names[0]!r}")

    @property
    def pad_id(self) -> int:
        """What fills the space behind a text; where the vocabulary has nothing for it, the end token."""
        return self.id_of("pad", "eos")

    @property
    def eos_id(self) -> int:
        """What ends a document."""
        return self.id_of("eos")

    @property
    def bos_id(self) -> int:
        """What may begin a text; the library never writes it."""
        return self.id_of("bos")

    @property
    def answer_close_id(self) -> int:
        """The id of ` </answer>` or, where tags take no blank, `</answer>`: where generation stops."""
        return self.id_of(" </answer>", "</answer>")

    def encode(self, text: str | bytes) -> np.ndarray:
        """int32 ids; a word outside a closed vocabulary is [UNK]. Bytes need not be UTF-8."""
        if not isinstance(text, str | bytes):
            raise TypeError(f"encode: text must be str or bytes, got {type(text).__name__}")
        return self.core.encode(text)

    def decode(self, ids: np.ndarray | Sequence[int]) -> str:
        """The text; what is no UTF-8, such as the first half of a character, reads as U+FFFD.

        Ids beyond the vocabulary, which a model with more tokens may draw, read as [UNK], or as U+FFFD where the
        vocabulary is open.

        Raises:
            ValueError: not integers that fit into 32 bits.
        """
        return self.core.decode(integers("decode: ids", ids, -(2**31), 2**31 - 1).astype(np.int32))


def tokenizer_of(content: Mapping[str, Any], config: Mapping[str, Any] | None) -> Tokenizer:
    """What a tokenizer.json and a tokenizer_config.json describe; ValueError where they ask for something else."""
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
    """A byte-level BPE tokenizer from a tokenizer.json; `Tokenizer.from_pretrained` makes one.

    Special tokens are known by their text: padding and end are `[PAD]` and `[EOS]` unless tokenizer_config.json names
    others.

    Args:
        content: the parsed tokenizer.json.
        config: the parsed tokenizer_config.json, if there is one.
    Raises:
        ValueError: names the file and the field that is not supported or of another type.
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
        """Writes the same tokenizer.json again, and a tokenizer_config.json that names what pads."""
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

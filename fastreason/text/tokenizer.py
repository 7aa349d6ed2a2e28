"""Our tokenizer: one token a word, built from the themes, saved as a Hugging Face tokenizer.json.

`fastreason._core` encodes and decodes; `tokenizers` and transformers give the same ids from the saved file. Other
people's byte-level BPE files are read too (bpe.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Required

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from .. import _core
from ..runtime.arguments import integer, integers, listed
from ..runtime.json_files import check_fields, read_json, shown, to_json
from ..tasks.stream import Mixture
from .theme import load_theme

SPECIALS = ("[UNK]", "[PAD]", "[BOS]", "[EOS]")
TAGS = ("<question>", " </question>", " <solution>", " </solution>", " <answer>", " </answer>")

# The pattern that csrc/text/tokenizer.cpp implements by hand.
WORD_PATTERN = r" ?</?[a-z]+>| ?[A-Za-z\x{80}-\x{10FFFF}]+:?| ?[0-9]{1,3}| ?[!-/:-@\[-`{-~]|[\s\S]"
_SPLIT = {"type": "Split", "pattern": {"Regex": WORD_PATTERN}, "behavior": "Isolated", "invert": False}

# AutoTokenizer of transformers 5 gives every Qwen2 model the word pieces of Qwen2, whatever tokenizer.json says, unless
# the folder names a class of its own; then it takes PreTrainedTokenizerFast, or with trust_remote_code this class.
_AUTO_MODULE = "tokenization_fastreason"
_AUTO_CODE = '''"""For AutoTokenizer with trust_remote_code; without it PreTrainedTokenizerFast does the same."""

from transformers import PreTrainedTokenizerFast


class FastreasonTokenizer(PreTrainedTokenizerFast):
    """What tokenizer.json says."""
'''

# What a conversation looks like to a model that was trained on documents: messages of a user are questions, those of an
# assistant go on where the prompt ended.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] }}"
    "{% else %}<question> {{ message['content'] }} </question>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} <solution>{% endif %}"
)
MAX_FILE_MB = 128
"""Largest tokenizer.json that is read; those of vocabularies of 256,000 tokens have 33 MB."""

_Id = Annotated[int, Field(ge=0, lt=2**31)]


class _AddedToken(TypedDict, total=False):
    id: Required[_Id]
    content: Required[Annotated[str, Field(min_length=1)]]


class _Model(TypedDict, total=False):
    type: Required[str]
    vocab: Required[dict[str, _Id]]
    merges: list[Any]
    unk_token: str | None


class _PreTokenizer(TypedDict, total=False):
    type: Required[str]
    add_prefix_space: bool
    use_regex: bool
    pattern: dict[str, str]
    behavior: str
    invert: bool


class _PreTokenizers(_PreTokenizer, total=False):
    pretokenizers: list[_PreTokenizer]


class _PostProcessor(TypedDict, total=False):
    type: str
    single: list[dict[str, Any]]


class TokenizerFile(TypedDict, total=False):
    """The types of what is read of a tokenizer.json; values are looked at by who reads them."""

    model: Required[_Model]
    added_tokens: list[_AddedToken] | None
    pre_tokenizer: _PreTokenizers | None
    post_processor: _PostProcessor | None
    decoder: dict[str, Any] | None
    padding: dict[str, Any] | None


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
    def for_mixtures(cls, mixtures: Iterable[Mixture]) -> Tokenizer:
        """The vocabulary that all these mixtures need."""
        mixtures = list(mixtures)
        themes = dict.fromkeys(theme for mixture in mixtures for theme in mixture.themes)
        return cls.build(themes, max(cell.max_value for mixture in mixtures for cell in mixture.weights))

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
        from .bpe import BytePairTokenizer

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


def in_order(vocabulary: Mapping[str, int]) -> tuple[str, ...]:
    """The tokens by their ids; ValueError unless the ids are 0 .. their number - 1."""
    words = tuple(sorted(vocabulary, key=vocabulary.__getitem__))
    for i, word in enumerate(words):
        if vocabulary[word] != i:
            raise ValueError(
                f"tokenizer.json: the ids of model.vocab and added_tokens are not 0 .. {len(words) - 1}: "
                f"{shown(word)} has {vocabulary[word]}"
            )
    return words


def write_files(
    folder: str | Path, tokenizer: Mapping[str, Any], config: Mapping[str, Any], max_length: int | None
) -> None:
    """Writes tokenizer.json, and tokenizer_config.json so that transformers does what tokenizer.json says.

    Args:
        config: the special tokens by their names there, such as pad_token, and what else is to stand there.
        max_length: positions of the model; None leaves what `config` says.
    """
    standard = {
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "chat_template": CHAT_TEMPLATE,
        **config,
        **({} if max_length is None else {"model_max_length": max_length}),
        # a decoder goes on from the last place of a row, which must not be padding
        "padding_side": "left",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "auto_map": {"AutoTokenizer": [None, f"{_AUTO_MODULE}.FastreasonTokenizer"]},
    }
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", standard)):
        text = to_json(content, ensure_ascii=False, indent=1) + "\n"
        (Path(folder) / name).write_text(text, encoding="utf-8")
    (Path(folder) / f"{_AUTO_MODULE}.py").write_text(_AUTO_CODE, encoding="utf-8")


def need(what: str, value: Any, *allowed: Any, file: str = "tokenizer.json") -> None:
    """Raises ValueError unless a part of a file has one of these values."""
    if value not in allowed:
        options = " or ".join(repr(option) for option in allowed)
        raise ValueError(f"{file}: {what} must be {options}, got {shown(value)}")


def check_surroundings(content: Mapping[str, Any]) -> None:
    """Raises ValueError where a tokenizer.json does more than to cut a text and look its pieces up.

    What transformers adds when it saves one is allowed: padding of a batch to its longest text, and a post-processor
    that adds no token.
    """
    for field in ("normalizer", "truncation"):
        need(field, content.get(field), None)
    padding = content.get("padding")
    if not (isinstance(padding, Mapping) and padding.get("strategy") == "BatchLongest"):
        need("padding", padding, None)
    elif padding.get("pad_to_multiple_of"):
        need("pad_to_multiple_of of padding", padding["pad_to_multiple_of"], None)
    post = content.get("post_processor")
    if isinstance(post, Mapping):
        if post.get("type") == "TemplateProcessing" and [[*part] for part in post.get("single", [])] == [["Sequence"]]:
            return
        post = post.get("type")
    need("post_processor", post, None, "ByteLevel")


def _added_tokens() -> list[dict[str, Any]]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return [{"id": i, "content": word, **flags, "special": True} for i, word in enumerate(SPECIALS)]


def _check_words(content: Mapping[str, Any]) -> None:
    """Raises ValueError where a file with a WordLevel model encodes otherwise than the core's tokenizer of words."""
    check_surroundings(content)
    need("model.unk_token", content["model"].get("unk_token"), SPECIALS[0])
    for part, ours in (("pre_tokenizer", _SPLIT), ("decoder", {"type": "Fuse"}), ("added_tokens", _added_tokens())):
        if content.get(part) != ours:
            raise ValueError(
                f"tokenizer.json: with a WordLevel model {part} must be as fastreason writes it, "
                f"got {shown(content.get(part))}"
            )

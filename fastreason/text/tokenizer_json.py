"""Hugging Face's tokenizer.json: writing ours, and checking that a foreign one is supported."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Required

from pydantic import Field
from typing_extensions import TypedDict

from ..runtime.json_files import shown, to_json

SPECIALS = ("[UNK]", "[PAD]", "[BOS]", "[EOS]")
# The pattern that csrc/text/tokenizer.cpp implements by hand.
WORD_PATTERN = r" ?</?[a-z]+>| ?[A-Za-z\x{80}-\x{10FFFF}]+:?| ?[0-9]{1,3}| ?[!-/:-@\[-`{-~]|[\s\S]"
_SPLIT = {"type": "Split", "pattern": {"Regex": WORD_PATTERN}, "behavior": "Isolated", "invert": False}
# AutoTokenizer of transformers 5 gives every Qwen2 model Qwen2's own vocabulary, whatever tokenizer.json says, unless
# the folder names a class; then it uses PreTrainedTokenizerFast or, with trust_remote_code, this class.
_AUTO_MODULE = "tokenization_fastreason"
_AUTO_CODE = '''"""For AutoTokenizer with trust_remote_code; without it PreTrainedTokenizerFast does the same."""

from transformers import PreTrainedTokenizerFast


class FastreasonTokenizer(PreTrainedTokenizerFast):
    """What tokenizer.json says."""
'''
# A conversation as a model trained on documents expects it: user messages are questions, assistant messages continue
# the
# prompt.
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'assistant' %}{{ message['content'] }}"
    "{% else %}<question> {{ message['content'] }} </question>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} <solution>{% endif %}"
)
MAX_FILE_MB = 128
"""Size limit of tokenizer.json in MB; with a vocabulary of 256,000 tokens it has 33 MB."""
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
    """The types of the tokenizer.json fields that are read; values are checked where they are used."""

    model: Required[_Model]
    added_tokens: list[_AddedToken] | None
    pre_tokenizer: _PreTokenizers | None
    post_processor: _PostProcessor | None
    decoder: dict[str, Any] | None
    padding: dict[str, Any] | None


def in_order(vocabulary: Mapping[str, int]) -> tuple[str, ...]:
    """The tokens ordered by id; ValueError unless the ids are 0 .. number of tokens - 1."""
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
    """Writes tokenizer.json, and a tokenizer_config.json that makes transformers follow it.

    Args:
        config: fields of tokenizer_config.json, such as pad_token.
        max_length: number of positions of the model; None keeps the value in `config`.
    """
    standard = {
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "chat_template": CHAT_TEMPLATE,
        **config,
        **({} if max_length is None else {"model_max_length": max_length}),
        # a decoder continues from the last position of a row, which must not be padding
        "padding_side": "left",
        "tokenizer_class": "PreTrainedTokenizerFast",
        "auto_map": {"AutoTokenizer": [None, f"{_AUTO_MODULE}.FastreasonTokenizer"]},
    }
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", standard)):
        text = to_json(content, ensure_ascii=False, indent=1) + "\n"
        (Path(folder) / name).write_text(text, encoding="utf-8")
    (Path(folder) / f"{_AUTO_MODULE}.py").write_text(_AUTO_CODE, encoding="utf-8")


def need(what: str, value: Any, *allowed: Any, file: str = "tokenizer.json") -> None:
    """Raises ValueError unless a field of a file has one of the allowed values."""
    if value not in allowed:
        options = " or ".join(repr(option) for option in allowed)
        raise ValueError(f"{file}: {what} must be {options}, got {shown(value)}")


def check_surroundings(content: Mapping[str, Any]) -> None:
    """Raises ValueError if a tokenizer.json does more than split a text and look up the pieces.

    Allowed is what transformers adds when it saves one: padding a batch to its longest text, and a post-processor that
    adds no tokens.
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
    """Raises ValueError if a file with a WordLevel model encodes differently from the core's word tokenizer."""
    check_surroundings(content)
    need("model.unk_token", content["model"].get("unk_token"), SPECIALS[0])
    for part, ours in (("pre_tokenizer", _SPLIT), ("decoder", {"type": "Fuse"}), ("added_tokens", _added_tokens())):
        if content.get(part) != ours:
            raise ValueError(
                f"tokenizer.json: with a WordLevel model {part} must be as fastreason writes it, "
                f"got {shown(content.get(part))}"
            )


# How ByteLevel splits words (GPT-2's pattern).
_BYTE_LEVEL = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def byte_characters() -> list[str]:
    """The printable character that represents each byte: itself if printable, otherwise one from U+0100 on.

    >>> byte_characters()[ord(" ")], byte_characters()[ord("a")]
    ('Ġ', 'a')
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    stands_for = {byte: chr(byte) for byte in own} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}
    return [stands_for[byte] for byte in range(256)]


def check_byte_pair(content: Mapping[str, Any]) -> None:
    """Raises ValueError with the name of the first unsupported part."""

    def kind(part: Any) -> Any:
        return part.get("type") if isinstance(part, Mapping) else part

    for field in ("added_tokens", "pre_tokenizer", "decoder"):
        if field not in content:
            raise ValueError(f"tokenizer.json: {field} is missing")
    check_surroundings(content)
    need("decoder", kind(content["decoder"]), "ByteLevel")
    model = content["model"]
    need("model", kind(model), "BPE")
    for field in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        need(f"model.{field}", model.get(field) or None, None)
    for field in ("byte_fallback", "ignore_merges"):
        need(f"model.{field}", model.get(field, False), False)
    if model.get("unk_token") is not None and not set(byte_characters()) <= set(model["vocab"]):
        raise ValueError("tokenizer.json: model.unk_token must be null where some bytes have no token")
    for added in content["added_tokens"] or []:
        for field in ("single_word", "lstrip", "rstrip", "normalized"):
            need(f"{field} of added token {shown(added['content'])}", added.get(field, False), False)


def split_patterns(pre_tokenizer: Mapping[str, Any] | None) -> list[str]:
    """The regular expressions that split the text, each applied to the pieces of the previous one."""
    need_one = "tokenizer.json: pre_tokenizer must be Splits by a Regex and then ByteLevel"
    if pre_tokenizer is None:
        raise ValueError(f"{need_one}, got None")
    whole = pre_tokenizer["type"] != "Sequence"
    parts = [pre_tokenizer] if whole else pre_tokenizer.get("pretokenizers", [])
    patterns: list[str] = []
    for i, part in enumerate(parts):
        if part["type"] == "ByteLevel" and i + 1 == len(parts):
            if part.get("add_prefix_space", True):
                raise ValueError("tokenizer.json: add_prefix_space of the ByteLevel pre-tokenizer must be false")
            return [*patterns, _BYTE_LEVEL] if part.get("use_regex", True) else patterns
        if part["type"] != "Split" or "Regex" not in part.get("pattern", {}):
            raise ValueError(f"{need_one}, got {shown(part['type'])}")
        if part.get("behavior") != "Isolated" or part.get("invert", False):
            raise ValueError("tokenizer.json: a Split must have behavior 'Isolated' and not be inverted")
        patterns.append(part["pattern"]["Regex"])
    raise ValueError("tokenizer.json: pre_tokenizer must end with ByteLevel")


def merges(model: Mapping[str, Any], vocabulary: Mapping[str, int]) -> list[list[int]]:
    """Ids [left, right, result] in order of rank; a merge is written as a pair or as one string with a space."""
    triples = []
    for i, merge in enumerate(model.get("merges", [])):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or [type(part) for part in pair] != [str, str]:
            raise ValueError(f"tokenizer.json: model.merges.{i} must be two tokens, got {shown(merge)}")
        left, right = pair
        try:
            triples.append([vocabulary[left], vocabulary[right], vocabulary[left + right]])
        except KeyError as error:
            what = f"model.merges.{i}, {shown(merge)}, names {shown(error.args[0])}, which has no id"
            raise ValueError(f"tokenizer.json: {what}") from None
    return triples


def word_bytes(word: str, bytes_of: Mapping[str, int]) -> bytes:
    """The bytes a token decodes to; a token with a character that represents no byte is taken literally."""
    if all(character in bytes_of for character in word):
        return bytes(bytes_of[character] for character in word)
    return word.encode()


def named_specials(config: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the padding, end and beginning tokens named by a tokenizer_config.json."""
    texts = {}
    for name in ("pad", "eos", "bos"):
        token = config.get(f"{name}_token")
        text = token.get("content") if isinstance(token, Mapping) else token
        if text is not None and not isinstance(text, str):
            raise ValueError(f"tokenizer_config.json: {name}_token must be a token, got {shown(token)}")
        if text:
            texts[name] = text
    return texts

"""Byte-level byte-pair tokenizers of other people, read from their Hugging Face tokenizer.json.

The core gives the ids that `tokenizers` gives, or the file is refused: what is not understood is named, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import _core
from ..runtime.json_files import check_fields, shown
from .tokenizer import Tokenizer, TokenizerFile, check_surroundings, in_order, need, write_files

# How ByteLevel cuts words (GPT-2's pattern).
_BYTE_LEVEL = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


def byte_characters() -> list[str]:
    """The printable character that stands for each byte: itself where it has one, else one from U+0100 on.

    >>> byte_characters()[ord(" ")], byte_characters()[ord("a")]
    ('Ġ', 'a')
    """
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in own]
    stands_for = {byte: chr(byte) for byte in own} | {byte: chr(0x100 + i) for i, byte in enumerate(others)}
    return [stands_for[byte] for byte in range(256)]


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
        _refuse_unsupported(content)
        for name in ("add_bos_token", "add_eos_token", "add_prefix_space"):
            need(name, (config or {}).get(name) or False, False, file="tokenizer_config.json")
        self.content, self.config = dict(content), dict(config) if config else None
        self._names = {"pad": "[PAD]", "eos": "[EOS]", "bos": "[BOS]"} | _named_specials(self.config or {})
        vocabulary: dict[str, int] = dict(content["model"]["vocab"])
        for added in content["added_tokens"] or []:
            if vocabulary.setdefault(added["content"], added["id"]) != added["id"]:
                raise ValueError(f"tokenizer.json: added_tokens: {shown(added['content'])} has two ids")
        self.words = in_order(vocabulary)
        self._vocabulary = vocabulary
        characters = byte_characters()
        bytes_of = {character: byte for byte, character in enumerate(characters)}
        end_id = vocabulary.get(self._names["eos"], -1)
        merges, patterns = _merges(content["model"], vocabulary), _patterns(content["pre_tokenizer"])
        try:
            self.core = _core.BytePairTokenizer(
                words=[_word_bytes(word, bytes_of) for word in self.words],
                byte_ids=[vocabulary.get(character, -1) for character in characters],
                merges=merges,
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


def _refuse_unsupported(content: Mapping[str, Any]) -> None:
    """Raises ValueError with the name of the first part that the core does not do."""

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


def _patterns(pre_tokenizer: Mapping[str, Any] | None) -> list[str]:
    """The regular expressions that cut the text, each the pieces of the one before."""
    need_one = "tokenizer.json: pre_tokenizer must be Splits by a Regex and then ByteLevel"
    if pre_tokenizer is None:
        raise ValueError(f"{need_one}, got None")
    whole = pre_tokenizer["type"] != "Sequence"
    parts = [pre_tokenizer] if whole else pre_tokenizer.get("pretokenizers", [])
    found: list[str] = []
    for i, part in enumerate(parts):
        if part["type"] == "ByteLevel" and i + 1 == len(parts):
            if part.get("add_prefix_space", True):
                raise ValueError("tokenizer.json: add_prefix_space of the ByteLevel pre-tokenizer must be false")
            return [*found, _BYTE_LEVEL] if part.get("use_regex", True) else found
        if part["type"] != "Split" or "Regex" not in part.get("pattern", {}):
            raise ValueError(f"{need_one}, got {shown(part['type'])}")
        if part.get("behavior") != "Isolated" or part.get("invert", False):
            raise ValueError("tokenizer.json: a Split must have behavior 'Isolated' and not be inverted")
        found.append(part["pattern"]["Regex"])
    raise ValueError("tokenizer.json: pre_tokenizer must end with ByteLevel")


def _merges(model: Mapping[str, Any], vocabulary: Mapping[str, int]) -> list[list[int]]:
    """Ids [left, right, result] in order of rank; a merge is written as a pair or as one text with a blank."""
    found = []
    for i, merge in enumerate(model.get("merges", [])):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(pair, list) or [type(part) for part in pair] != [str, str]:
            raise ValueError(f"tokenizer.json: model.merges.{i} must be two tokens, got {shown(merge)}")
        left, right = pair
        try:
            found.append([vocabulary[left], vocabulary[right], vocabulary[left + right]])
        except KeyError as error:
            what = f"model.merges.{i}, {shown(merge)}, names {shown(error.args[0])}, which has no id"
            raise ValueError(f"tokenizer.json: {what}") from None
    return found


def _word_bytes(word: str, bytes_of: Mapping[str, int]) -> bytes:
    """What a token decodes to; one with a character that stands for no byte is taken as it is written."""
    if all(character in bytes_of for character in word):
        return bytes(bytes_of[character] for character in word)
    return word.encode()


def _named_specials(config: Mapping[str, Any]) -> dict[str, str]:
    """The texts of the padding, end and begin tokens that a tokenizer_config.json names."""
    found = {}
    for name in ("pad", "eos", "bos"):
        token = config.get(f"{name}_token")
        text = token.get("content") if isinstance(token, Mapping) else token
        if text is not None and not isinstance(text, str):
            raise ValueError(f"tokenizer_config.json: {name}_token must be a token, got {shown(token)}")
        if text:
            found[name] = text
    return found

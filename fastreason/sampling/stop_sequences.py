"""When a sample ends: at a stop token, or when its text contains a stop string."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..runtime.arguments import listed
from ..text.tokenizer import Tokenizer


class Stopping:
    """Stop sequences of a rollout.

    Args:
        tokenizer: decodes the samples.
        stop: token ids, each of which ends a sample, and strings, which end it with the token that completes one of
            them; None for the tokenizer's ` </answer>` and [EOS]. The token that ends a sample is part of it.
        vocab_size: of the model; at least the number of tokens of the tokenizer, which is the default. Tokens that the
            tokenizer does not know end a sample only by their id.
    Raises:
        ValueError: an id is not in the model's vocabulary, or a string is empty.
        TypeError: an item is neither an id nor a string.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[int | str] | int | str | None = None,
        vocab_size: int | None = None,
    ) -> None:
        self.vocab_size = len(tokenizer) if vocab_size is None else vocab_size
        if stop is None:
            stop = [tokenizer.answer_close_id, tokenizer.eos_id]
        items = [stop] if isinstance(stop, (int, str, np.integer)) else listed("stop", stop)
        for item in items:
            if isinstance(item, bool) or not isinstance(item, (int, str, np.integer)):
                raise TypeError(f"stop: must be token ids and strings, got {item!r}")
            if item == "" or (not isinstance(item, str) and not 0 <= item < self.vocab_size):
                raise ValueError(f"stop: must be ids in 0 .. {self.vocab_size - 1} and non-empty strings, got {item!r}")
        self.tokenizer = tokenizer
        self.ids = np.array([item for item in items if not isinstance(item, str)], dtype=np.int64)
        self.strings = [item for item in items if isinstance(item, str)]
        # a token has at least one byte, so a string completed by the last token lies within this many tokens
        self.reach = max((len(string.encode()) for string in self.strings), default=0)
        self.may_complete = self._may_complete() if self.strings else None

    def _may_complete(self) -> np.ndarray:
        """bool [V]: whether a token can complete a stop string; the text is checked only for those."""
        can_complete = np.zeros(self.vocab_size, dtype=bool)
        for token in range(len(self.tokenizer)):
            text = self.tokenizer.decode([token])
            can_complete[token] = any(_may_complete(text, string) for string in self.strings)
        return can_complete

    def ends(self, tokens: np.ndarray, samples: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """bool [n]: whether the last token of each sample ends it.

        Args:
            tokens: int32 [slots, capacity].
            samples: int64 [n]: rows of `tokens`; lengths: int64 [n], at least 1, of those rows.
        """
        last = tokens[samples, lengths - 1]
        ended = np.isin(last, self.ids)
        if self.may_complete is not None:
            for i in np.flatnonzero(self.may_complete[last] & ~ended):
                tail = tokens[samples[i], max(0, lengths[i] - self.reach) : lengths[i]]
                text = self.tokenizer.decode(tail)
                ended[i] = any(string in text for string in self.strings)
        return ended


def _may_complete(text: str, string: str) -> bool:
    # part of a multi-byte character decodes to U+FFFD
    if string in text or "\N{REPLACEMENT CHARACTER}" in text:
        return True
    return any(text.startswith(string[i:]) for i in range(1, len(string)))

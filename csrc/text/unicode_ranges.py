"""Writes csrc/text/unicode_ranges.h: which code points Hugging Face `tokenizers` takes for letters and numbers.

Run `python -m csrc.text.unicode_ranges` again when a new version of `tokenizers` knows a newer Unicode;
tests/text/test_pattern.py compares the two.
"""

from pathlib import Path

from tokenizers import Regex
from tokenizers.pre_tokenizers import Split

HEAD = """// Unicode general categories L (letters) and N (numbers): first and last code point of every range.
// Made by csrc/text/unicode_ranges.py; the tests compare every code point with Hugging Face `tokenizers`.
#pragma once

#include <cstdint>

namespace fastreason {
"""


def matches(pattern: str) -> list[int]:
    """Every code point that is a match of its own, found by splitting a text that holds them all."""
    points = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000 and c != 1]
    pieces = Split(Regex(pattern), "isolated").pre_tokenize_str("".join(chr(c) + "\x01" for c in points))
    return sorted(ord(piece) for piece, _ in pieces if len(piece) == 1 and piece != "\x01")


def ranges(points: list[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for point in points:
        if found and found[-1][1] == point - 1:
            found[-1] = (found[-1][0], point)
        else:
            found.append((point, point))
    return found


def table(name: str, pattern: str) -> str:
    lines, line = [], "   "
    for first, last in ranges(matches(pattern)):
        entry = f" {{0x{first:X}, 0x{last:X}}},"
        if len(line) + len(entry) > 120:
            lines.append(line)
            line = "   "
        line += entry
    return "\n".join([f"inline constexpr std::uint32_t {name}[][2] = {{", *lines, line, "};"])


if __name__ == "__main__":
    tables = [table("kLetterRanges", r"\p{L}"), table("kNumberRanges", r"\p{N}")]
    text = "\n".join([HEAD, "// clang-format off", *tables, "// clang-format on\n\n}  // namespace fastreason\n"])
    Path(__file__).with_name("unicode_ranges.h").write_text(text, encoding="utf-8")

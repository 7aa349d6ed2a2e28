"""Hugging Face folders, damaged in every way that we could think of: each loads, or is refused by one error.

    python -m tests.torture.folders --seconds 60 [--seed 0] [--case 17]

A case takes one of four good folders and changes one to three things in it: values of its JSON files, the header of its
safetensors files, bytes, or what stands under a name (links, pipes, folders, sparse files of a terabyte). What is
wanted of it:

- it loads, and then gives the logits and ids that transformers and tokenizers give, or
- one ValueError, which names a file of the folder, and fits into a screen;
- within LIMIT_S seconds and LIMIT_MB of memory more than a good folder takes.

Cases are run by a process of their own, which a hang or a crash ends; its case is counted and the next one goes on.
The exit status is 1 if a case was neither loaded nor refused as wanted. Case i of a seed is always the same one.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import faulthandler
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

import fastreason as fr
from fastreason.kernels import Segments
from fastreason.model.hugging_face import WeightsMismatch
from fastreason.text.tokenizer import TAGS, BytePairTokenizer
from fastreason.text.tokenizer_json import byte_characters
from tests.qwen2_oracle import drawn_model

LIMIT_S = 60
LIMIT_MB = 3000
JSON_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
SIZES = dict(hidden_size=8, num_attention_heads=2, num_key_value_heads=1, intermediate_size=8, num_hidden_layers=2)
TEXT = "<question> a b : ab </question> <solution> é 12"

Files = dict[str, bytes | Callable[[Path], None]]
"""What stands under each name of a folder: its bytes, or what puts something else there."""


# ---- good folders


def word_tokenizer() -> fr.Tokenizer:
    return fr.Tokenizer(["[UNK]", "[PAD]", "[BOS]", "[EOS]", *TAGS, " a", " b", " :", " 12"])


def byte_pair_tokenizer(specials: tuple[str, ...] = ("[PAD]", "[BOS]", "[EOS]", "</answer>")) -> fr.Tokenizer:
    """All bytes, two merges, and the special tokens behind them."""
    words = [*byte_characters(), "ab", "aba"]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    split = {"type": "Split", "pattern": {"Regex": r" ?\p{L}+|\p{N}{1,3}|\s+"}, "behavior": "Isolated", "invert": False}
    cut = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    content = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": len(words) + i, "content": word, **flags, "special": True} for i, word in enumerate(specials)
        ],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, cut]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {word: i for i, word in enumerate(words)},
            "merges": [["a", "b"], ["ab", "a"]],
        },
    }
    return BytePairTokenizer(content)


def good_folders() -> list[Files]:
    """Both kinds of tokenizer, weights in one file and in two, a head of its own and the embedding's."""
    found = []
    for tokenizer in (word_tokenizer(), byte_pair_tokenizer()):
        for sharded in (False, True):
            config = fr.ModelConfig(len(tokenizer), **SIZES, max_position_embeddings=64, tie_word_embeddings=sharded)
            with tempfile.TemporaryDirectory() as folder:
                drawn_model(config).save_pretrained(folder, tokenizer)
                if sharded:
                    _share_out(Path(folder))
                found.append({path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())})
    return found


def _share_out(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    file_of = {name: f"part-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for part in set(file_of.values()):
        save_file({name: tensors[name].clone() for name in tensors if file_of[name] == part}, folder / part)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": file_of}))


def put(files: Mapping[str, Any], folder: Path) -> None:
    for name, content in files.items():
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
    for name, content in files.items():
        if not isinstance(content, bytes):
            content(folder / name)


# ---- what is changed

_RAW = {"@NaN@": "NaN", "@Infinity@": "-Infinity", "@big@": "1e999", "@digits@": "9" * 5000, "@bad@": '"\\x"'}
_RAW |= {f"@deep{n}@": "[" * n + "]" * n for n in (50, 3000, 200_000)}
_RAW |= {f"@inside{n}@": '{"a":' * n + "1" + "}" * n for n in (50, 3000, 200_000)}
_NUMBERS: list[Any] = [0, 1, 2, 3, -1, 7, 64, 10**7, 2**31, 2**32 + 1, 2**63, -(2**63), 10**30, 10**400]
_NUMBERS += [0.0, 0.5, -1.5, 1e-30, 1e308, 8.0, 1e30]
_TEXTS: list[Any] = ["", "x", "8", "null", "\ud800", "\0", "Qwen2ForCausalLM", "full_attention", "x" * 5000, "a b c"]
_TEXTS += ["../part-0.safetensors", "/etc/passwd", INDEX, ".", "..", "part-1.safetensors", "é", "[EOS]", "ab", " "]
_OTHERS: list[Any] = [None, True, False, [], {}, [[]], [None], {"a": None}, {"": {}}, ["full_attention"], [1, "a"]]
_OTHERS += [{"rope_type": "default"}, {"rope_type": [], "rope_theta": {}}, {"content": 3}, {"type": "Sequence"}]
_KEYS = [
    "head_dim",
    "layer_types",
    "rope_scaling",
    "rope_parameters",
    "quantization_config",
    "new",
    "",
    "attention_bias",
]
_KEYS += ["id", "content", "type", "single", "strategy", "pad_token", "pad_token_id", "model_max_length", "normalizer"]


def _value(random: Random) -> Any:
    pool = random.choice([_NUMBERS, _NUMBERS, _TEXTS, _OTHERS, list(_RAW)])
    return copy.deepcopy(random.choice(pool))


def _places(node: Any, depth: int = 0) -> list[tuple[Any, Any]]:
    """(object or list, key) of the values in it; of what has many values only some, so that all parts are met."""
    if not isinstance(node, dict | list):
        return []
    keys = list(node) if isinstance(node, dict) else list(range(len(node)))
    if len(keys) > 40:
        keys = keys[:3] + keys[-6:]
    here = [(node, key) for key in keys]
    return here + [place for key in keys for place in _places(node[key], depth + 1)]


def _change_json(random: Random, content: Any) -> Any:
    """A value replaced, removed, added, moved or doubled, somewhere."""
    places = _places(content)
    if not places or random.random() < 0.03:
        return _value(random)
    node, key = random.choice(places)
    how = random.randrange(8)
    if how == 0:
        del node[key]
    elif how == 1 and isinstance(node, dict):
        node[random.choice(_KEYS)] = _value(random)
    elif how == 1:
        node.append(copy.deepcopy(node[key]))
    elif how == 2:
        other, place = random.choice(places)
        node[key] = copy.deepcopy(other[place])
    elif how == 3 and isinstance(node, dict):
        node[random.choice(_TEXTS)] = node.pop(key)
    elif how == 4 and isinstance(node[key], int | float):
        node[key] = random.choice([node[key] * 2, node[key] + 1, float(node[key]), str(node[key]), [node[key]]])
    else:
        node[key] = _value(random)
    return content


def _parsed(content: bytes) -> Any:
    """ValueError for what was nested deep before, too: how deep Python goes depends on who called."""
    if b"[" * 100 in content or b'{"a":' * 100 in content:
        raise ValueError("nested too deep")
    return json.loads(content)


def _json_bytes(random: Random, content: Any) -> bytes:
    text = json.dumps(content)
    for mark, raw in _RAW.items():
        text = text.replace(f'"{mark}"', raw)
    if random.random() < 0.05:  # a field that stands twice
        key = random.choice([*content] if isinstance(content, dict) and content else ["a"])
        text = text.replace("{", "{" + f'"{key}": {json.dumps(random.choice(_NUMBERS))},', 1)
    return text.encode()


def change_json(random: Random, files: Files, name: str) -> str:
    content = files[name]
    assert isinstance(content, bytes)
    with contextlib.suppress(ValueError):  # changed to no JSON before
        parsed = _parsed(content)
        for _ in range(random.choice([1, 1, 1, 2])):
            parsed = _change_json(random, parsed)
        files[name] = _json_bytes(random, parsed)
    return f"JSON of {name}"


def change_header(random: Random, files: Files, name: str) -> str:
    """Of a safetensors file: an int64 length, JSON of that length, data."""
    content = files[name]
    assert isinstance(content, bytes)
    if len(content) < 8:
        return f"nothing of {name}"
    size = struct.unpack("<Q", content[:8])[0]
    if random.random() < 0.1:
        files[name] = (
            struct.pack("<Q", random.choice([0, 1, size - 1, size + 1, 10**9, 2**63, 2**64 - 1])) + content[8:]
        )
        return f"header length of {name}"
    with contextlib.suppress(ValueError):
        header = _parsed(content[8 : 8 + size])
        entries = header if isinstance(header, dict) else {}
        tensors = [key for key in entries if key != "__metadata__" and isinstance(entries[key], dict)]
        if tensors and random.random() < 0.5:
            _change_tensor(random, header, random.choice(tensors))
        else:
            header = _change_json(random, header)
        text = _json_bytes(random, header)
        files[name] = struct.pack("<Q", len(text)) + text + content[8 + size :]
    return f"header of {name}"


def _change_tensor(random: Random, header: Any, tensor: str) -> None:
    how = random.randrange(4)
    if how == 0:
        header[tensor]["dtype"] = random.choice(
            ["F16", "BF16", "I32", "F8_E4M3", "F4", "BOOL", "U16", "C64", "F64", ""]
        )
    elif how == 1:
        header[tensor]["shape"] = random.choice([[], [0], [-1], [2**62, 4], header[tensor]["shape"][::-1], [1] * 100])
    elif how == 2:
        header[random.choice(["lm_head.weight", "model.layers.9.x", "", *header])] = header.pop(tensor)
    else:
        header[tensor]["data_offsets"] = random.choice([[0, 0], [0, 2**63], [8, 4], [0], [-4, 0]])


def change_bytes(random: Random, files: Files, name: str) -> str:
    content = files[name]
    assert isinstance(content, bytes)
    at = random.randrange(len(content) + 1)
    some = random.randbytes(random.choice([1, 4, 100]))
    files[name] = random.choice(
        [
            content[:at],
            content[:at] + some + content[at:],
            content[:at] + some + content[at + len(some) :],
            content[:at] + bytes(len(content) - at),
            content + some,
            b"",
            b"\xef\xbb\xbf" + content,
            content.decode("latin-1").encode("utf-16"),
        ]
    )
    return f"bytes of {name}"


def _sparse(path: Path) -> None:
    with path.open("r+b" if path.exists() else "wb") as file:
        file.truncate(2**40)


def change_place(random: Random, files: Files, name: str) -> str:
    """Something else than a file under a name; or no file."""
    kinds: dict[str, Callable[[Path], None] | None] = {
        "nothing": None,
        "a folder": lambda path: path.mkdir(),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a link to nothing": lambda path: path.symlink_to("nowhere"),
        "a link to a device": lambda path: path.symlink_to("/dev/zero"),
        "a link to another file": lambda path: path.symlink_to("README.md"),
        "a pipe": lambda path: os.mkfifo(path),
        "a terabyte": _sparse,
        "no access": lambda path: (path.write_text("{}"), path.chmod(0))[0] and None,
    }
    kind = random.choice(list(kinds))
    if (what := kinds[kind]) is None:
        del files[name]
    else:
        files[name] = what
    return f"{kind} for {name}"


_HOW = [change_json] * 6 + [change_header] * 2 + [change_bytes, change_place]


def damaged(random: Random, good: list[Files]) -> tuple[Files, list[str]]:
    """A case: a folder, and what was changed in it."""
    files, done = dict(random.choice(good)), []
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        how = random.choice(_HOW)
        names = [name for name in files if isinstance(files[name], bytes) and not name.endswith((".py", ".md"))]
        if how is change_json:
            names = [name for name in names if name.endswith(".json")]
        elif how is change_header:
            names = [name for name in names if name.endswith(".safetensors")]
        if names:
            done.append(how(random, files, random.choice(names)))
    return files, done


# ---- what is wanted


class Wrong(AssertionError):
    """A case that neither loads nor is refused as it should be."""


def outcome(folder: Path, peers: bool = False) -> str:
    """ "loaded" or "refused: ..." for each of a folder's model and tokenizer; Wrong for anything else."""
    found = []
    for load, use in ((fr.Decoder.from_pretrained, _use_model), (fr.Tokenizer.from_pretrained, _use_tokenizer)):
        loaded = None
        try:
            loaded = load(folder)
        except ValueError as error:
            found.append("refused: " + check_error(error, folder))
        except Exception as error:
            raise Wrong(f"{load.__qualname__}: {type(error).__name__}: {error!s:.300}") from error
        if loaded is not None:
            use(loaded, folder, peers)
            found.append("loaded")
    return ", ".join(part[:7] for part in found)


def check_error(error: ValueError, folder: Path) -> str:
    """The message, without the folder; Wrong if it names no file, cannot be printed or fills a screen."""
    if type(error) not in (ValueError, WeightsMismatch):
        raise Wrong(f"{type(error).__name__} is no plain ValueError: {error!s:.300}") from error
    text = str(error).replace(str(folder), "")
    named = [name for name in (*JSON_FILES, WEIGHTS, INDEX, "part-0.safetensors", "part-1.safetensors") if name in text]
    if not named or len(text) > 1000 or "\n" in text:
        raise Wrong(f"names no file or is too long: {text[:300]!r}") from error
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Wrong(f"cannot be printed: {text[:300]!a}") from error
    return text


def _use_model(model: fr.Decoder, folder: Path, peers: bool) -> None:
    tokens = torch.arange(min(12, model.config.vocab_size))
    with torch.inference_mode():
        ours = model.logits(model(tokens, Segments.from_lengths([len(tokens)])))
    with tempfile.TemporaryDirectory() as again:
        model.save_pretrained(again)
    if not peers or not torch.isfinite(ours).all():
        return
    from transformers import Qwen2ForCausalLM

    try:
        theirs = Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32)
    except Exception as error:
        print(f"note: transformers refuses what loads here: {type(error).__name__}: {error!s:.200}", file=sys.stderr)
        return
    with torch.inference_mode():
        logits = theirs.eval()(tokens[None]).logits[0]
    if not torch.allclose(ours, logits, rtol=1e-3, atol=1e-4 * float(logits.abs().max())):
        raise Wrong(f"logits differ from transformers' by {float((ours - logits).abs().max())}")


def _use_tokenizer(tokenizer: fr.Tokenizer, folder: Path, peers: bool) -> None:
    ids = tokenizer.encode(TEXT)
    if not isinstance(tokenizer.decode(ids), str):
        raise Wrong("decodes to no text")
    with tempfile.TemporaryDirectory() as again:
        tokenizer.save_pretrained(again)
        if not np.array_equal(fr.Tokenizer.from_pretrained(again).encode(TEXT), ids):
            raise Wrong("saved and read again it gives other ids")
    if not peers:
        return
    import tokenizers

    try:
        judge = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:
        print(f"note: tokenizers refuses what loads here: {type(error).__name__}: {error!s:.200}", file=sys.stderr)
        return
    if judge.encode(TEXT).ids != ids.tolist():
        raise Wrong(f"ids {ids.tolist()} are not those of tokenizers, {judge.encode(TEXT).ids}")


# ---- many cases


def case(seed: int, number: int, good: list[Files]) -> tuple[Files, list[str]]:
    return damaged(Random(f"{seed} {number}"), good)


@contextlib.contextmanager
def laid_out(files: Files) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="folders-"))
    try:
        put(files, folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def work(seed: int, first: int, end: float, at: Path) -> None:
    """Cases from `first` on until `end`, each written down before it is begun; a line for each on stdout."""
    good = good_folders()
    for files in good:
        with laid_out(files) as folder:
            if outcome(folder, peers=True) != "loaded, loaded":
                raise SystemExit("a good folder does not load")
    now_kb = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now_kb + LIMIT_MB * 10**6, -1))
    torch.set_num_threads(1)
    for number in range(first, sys.maxsize):
        if time.time() > end:
            return
        files, done = case(seed, number, good)
        at.write_text(f"{number} {'; '.join(done)}")
        faulthandler.dump_traceback_later(LIMIT_S, exit=True)
        with laid_out(files) as folder:
            try:
                result = outcome(folder, peers=number % 4 == 0)
            except Wrong as wrong:
                result = f"WRONG case {number} ({'; '.join(done)}): {wrong}"
        faulthandler.cancel_dump_traceback_later()
        print(result.replace("\n", " "), flush=True)


def torture(seconds: float, seed: int = 0) -> collections.Counter[str]:
    """Counts of outcomes, the wrong ones by their text; see the module."""
    counts: collections.Counter[str] = collections.Counter()
    end, first = time.time() + seconds, 0
    with tempfile.TemporaryDirectory() as place:
        at = Path(place) / "case"
        while time.time() < end:
            arguments = ["--worker", str(at), "--seed", str(seed), "--first", str(first), "--end", str(end)]
            command = [sys.executable, "-m", "tests.torture.folders", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            counts.update(done.stdout.splitlines())
            counts.update(line for line in done.stderr.splitlines() if line.startswith("note: "))
            if done.returncode == 0:
                break
            if not at.exists():
                raise SystemExit(done.stderr)
            number, what = at.read_text().split(" ", 1)
            counts[f"WRONG case {number} ({what}): ended with {done.returncode}: {done.stderr.strip()[-400:]!r}"] += 1
            first = int(number) + 1
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture.folders", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="only this one, with its traceback")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--end", type=float, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        work(options.seed, options.first, options.end, options.worker)
        return 0
    if options.case is not None:
        files, done = case(options.seed, options.case, good_folders())
        with laid_out(files) as folder:
            print(done, outcome(folder, peers=True), sep="\n")
        return 0
    counts = torture(options.seconds, options.seed)
    for text, count in sorted(counts.items(), key=lambda item: -item[1]):
        print(f"{count:8,}  {text}")
    wrong = sum(count for text, count in counts.items() if text.startswith("WRONG"))
    total = sum(count for text, count in counts.items() if not text.startswith("note: "))
    print(f"{total:,} folders, {wrong:,} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

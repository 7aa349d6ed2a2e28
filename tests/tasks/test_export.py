"""Folders of Parquet files and of token ids: the stream's problems, whole after a stop at any moment."""

import json
import re
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

import fastreason as fr
from fastreason.cli.main import main
from fastreason.tasks.export import read_tokens, write_jsonl, write_parquet, write_tokens

from ..processes import forked

MIXTURE = fr.Mixture.uniform(op=[2, 3], themes=["symbolic", "zoo"])
STREAM = fr.TaskStream(MIXTURE, seed=3)
TOKENIZER = fr.Tokenizer.for_mixtures([MIXTURE])
WRITERS = {
    "jsonl": lambda path, count, **how: write_jsonl(
        STREAM, path, count, **{k: v for k, v in how.items() if k != "part"}
    ),
    "parquet": lambda path, count, **how: write_parquet(STREAM, path, count, **how),
    "tokens": lambda path, count, **how: write_tokens(STREAM, path, count, TOKENIZER, **how),
}


def content(path):
    """Bytes of every file by name; what is half written under another name does not count."""
    files = [path] if path.is_file() else sorted(path.iterdir())
    return {file.name: file.read_bytes() for file in files if ".new" not in file.suffix}


def rows_of(folder):
    """Rows of Parquet parts in the order of the files."""
    return [row for file in sorted(folder.glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def test_parquet_holds_the_stream(tmp_path):
    assert write_parquet(STREAM, tmp_path, 50, part=20) == 50
    assert [pq.read_metadata(file).num_rows for file in sorted(tmp_path.glob("*.parquet"))] == [20, 20, 10]
    assert rows_of(tmp_path) == STREAM[0:50].rows()


def test_token_parts_are_the_encoded_documents(tmp_path):
    assert write_tokens(STREAM, tmp_path, 50, TOKENIZER, part=20) == 50
    documents, prompts = STREAM[0:50].documents, STREAM[0:50].prompts
    found = 0
    for header in sorted(tmp_path.glob("*-of-*-*.json")):
        tokens, cu_seqlens, prompt_lengths = read_tokens(header)
        assert isinstance(tokens, np.memmap) and tokens.dtype == np.uint16
        for begin, end, prompt in zip(cu_seqlens, cu_seqlens[1:], prompt_lengths, strict=False):
            ids = TOKENIZER.encode(documents[found])
            np.testing.assert_array_equal(tokens[begin:end], ids)
            np.testing.assert_array_equal(ids[:prompt], TOKENIZER.encode(prompts[found]))
            found += 1
    assert found == 50
    assert fr.Tokenizer.from_pretrained(tmp_path) == TOKENIZER


@pytest.mark.parametrize("format", ["parquet", "tokens"])
def test_shards_share_a_folder(tmp_path, format):
    counts = [WRITERS[format](tmp_path, 47, shard=shard, num_shards=3, part=10) for shard in range(3)]
    assert counts == [16, 16, 15]
    if format == "parquet":
        rows = {row["id"]: row for row in rows_of(tmp_path)}
        assert list(rows) != [row["id"] for row in STREAM[0:47].rows()]  # shard by shard
        assert rows == {row["id"]: row for row in STREAM[0:47].rows()}
    else:
        facts = [json.loads(file.read_text()) for file in sorted(tmp_path.glob("*-of-*-*.json"))]
        indices = [f["first"] + f["step"] * i for f in facts for i in range(len(f["prompt_lengths"]))]
        assert sorted(indices) == list(range(47))


@pytest.mark.parametrize("format", ["parquet", "tokens"])
def test_more_problems_are_added_and_fewer_refused(tmp_path, format):
    write = WRITERS[format]
    write(tmp_path / "a", 25, part=10)
    write(tmp_path / "a", 38, part=10)
    write(tmp_path / "b", 38, part=10)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    for count in (37, 30, 12):
        with pytest.raises(ValueError, match=f"more than the {count} requested"):
            write(tmp_path / "a", count, part=10)
    assert content(tmp_path / "a") == content(tmp_path / "b")


def test_a_folder_of_something_else_is_refused_and_kept(tmp_path):
    write_parquet(STREAM, tmp_path, 10)
    before = content(tmp_path)
    for other in (fr.TaskStream(MIXTURE, seed=4), fr.TaskStream(MIXTURE, seed=3, split="rl")):
        with pytest.raises(ValueError, match="belongs to another mixture, seed, split, format or tokenizer"):
            write_parquet(other, tmp_path, 10)
    with pytest.raises(ValueError, match="belongs to another mixture"):
        write_tokens(STREAM, tmp_path, 10, TOKENIZER)
    (tmp_path / "0000-of-0001.json").unlink()
    with pytest.raises(ValueError, match=r"exists without 0000-of-0001\.json; use an empty folder"):
        write_parquet(STREAM, tmp_path, 10)
    assert set(content(tmp_path)) == set(before) - {"0000-of-0001.json"}


@pytest.mark.parametrize("settings", [{"shard": 2, "num_shards": 2}, {"part": 0}])
def test_arguments_are_checked(tmp_path, settings):
    with pytest.raises(ValueError, match="must have 0 <= shard < num_shards and part >= 1"):
        write_parquet(STREAM, tmp_path, 10, **settings)
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        write_parquet(STREAM, tmp_path, 0)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["generate", "--out", str(tmp_path / "a"), "--format", "parquet"]) == 2
    assert "pip install 'fastreason[parquet]'" in capsys.readouterr().err


def write(format, path):
    """What a killed process was doing is left to chance; the parts are small, so that it was writing."""
    WRITERS[format](path, 8000, part=100)


@pytest.mark.parametrize("format", list(WRITERS))
def test_what_was_killed_goes_on(tmp_path, format):
    """The process is killed three times while files appear; in the end they are those of an unbroken run."""
    path = tmp_path / ("a.jsonl" if format == "jsonl" else "a")
    sizes = [0]
    for _ in range(3):
        process = forked(write, format, path)
        deadline = time.monotonic() + 120
        while process.is_alive() and size_of(path) <= sizes[-1] and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
        process.join()
        sizes.append(size_of(path))
    assert sizes[-1] > sizes[1] > 0
    write(format, path)
    write(format, tmp_path / f"b{path.suffix}")
    whole, again = content(tmp_path / f"b{path.suffix}"), content(path)
    assert list(whole.values()) == list(again.values())


@pytest.mark.parametrize("name", ["0000-of-0001-00001.parquet", "0000-of-0001-00000.json", "0000-of-0001-00001.npy"])
@pytest.mark.parametrize("keep", [0, 0.5])
def test_a_damaged_part_is_written_again(tmp_path, name, keep):
    format = "parquet" if name.endswith("parquet") else "tokens"
    WRITERS[format](tmp_path / "a", 30, part=20)
    whole, path = content(tmp_path / "a"), tmp_path / "a" / name
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    WRITERS[format](tmp_path / "a", 30, part=20)
    assert content(tmp_path / "a") == whole


@pytest.mark.parametrize("format", ["parquet", "tokens"])
def test_a_damaged_description_of_a_shard_is_named(tmp_path, format):
    WRITERS[format](tmp_path / "a", 30, part=20)
    (tmp_path / "a" / "0000-of-0001.json").write_text("{")
    with pytest.raises(ValueError, match=r"0000-of-0001\.json, line 1: incomplete"):
        WRITERS[format](tmp_path / "a", 30, part=20)


def size_of(path):
    """Bytes of a file or finished files of a folder: what a kill can only leave as it was or add to."""
    if path.is_dir():
        return sum(".new-" not in file.name for file in path.glob("*-of-*-*"))
    return path.stat().st_size if path.exists() else 0


def test_the_command_line_writes_every_format(tmp_path, capsys):
    common = ["--count", "30", "--op", "2-3", "--themes", "symbolic", "zoo", "--seed", "3"]
    for format in WRITERS:
        assert main(["generate", "--out", str(tmp_path / format), "--format", format, *common]) == 0
        assert f"{tmp_path / format}: 30 problems" in capsys.readouterr().out
    assert [json.loads(line) for line in (tmp_path / "jsonl").read_text().splitlines()] == rows_of(tmp_path / "parquet")
    folder = tmp_path / "again"  # with the tokenizer that the other folder holds
    tokens = ["--format", "tokens", "--tokenizer", str(tmp_path / "tokens")]
    assert main(["generate", "--out", str(folder), *tokens, *common]) == 0
    assert content(folder) == content(tmp_path / "tokens")
    assert main(["generate", "--out", str(tmp_path / "b.jsonl"), "--tokenizer", str(folder)]) == 2
    assert "--tokenizer is only for --format tokens" in capsys.readouterr().err


@pytest.mark.parametrize("size", [0, 1, 60, 127, 128, 150, -1])
def test_tokens_that_were_cut_are_named_where_they_are_read(tmp_path, size):
    write_tokens(STREAM, tmp_path, 10, TOKENIZER)
    (header,) = tmp_path.glob("*-of-*-*.json")
    tokens = header.with_suffix(".npy")
    tokens.write_bytes(tokens.read_bytes()[:size])
    with pytest.raises(ValueError, match=rf"{re.escape(str(tokens))}: incomplete or damaged"):
        read_tokens(header)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cu_seqlens": [0, 3]}, "belongs to other tokens: 10 documents"),
        ({"prompt_lengths": [[1], [2, 3]]}, "no header of token ids"),
        ({"prompt_lengths": [2**40]}, "no header of token ids"),
        ({"cu_seqlens": None}, "no header of token ids"),
    ],
)
def test_a_header_of_other_tokens_is_refused(tmp_path, change, message):
    write_tokens(STREAM, tmp_path, 10, TOKENIZER)
    (header,) = tmp_path.glob("*-of-*-*.json")
    header.write_text(json.dumps(json.loads(header.read_text()) | change))
    with pytest.raises(ValueError, match=rf"{re.escape(str(header))}: {message}"):
        read_tokens(header)

"""Files of problems: shards fit together, an interrupted file continues, another one is refused."""

import json

import pytest

import fastreason as fr
from fastreason.tasks.export import show, write_jsonl

STREAM = fr.TaskStream(fr.Mixture.uniform(op=[3, 4], themes=["zoo"], modes=["forward", "reverse"]), seed=3)


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_is_the_stream(tmp_path):
    assert write_jsonl(STREAM, tmp_path / "a.jsonl", 50) == 50
    assert read(tmp_path / "a.jsonl") == STREAM[0:50].rows()


def test_shards_fit_together(tmp_path):
    rows = {}
    for shard in range(3):
        write_jsonl(STREAM, tmp_path / f"{shard}.jsonl", 20, shard=shard, num_shards=3)
        rows |= {row["id"]: row for row in read(tmp_path / f"{shard}.jsonl")}
    assert rows == {row["id"]: row for row in STREAM[0:20].rows()}


@pytest.mark.parametrize("kept", [0, 1, 700, 5000])
def test_an_interrupted_file_continues(tmp_path, kept):
    path = tmp_path / "a.jsonl"
    write_jsonl(STREAM, path, 30)
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    write_jsonl(STREAM, path, 30)
    assert path.read_bytes() == whole
    assert write_jsonl(STREAM, path, 30) == 30
    assert path.read_bytes() == whole


@pytest.mark.parametrize("kept", [900, 5000])
def test_a_file_of_an_earlier_version_continues(tmp_path, kept):
    """Its ids say nothing of the mixture."""
    path = tmp_path / "a.jsonl"
    write_jsonl(STREAM, path, 30)
    before = "".join(json.dumps(row | {"id": f"train-3-{i}"}) + "\n" for i, row in enumerate(read(path)))
    path.write_text(before[:kept])
    write_jsonl(STREAM, path, 30)
    assert [row | {"id": ""} for row in read(path)] == [row | {"id": ""} for row in STREAM[0:30].rows()]


def test_a_file_of_something_else_is_refused_and_kept(tmp_path):
    path = tmp_path / "a.jsonl"
    write_jsonl(STREAM, path, 10)
    whole = path.read_bytes()
    other = fr.TaskStream(STREAM.mixture, seed=4)
    with pytest.raises(ValueError, match="holds problems of another mixture, seed, split or shard"):
        write_jsonl(other, path, 20)
    with pytest.raises(ValueError, match="has 10 lines, more than the 5 requested"):
        write_jsonl(STREAM, path, 5)
    assert path.read_bytes() == whole
    for text in ("my notes\n", "my notes"):
        path.write_text(text)
        with pytest.raises(ValueError, match="holds problems of another"):
            write_jsonl(STREAM, path, 20)
        assert path.read_text() == text


def test_what_is_shown_can_be_read():
    text = show(STREAM, 3, width=80)
    assert max(len(line) for line in text.split("\n")) <= 80
    for row in STREAM[0:3].rows():
        assert row["id"] in text
        assert " ".join(text.split()).count(" ".join(row["solution"].split())) == 1

"""Files that are whole or not there, and folders that one process writes to."""

import contextlib
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random

import numpy as np
import pytest

import fastreason as fr
from fastreason.cli.main import main
from fastreason.runtime import folder_lock
from fastreason.runtime.files import _machine, read_arrays, read_whole, write_json, write_text, write_whole
from fastreason.runtime.folder_lock import held
from fastreason.runtime.metrics_log import MetricsLog
from fastreason.runtime.processes import process_start, this_process
from fastreason.studies import run_study
from fastreason.studies.recipe import load_recipe
from fastreason.studies.study import Study, load_study
from fastreason.tasks.export import write_jsonl, write_parquet, write_tokens
from fastreason.text.theme_from_data import learn_file

from ..torture.commands import is_alive

OWNED = "from fastreason.runtime.folder_lock import held; from pathlib import Path; "


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": float("nan"), "y": 1})
    assert json.loads(path.read_text()) == {"x": None, "y": 1}

    def fail(file):
        file.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert json.loads(path.read_text())["y"] == 1
    mask = os.umask(0o022)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_what_was_placed_under_the_other_name_is_not_followed(tmp_path):
    (tmp_path / "victim").write_text("precious")
    (tmp_path / "a.new").symlink_to(tmp_path / "victim")
    write_text(tmp_path / "a", "mine")
    assert (tmp_path / "victim").read_text() == "precious"


KILLED = """import os, signal, sys
from pathlib import Path
from fastreason.runtime.files import write_whole
write_whole(Path(sys.argv[1]), lambda file: os.kill(os.getpid(), signal.SIGKILL))"""


def test_what_a_killed_process_left_goes_with_the_next_write(tmp_path):
    path = tmp_path / "a [1].json"
    subprocess.run([sys.executable, "-c", KILLED, str(path)])
    (left,) = tmp_path.iterdir()
    # of a process that runs, of one of the same number that began at another time, of another machine, of another file
    alive = left.with_name(f"{path.name}.new-{_machine()}-{os.getpid()}-{process_start(os.getpid())}-0")
    later = left.with_name(f"{path.name}.new-{_machine()}-{os.getpid()}-1-0")
    elsewhere = left.with_name(left.name.replace(_machine(), "elsewhere"))
    other = left.with_name("b" + left.name)
    for file in (alive, later, elsewhere, other):
        file.touch()
    write_text(path, "whole")
    assert sorted(tmp_path.iterdir()) == sorted([path, alive, elsewhere, other])


@pytest.mark.parametrize("command", [["grade"], ["generate"], ["edge"]])
@pytest.mark.parametrize("kind", ["link", "link to nothing", "pipe", "device", "placed"])
def test_output_goes_where_it_is_told_to(kind, command, tmp_path, monkeypatch, capsys):
    """Every command that writes a file: grade and edge write it whole, generate goes on with it."""
    out, target = tmp_path / "out", tmp_path / "elsewhere" / "target"
    target.parent.mkdir()
    if kind == "link":
        target.touch()
    if kind.startswith("link"):
        out.symlink_to(target)
    elif kind == "pipe":
        os.mkfifo(out)
    elif kind == "device":
        out = Path("/dev/null")
    else:
        out.with_name("out.new").symlink_to(target)
    read = []
    if kind == "pipe":
        reader = threading.Thread(target=lambda: read.append(out.read_bytes()), daemon=True)
        reader.start()
    assert main([*command, *flags_of(command[0], tmp_path), "--out", str(out)]) == 0
    if kind == "pipe":
        reader.join()
        assert read[0].startswith(b"{") and stat.S_ISFIFO(out.stat().st_mode)
    elif kind == "device":
        assert stat.S_ISCHR(out.stat().st_mode)
    else:
        assert out.is_symlink() == kind.startswith("link") and out.read_text().startswith("{")
        assert target.exists() == kind.startswith("link")
    assert not [path for path in tmp_path.rglob("*") if "lock" in path.name or ".new-" in path.name]


def flags_of(command, folder):
    if command == "generate":
        return ["--count", "2", "--op", "2"]
    if command == "edge":
        model = fr.Decoder(fr.ModelConfig(len(TOKENIZER), 8, 1, 1, 1, 8))
        model.reset_parameters(0)
        model.save_pretrained(folder / "model", TOKENIZER)
        few = ["--samples", "2", "--first", "1", "--problems", "1", "--max-new-tokens", "2"]
        return [str(folder / "model"), "--op", "2", "--themes", "symbolic", "--max-value", "20", *few]
    rows = fr.TaskStream(SYMBOLIC)[0:2].rows()
    for name, key in (("gold", "solution"), ("texts", "completion")):
        (folder / name).write_text("".join(json.dumps({key: row["solution"]}) + "\n" for row in rows))
    return ["--gold", str(folder / "gold"), "--completions", str(folder / "texts")]


SYMBOLIC = fr.Mixture.uniform(op=[2], themes=["symbolic"], max_value=20)
TOKENIZER = fr.Tokenizer.for_mixtures([SYMBOLIC])


@pytest.mark.parametrize("content, line", [("", 1), ('{"a": 1,\n "b"', 2), ("[1,\n2,\n", 3)])
def test_a_cut_file_is_named_with_its_line(content, line, tmp_path):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=rf"results\.json, line {line}: incomplete"):
        read_whole(tmp_path / "results.json")


def learnt_theme(folder):
    mixture = fr.Mixture.uniform(op=[4, 9], themes=["zoo"], modes=["forward", "reverse"])
    rows = fr.TaskStream(mixture, seed=1)[0:400].rows()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (path,) = learn_file(folder / "rows.jsonl", folder)
    return path


def saved(what, name):
    def write(folder):
        what.save(folder / name)
        return folder / name

    return write


@pytest.mark.parametrize(
    "write, read",
    [
        (saved(load_study("finding-1-edge", size="laptop"), "study.toml"), Study.load),
        (saved(load_recipe("smoke"), "mine.toml"), load_recipe),
        (learnt_theme, fr.Theme.load),
    ],
    ids=["study", "recipe", "theme"],
)
def test_toml_that_was_cut_behind_a_line_is_not_taken_for_whole(write, read, tmp_path):
    """Most of these would be valid files, of another study."""
    path = write(tmp_path)
    whole, lines = read(path), path.read_bytes().splitlines(keepends=True)
    said, cut = set(), rf"{path.name}: (incomplete \(at line \d+|.* \(at end of document\))"
    for count in [*range(1, min(len(lines), 12)), *range(12, len(lines), 17), len(lines) - 1]:
        path.write_bytes(b"".join(lines[:count]))
        with pytest.raises(ValueError, match=cut) as no:
            read(path)
        said.add("incomplete" in str(no.value))
    assert said == {True, False}  # the latter where a list was cut
    path.write_bytes(b"".join([*lines[:-1], b"\n", b"# by hand\n", *lines[-1:], b"\n"]))
    assert read(path) == whole


def test_toml_by_others_needs_no_mark(tmp_path):
    load_study("finding-1-edge", size="laptop").save(tmp_path / "study.toml")
    lines = (tmp_path / "study.toml").read_text().splitlines()[1:-1]
    (tmp_path / "old.toml").write_text("\n".join(lines))
    assert Study.load(tmp_path / "old.toml") == Study.load(tmp_path / "study.toml")


def test_a_cut_line_of_metrics_is_named(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write("rl", step=1)
    with log.path.open("a") as file:
        file.write('{"stage": "r')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: incomplete"):
        log.read()
    log.forget_after("rl", 1)
    assert len(log.read()) == 1


def owner(place):
    code = OWNED + f"c = held(Path({str(place)!r}), 'x'); c.__enter__(); print('held', flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdout.readline()
    return process


def test_a_second_process_is_refused_by_the_name_of_the_first(tmp_path, capsys):
    for command, out in (
        (["generate", "--count", "3", "--out"], "a.jsonl"),
        (["run", "smoke", "--resume", "--out"], "r"),
    ):
        place = tmp_path / f".{out}.lock" if out.endswith("l") else tmp_path / out / ".lock"
        process = owner(place)
        try:
            assert main([*command, str(tmp_path / out)]) == 2
            assert f"is in use by process {process.pid} on " in capsys.readouterr().err
            assert not (tmp_path / out).is_file()
        finally:
            process.kill()
            process.communicate()
    assert main(["generate", "--count", "3", "--out", str(tmp_path / "a.jsonl")]) == 0  # the dead hold nothing
    assert not (tmp_path / ".a.jsonl.lock").exists()


def test_exports_from_python_have_one_owner(tmp_path):
    stream = fr.TaskStream(SYMBOLIC)
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "rows.jsonl")
    exports = {
        ".rows.jsonl.lock": lambda: write_jsonl(stream, tmp_path / "rows.jsonl", 3),
        ".rows.jsonl.lock ": lambda: write_jsonl(stream, tmp_path / "link.jsonl", 3),
        "parquet/.lock-0001-of-0002": lambda: write_parquet(stream, tmp_path / "parquet", 3, shard=1, num_shards=2),
        "tokens/.lock-0000-of-0001": lambda: write_tokens(stream, tmp_path / "tokens", 3, TOKENIZER),
    }
    for place, export in exports.items():
        with (
            held(tmp_path / place.strip(), "another"),
            pytest.raises(ValueError, match=r"generate: .* is in use by proc"),
        ):
            export()
        assert export() > 0
        assert not (tmp_path / place.strip()).exists()
    with pytest.raises(FileNotFoundError, match=r"nowhere/rows\.jsonl"):
        write_jsonl(stream, tmp_path / "nowhere" / "rows.jsonl", 3)
    assert not (tmp_path / "nowhere").exists()


def test_a_lock_that_is_held_goes_away_with_its_holder(tmp_path):
    for _ in range(3):
        with held(tmp_path / ".lock", "x"):
            assert [path.name for path in (tmp_path / ".lock").iterdir()] == ["owner-0001"]
            with pytest.raises(ValueError, match=f"in use by process {os.getpid()} on "), held(tmp_path / ".lock", "x"):
                pass
        assert not list(tmp_path.iterdir())


def test_an_owner_elsewhere_that_is_dead_is_waited_for(tmp_path, monkeypatch):
    place = tmp_path / "owner-0001"
    place.mkdir()
    (place / "owner.json").write_text(json.dumps(this_process() | {"host": "elsewhere", "pid": 1}))
    monkeypatch.setattr(folder_lock, "STALE_S", 0.5)
    with held(tmp_path, "x"):
        pass
    place.mkdir(parents=True)
    (place / "owner.json").write_text("")  # of a power cut: watched, then free
    with held(tmp_path, "x"):
        pass


ORPHAN = "import sys, time; from fastreason.runtime.processes import end_with_parent as end; end(int(sys.argv[1])); "
PARENT = """import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], str(os.getpid())], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
input()"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, "returns"])
def test_a_process_ends_with_its_parent_whatever_it_does(end):
    """As one that imports: it looks at nothing and no thread of it does."""
    works = ORPHAN + "print('works', flush=True); time.sleep(600)"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, works], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    child = int(parent.stdout.readline())
    if end == "returns":
        parent.communicate("\n")
    else:
        parent.send_signal(end)
        parent.communicate()
    for _ in range(3000):
        if not is_alive(child):
            return
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    pytest.fail("it lives on")


def test_a_process_whose_parent_is_gone_does_not_begin():
    nobody = str(2**22 + 1)
    done = subprocess.run([sys.executable, "-c", ORPHAN + "print('works')", nobody], capture_output=True)
    assert (done.returncode, done.stdout) == (143, b"")
    done = subprocess.run([sys.executable, "-c", run_study._WORKER, "a", "b", "0/1", nobody], capture_output=True)
    assert (done.returncode, done.stderr) == (143, b"")  # long before it reads that there is no study


def test_a_worker_whose_parent_was_killed_ends(tmp_path):
    study = load_study("tests/studies/tiny.toml", size="small")
    run_study.prepare(tmp_path, study, False)
    started = time.monotonic()
    nobody = str(2**22 + 1)
    assert run_study._worker([str(tmp_path), str(tmp_path / "stages"), "0/1", nobody]) == 143
    assert time.monotonic() - started < 600
    assert not (tmp_path / "stages").exists()


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_that_were_cut_or_overwritten_are_named(tmp_path, compressed):
    path = tmp_path / "arrays.npz"
    (np.savez_compressed if compressed else np.savez)(path, a=np.arange(50), b=np.array("x"))
    whole, random = path.read_bytes(), Random(0)
    assert read_arrays(path)["a"].tolist() == list(range(50))
    damaged = [whole[:size] for size in range(0, len(whole), 7)] + [b"\x93NUMPY", b"1, 2", whole[:100] * 3]
    for _ in range(200):
        at = random.randrange(len(whole) - 1)
        damaged.append(whole[:at] + bytes(random.randrange(256) for _ in range(8)) + whole[at + 8 :])
    for content in damaged:
        path.write_bytes(content)
        with contextlib.suppress(ValueError):  # the only error, and it names the file; some bytes mean nothing
            read_arrays(path)
        if len(content) < len(whole):
            with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: incomplete or damaged"):
                read_arrays(path)
    np.save(tmp_path / "one.npy", np.arange(3))
    with pytest.raises(ValueError, match=r"one\.npy: incomplete or damaged"):
        read_arrays(tmp_path / "one.npy")
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        read_arrays(tmp_path / "none.npz")

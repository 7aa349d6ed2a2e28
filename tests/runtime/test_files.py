"""Files that are whole or not there, and folders that one process writes to."""

import json
import os
import subprocess
import sys
import time

import pytest

from fastreason.cli.main import main
from fastreason.runtime import folder_lock
from fastreason.runtime.files import read_whole, write_json, write_text, write_whole
from fastreason.runtime.folder_lock import held
from fastreason.runtime.metrics_log import MetricsLog

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


@pytest.mark.parametrize("content, line", [("", 1), ('{"a": 1,\n "b"', 2), ("[1,\n2,\n", 3)])
def test_a_cut_file_is_named_with_its_line(content, line, tmp_path):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=rf"results\.json, line {line}: incomplete"):
        read_whole(tmp_path / "results.json")


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
    (place / "owner.json").write_text(json.dumps(folder_lock._this_process() | {"host": "elsewhere", "pid": 1}))
    monkeypatch.setattr(folder_lock, "STALE_S", 0.5)
    with held(tmp_path, "x"):
        pass
    place.mkdir(parents=True)
    (place / "owner.json").write_text("")  # of a power cut: watched, then free
    with held(tmp_path, "x"):
        pass


def test_a_worker_whose_parent_was_killed_ends(tmp_path):
    from fastreason.studies import run_study
    from fastreason.studies.study import load_study

    study = load_study("tests/studies/tiny.toml", size="small")
    run_study.prepare(tmp_path, study, False)
    started = time.monotonic()
    nobody = str(2**22 + 1)
    assert run_study._worker([str(tmp_path), str(tmp_path / "stages"), "0/1", nobody]) == 143
    assert time.monotonic() - started < 600
    assert not (tmp_path / "stages").exists()

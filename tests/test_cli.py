"""The command line: what it prints, and exit status 2 with a message for bad input."""

import subprocess
import sys
import tomllib

import pytest

from fastreason.cli import format_results, main


def test_help_lists_commands_and_recipes(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "run RECIPE" in out
    assert "report DIR" in out
    assert main(["run", "--help"]) == 0
    assert "quickstart, smoke" in capsys.readouterr().out


def test_dry_run_prints_the_resolved_recipe(capsys):
    assert main(["run", "smoke", "--dry-run", "--rl.steps", "3", "--seed", "9"]) == 0
    values = tomllib.loads(capsys.readouterr().out)
    assert values["rl"]["steps"] == 3
    assert values["seed"] == 9
    assert values["pretrain"]["optim"]["matrices"] == "muon"


def test_a_budget_takes_the_place_of_tokens(capsys):
    flags = ["--pretrain.tokens", "None", "--pretrain.budget", "600 seconds", "--metrics", "tensorboard"]
    assert main(["run", "smoke", "--dry-run", *flags]) == 0
    values = tomllib.loads(capsys.readouterr().out)
    assert values["pretrain"]["budget"] == "600 seconds"
    assert "tokens" not in values["pretrain"]
    assert values["metrics"] == ["tensorboard"]


@pytest.mark.parametrize("error", [OSError(28, "disk full"), FloatingPointError("the loss is nan")])
def test_what_goes_wrong_on_the_way_is_status_1_and_one_line(capsys, monkeypatch, error):
    def fail(*arguments, **named):
        raise error

    monkeypatch.setattr("fastreason.runner.run", fail)
    assert main(["run", "smoke"]) == 1
    assert capsys.readouterr().err == f"fastreason run: {error}\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["fly"], "no command 'fly'; there are run, report, generate, grade, themes, info"),
        (["run", "nothing"], "must be one of quickstart, smoke"),
        (["report", "/nonexistent"], "recipe.toml does not exist"),
    ],
)
def test_bad_input_is_status_2_and_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "flag, value, message", [("stepz", "3", "stepz"), ("steps", "0", "steps must be at least 1, got 0")]
)
def test_a_flag_that_does_not_fit_is_refused(capsys, flag, value, message):
    with pytest.raises(SystemExit) as stop:
        main(["run", "smoke", f"--rl.{flag}", value])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err


def test_generate_shows_problems(capsys):
    assert main(["generate", "--show", "2", "--op", "7", "--modes", "reverse", "--depths", "3"]) == 0
    out = capsys.readouterr().out
    assert out.count("op 7, forwardreverse, depth 3, theme zoo") == 2
    assert out.count("\nAnswer: ") == 2
    assert main(["generate", "--show", "1", "--mixture", "rl-op11-14"]) == 0
    assert "op 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "need --out FILE or --show N"),
        (["--out", "x", "--shard", "3"], "--shard must have the form I/N, got '3'"),
        (["--out", "x", "--shard", "3/2"], "0 <= shard < num_shards, got 1000, 3 and 2"),
        (["--out", "x", "--op", "two"], "--op must have the form 7, 2-10 or 3,5,9, got 'two'"),
        (["--out", "x", "--op", "50"], "op must be an integer in 2 .. 40, got 50"),
    ],
)
def test_generate_refuses(capsys, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", *flags]) == 2
    assert message in capsys.readouterr().err


def test_themes_are_listed_and_learnt(capsys, tmp_path):
    assert main(["themes"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
        "festival",
        "school",
        "symbolic",
        "symbolic-b",
        "zoo",
    ]
    rows, out = str(tmp_path / "rows.jsonl"), str(tmp_path / "themes")
    assert main(["generate", "--out", rows, "--count", "400", "--op", "5-9", "--themes", "school"]) == 0
    assert main(["themes", "learn", rows, "--out", out]) == 0
    assert main(["generate", "--show", "1", "--themes", f"{out}/school.toml"]) == 0
    assert main(["themes", "learn", "absent.jsonl", "--out", out]) == 2
    assert "no file 'absent.jsonl'" in capsys.readouterr().err


def test_info(capsys):
    assert main(["info"]) == 0
    out = capsys.readouterr().out
    for name in ("cpu", "cores", "torch", "fastreason"):
        assert name in out


def test_python_m_fastreason():
    done = subprocess.run([sys.executable, "-m", "fastreason", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: fastreason COMMAND")


def test_the_table_has_a_line_for_each_stage_and_k():
    ops = {"2": {"verified": {"1": 0.5, "8": 1.0}}, "10": {"verified": {"1": 0.0, "8": 0.25}}}
    lines = format_results({"stages": {"rl": {"ops": ops}}}).splitlines()
    assert lines[0].split() == ["verified", "pass@k,", "%", "op", "2", "op", "10"]
    assert lines[1].split() == ["rl", "@1", "50.0", "0.0"]
    assert lines[2].split() == ["rl", "@8", "100.0", "25.0"]

"""`fastreason look`: kept samples of runs, studies and evaluations in the terminal."""

import json

import pytest

from fastreason.cli.main import main

TEXT = "A: 1 + 2 = 3. B: A + 1 = 5. <answer> 5. </answer>"


def trace(op, verified, text=TEXT):
    second = text.index("B:")
    steps = [
        {"status": "right", "begin": 0, "end": second - 1},
        {"status": "right" if verified else "arithmetic_slip", "begin": second, "end": text.index("<answer>") - 1},
    ]
    return {
        "op": op, "prompt": "<question> B? </question>", "completion": text, "gold": text, "steps": steps,
        "verified": verified, "answer_correct": True,
    }  # fmt: skip


def write(folder, content):
    (folder / "results.json").write_text(json.dumps(content))
    return str(folder)


def test_a_run_shows_its_stages_and_marks_wrong_steps(tmp_path, capsys):
    runs = {"0": {"pretrain": {"unit": "pretrain-0", "evaluation": "evaluate-0"}}}
    stages = {"pretrain": {"traces": [trace(3, True)]}, "rl": {"traces": [trace(6, False)]}}
    folder = write(tmp_path, {"stages": stages, "variants": {"mine": {"runs": runs}}})
    assert main(["look", folder]) == 0
    out = capsys.readouterr().out
    assert "pretrain: op 3, verified" in out and "rl: op 6, right answer, not verified" in out
    assert out.count("<- arithmetic slip") == 1 and "\033" not in out
    assert "2 of 2 matching samples" in out


@pytest.mark.parametrize("flags", [["--op", "6"], ["--failures"], ["--stage", "rl"], ["--op", "4-9", "--failures"]])
def test_samples_can_be_chosen(tmp_path, capsys, flags):
    folder = write(
        tmp_path, {"stages": {"pretrain": {"traces": [trace(3, True)]}, "rl": {"traces": [trace(6, False)]}}}
    )
    main(["look", folder, *flags])
    out = capsys.readouterr().out
    assert "rl: op 6" in out and "pretrain" not in out and "1 of 1" in out


def test_a_study_and_an_evaluation_are_read_too(tmp_path, capsys):
    runs = {"runs": {"0": {"rl": {"unit": "u", "evaluation": "e"}, "later": {"unit": "v", "evaluation": "missing"}}}}
    write(tmp_path, {"variants": {"edge": runs}, "scores": {"e": {"traces": [trace(4, True)] * 9}}})
    main(["look", str(tmp_path), "--count", "2"])
    assert "edge seed 0 rl: op 4" in (out := capsys.readouterr().out) and "2 of 9" in out
    write(tmp_path, {"traces": [trace(5, True)]})
    main(["look", str(tmp_path / "results.json")])
    assert capsys.readouterr().out.startswith("op 5, verified")


def test_what_a_model_wrote_cannot_drive_the_terminal(tmp_path, capsys):
    hostile = "\033[2J\x07A: 1. B: 2. <answer> é\u202e 5. </answer>"
    write(tmp_path, {"traces": [trace(5, True, hostile)]})
    main(["look", str(tmp_path), "--color", "always"])
    out = capsys.readouterr().out
    assert "\033[2J" not in out and "\x07" not in out and "\u202e" not in out
    assert "\033[32m" in out


def test_nothing_to_look_at_is_said(tmp_path, capsys):
    assert main(["look", str(tmp_path)]) == 2
    assert "results.json" in capsys.readouterr().err
    write(tmp_path, {"traces": [trace(5, True)]})
    assert main(["look", str(tmp_path), "--op", "7"]) == 0
    assert "no matching samples were kept" in capsys.readouterr().out
    assert main(["look", str(tmp_path), "--count", "0"]) == 2

"""Studies that differ in their seeds alone, joined into one."""

import json
import shutil
from pathlib import Path

import pytest

import fastreason as fr
from fastreason.cli.main import main
from fastreason.studies.merge import merge_studies
from fastreason.studies.study import Study

TINY = str(Path(__file__).with_name("tiny.toml"))


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """Seeds 0 and 1 by themselves, and in one study."""
    folder = tmp_path_factory.mktemp("studies")
    for name, seeds in (("both", [0, 1]), ("first", [0]), ("second", [1])):
        fr.run(TINY, folder / name, size="small", seeds=seeds)
    return folder


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def change(folder, edit):
    """Edits results.json in place."""
    results = results_of(folder)
    edit(results)
    (folder / "results.json").write_text(json.dumps(results))


def without_times(values):
    """Numbers that depend on the machine's speed, and dates, apart."""
    if isinstance(values, dict):
        return {
            k: without_times(v) for k, v in values.items() if not k.endswith("seconds") and k not in ("date", "machine")
        }
    return [without_times(value) for value in values] if isinstance(values, list) else values


def test_seeds_run_apart_are_the_study_of_all_seeds(studies, tmp_path):
    out = merge_studies([studies / "first", studies / "second"], tmp_path / "joint")
    joint, whole = without_times(results_of(out)), without_times(results_of(studies / "both"))
    for name in ("seeds", "variants", "scores", "claims", "effects", "finished", "code"):
        assert joint[name] == whole[name], name
    assert joint["units"].keys() == whole["units"].keys()
    assert Study.load(out / "study.toml") == Study.load(studies / "both" / "study.toml")


def test_the_command_writes_a_report_and_leaves_the_parts(studies, tmp_path, capsys):
    before = {path: path.read_bytes() for path in studies.glob("*/*.*")}
    folders = [str(studies / name) for name in ("second", "first")]
    assert main(["merge", *folders, "--out", str(tmp_path / "joint")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "joint" / "report.html")
    assert results_of(tmp_path / "joint")["seeds"] == [1, 0]
    assert before == {path: path.read_bytes() for path in before}


def test_other_code_is_named(studies, tmp_path, capsys):
    shutil.copytree(studies / "second", tmp_path / "second")
    change(tmp_path / "second", lambda results: results.update(code="0.0.9+abc"))
    out = merge_studies([studies / "first", tmp_path / "second"], tmp_path / "joint")
    assert results_of(out)["code"] == f"{results_of(studies / 'first')['code']}, 0.0.9+abc"
    assert "run by different code" in capsys.readouterr().err


def first_prompt(results):
    for scores in results["scores"].values():
        scores["traces"][0]["prompt"] = "other"


def first_theme(results):
    for scores in results["scores"].values():
        scores["problems"]["2"]["theme"][0] = "zoo"


@pytest.mark.parametrize(
    "edit, message",
    [
        (first_prompt, "variant none was evaluated on other problems in .*second than in .*first"),
        (first_theme, "variant none was evaluated on other problems in .*second than in .*first"),
        (lambda results: results.update(finished=False), "second is not finished; continue it with run --resume"),
    ],
)
def test_results_that_do_not_fit(studies, tmp_path, edit, message):
    shutil.copytree(studies / "second", tmp_path / "second")
    change(tmp_path / "second", edit)
    with pytest.raises(ValueError, match=f"^merge: .*{message}"):
        merge_studies([studies / "first", tmp_path / "second"], tmp_path / "joint")
    assert not (tmp_path / "joint").exists()


def test_recipes_that_differ(studies, tmp_path):
    shutil.copytree(studies / "second", tmp_path / "second")
    study = tmp_path / "second" / "study.toml"
    study.write_text(study.read_text().replace("at_least = 0.05", "at_least = 0.04"))
    with pytest.raises(ValueError, match="differ in more than their seeds; the first field that does is claims"):
        merge_studies([studies / "first", tmp_path / "second"], tmp_path / "joint")


def test_what_is_no_pair_of_studies(studies, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    pair = [studies / "first", studies / "second"]
    for folders, out, message in (
        ([studies / "first"], "x", "need at least two studies, got 1"),
        ([studies / "first", studies / "both"], "x", r"seed 0 is in .*first and in .*both"),
        ([studies / "first", studies / "first"], "x", r"seed 0 is in .*first and in .*first"),
        ([studies / "first", tmp_path], "x", "study.toml does not exist"),
        (pair, "full", "full exists and is not an empty directory"),
        (pair, "full/a", "a exists and is not an empty directory"),
    ):
        with pytest.raises(ValueError, match=f"^merge: .*{message}"):
            merge_studies(folders, tmp_path / out)
        assert not (tmp_path / "x").exists()


def test_a_cut_file_is_named(studies, tmp_path):
    for name in ("results.json", "study.toml"):
        shutil.copytree(studies / "second", tmp_path / name)
        path = tmp_path / name / name
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(ValueError, match=f"{name}"):
            merge_studies([studies / "first", tmp_path / name], tmp_path / "joint")

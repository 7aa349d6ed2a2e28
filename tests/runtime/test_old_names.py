"""Files of earlier versions are read under the names of today."""

import json

from fastreason.reports.study_page import write_report
from fastreason.runtime.metrics_log import MetricsLog
from fastreason.runtime.old_names import with_current_names
from fastreason.studies.recipe import load_recipe
from fastreason.studies.run_study import conclude, prepare
from fastreason.studies.study import Study, load_study

from ..studies.synthetic import write_outcomes


def renamed(path, now, before):
    path.write_text(path.read_text().replace(now, before))
    assert before in path.read_text()


def test_metrics_of_earlier_versions(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"stage": "rl", "step": 1, "silent_groups": 0.25}\n{"stage": "rl", "zero_advantage": null}\n')
    first, second = MetricsLog(path).read()
    assert first == {"stage": "rl", "step": 1, "zero_advantage": 0.25}
    assert list(second) == ["stage", "zero_advantage"]


def test_recipes_of_earlier_versions(tmp_path):
    path = tmp_path / "old.toml"
    path.write_text('base = "smoke"\nname = "old"\nrl.count_silent = true\n')
    assert load_recipe(path).rl.count_zero_advantage
    assert not load_recipe(path, {"rl.count_zero_advantage": False}).rl.count_zero_advantage
    study = load_study(path)
    study.save(tmp_path / "study.toml")
    renamed(tmp_path / "study.toml", "count_zero_advantage", "count_silent")
    assert Study.load(tmp_path / "study.toml").to_dict() == study.to_dict()


def test_results_of_earlier_versions_make_the_same_page(tmp_path):
    folder, study = tmp_path / "study", load_study("finding-1-edge", size="laptop")
    prepare(folder, study, False)
    conclude(study, write_outcomes(study, folder / "stages", {}), folder, folder / "stages")
    page = write_report(folder).read_bytes()
    renamed(folder / "results.json", '"zero_advantage"', '"silent_groups"')
    assert b"Zero-advantage groups" in page
    assert write_report(folder).read_bytes() == page


def test_what_is_called_by_both_names_is_as_today():
    both = {"count_silent": True, "count_zero_advantage": False}
    assert with_current_names(both) == {"count_zero_advantage": False}
    assert (
        json.dumps(with_current_names({"kept": [1, "silent_groups", None]})) == '{"kept": [1, "silent_groups", null]}'
    )

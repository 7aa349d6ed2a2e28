"""The report: one self-contained HTML page from study.toml and results.json, without network or scripts.

Its lines are the variants of a study after their last stage; a study of one variant has its stages as lines.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from ..runtime.files import write_text
from ..runtime.json_files import to_json
from ..studies.claims import MARGIN, effects_table, judged_claims
from ..studies.results import load_results
from ..studies.stages import STAGE_NAMES
from ..studies.study import Study
from ..studies.study_scores import StudyScores
from . import figures, tables
from .samples import chosen_samples
from .training_figures import training_figures


def write_report(folder: str | Path) -> Path:
    """Writes `report.html` from study.toml and results.json, and returns its path.

    Claims are judged again; where that changes results.json, it is written too.

    Raises:
        ValueError: one of them does not exist, they do not belong together, or the directory is of an earlier version.
    """
    folder = Path(folder)
    if (folder / "recipe.toml").is_file() and not (folder / "study.toml").is_file():
        raise ValueError(
            f"report: {folder} holds a run of an earlier version (recipe.toml without study.toml); only that version "
            "can write its page again"
        )
    study, results = judged_again(folder)
    recipe_text = (folder / "study.toml").read_text(encoding="utf-8")
    page = _template().render(content(study, results) | {"recipe_text": recipe_text})
    path = folder / "report.html"
    write_text(path, page)
    return path


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("fastreason.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("study.html")


def judged_again(folder: Path) -> tuple[Study, dict[str, Any]]:
    """A study and its results, with claims judged as this version does, which are written where that changes them."""
    study, results = load_results("report", folder)
    # as they read from a file
    judged = json.loads(to_json({"claims": judged_claims(study, results), "effects": effects_table(study, results)}))
    if any(results.get(name) != value for name, value in judged.items()):
        results |= judged
        write_text(folder / "results.json", to_json(results) + "\n")
    return study, results


def content(study: Study, results: dict[str, Any]) -> dict[str, Any]:
    """What the template shows."""
    scores, one = StudyScores(study, results), len(study.variants) == 1
    return {
        "results": results,
        "study": study,
        "one": one,
        "facts": tables.facts(study, results),
        "warnings": tables.warnings(results),
        "progress": tables.progress(results),
        "margin": MARGIN,
        "gains": tables.gains(study, scores) if one else [],
        "effects": tables.effects(study, results),
        "claims": figures.claims_figure(results),
        "pass_figures": figures.pass_figures(study, scores),
        "op_figures": figures.op_figures(study, scores),
        "level_figures": figures.level_figures(study, scores),
        "failure_figures": figures.failure_figures(study, scores),
        "training_figures": training_figures(study, results),
        "account": tables.account(results),
        "saved": tables.saved(results),
        "graph_rows": tables.graph_rows(results) if one else [],
        "traces": chosen_samples(study, scores),
        "stage_names": STAGE_NAMES,
    }

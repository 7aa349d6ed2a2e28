"""The report: one self-contained HTML page from study.toml and results.json, without network or scripts.

Its lines are the variants of a study after their last stage; a study of one variant has its stages as lines.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2

from ..runtime.files import read_whole, write_text
from ..runtime.json_files import to_json
from ..runtime.old_names import with_current_names
from ..studies.claims import MARGIN, effects_table, judged_claims
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
        ValueError: one of them does not exist, or the directory is of an earlier version.
    """
    folder = Path(folder)
    if (folder / "recipe.toml").is_file() and not (folder / "study.toml").is_file():
        raise ValueError(
            f"report: {folder} holds a run of an earlier version (recipe.toml without study.toml); only that version "
            "can write its page again"
        )
    for name in ("study.toml", "results.json"):
        if not (folder / name).is_file():
            raise ValueError(f"report: {folder / name} does not exist")
    study = Study.load(folder / "study.toml")
    results = judged_again(study, folder / "results.json")
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


def judged_again(study: Study, path: Path) -> dict[str, Any]:
    """results.json with the claims of the study judged as this version does, which is written where that changes it."""
    results: dict[str, Any] = with_current_names(read_whole(path))
    # as they read from a file
    judged = json.loads(to_json({"claims": judged_claims(study, results), "effects": effects_table(study, results)}))
    if any(results.get(name) != value for name, value in judged.items()):
        results |= judged
        write_text(path, to_json(results) + "\n")
    return results


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

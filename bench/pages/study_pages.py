"""Finished studies as pages of the documentation.

    python -m bench.pages.study_pages runs/finding-3-midtrain-laptop ... --out docs/results --docs docs/reproducing.md

For each writes NAME.md with the verdicts and scores, NAME.png, its report in Chromium (where there is one), and NAME/
with what both come from: study.toml, and results.json with two traces an evaluation. `fastreason report
docs/results/NAME` writes the report again. `--docs` puts the verdicts of all between the marks of a page. Every number
is read from results.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastreason.runtime.json_files import to_json
from fastreason.studies.effects import level
from fastreason.studies.recipe import STAGE_NAMES
from fastreason.studies.results import StudyScores
from fastreason.studies.study import Study

from ..harness.markdown import markdown, put_between_marks

# of an evaluation's scores, what the report shows
_SHOWN = ("ops", "problems", "traces", "samples", "tokens")


def claims_table(results: Mapping[str, Any]) -> str:
    """Effect and verdict of each claim, in points."""
    rows = [
        [
            claim["text"],
            claim["of"],
            _points(claim["effect"], claim["interval"], sign="+"),
            ", ".join(f"{100 * value:+.1f}" for value in claim["by_seed"]),
            f"{claim['rule']} {100 * claim['bound']:g}",
            f"**{claim['verdict']}**",
        ]
        for claim in results["claims"]
    ]
    head = ["claim", "difference", "points [95 % interval]", "by seed", "holds if", "verdict"]
    return markdown(head, rows, align="<<<<<<")


def scores_table(study: Study, results: Mapping[str, Any]) -> str:
    """Verified pass@1 and at the largest k, and right answers that are not verified, of each range, in percent."""
    scores = StudyScores(study, results)
    largest = max(next(iter(study.variants.values())).evaluate.k)
    shown = [("verified", 1), ("verified", largest), ("gap", 1)]
    head = ["variant", "after"]
    for name in study.ranges:
        head += [f"{name}: pass@{k}" if metric == "verified" else f"{name}: gap" for metric, k in shown]
    rows = []
    for variant, stage in _evaluated(results):
        cells = [level(scores.by_seed(variant, name, metric, k, stage)) for name in study.ranges for metric, k in shown]
        rows.append([variant, STAGE_NAMES[stage], *(_points(cell.effect, cell.interval) for cell in cells)])
    return markdown(head, rows)


def _evaluated(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Variants and the stages they were evaluated after; what variants share is given once."""
    seen = set()
    for variant, entry in results["variants"].items():
        for stage, keys in next(iter(entry["runs"].values())).items():
            if keys["evaluation"] not in seen:
                seen.add(keys["evaluation"])
                yield variant, stage


def account_table(results: Mapping[str, Any]) -> str:
    """What the stages took."""
    rows = []
    for kind, name in {**STAGE_NAMES, "evaluate": "evaluation"}.items():
        units = [unit for unit in results["units"].values() if unit["kind"] == kind]
        if units:
            seconds, tokens, flop = (sum(unit.get(of, 0) for unit in units) for of in ("seconds", "tokens", "flop"))
            rows.append(
                [name, len(units), f"{tokens / 1e6:.1f} M", f"{flop:.2e}" if flop else "", f"{seconds / 60:.1f} min"]
            )
    return markdown(["stage", "units", "tokens", "FLOP", "time of one process"], rows)


def page(study: Study, results: Mapping[str, Any], note: str = "", screenshot: bool = False) -> str:
    """NAME.md."""
    machine, code = results["machine"], results["code"]
    minutes = sum(unit["seconds"] for unit in results["units"].values()) / 60
    picture = f"![the report]({study.name}.png)\n\n" if screenshot else ""
    return f"""# {study.name}: {study.about}

Size {study.size}, seeds {", ".join(map(str, study.seeds))}; {machine["cpu"]}, {machine["cores"]} cores, torch
{machine["torch"]}, fastreason {code}. {minutes:.0f} minutes of one process, those of stages that
other studies had left in a shared folder included. {note}
Written by `python -m bench.pages.study_pages` from [{study.name}/]({study.name}/), of which
`fastreason report docs/results/{study.name}` makes the full report: curves, failures, a CSV behind each plot.

{claims_table(results)}

Scores in percent, mean over seeds with its 95 % interval over problems and seeds; gap: right answers that are not
verified, pass@1.

{scores_table(study, results)}

{account_table(results)}

{picture}"""


def _points(effect: float, interval: tuple[float, float], sign: str = "") -> str:
    low, high = interval
    return f"{100 * effect:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def keep(run: Path, place: Path, results: Mapping[str, Any]) -> None:
    """Copies what the pages come from."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.copyfile(run / "study.toml", place / "study.toml")
    scores = {key: {name: value[name] for name in _SHOWN} for key, value in results["scores"].items()}
    for value in scores.values():
        value["traces"] = value["traces"][:2]
    small = {**results, "scores": scores}
    (place / "results.json").write_text(to_json(small, separators=(",", ":")) + "\n", encoding="utf-8")


def photograph(report: Path, picture: Path) -> bool:
    """The top of a report as a picture, by headless Chromium; False where there is none."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return False
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,1500"]
    command = [chromium, *flags, f"--screenshot={picture.resolve()}", report.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return True


def verdicts_table(all_results: list[Mapping[str, Any]]) -> str:
    """Verdicts of several studies."""
    rows = [
        [
            f"[{results['study']}](results/{results['study']}.md)" if number == 0 else "",
            claim["text"],
            _points(claim["effect"], claim["interval"], sign="+"),
            f"{claim['rule']} {100 * claim['bound']:g}",
            f"**{claim['verdict']}**",
        ]
        for results in all_results
        for number, claim in enumerate(results["claims"])
    ]
    return markdown(["study", "claim", "points [95 % interval]", "holds if", "verdict"], rows, align="<<<<<")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--note", default="", help="a sentence on how they were run")
    parser.add_argument("--docs", type=Path, help="a page with the marks <!-- findings --> and <!-- /findings -->")
    options = parser.parse_args()
    all_results = []
    for run in options.runs:
        study, results = Study.load(run / "study.toml"), json.loads((run / "results.json").read_text(encoding="utf-8"))
        if not results["finished"]:
            parser.error(f"{run} is not finished: run it with --resume")
        place = options.out / study.name
        keep(run, place, results)
        taken = photograph(run / "report.html", options.out / f"{study.name}.png")
        (options.out / f"{study.name}.md").write_text(page(study, results, options.note, taken), encoding="utf-8")
        all_results.append(results)
    if options.docs:
        put_between_marks(options.docs, "findings", verdicts_table(all_results))


if __name__ == "__main__":
    main()

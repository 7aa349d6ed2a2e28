"""Finished studies as pages of the documentation.

    python -m bench.pages.study_pages runs/finding-3-midtrain-laptop ... --out docs/results --docs docs/reproducing.md

For each writes NAME.md with the verdicts and scores, NAME.png, its report in Chromium (where there is one), NAME.svg
with --picture, pass@k over k in a range, NAME-gains.svg with --gains, gains over what the base has, and NAME/ with what
all come from: study.toml, and results.json with two traces an evaluation. `fastreason report docs/results/NAME` writes
the report again. `--docs` puts the verdicts of all between the marks of a page. Every number is read from results.json,
with claims judged as this version does.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from fastreason.reports.charts import Series, line_chart
from fastreason.reports.study_page import judged_again, write_report
from fastreason.runtime.json_files import to_json
from fastreason.studies.effects import Values, difference, level
from fastreason.studies.stages import STAGE_NAMES
from fastreason.studies.study import RangePart, Study
from fastreason.studies.study_scores import StudyScores
from fastreason.tasks.mixture import Mixture

from ..harness.markdown import markdown, put_between_marks

# of an evaluation's scores, what the report shows
_SHOWN = ("ops", "problems", "graphs", "traces", "samples", "tokens")


def claims_table(results: Mapping[str, Any]) -> str:
    """Effect and verdict of each claim, in points."""
    rows = [
        [
            claim["text"],
            claim["of"],
            _effect(claim),
            ", ".join(f"{100 * value:+.1f}" for value in claim.get("by_seed", ())),
            f"{claim['rule']} {100 * claim['bound']:g}",
            f"**{claim['verdict']}**",
            claim["over_all"],
        ]
        for claim in results["claims"]
    ]
    head = ["claim", "difference", "points [95 % interval]", "by seed", "holds if", "verdict", "over all looks"]
    return markdown(head, rows, align="<<<<<<<")


def picture(study: Study, results: Mapping[str, Any], name: str, names: Mapping[str, str]) -> str:
    """An SVG file, in light and dark colors: verified pass@k over k in a range. Whiskers of all variants but the first
    are the 95 % interval of the difference from the first, which is paired by seed and problem.

    Args:
        name: of the range.
        names: what the legend calls each variant.
    """
    scores, series, first = StudyScores(study, results), [], next(iter(names))
    for style, (variant, called) in enumerate(names.items()):
        points, intervals = [], []
        for k in study.variants[variant].evaluate.k:
            base, values = (scores.by_seed(of, name, "verified", k) for of in (first, variant))
            point, interval = paired(base, values)
            points.append((float(k), point))
            intervals.append(interval)
        series.append(Series(called, points, style, intervals if style else None))
    what = f"Verified pass@k over k, {name}"
    return as_file(line_chart(series, title=what, x_label="k", y_label="verified pass@k", share=True, log_x=True))


def paired(base: Sequence[Values], values: Sequence[Values]) -> tuple[float, tuple[float, float]]:
    """A share, and around it the 95 % interval of its difference from the base, as far as a share can be."""
    at, found = level(base).effect, difference(values, [base])
    low, high = found.interval
    return at + found.effect, (max(0.0, at + low), min(1.0, at + high))


def gains_picture(study: Study, results: Mapping[str, Any], k: int, pairs: Sequence[tuple[str, str, str]]) -> str:
    """An SVG file: points of verified pass@k that a variant gains on its base, over what the base has; a point an op.

    Args:
        pairs: (base, variant, what the legend calls it). Whiskers are paired 95 % intervals.
    """
    ops = Mixture.from_dict(study.variants[pairs[0][0]].evaluate.mixture).ops
    by_op = StudyScores(replace(study, claims=[], ranges={f"op {op}": [RangePart(op=[op])] for op in ops}), results)
    series = []
    for style, (base, variant, called) in enumerate(pairs):
        found = []
        for name in by_op.study.ranges:
            before, after = (by_op.by_seed(of, name, "verified", k) for of in (base, variant))
            found.append((level(before).effect, difference(after, [before])))
        found.sort(key=lambda one: one[0])
        points = [(100 * at, 100 * gain.effect) for at, gain in found]
        intervals = [(100 * gain.interval[0], 100 * gain.interval[1]) for _, gain in found]
        series.append(Series(called, points, style, intervals))
    title, across = f"Gain of verified pass@{k} over the base's own", f"the base's own pass@{k}, %, one point an op"
    return as_file(line_chart(series, title=title, x_label=across, y_label=f"points of pass@{k} gained"))


def as_file(chart: str) -> str:
    """A chart of a report with the colors of reports."""
    css = resources.files("fastreason.reports").joinpath("templates", "style.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{([^}]*)\}", css)[:2]
    style = f"""svg {{{light} background: var(--card); font-family: system-ui, sans-serif; }}
.tip {{ display: none; }} @media (prefers-color-scheme: dark) {{ svg {{{dark}}} }}"""
    return re.sub(r"(<svg [^>]*>)", rf"\1<style>{style}</style>", chart, count=1) + "\n"


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
        rows.append([variant, STAGE_NAMES[stage], *(points_of(cell.effect, cell.interval) for cell in cells)])
    return markdown(head, rows)


def _evaluated(results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Variants and the stages they were evaluated after; what variants share is given once."""
    seen = set()
    for variant, entry in results["variants"].items():
        for stage, keys in next(iter(entry["runs"].values())).items():
            if "evaluation" in keys and keys["evaluation"] not in seen:
                seen.add(keys["evaluation"])
                yield variant, stage


def account_table(results: Mapping[str, Any]) -> str:
    """What the stages took."""
    rows = []
    kinds = dict.fromkeys([*STAGE_NAMES, *(unit["kind"] for unit in results["units"].values())])
    for kind in kinds:
        name = "evaluation" if kind == "evaluate" else STAGE_NAMES[kind]
        units = [unit for unit in results["units"].values() if unit["kind"] == kind]
        if units:
            seconds, tokens, flop = (sum(unit.get(of, 0) for unit in units) for of in ("seconds", "tokens", "flop"))
            rows.append(
                [name, len(units), f"{tokens / 1e6:.1f} M", f"{flop:.2e}" if flop else "", f"{seconds / 60:.1f} min"]
            )
    return markdown(["stage", "units", "tokens", "FLOP", "time, one process"], rows)


def page(
    study: Study, results: Mapping[str, Any], note: str = "", *, screenshot: bool = False, pictured: bool = False
) -> str:
    """NAME.md."""
    machine, code, seeds = results["machine"], results["code"], "seeds" if len(study.seeds) > 1 else "seed"
    minutes = sum(unit["seconds"] for unit in results["units"].values()) / 60
    pictures = f"![verified pass@k over k]({study.name}.svg)\n\n" if pictured else ""
    pictures += f"![the report]({study.name}.png)\n\n" if screenshot else ""
    return f"""# {study.name}: {study.about}

Size {study.size}, {seeds} {", ".join(map(str, study.seeds))}; {machine["cpu"]}, {machine["cores"]} cores, torch
{machine["torch"]}, fastreason {code}. {minutes:.0f} minutes of one process, including stages that other studies
had left in a shared folder. {note}
Generated by `python -m bench.pages.study_pages` from [{study.name}/]({study.name}/); `fastreason report
docs/results/{study.name}` rebuilds the full report with curves, failure kinds and a CSV for each plot.

{claims_table(results)}

Over all looks: what remains when the chance that any verdict of the study is wrong is 5 % (Holm).

Scores in percent: {_what_scores_are(study)}. Gap: right answers that are not
verified, at pass@1.

{scores_table(study, results)}

{account_table(results)}

{pictures}"""


def _what_scores_are(study: Study) -> str:
    if len(study.seeds) > 1:
        return "means over seeds, with 95 % intervals over problems and seeds"
    return "of one seed, with 95 % intervals over problems, which say nothing about other seeds"


def points_of(effect: float, interval: tuple[float, float], sign: str = "") -> str:
    low, high = interval
    return f"{100 * effect:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


def _effect(claim: Mapping[str, Any]) -> str:
    """Nothing where no problem is known that the claim is about."""
    return "" if claim["effect"] is None else points_of(claim["effect"], claim["interval"], sign="+")


def keep(run: Path, place: Path, results: Mapping[str, Any]) -> None:
    """Copies the data behind the pages, unless they are made from the copy."""
    if run.resolve() == place.resolve():
        return
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    shutil.copyfile(run / "study.toml", place / "study.toml")
    scores = {key: {name: value[name] for name in _SHOWN if name in value} for key, value in results["scores"].items()}
    for value in scores.values():
        value["traces"] = value["traces"][:2]
    small = {**results, "scores": scores}
    (place / "results.json").write_text(to_json(small, separators=(",", ":")) + "\n", encoding="utf-8")


def photograph(page: Path, picture: Path, size: tuple[int, int] = (1100, 1500), *flags: str) -> bool:
    """A screenshot of the top of a page by headless Chromium; False if it is not installed."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        return False
    width, height = size
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *flags]
    command += [f"--window-size={width},{height}", f"--screenshot={picture.resolve()}", page.resolve().as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    return True


def verdicts_table(all_results: Sequence[Mapping[str, Any]]) -> str:
    """The verdicts of several studies."""
    rows = [
        [
            f"[{results['study']}](results/{results['study']}.md)" if number == 0 else "",
            claim["text"],
            claim["k"] if "@" in claim["of"] else "",
            _effect(claim),
            f"{claim['rule']} {100 * claim['bound']:g}",
            f"**{claim['verdict']}**",
        ]
        for results in all_results
        for number, claim in enumerate(results["claims"])
    ]
    return markdown(["study", "claim", "k", "points [95 % interval]", "holds if", "verdict"], rows, align="<<><<<")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--note", default="", help="a sentence about how they were run")
    parser.add_argument("--picture", metavar="RANGE:VARIANT[=NAME],...", help="draw pass@k; the first is the base")
    parser.add_argument("--gains", metavar="K:BASE/VARIANT[=NAME],...", help="draw what variants gain over their bases")
    parser.add_argument("--docs", type=Path, help="a page with the marks <!-- findings --> and <!-- /findings -->")
    options = parser.parse_args()
    all_results = []
    for run in options.runs:
        study, results = judged_again(run)
        if not results["finished"]:
            parser.error(f"{run} is not finished: run it with --resume")
        place = options.out / study.name
        keep(run, place, results)
        if options.picture:
            name, _, variants = options.picture.partition(":")
            split = [variant.partition("=") for variant in variants.split(",")]
            drawn = picture(study, results, name, {variant: called or variant for variant, _, called in split})
            (options.out / f"{study.name}.svg").write_text(drawn, encoding="utf-8")
        if options.gains:
            k, _, pairs = options.gains.partition(":")
            drawn = gains_picture(study, results, int(k), [_pair(pair) for pair in pairs.split(",")])
            (options.out / f"{study.name}-gains.svg").write_text(drawn, encoding="utf-8")
        write_report(run)
        taken = photograph(run / "report.html", options.out / f"{study.name}.png")
        text = page(study, results, options.note, screenshot=taken, pictured=bool(options.picture))
        (options.out / f"{study.name}.md").write_text(text, encoding="utf-8")
        all_results.append(results)
    if options.docs:
        put_between_marks(options.docs, "findings", verdicts_table(all_results))


def _pair(text: str) -> tuple[str, str, str]:
    """BASE/VARIANT[=NAME]."""
    variants, _, called = text.partition("=")
    base, _, variant = variants.partition("/")
    return base, variant, called or variant


if __name__ == "__main__":
    main()

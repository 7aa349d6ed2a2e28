"""The page of a study: verdicts of outcomes whose truth is known, a CSV behind each plot, and the page in a browser."""

import csv
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from bench.pages import study_pages
from fastreason.reports.study_page import write_report
from fastreason.studies.recipe import load_recipe
from fastreason.studies.run_study import conclude, format_results, prepare
from fastreason.studies.study import Study, load_study
from fastreason.studies.work_units import distinct_units

from ..studies.synthetic import EDGE_STUDY, write_outcomes

PROBE = Path(__file__).with_name("probe.html")
# RL at the edge helps there and nowhere else: what the paper found
TRUTH = {"in-distribution": {4: 0.5, 5: 0.5}, "mixed": {5: 0.5, 6: 1.0}, "edge": {6: 2.5, 7: 2.0}}


def finish(study, runs, folder):
    results = conclude(study, runs, folder, folder / "stages")
    write_report(folder)
    return results


def study_of(folder, gain, name=EDGE_STUDY, **more):
    study = load_study(name, size="laptop", **more)
    prepare(folder, study, False)
    runs = write_outcomes(study, folder / "stages", gain)
    return study, runs, finish(study, runs, folder)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "study"
    return folder, study_of(folder, TRUTH)[2]


def test_what_the_paper_found_holds_where_it_is_true(reported):
    _, results = reported
    assert {claim["name"]: claim["verdict"] for claim in results["claims"]} == {
        "edge-rises": "holds",
        "within-does-not": "holds",
        "edge-beats-within": "holds",
        "no-gain-within": "at the ceiling",
        "hard-does-not": "at the floor",
    }
    rises = results["claims"][0]
    assert rises["effect"] == pytest.approx(sum(rises["by_seed"]) / 3)
    assert (
        rises["interval"][0] < min(rises["by_seed"]) <= rises["effect"] <= max(rises["by_seed"]) < rises["interval"][1]
    )
    assert "holds " in format_results(results)


def test_the_opposite_world_gives_the_opposite_verdicts(tmp_path):
    """Only RL in distribution moves the edge."""
    _, _, results = study_of(tmp_path / "run", {"in-distribution": {6: 2.5, 7: 2.0}})
    verdicts = {claim["name"]: claim["verdict"] for claim in results["claims"]}
    assert verdicts["edge-rises"] == "does not hold"
    assert verdicts["within-does-not"] == "does not hold"
    assert verdicts["edge-beats-within"] == "does not hold"


def test_a_small_effect_is_left_undecided(tmp_path):
    _, _, results = study_of(tmp_path / "run", {"edge": {6: 0.25, 7: 0.25}})
    assert results["claims"][0]["verdict"] == "undecided at this size"


def test_one_seed_is_said_to_be_one(tmp_path):
    study, _, results = study_of(tmp_path / "run", TRUTH, seeds=[4])
    report, page = (tmp_path / "run" / "report.html").read_text(), study_pages.page(study, results)
    assert "with one seed, the interval is over problems" in report
    assert "Scores in percent: of one seed" in page and ", seed 4;" in page
    assert "over seeds" not in report + page and "seeds and problems" not in report + page


def test_an_unfinished_study_says_how_far_it_is(tmp_path):
    study, runs, _ = study_of(tmp_path / "run", TRUTH)
    for unit in distinct_units(runs):
        if unit.seed == 2 and unit.kind == "evaluate":
            (tmp_path / "run" / "stages" / unit.key / "done.json").unlink()
    finish(study, runs, tmp_path / "run")
    said = " ".join(" ".join(read(tmp_path / "run").text).split())
    # 5 evaluations of 20 s
    assert "25 of 30 units of work are finished" in said and "about 2 minutes" in said
    assert "none 2 of 2 2 of 2 1 of 2 in-distribution 4 of 4 4 of 4 2 of 4" in said


def test_an_unfinished_study_says_so_and_counts_the_seeds_it_has(tmp_path):
    study, runs, _ = study_of(tmp_path / "run", TRUTH)
    for unit in distinct_units(runs):
        if unit.seed == 2:
            (tmp_path / "run" / "stages" / unit.key / "done.json").unlink()
    results = finish(study, runs, tmp_path / "run")
    claim = results["claims"][0]
    assert (claim["verdict"], claim["seeds"]) == ("not finished", [0, 1])
    assert claim["effect"] is not None
    assert "<strong>not finished</strong>" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.parametrize("name", ["finding-2-context", "finding-3-midtrain", "finding-4-process"])
def test_every_finding_ends_in_a_page(tmp_path, name):
    _, _, results = study_of(tmp_path / "run", {}, name)
    page = (tmp_path / "run" / "report.html").read_text()
    for claim in results["claims"]:
        assert html.escape(claim["text"], quote=False) in html.unescape(page).replace("&#39;", "'")
        assert claim["verdict"] != "not finished"


class _Page(HTMLParser):
    """Collects links and text, and checks that elements nest."""

    def __init__(self):
        super().__init__()
        self.open, self.links, self.points, self.text = [], {}, 0, []

    def handle_starttag(self, tag, attributes):
        if tag != "meta":
            self.open.append(tag)
        found = dict(attributes)
        assert tag not in ("script", "link", "img", "iframe", "object"), tag
        if "href" in found:
            self.links[found.get("download")] = found["href"]
        self.points += found.get("class") == "point"

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(folder):
    page = _Page()
    page.feed((folder / "report.html").read_text())
    assert page.open == []
    return page


def test_the_page_is_whole_and_needs_no_network(reported):
    folder, _ = reported
    page, text = read(folder), (folder / "report.html").read_text()
    assert all(link.startswith("data:text/csv") for link in page.links.values())
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", text)
    assert not re.search(r"url\((?!#)|@import|https?://(?!www\.w3\.org/2000/svg)", text)
    said = " ".join(" ".join(page.text).split())
    for heading in (
        "Claims",
        "Variants",
        "Verified pass@k by range",
        "Right answers, verified, sound",
        "How samples fail",
        "Training",
        "Throughput and compute",
        "Samples",
        "Recipe",
    ):
        assert heading in said
    assert page.points > 100


def test_a_csv_stands_behind_every_plot(reported):
    folder, results = reported
    page = read(folder)
    assert set(page.links) >= {
        "claims.csv",
        "pass-at-k-edge.csv",
        "pass-at-1-by-op.csv",
        "levels-edge.csv",
        "rl-mean_length.csv",
        "rl-entropy.csv",
        "rl-kl.csv",
        "rl-answer_correct-minus-verified.csv",
        "pass-at-32-by-op.csv",
        "failures-edge.csv",
        "rl-reward.csv",
        "rl-zero_advantage.csv",
        "pretrain-loss.csv",
    }
    assert (folder / "report.html").read_text().count("<figure>") == len(page.links)
    tables = {
        name: list(csv.DictReader(io.StringIO(unquote(link.split(",", 1)[1])))) for name, link in page.links.items()
    }
    effects = {row["claim"]: float(row["effect"]) for row in tables["claims.csv"]}
    assert effects["edge-rises"] == pytest.approx(results["claims"][0]["effect"], rel=1e-5)
    curve = {(row["variant"], row["k"]): float(row["verified"]) for row in tables["pass-at-k-edge.csv"]}
    assert curve["edge", "32"] - curve["none", "32"] == pytest.approx(effects["edge-rises"], abs=1e-5)
    shares = [float(row["share"]) for row in tables["failures-edge.csv"] if row["variant"] == "none"]
    assert sum(shares) == pytest.approx(1 - curve["none", "1"], abs=1e-3)


def test_traces_mark_each_step(reported):
    folder, _ = reported
    text = (folder / "report.html").read_text()
    assert '<span\nclass="step right"' in text
    assert "✗ wrong value" in text


def test_the_account_counts_shared_stages_once(reported):
    folder, _ = reported
    said = " ".join(" ".join(read(folder).text).split())
    # 3 seeds of 1 pretrain, 4 rl and 5 evaluations; apart, each of 5 variants would pre-train and be evaluated twice
    taken, apart = 3 * (5 * 60 + 5 * 20), 3 * (5 * (60 + 20) + 4 * (60 + 20))
    assert f"{taken} s of work instead of {apart} s" in said


def test_claims_are_judged_again_from_what_earlier_versions_wrote(reported, tmp_path):
    folder, results = reported
    shutil.copyfile(folder / "study.toml", tmp_path / "study.toml")
    old = {name: value for name, value in results.items() if name != "effects"}
    names = ("name", "text", "verdict", "effect", "of", "bound", "seeds", "rule", "interval", "by_seed")
    old["claims"] = [{name: claim[name] for name in names} | {"verdict": "holds"} for claim in results["claims"]]
    (tmp_path / "results.json").write_text(json.dumps(old))
    assert write_report(tmp_path).read_text() == (folder / "report.html").read_text()
    again = json.loads((tmp_path / "results.json").read_text())
    assert (again["claims"], again["effects"]) == (results["claims"], results["effects"])


def test_report_of_a_study_is_written_again(reported, tmp_path):
    folder, _ = reported
    before = (folder / "report.html").read_text()
    assert write_report(folder).read_text() == before
    (tmp_path / "study.toml").write_text((folder / "study.toml").read_text())
    with pytest.raises(ValueError, match=r"results\.json does not exist"):
        write_report(tmp_path)
    (tmp_path / "study.toml").rename(tmp_path / "recipe.toml")
    with pytest.raises(ValueError, match="holds a run of an earlier version"):
        write_report(tmp_path)


def test_a_report_of_a_cut_study_changes_nothing(reported, tmp_path):
    """Cut behind a line it would be the study with fewer claims, and results.json would be written with these."""
    folder, _ = reported
    shutil.copyfile(folder / "results.json", tmp_path / "results.json")
    text = (folder / "study.toml").read_text()
    for mark in ("[[claims]]", "[[ranges", "[notes]"):
        (tmp_path / "study.toml").write_text(text[: text.rindex(mark)])
        with pytest.raises(ValueError, match=r"study\.toml: incomplete"):
            write_report(tmp_path)
    assert (tmp_path / "results.json").read_bytes() == (folder / "results.json").read_bytes()
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    "edit, missing",
    [
        (lambda results: results["variants"].pop("edge"), "no variant edge"),
        (lambda results: results["variants"]["edge"]["runs"].pop("2"), "no run of variant edge, seed 2"),
        (lambda results: first_scores(results)["problems"].pop("6"), "no op 6 of variant none, seed 0, pretrain"),
        (lambda results: results.pop("scores"), "does not hold the results of a study"),
        (lambda results: results.clear(), "does not hold the results of a study"),
    ],
)
def test_results_of_another_study_are_named(reported, tmp_path, edit, missing):
    """As where study.toml was given another seed, variant or op by hand."""
    folder, _ = reported
    other = json.loads((folder / "results.json").read_text())
    edit(other)
    shutil.copyfile(folder / "study.toml", tmp_path / "study.toml")
    (tmp_path / "results.json").write_text(json.dumps(other))
    with pytest.raises(ValueError, match=rf"^report: .*results\.json.*{missing}"):
        write_report(tmp_path)
    assert not (tmp_path / "report.html").exists()


def first_scores(results):
    return next(iter(results["scores"].values()))


# of one run


def one_run(folder, change=lambda kind, done, lines: None, recipe=None):
    """The page of a run of three stages, of which only the last adds anything."""
    study = Study.of(recipe or load_recipe("smoke", {"edge": [4]}))
    prepare(folder, study, False)
    runs = write_outcomes(study, folder / "stages", {"smoke": {2: -7.0, 4: 9.0}})
    for unit in distinct_units(runs):
        place = folder / "stages" / unit.key
        done, metrics = json.loads((place / "done.json").read_text()), place / "metrics.jsonl"
        lines = [json.loads(line) for line in metrics.read_text().splitlines()] if metrics.exists() else []
        change(unit.kind, done, lines)
        (place / "done.json").write_text(json.dumps(done))
        if lines:
            metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return study, runs, finish(study, runs, folder)


def test_the_lines_of_one_run_are_its_stages(tmp_path):
    _, _, results = one_run(tmp_path)
    page = read(tmp_path)
    said = " ".join(" ".join(page.text).split())
    assert "What each stage added" in said and "Variants" not in said and "Warnings" not in said
    assert "share ran once" not in said
    rows = list(csv.DictReader(io.StringIO(unquote(page.links["pass-at-k-edge.csv"].split(",", 1)[1]))))
    assert [row["stage"] for row in rows[::2]] == ["pre-training", "mid-training", "reinforcement learning"]
    assert {"pass-at-1-by-op.csv", "levels-edge.csv", "rl-reward.csv", "midtrain-loss.csv"} <= set(page.links)
    # RL lowers what is in distribution and raises the edge; mid-training does nothing
    table = said[said.index("What each stage added") : said.index("Verified pass@k by range")]
    middle, last = table.split("mid-training")[1].split("reinforcement learning")
    assert middle.count("undecided") + middle.count("at the ceiling") == 4
    assert re.search(r"-\d+\.\d \[.*?\] lowered .* \+\d+\.\d \[.*?\] raised", last)
    assert results["stages"].keys() == {"pretrain", "midtrain", "rl"}


def test_a_run_under_way_has_a_page(tmp_path):
    study, runs, _ = one_run(tmp_path)
    for count, unit in enumerate(reversed(distinct_units(runs))):
        (tmp_path / "stages" / unit.key / "done.json").unlink()
        results = finish(study, runs, tmp_path)
        assert len(results["stages"]) == (5 - count) // 2
        assert read(tmp_path).text.count("not finished") == 1


def test_what_the_watch_said_stands_at_the_top(tmp_path):
    def warn(kind, done, lines):
        if kind == "rl":
            lines[1]["warnings"] = ["finished: <fewer> samples end"]
            for line in lines:
                line["finished"] = 0.25

    one_run(tmp_path, warn)
    page = (tmp_path / "report.html").read_text()
    assert "reinforcement learning, step 2: finished: &lt;fewer&gt; samples end" in page
    assert "rl-finished.csv" in page


def test_model_output_is_text_not_markup(tmp_path):
    def markup(kind, done, lines):
        if kind == "evaluate":
            done["scores"]["traces"][0] |= {"prompt": "<script>", "completion": "Ba: 3. <img src=x> <b>"}
            done["machine"]["cpu"] = "a <cpu>"

    one_run(tmp_path, markup, recipe=load_recipe("smoke", {"edge": []}))
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and "<img" not in page
    assert "&lt;img src=x&gt;" in page


# in Chromium


def look(tmp_path, page, width, dark):
    """What the page does in Chromium at this width."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed (make test-report installs Debian's)")
    probe = tmp_path / "probe.html"
    probe.write_text(PROBE.read_text().replace("WIDTH", str(width)).replace("PAGE", html.escape(page)))
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += [f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=4000"]
    command += [f"--window-size={width + 40},1000", "--dump-dom", probe.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_in_a_browser(reported, tmp_path, width, dark):
    folder, _ = reported
    found = look(tmp_path, (folder / "report.html").read_text(), width, dark)
    assert found["overflow"] <= 0 and found["wide"] == []
    assert found["small"] == 0
    assert found["requests"] == 0
    # a point is silent until it has the focus, and says its value then
    assert (found["before"], found["after"], found["active"]) == (False, True, True)
    assert re.fullmatch(r"edge-rises, k = 32: [\d.]+ \(95 % interval [\d.]+ to [\d.]+\)", found["label"])
    assert found["order"] > 100
    # WCAG AA for text
    assert found["least"] >= 4.5
    assert (found["back"] < 0.1) == dark


# of each chart of training: the stage, how a line of its metrics.jsonl gives the value, and whether it is a share
CHARTED = {
    "Reward": ("rl", lambda line: line["reward"], False),
    "Verified samples in training": ("rl", lambda line: line["verified"], True),
    "Right answers in training": ("rl", lambda line: line["answer_correct"], True),
    "Right but unverified": ("rl", lambda line: line["answer_correct"] - line["verified"], True),
    "Zero-advantage groups": ("rl", lambda line: line["zero_advantage"], True),
    "Samples that ended by themselves": ("rl", lambda line: line["finished"], True),
    "Length of samples": ("rl", lambda line: line["mean_length"], False),
    "Entropy": ("rl", lambda line: line.get("entropy"), False),
    "KL from the reference model": ("rl", lambda line: line["kl"], False),
    "Loss of pre-training": ("pretrain", lambda line: line["loss"], False),
    "Loss of mid-training": ("midtrain", lambda line: line["loss"], False),
}


@pytest.fixture(scope="module")
def extreme(tmp_path_factory):
    """A run of few lines with values far outside of what is usual, and what a browser makes of its page."""

    def change(kind, done, lines):
        if kind == "pretrain":
            del lines[40:]
            done["step"] = lines[-1]["step"]
            lines[0]["loss"], lines[1]["loss"], lines[24]["loss"] = 3.74, 31.4159, 0.0123
        for i, line in enumerate(lines if kind == "rl" else []):
            line |= {"reward": line["reward"] * 5 - 2, "finished": 0.9 - i / 200}
            if i % 2:  # steps without an update have no entropy
                del line["entropy"]

    folder = tmp_path_factory.mktemp("extreme")
    one_run(folder, change)
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return metrics, look(folder, (folder / "report.html").read_text(), 900, False)


def test_hover_shows_the_values_of_the_metrics(extreme):
    """Each line of metrics.jsonl where there are few, the mean of consecutive ones where there are many;
    always the first, the last, the lowest and the highest."""
    metrics, found = extreme
    assert set(CHARTED) <= set(found["tips"]) and not [t for t in found["tips"] if "Loss" in t and t not in CHARTED]
    for title, (stage, value_of, share) in CHARTED.items():
        values = {line["tokens"] / 1e6 if stage != "rl" else line["step"]: value_of(line)
                  for line in metrics if line["stage"] == stage}  # fmt: skip
        values = [(at, value) for at, value in values.items() if value is not None]
        size = -(-len(values) // 60)
        groups = [values[i : i + size] for i in range(0, len(values), size)]
        wanted = {float(f"{group[-1][0]:.6g}"): sum(value for _, value in group) / len(group) for group in groups}
        note = f", mean of {size} lines of metrics.jsonl" if size > 1 else ""
        shown, places = {}, []
        for text, place in found["tips"][title]:
            value, at = re.fullmatch(rf"smoke: (\S+){' %' if share else ''} at (\S+?){note}", text).groups()
            shown[float(at)] = float(value) / (100 if share else 1)
            places.append(place)
        assert shown == pytest.approx({at: wanted[at] for at in shown}, rel=1e-5, abs=1e-7), title
        ends = {min(wanted), max(wanted), min(wanted, key=wanted.get), max(wanted, key=wanted.get)}
        assert ends <= set(shown), title
        # the height of a point is its value, not one that fits better
        least, most = min(shown.values()), max(shown.values())
        if most > least:
            scale = (min(places) - max(places)) / (most - least)
            heights = [max(places) + scale * (value - least) for value in shown.values()]
            assert heights == pytest.approx(places, abs=0.15), title


def test_extreme_values_stay_in_their_chart(extreme):
    metrics, found = extreme
    assert max(line["loss"] for line in metrics if line["stage"] == "pretrain") > 30
    assert {line["reward"] > 0 for line in metrics if line["stage"] == "rl"} == {True, False}
    assert found["outside"] == 0 and found["overflow"] <= 0


def test_the_page_of_one_run_in_a_narrow_browser(tmp_path):
    one_run(tmp_path)
    found = look(tmp_path, (tmp_path / "report.html").read_text(), 360, False)
    assert found["overflow"] <= 0 and found["wide"] == [] and found["least"] >= 4.5

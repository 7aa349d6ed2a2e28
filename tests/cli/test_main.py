"""The command line: what it prints, and exit status 2 with a message for bad input."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import types
from contextlib import contextmanager

import numpy as np
import pytest

import fastreason as fr
from fastreason.cli.main import main
from fastreason.cli.recipe_flags import parse_recipe_flags
from fastreason.runtime.stop_request import StopRequest
from fastreason.studies.seen_graphs import graphs_of_checkpoint


def test_help_lists_commands_and_recipes(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert "run RECIPE" in out
    assert "report DIR" in out
    assert main(["run", "--help"]) == 0
    out = capsys.readouterr().out
    assert "finding-4-process, question-curriculum, " in out
    assert len([line for line in out.splitlines() if line.startswith("  --") and "." in line.split()[0]]) >= 15
    assert "more: fastreason run RECIPE --help" in out
    assert main(["run", "smoke", "--help"]) == 0
    assert "[8]" in next(line for line in capsys.readouterr().out.splitlines() if "  --rl.steps " in line)


@pytest.mark.parametrize("command", ["info --schema", "--help", "generate --show 3", "look --help"])
def test_a_reader_that_leaves_ends_a_command_without_noise(command, monkeypatch, capfd):
    """Like `head`; writes of a few lines are noticed only when they are flushed."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as closed:
        monkeypatch.setattr(sys, "stdout", closed)
        assert main(command.split()) == 141
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("command", ["--version", "themes", "generate --show 3"])
def test_a_full_standard_output_is_an_error_in_one_line(command, monkeypatch, capfd):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert main(command.split()) == 1
    assert capfd.readouterr() == ("", "fastreason: standard output: No space left on device\n")


@pytest.mark.parametrize("command", ["--version", "themes", "generate --show 3"])
def test_a_closed_standard_output_is_none(command, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    assert main(command.split()) == 0


def test_another_pipe_that_breaks_is_an_error(monkeypatch, capfd):
    """Only the reader of standard output may leave without a word."""
    monkeypatch.setattr("fastreason.cli.main._themes", lambda arguments: os.write(broken, b"x"))
    read, broken = os.pipe()
    os.close(read)
    kept, write = os.pipe()
    with os.fdopen(write, "w") as stdout, os.fdopen(kept), os.fdopen(broken, "w"):
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["themes"]) == 1
    assert capfd.readouterr().err == "fastreason themes: [Errno 32] Broken pipe\n"


def test_flags_of_a_recipe(capsys):
    flags = ["--no-rl", "--evaluate.k", "1", "4", "--in-distribution=2,3", "--pretrain.optim.betas", "0.8,0.9"]
    flags += ["--midtrain.phases", '[{"until": 1.0, "mixture": [{"op": [3], "themes": ["symbolic"]}]}]']
    assert main(["run", "smoke", "--dry-run", *flags]) == 0
    values = tomllib.loads(capsys.readouterr().out)
    assert "rl" not in values and values["evaluate"]["k"] == [1, 4] and values["in_distribution"] == [2, 3]
    assert values["pretrain"]["optim"]["betas"] == [0.8, 0.9]
    assert values["midtrain"]["phases"][0]["mixture"][0]["op"] == [3]
    assert parse_recipe_flags(["--evaluate.files", "--rl.max-new-tokens", "9"]) == {
        "evaluate.files": True,
        "rl.max_new_tokens": "9",
    }
    assert parse_recipe_flags(["--evaluate.no-files"]) == {"evaluate.files": False}
    listed = ["--mid-2.tokens=3000", "--mid-2.loss-on", "all", "--mid-2.mixture", "edge"]
    assert parse_recipe_flags(listed, ["mid-2"]) == {
        "mid-2.tokens": "3000",
        "mid-2.loss_on": "all",
        "mid-2.mixture": "edge",
    }


def test_completion(capsys, monkeypatch):
    def without_a_checkout(arguments):
        raise ValueError("needs a checkout of the repository")

    monkeypatch.setattr("fastreason.cli.main.bench_command", without_a_checkout)  # as where a wheel is installed
    assert main(["completion"]) == 0
    script = capsys.readouterr().out
    asked = 'COMP_WORDS=(fastreason {} {}); COMP_CWORD=2; _fastreason; echo "${{COMPREPLY[@]}}"'
    for command, begun, found in (
        ("run", "qui", "quickstart"),
        ("run", "--rl.kl_c", "--rl.kl_coef"),
        ("eval", "tiny", "tiny-base"),
        ("grade", "--answer", "--answer-may-end-text"),
    ):
        done = subprocess.run(["bash", "-c", script + asked.format(command, begun)], capture_output=True, text=True)
        assert done.stdout.split() == [found], done.stderr


@pytest.mark.parametrize(("given", "used"), [(None, "passive"), ("active", "active")])
def test_idle_threads_of_torch_do_not_spin_unless_asked_to(given, used):
    """Read by OpenMP when torch is loaded, so it has to be set before."""
    code = (
        "import sys; from fastreason.cli.main import main; main([]); import os; "
        "print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {} if given is None else {"OMP_WAIT_POLICY": given}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.splitlines()[-1] == f"False {used}"


def test_dry_run_prints_the_resolved_recipe(capsys):
    assert main(["run", "smoke", "--dry-run", "--rl.steps", "3", "--seed", "9"]) == 0
    values = tomllib.loads(capsys.readouterr().out)
    assert values["rl"]["steps"] == 3
    assert values["seed"] == 9
    assert values["pretrain"]["optim"]["matrices"] == "muon"


def test_a_budget_takes_the_place_of_tokens(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.ModuleType("tensorboard"))  # as if installed
    flags = ["--pretrain.tokens", "None", "--pretrain.budget", "600 seconds", "--metrics", "tensorboard"]
    assert main(["run", "smoke", "--dry-run", *flags]) == 0
    values = tomllib.loads(capsys.readouterr().out)
    assert values["pretrain"]["budget"] == "600 seconds"
    assert "tokens" not in values["pretrain"]
    assert values["metrics"] == ["tensorboard"]


@pytest.mark.parametrize(
    "error", [OSError(28, "disk full"), FloatingPointError("the loss is nan"), MemoryError(), MemoryError("4 GB")]
)
def test_what_goes_wrong_on_the_way_is_status_1_and_one_line(capsys, monkeypatch, error):
    def fail(*arguments, **named):
        raise error

    monkeypatch.setattr("fastreason.runner.run", fail)
    assert main(["run", "smoke"]) == 1
    told = str(error) if not isinstance(error, MemoryError) else "out of memory" + (": 4 GB" if str(error) else "")
    assert capsys.readouterr().err == f"fastreason run: {told}\n"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["fly"],
            "unknown command 'fly'; commands are run, report, merge, generate, grade, eval, edge, look, export,",
        ),
        (["run", "nothing"], "finding-4-process, question-curriculum, "),
        (["report", "/nonexistent"], "study.toml does not exist"),
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
    assert main(["run", "smoke", f"--rl.{flag}", value]) == 2
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
        ([], "one of --out PATH, --show N or --graph FILE.svg is required"),
        (["--out", "x", "--shard", "3"], "--shard must have the form I/N, got '3'"),
        (["--out", "x", "--shard", "3/2"], "0 <= shard < num_shards, got 1000, 3 and 2"),
        (["--out", "x", "--op", "two"], "--op must have the form 7, 2-10 or 3,5,9, got 'two'"),
        (["--out", "x", "--op", "50"], "op must be an integer in 2 .. 40, got 50"),
        (["--out", "x", "--mixture", "pretrain", "--op", "3"], "--mixture pretrain defines its own op; omit --op"),
        (["--out", "x", "--mixture", "pretrain", "--themes", "zoo"], "--mixture pretrain defines its own themes"),
        (["--out", "x.csv"], "--out x.csv: the suffix '.csv' matches none of the formats jsonl, parquet, tokens"),
        (["--out", "."], "--out . is a folder; use --format parquet or tokens, or name a file"),
        (["--out", "x", "--max-value", "-1"], "max_value must be an integer in 1 .. 1000000, got -1"),
    ],
)
def test_generate_refuses(capsys, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    assert main(["generate", *flags]) == 2
    assert message in capsys.readouterr().err


def test_generate_takes_the_format_from_the_name(tmp_path):
    for name, written in (("a.jsonl", "a.jsonl"), ("b", "b"), ("c.parquet", "c.parquet/0000-of-0001-00000.parquet")):
        assert (
            main(
                ["generate", "--count", "3", "--max-value", "9", "--themes", "symbolic", "--out", str(tmp_path / name)]
            )
            == 0
        )
        assert (tmp_path / written).is_file()
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert rows == fr.TaskStream(fr.Mixture.uniform(range(2, 11), ["symbolic"], max_value=9))[0:3].rows()


def test_the_version_is_printed(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastreason {fr.__version__}\n"


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


# --- eval and edge ---

SYMBOLIC = ["--themes", "symbolic", "--max-value", "99", "--max-new-tokens", "6", "--threads", "1"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An untrained model in a run directory, whose recipe says what it is evaluated on."""
    from fastreason import Decoder, ModelConfig, Tokenizer
    from fastreason.studies.recipe import load_recipe
    from fastreason.studies.study import Study

    run = tmp_path_factory.mktemp("run")
    recipe = load_recipe("smoke", {"evaluate.problems": 3, "evaluate.samples": 4, "evaluate.k": [1, 4]})
    Study.of(recipe).save(run / "study.toml")
    tokenizer = Tokenizer.for_mixtures(recipe.mixtures())
    model = Decoder(ModelConfig.preset("tiny", vocab_size=len(tokenizer), num_hidden_layers=1))
    model.reset_parameters(0)
    model.save_pretrained(run / "checkpoints" / "rl", tokenizer)
    return run / "checkpoints" / "rl"


def test_eval_takes_the_settings_of_the_run(capsys, checkpoint, tmp_path):
    assert main(["eval", str(checkpoint), "--max-new-tokens", "6", "--out", str(tmp_path / "e")]) == 0
    out, error = capsys.readouterr()
    assert "study.toml" in error
    assert [line.split()[:2] for line in out.splitlines()[1:4]] == [["op", "2"], ["op", "3"], ["op", "4"]]
    assert "36 samples" in out
    results = json.loads((tmp_path / "e" / "results.json").read_text())
    assert results["settings"]["mixture"][0]["max_sentences"] == 4
    assert list(results["ops"]["2"]["verified"]) == ["1", "2", "3", "4"]
    assert list(results["ranges"]) == ["in-distribution", "edge"]
    assert results["engine"] == "RolloutSampler"
    assert results["seconds"] > 0
    assert results["machine"]["cores"]


def test_eval_of_a_checkpoint_tells_seen_graphs_from_unseen_ones(capsys, checkpoint, tmp_path):
    """By what the stages of its run left: pre-training and RL, each with the graphs of half of the problems."""
    stages = tmp_path / "stages"
    shutil.copytree(checkpoint, stages / "rl-b" / "checkpoint")
    stream = fr.TaskStream(fr.Mixture.uniform([5], ["symbolic"], max_value=99), split="test")
    hashes = stream.graph_hashes(0, 6)
    for name, before, settings, part in (
        ("pretrain-a", None, {"tokens": 5}, hashes[:3]),
        ("rl-b", "pretrain-a", {"prompts": 4, "reward": "strict"}, hashes[3:]),
    ):
        (stages / name).mkdir(exist_ok=True)
        (stages / name / "unit.json").write_text(json.dumps({"before": before, "settings": settings}))
        np.savez(stages / name / "graphs.npz", graphs=np.unique(part), bound=np.array("exact"))
    flags = ["--op", "5", *SYMBOLIC, "--problems", "6", "--samples", "1", "--out", str(tmp_path / "e")]
    assert main(["eval", str(stages / "rl-b" / "checkpoint"), *flags]) == 0
    graphs = json.loads((tmp_path / "e" / "results.json").read_text())["graphs"]
    assert graphs["training"]["problems"]["5"] == np.isin(hashes, hashes[:3]).astype(int).tolist()
    assert graphs["rl"]["problems"]["5"] == np.isin(hashes, hashes[3:]).astype(int).tolist()
    assert "op 5, unseen in training" in capsys.readouterr().out
    (stages / "pretrain-a" / "graphs.npz").unlink()  # then it is not known
    assert graphs_of_checkpoint(stages / "rl-b" / "checkpoint") == {}


def test_eval_without_pyarrow_writes_its_results(capsys, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    flags = ["--op", "2", *SYMBOLIC, "--problems", "2", "--samples", "2", "--out", str(tmp_path / "e")]
    assert main(["eval", str(checkpoint), *flags]) == 0
    assert "pyarrow is not installed, so --out gets results.json alone" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "e").iterdir()] == ["results.json"]
    assert json.loads((tmp_path / "e" / "results.json").read_text())["samples"] == 4
    assert main(["eval", str(checkpoint), *flags]) == 2
    assert "holds results.json; choose another" in capsys.readouterr().err


def test_eval_takes_flags_and_a_preset(capsys, checkpoint, tmp_path):
    flags = [
        "--op",
        "2-4",
        "--problems",
        "2",
        "--samples",
        "3",
        *SYMBOLIC,
        "--seed",
        "5",
        "--out",
        str(tmp_path),
        "--texts",
    ]
    assert main(["eval", str(checkpoint), "--preset", "paper", *flags]) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    settings = results["settings"]
    assert settings["mixture"] == [{"op": [2, 3, 4], "themes": ["symbolic"], "max_value": 99}]
    assert (settings["problems"], settings["samples"], settings["temperature"]) == (2, 3, 0.7)
    assert settings["k"] == [1, 2, 3]
    # none of the paper's ranges is covered
    assert results["ranges"].keys() == {"all ops"}
    assert results["seed"] == 5
    capsys.readouterr()
    assert main(["eval", str(checkpoint), "--preset", "paper", *flags]) == 2
    assert "continue it with --resume" in capsys.readouterr().err
    assert main(["eval", str(checkpoint), "--preset", "paper", *flags, "--resume"]) == 0
    assert main(["eval", str(checkpoint), "--preset", "paper", *flags, "--resume", "--samples", "4"]) == 2
    assert "samples was 3, now it is 4" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--resume"], "--resume and --texts require --out DIR"),
        (["--samples", "0"], "samples must be at least 1"),
        (["--op", "1-2"], "op must be an integer in 2 .. 40, got 1"),
        (["--themes", "zoo"], "does not know every word of theme zoo"),
        (["--threads", "-1"], "--threads and --seed must be at least 0"),
        (["--recipe", "nothing"], "finding-4-process, question-curriculum, "),
        (["--temperature", "-1"], "temperature must be 0 or at least 1e-06"),
    ],
)
def test_eval_refuses(capsys, checkpoint, flags, message):
    assert main(["eval", str(checkpoint), *flags]) == 2
    assert message in capsys.readouterr().err
    assert main(["eval", "absent"]) == 2
    assert "no model folder 'absent'" in capsys.readouterr().err


@pytest.mark.parametrize("terminated, status", [(False, 130), (True, 143)])
def test_a_stop_is_a_status(capsys, checkpoint, tmp_path, monkeypatch, terminated, status):
    from ..evaluation.test_find_edge import Known

    class Stopping(Known):
        def sample(self, problems, n, seed):
            self.stop.requested, self.stop.terminated = True, terminated
            return super().sample(problems, n, seed)

    sampler = Stopping()
    watch = StopRequest.watch

    @contextmanager
    def spied():
        with watch() as sampler.stop:
            yield sampler.stop

    monkeypatch.setattr(StopRequest, "watch", spied)
    monkeypatch.setattr("fastreason.cli.evaluate.load_sampler", lambda *_: sampler)
    flags = [str(checkpoint), "--op", "2-8", *SYMBOLIC]
    assert main(["eval", *flags, "--problems", "1", "--samples", "2", "--out", str(tmp_path)]) == status
    assert "with --resume to continue" in capsys.readouterr().err
    # what is known of the edge is told
    assert main(["edge", *flags, "--samples", "2", "--first", "1"]) == status
    assert capsys.readouterr().out.count(" ?") == 7


def test_edge_prints_a_mixture_for_a_recipe(capsys, checkpoint, monkeypatch):
    from ..evaluation.test_find_edge import Known

    monkeypatch.setattr("fastreason.cli.evaluate.load_sampler", lambda *_: Known())
    assert main(["edge", str(checkpoint), "--op", "2-8", *SYMBOLIC, "--samples", "16"]) == 0
    text = capsys.readouterr().out
    (part,) = tomllib.loads(text[text.index("mixture = [") :])["mixture"]
    assert part["op"] == [4, 5, 6]
    assert part["themes"] == ["symbolic"]


def test_edge_prints_labels_and_writes_json(capsys, checkpoint, tmp_path):
    out = tmp_path / "deep" / "edge.json"
    flags = ["--op", "2-3", *SYMBOLIC, "--samples", "4", "--first", "2", "--problems", "64", "--out", str(out)]
    assert main(["edge", str(checkpoint), *flags]) == 0
    text = capsys.readouterr().out
    assert text.count("out of reach") == 2
    assert "mixture = [" not in text
    results = json.loads(out.read_text())
    assert [cell["op"] for cell in results["cells"]] == [2, 3]
    assert all(cell["label"] == "out of reach" and cell["decided"] for cell in results["cells"])
    assert results["edge"] == []
    # two problems decide nothing
    assert main(["edge", str(checkpoint), *flags, "--problems", "2"]) == 0
    assert capsys.readouterr().out.count("out of reach ?") == 2
    assert main(["edge", str(checkpoint), "--mastered", "2"]) == 2
    assert "0 < reach <= mastered < 1" in capsys.readouterr().err

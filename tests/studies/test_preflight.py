"""What cannot end well is refused before the first step, by `run` and `--dry-run`, and leaves no folder."""

import dataclasses
import sys

import pytest

import fastreason as fr
from fastreason.cli.main import main
from fastreason.evaluation.evaluate import EvaluateSettings
from fastreason.evaluation.find_edge import EdgeSettings
from fastreason.evaluation.samplers import Sampling
from fastreason.rl.edge_curriculum import BanditSettings
from fastreason.rl.loop import PolicySettings
from fastreason.runtime.ranges import TEMPERATURE, Range
from fastreason.studies.preflight import preflight
from fastreason.studies.recipe import available_recipes, load_recipe
from fastreason.studies.study import RangePart, Study, load_study
from fastreason.training.optimizer import OptimSettings
from fastreason.training.supervised_settings import SupervisedSettings

MIXTURE = [{"op": [2], "themes": ["symbolic"]}]
ZOO = [{"until": 1.0, "mixture": [{"op": [6], "themes": ["zoo"]}]}]
LONG_PROMPTS = [{"op": [4, 8], "themes": ["zoo"], "modes": ["forward", "reverse"], "depths": [2, 3]}]


@pytest.mark.parametrize(
    "change, message",
    [
        ({"rl.optim.betas": [0.9, 1.5]}, r"betas must be in 0 <= x < 1, got \(0.9, 1.5\)"),
        ({"rl.temperature": 1e-7}, "rl: temperature must be at least 1e-06, got 1e-07"),
        ({"rl.temperature": float("inf")}, "rl: temperature must be at least 1e-06, got inf"),
        ({"rl.temperature": float("nan")}, "rl: temperature must be at least 1e-06, got nan"),
        ({"evaluate.temperature": 1e-7}, "temperature must be 0 or at least 1e-06, got 1e-07"),
        ({"rl.kl": "k1"}, "kl has no effect without kl_coef"),
        ({"rl.optim.floor": 0.1}, "floor has no effect with schedule 'constant'"),
        ({"midtrain.batch_tokens": 64, "midtrain.phases": ZOO}, r"midtrain: problem \d+ .* a row has only 64 \(batch"),
        (
            {"pretrain.rows": 16, "pretrain.phases": ZOO},
            r"pretrain: problem \d+ .* 64 \(batch_tokens = 1024 in 16",
        ),
        ({"rl.mixture": LONG_PROMPTS}, r"rl: the prompt of problem \d+ \(op .* the model has only 512 positions"),
        ({"rl.mixture": LONG_PROMPTS, "rl.curriculum": "edge"}, "rl: the prompt of problem"),
        ({"evaluate.mixture": LONG_PROMPTS}, "evaluate: a prompt has .* the model has only 512 positions"),
        ({"model.max_position_embeddings": 20}, r"pretrain: problem \d+ .* the model has only 20 positions"),
        ({"rl.max_new_tokens": 10**8, "model.max_position_embeddings": 10**7}, r"rl: generate: kv_memory_mb = 2048 is"),
        (
            {"evaluate.max_new_tokens": 10**8, "model.max_position_embeddings": 10**7},
            "evaluate: .* kv_memory_mb = 2048",
        ),
        ({"rl.kv_memory_mb": 0.001}, r"rl: generate: kv_memory_mb = 0.001 is not enough for one prompt"),
        ({"rl.kv_memory_mb": 0}, "rl: kv_memory_mb must be > 0, got 0"),
        ({"evaluate.kv_memory_mb": 0.001}, r"evaluate: .* kv_memory_mb = 0.001 is not enough"),
        ({"evaluate.kv_memory_mb": float("nan")}, "kv_memory_mb must be > 0, got nan"),
        ({"rl.reward": "no_such_module:f"}, "rl: reward: must be one of"),
        ({"rl.curriculum": "no_such"}, "rl: curriculum must be one of fixed, edge"),
        ({"midtrain.phases": [{"until": 1.0, "mixture": [{"op": [40], "max_sentences": 3}]}]}, "midtrain: .*op 40"),
    ],
)
def test_a_run_that_cannot_end_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        preflight({"run": load_recipe("smoke", change)}, [0])


# with seed 9, problem 32,873 is the first of op 9: its document has 96 tokens, all others at most 41
# and 28 on average; of the split rl it is problem 35,619 with seed 11, whose prompt has 48
EASY = {"op": [2], "themes": ["symbolic"], "max_value": 99, "max_sentences": 3, "weight": 0.99998}
RARE = [EASY, {"op": [9], "themes": ["symbolic"], "max_value": 99, "weight": 0.00002}]
ONLY_EASY = [EASY | {"weight": 1.0}]


def phases(*mixtures):
    return [{"until": (i + 1) / len(mixtures), "mixture": mixture} for i, mixture in enumerate(mixtures)]


@pytest.mark.parametrize(
    "change, is_met",
    [
        ({"pretrain.phases": phases(RARE), "pretrain.tokens": 1_000_000}, True),
        ({"pretrain.phases": phases(RARE), "pretrain.tokens": 850_000}, False),
        ({"pretrain.phases": phases(ONLY_EASY, RARE), "pretrain.tokens": 1_000_000}, True),
        ({"pretrain.phases": phases(RARE, ONLY_EASY), "pretrain.tokens": 1_000_000}, False),
        ({"pretrain.phases": phases(RARE), "pretrain.budget": "40000 samples"}, True),
        ({"rl.mixture": RARE, "rl.steps": 2300, "seed": 11}, True),
        ({"rl.mixture": RARE, "rl.steps": 2100, "seed": 11}, False),
    ],
)
def test_a_rare_problem_is_met_wherever_the_stage_would_meet_it(change, is_met):
    base = {"pretrain.batch_tokens": 64, "pretrain.rows": 1, "pretrain.phases": phases(ONLY_EASY)}
    base |= {"evaluate.mixture": ONLY_EASY, "midtrain.phases": phases(ONLY_EASY), "model.max_position_embeddings": 42}
    recipe = load_recipe("smoke", base | {"rl.mixture": ONLY_EASY, "seed": 9} | change)
    if is_met:
        with pytest.raises(ValueError, match=r"problem (32873|35619) .* (a document of 96|48) tokens"):
            preflight({"run": recipe}, [recipe.seed])
    else:
        preflight({"run": recipe}, [recipe.seed])


def test_what_is_refused_leaves_no_folder(tmp_path):
    with pytest.raises(ValueError, match="rl: the prompt of problem"):
        fr.run("smoke", tmp_path / "run", overrides={"rl.mixture": LONG_PROMPTS})
    assert not (tmp_path / "run").exists()


def test_more_positions_make_room_for_long_prompts():
    changes = {"rl.mixture": LONG_PROMPTS, "model.max_position_embeddings": 2048}
    preflight({"run": load_recipe("smoke", changes)}, [0])


@pytest.mark.parametrize(
    "package, change",
    [
        ("pyarrow", {"evaluate.files": True}),
        ("torch.utils.tensorboard", {"metrics": ["tensorboard"]}),
        ("wandb", {"metrics": ["wandb"]}),
    ],
)
def test_a_package_that_will_be_missed_is_missed_at_once(package, change, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match="pip install"):
        fr.run("smoke", tmp_path / "run", overrides=change)
    assert not (tmp_path / "run").exists()


def test_a_dry_run_refuses_the_same(capsys):
    flags = ["--rl.reward", "no_such_module:f"]
    assert main(["run", "smoke", "--dry-run", *flags]) == 2
    assert "rl: reward: must be one of" in capsys.readouterr().err


def test_a_study_is_planned_for_all_of_its_variants(tmp_path):
    recipe = load_recipe("smoke")
    bad = load_recipe("smoke", {"rl.mixture": LONG_PROMPTS})
    study = Study(name="two", seeds=[0, 1], variants={"good": recipe, "bad": bad})
    with pytest.raises(ValueError, match="rl: the prompt of problem"):
        fr.run(study, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["smoke", "quickstart"])
def test_recipes_that_ship_pass(name):
    preflight({"run": load_recipe(name)}, [0])


@pytest.mark.parametrize("name", [name for name in available_recipes() if name.startswith("finding")])
def test_studies_that_ship_pass(name, monkeypatch):
    monkeypatch.setattr("fastreason.studies.preflight.MOST", 1024)
    study = load_study(name, size="paper")
    preflight(study.variants, study.seeds[:1])


SETTINGS = {
    OptimSettings: {},
    PolicySettings: {"mixture": MIXTURE, "reward": "blended"},
    SupervisedSettings: {"phases": []},
    EvaluateSettings: {"mixture": MIXTURE},
    Sampling: {},
    EdgeSettings: {},
    BanditSettings: {},
    RangePart: {"op": [2]},
}


@pytest.mark.parametrize("kind", SETTINGS)
def test_no_number_of_any_settings_may_be_what_is_not_a_number(kind):
    numbers = [f.name for f in dataclasses.fields(kind) if {"int", "float"} & {*f.type.replace("|", " ").split()}]
    assert numbers
    for name in numbers:
        with pytest.raises(ValueError, match=rf"{name}\b.*nan"):
            kind(**SETTINGS[kind], **{name: float("nan")})


def test_infinity_is_taken_where_it_means_something():
    assert OptimSettings(clip=float("inf")).clip == float("inf")
    assert PolicySettings(mixture=MIXTURE, save_every_s=float("inf"), clip_high=float("inf"))
    for name in ("matrix_lr", "weight_decay", "warmup"):
        with pytest.raises(ValueError, match=f"{name} must be in"):
            OptimSettings(**{name: float("inf")})
    for name in ("kl_coef", "entropy_coef", "clip_dual"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            PolicySettings(mixture=MIXTURE, **{name: float("inf")})


def test_a_range_knows_what_is_in_it():
    assert all(value in Range(0, 1) for value in (0, 1, 0.5, True + 0))
    assert all(value not in Range(0, 1) for value in (-1e-9, 1.01, float("nan"), float("inf"), True, "0", None))
    assert 2.0 not in Range(1, whole=True)
    assert 2**63 not in Range(1, whole=True)
    assert 1e-6 in TEMPERATURE and 0 not in TEMPERATURE


@pytest.mark.parametrize("name", ["../../x", "/tmp/x", "..", "", "a/b", "a\nb", ".hidden"])
def test_a_name_stays_in_its_folder(name):
    with pytest.raises(ValueError, match="name must be at most 100 letters, digits"):
        load_recipe("smoke", {"name": name})
    with pytest.raises(ValueError, match="name must be at most 100 letters, digits"):
        Study(name=name, seeds=[0], variants={"a": load_recipe("smoke")})


@pytest.mark.parametrize("where", ["beside the recipe", "in the current directory"])
def test_a_reward_of_ones_own_is_found(where, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", str(tmp_path))])
    module = "reward_beside" if where == "beside the recipe" else "reward_here"
    (tmp_path / f"{module}.py").write_text("def f(verdicts):\n    return verdicts.verified.astype(float)\n")
    source = "smoke"
    if where == "beside the recipe":
        source = tmp_path / "mine.toml"
        load_recipe("smoke").save(source)
    else:
        monkeypatch.chdir(tmp_path)
    preflight({"run": load_recipe(source, {"rl.reward": f"{module}:f"})}, [0])

"""A few of the random recipes of tests/torture/recipes.py, which tries many."""

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings

from tests.torture.recipes import OVERRIDES, outcome_of


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(OVERRIDES)
def test_a_recipe_runs_or_is_refused_before_the_first_step(overrides):
    with TemporaryDirectory() as folder:
        outcome_of(overrides, Path(folder) / "run")


def test_what_is_odd_but_means_something_runs(tmp_path):
    odd = {"pretrain.optim.clip": float("inf"), "rl.save_every_s": float("inf"), "rl.clip_high": float("inf")}
    odd |= {
        "rl.kl_coef": 0.1,
        "rl.kl": "exact",
        "rl.loss": "dapo",
        "pretrain.validate_every": 1,
        "evaluate.temperature": 0.0,
    }
    assert outcome_of(odd, tmp_path / "run") == "ran"

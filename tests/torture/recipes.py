"""Random recipes: each one that loads runs two steps of every stage, or is rejected before the first.

    python -m tests.torture.recipes [--number 200] [--seconds 60] [--seed 0] [--json]

prints how many ran and how many were rejected, and stops at the first that did neither.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import fastreason as fr
from fastreason.studies.recipe import load_recipe

# two steps of each stage, whatever else is drawn
TWO_STEPS = {"rl.steps": 2, "rl.prompts": 2, "rl.samples": 2, "evaluate.problems": 1, "evaluate.samples": 2}
TWO_STEPS |= {"evaluate.k": [1, 2], "model.hidden_size": 16, "model.num_hidden_layers": 1, "threads": 1}

_part = st.fixed_dictionaries(
    {"op": st.lists(st.integers(2, 9), min_size=1, max_size=2, unique=True)},
    optional={
        "themes": st.lists(st.sampled_from(["symbolic", "zoo", "school"]), min_size=1, max_size=2, unique=True),
        "modes": st.sampled_from([["forward"], ["reverse"], ["forward", "reverse"]]),
        "depths": st.sampled_from([[2], [3], [2, 3]]),
        "max_value": st.sampled_from([20, 99, 1000]),
        "max_sentences": st.integers(2, 50),
        "weight": st.sampled_from([0.5, 1.0, float("nan"), float("inf"), 0.0]),
    },
)
_mixture = st.lists(_part, min_size=1, max_size=2)
_number = st.sampled_from([0.0, 1e-7, 1e-3, 0.2, 0.5, 1.0, 1.5, 3.0, float("nan"), float("inf"), -1.0])
_count = st.sampled_from([-1, 0, 1, 2, 3])
_losses = ["grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "reinforce_plus_plus", "reinforce"]

_optim = {
    "betas": st.tuples(_number, _number), "clip": _number, "weight_decay": _number, "warmup": _number, "floor": _number,
    "schedule": st.sampled_from(["cosine", "linear", "wsd", "constant"]),
    "matrices": st.sampled_from(["muon", "adamw"]),
    "decay_embeddings": st.booleans(),
}  # fmt: skip
_supervised = {
    "batch_tokens": st.sampled_from([64, 256, 1024]), "rows": st.sampled_from([1, 2, 5]), "prefetch": _count,
    "accumulate": _count, "loss_on": st.sampled_from(["solution", "all"]), "save_every_s": _number, "keep": _count,
    "validate_every": _count, "validation_tokens": st.sampled_from([10, 64, 500]),
}  # fmt: skip
FIELDS: dict[str, st.SearchStrategy] = {
    **{f"{stage}.{name}": s for stage in ("pretrain", "midtrain") for name, s in _supervised.items()},
    **{f"{stage}.optim.{name}": s for stage in ("pretrain", "midtrain", "rl") for name, s in _optim.items()},
    **{f"{stage}.phases": _mixture.map(lambda m: [{"until": 1.0, "mixture": m}]) for stage in ("pretrain", "midtrain")},
    **{f"rl.{name}": _number for name in ("temperature", "kl_coef", "entropy_coef", "clip_low", "clip_high")},
    **{f"rl.{name}": _number for name in ("clip_dual", "outcome_weight", "save_every_s")},
    **{f"rl.edge.{name}": _number for name in ("discount", "floor", "mastered")},
    **{f"rl.{name}": _count for name in ("epochs", "minibatches", "accumulate", "max_draws", "keep", "max_new_tokens")},
    "rl.loss": st.sampled_from(_losses), "rl.kl": st.sampled_from(["k1", "k2", "k3", "exact"]), "rl.mixture": _mixture,
    "rl.reward": st.sampled_from(["outcome", "blended", "strict", "steps", "os:getcwd", "nowhere:f"]),
    "rl.curriculum": st.sampled_from(["fixed", "edge", "other"]), "rl.credit": st.sampled_from(["step", "return"]),
    "rl.truncated": st.sampled_from(["zero", "mask", "keep"]), "rl.count_zero_advantage": st.booleans(),
    "evaluate.mixture": _mixture, "evaluate.files": st.booleans(), "evaluate.max_new_tokens": _count,
    **{f"evaluate.{name}": _number for name in ("temperature", "top_p", "min_p")}, "evaluate.traces": _count,
    "model.rope_theta": _number, "model.num_attention_heads": st.sampled_from([1, 2, 3, 4, 8]),
    "model.num_key_value_heads": st.sampled_from([1, 2]),
    "model.max_position_embeddings": st.sampled_from([64, 256, 2048]),
    "metrics": st.sampled_from([[], ["tensorboard"]]), "seed": st.sampled_from([0, 5, 2**63 - 1, -1]),
}  # fmt: skip
OVERRIDES = st.lists(st.sampled_from(sorted(FIELDS)), max_size=6, unique=True).flatmap(
    lambda names: st.fixed_dictionaries({name: FIELDS[name] for name in names})
)


def outcome_of(overrides: dict[str, object], folder: Path) -> str:
    """What becomes of a recipe: "no recipe", "refused", "not finite" or "ran"; anything else is an error."""
    overrides = TWO_STEPS | overrides
    try:
        for stage in ("pretrain", "midtrain"):
            batch = overrides.get(f"{stage}.batch_tokens", 256)
            overrides |= {f"{stage}.batch_tokens": batch, f"{stage}.tokens": int(batch) + 1}
        recipe = load_recipe("smoke", overrides)
    except ValueError:
        return "no recipe"
    try:
        fr.run(recipe, folder)
    except (ValueError, ModuleNotFoundError):  # bad, or a tracker's package is not installed
        if folder.exists():
            raise
        return "refused"
    except FloatingPointError:  # numbers are drawn without mercy
        return "not finite"
    return "ran"


def torture(number: int, seconds: float, first: int) -> Counter[str]:
    """Counts of outcomes of at most `number` recipes, none begun after `seconds`."""
    outcomes: Counter[str] = Counter()
    end = time.monotonic() + seconds

    @seed(first)
    @settings(max_examples=number, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(OVERRIDES)
    def try_all(overrides: dict[str, object]) -> None:
        if time.monotonic() < end:
            with tempfile.TemporaryDirectory() as folder:
                outcomes[outcome_of(overrides, Path(folder) / "run")] += 1

    try_all()
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.torture.recipes")
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the counts as one line of JSON")
    options = parser.parse_args()
    outcomes = torture(options.number, options.seconds, options.seed)
    if options.json:
        print(json.dumps(outcomes))
    else:
        print(", ".join(f"{outcome}: {count}" for outcome, count in outcomes.most_common()))


if __name__ == "__main__":
    main()

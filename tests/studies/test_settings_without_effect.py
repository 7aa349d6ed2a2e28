"""Settings that a study would not read are errors, and not silently another study."""

import pytest

from fastreason.studies.study import load_study


@pytest.mark.parametrize(
    "text, message",
    [
        ('compute = "1e12 flop"', "compute has no effect, since no variant has a beta or a split"),
        ("k = 4", "k has no effect, since there are no claims"),
        ('[[variants]]\nname = "a"\ntimes = 3', "variants: a: times has no effect, without a split"),
        (
            '[[variants]]\nname = "a"\nseed = 3',
            "variants: a: seed has no effect, since every variant is run with every",
        ),
    ],
)
def test_what_a_study_would_not_read_is_refused(text, message, tmp_path):
    (tmp_path / "mine.toml").write_text(f'base = "smoke"\n{text}\n')
    with pytest.raises(ValueError, match=message):
        load_study(tmp_path / "mine.toml")


def test_a_seed_that_seeds_replace_is_refused(tmp_path):
    """It looked like a run with this seed, and was one with those of the study."""
    for name, more in (("finding-3-midtrain", {"size": "laptop"}), ("smoke", {"seeds": [1, 2]})):
        with pytest.raises(ValueError, match=r"seed \(--seed\) has no effect, since seeds \(--seeds\) replace it"):
            load_study(name, {"seed": 7}, **more)
    assert load_study("smoke", {"seed": 7}).seeds == [7]


def test_a_recipe_takes_no_question_from_its_base(tmp_path):
    (tmp_path / "mine.toml").write_text('base = "finding-3-midtrain"\nname = "mine"\n')
    study = load_study(tmp_path / "mine.toml", size="laptop")
    assert (list(study.variants), study.claims) == (["mine"], [])

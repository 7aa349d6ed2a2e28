"""Themes and rewards of other installed packages."""

import sys

import numpy as np
import pytest

import fastreason as fr
from fastreason.cli.main import main
from fastreason.grading.rewards import reward_function, reward_names
from fastreason.integrations.text_reward import TextReward
from fastreason.text import theme

HARBOUR = """
style = "symbolic"
places = [["Quay", "Pier", "Bay", "Dock", "Reef"]]
kinds = [["a", "b", "c", "d", "e"]]
"""
CODE = """
def sound(verdicts):
    return verdicts.sound.astype("float32")

NUMBER = 3
"""
GOLD = fr.TaskStream(fr.Mixture.uniform(op=[3], themes=["symbolic"]), seed=0)[0:1].solutions[0]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Installs a package of this name with these entry points, as pip leaves one."""

    def install(name: str, **entry_points: str) -> None:
        site = tmp_path / name
        package, metadata = site / name, site / f"{name}-1.0.dist-info"
        for folder in (package, metadata):
            folder.mkdir(parents=True)
        (package / "__init__.py").write_text(CODE)
        (package / "harbour.toml").write_text(HARBOUR)
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [f"[fastreason.{group}]\n{text}\n" for group, text in entry_points.items()]
        (metadata / "entry_points.txt").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(site)
        forget()

    yield install
    monkeypatch.undo()
    forget()
    for name in [name for name in sys.modules if name.startswith("portwords")]:
        del sys.modules[name]


def forget():
    theme.available_themes.cache_clear()
    theme.load_theme.cache_clear()


def test_a_package_adds_a_theme(installed, capsys):
    installed("portwords", themes="harbour = portwords")
    assert "harbour" in fr.available_themes()
    assert "portwords" not in sys.modules  # a list of names imports nothing
    batch = fr.TaskStream(fr.Mixture.uniform(op=[3], themes=["harbour"]), seed=0)[0:4]
    assert "Quay" in " ".join(batch.prompts)
    assert fr.grade(batch, batch.solutions).verified.all()
    assert main(["themes"]) == 0
    assert "harbour" in capsys.readouterr().out


def test_a_package_adds_a_reward(installed):
    installed("portwords", rewards="sound = portwords:sound")
    assert reward_names() == (*fr.rewards.REWARDS, "sound")
    assert fr.load_recipe("smoke", {"rl.reward": "sound"}).rl.reward == "sound"
    assert TextReward("sound").score([GOLD, GOLD], [GOLD, "Answer: 1."])[0].tolist() == [1.0, 0.0]
    verdicts = fr.grade_texts([GOLD], [GOLD])
    samples = type("Samples", (), {"lengths": np.array([1]), "tokens": np.zeros((1, 1))})
    assert reward_function("sound")(None, samples, verdicts).tolist() == [1.0]


def theme_of(name):
    return lambda: fr.Theme.load(name)


@pytest.mark.parametrize(
    "entry_points, call, message",
    [
        ({"themes": "pier = portwords"}, theme_of("pier"), "pier = 'portwords' of 'portwords': there is no file pier"),
        ({"themes": "pier = portwords.no"}, theme_of("pier"), "pier = 'portwords.no' of 'portwords': No module named"),
        ({"themes": "zoo = portwords"}, fr.available_themes, "'zoo' of 'portwords' has the name of one that ships"),
        ({"rewards": "strict = portwords:sound"}, reward_names, "'strict' of 'portwords' has the name of one that"),
        ({"rewards": "x = portwords:none"}, lambda: reward_function("x"), "x = 'portwords:none' of 'portwords': mod"),
        ({"rewards": "x = portwords:NUMBER"}, lambda: reward_function("x"), "'x' must be a function, got int"),
        ({}, lambda: reward_function("sound"), "must be one of outcome, .* got 'sound'"),
    ],
)
def test_an_entry_point_that_leads_nowhere(installed, entry_points, call, message):
    installed("portwords", **entry_points)
    with pytest.raises(ValueError, match=message):
        call()


def test_two_packages_with_one_name(installed):
    for name in ("portwords", "portwords_too"):
        installed(name, themes=f"harbour = {name}")
    with pytest.raises(ValueError, match=r"'harbour' is in both 'portwords.*' and 'portwords.*'; uninstall one"):
        fr.available_themes()

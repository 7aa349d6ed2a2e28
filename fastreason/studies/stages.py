"""The stages of a recipe: an ordered list, each of a kind, that begins from the model of another.

    [[stages]]
    name = "base"
    kind = "supervised"
    tokens = 6_000_000
    mixture = "base"                 # one phase of a supervised stage
    [[stages]]
    name = "rl"
    kind = "rl"
    mixture = "edge"
    evaluate = false                 # no evaluation after it
    [[stages]]
    name = "again"
    like = "base"                    # takes its fields from a stage above
    start_from = "rl"                # default: the stage before; a stage above, or a model's folder or name
    tokens = 1_000_000

    [[stages]]
    name = "tiny-base"
    kind = "model"                   # no training: a model that exists, to be evaluated and begun from
    start_from = "fastreason/tiny-base"

A table of the name of a stage changes its fields, in a variant or from outside: `again.tokens = 500_000`. The tables
`[pretrain]`, `[midtrain]` and `[rl]` are the short form of three stages of these names, in this order.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..rl.self_settings import SelfSettings
from ..rl.settings import PolicySettings
from ..tasks.mixture import Mixture
from ..training.supervised_settings import SupervisedSettings
from .fields import merge, validated, without_none


@dataclass(frozen=True)
class NoSettings:
    """A stage without training has no settings."""

    __pydantic_config__ = {"extra": "forbid"}

    @property
    def mixtures(self) -> list[Mixture]:
        return []


Kind = Literal["supervised", "rl", "self", "model"]
StageSettings = SupervisedSettings | PolicySettings | SelfSettings | NoSettings
KINDS: Mapping[str, type[StageSettings]] = {
    "supervised": SupervisedSettings,
    "rl": PolicySettings,
    "self": SelfSettings,
    "model": NoSettings,
}
SHORT_FORM: Mapping[str, Kind] = {
    "pretrain": "supervised",
    "midtrain": "supervised",
    "rl": "rl",
}
"""The kind of each stage that has a table of its own."""
# fields of recipes and studies, which a stage cannot be called
_TAKEN = {
    "name", "model", "evaluate", "stages", "seed", "threads", "device", "metrics", "in_distribution", "edge", "seeds",
    "variants", "claims", "ranges", "compute", "about", "k", "sizes", "mixtures", "note", "remove", "beta",
    "split", "times", "like",
}  # fmt: skip


class _Titles(dict[str, str]):
    """The titles of known stages; all others are called by their names."""

    def __missing__(self, name: str) -> str:
        return name


STAGE_NAMES = _Titles(pretrain="pre-training", midtrain="mid-training", rl="reinforcement learning")
"""What reports call each stage."""


@dataclass(frozen=True)
class Stage:
    """A stage of a recipe."""

    name: str
    """Its name, unique in the recipe: that of its checkpoint, and in metrics, pages and claims."""
    kind: Kind
    """supervised; rl; self: supervised on the model's own verified samples; or model: that of `start_from` as it is."""
    settings: StageSettings
    """The settings of its kind."""
    start_from: str | None = None
    """The stage above, or the folder, whose model it begins from; default: the stage before, for the first new
    weights."""
    evaluate: bool = True
    """Whether the model is evaluated after it."""

    def __post_init__(self) -> None:
        # links to kept checkpoints are named NAME-best and so on
        wrong = not re.fullmatch(r"[A-Za-z]\w*(-\w+)*", self.name) or re.search(
            r"-(best|failed|reference|\d{8,})$", self.name
        )
        if wrong or self.name in _TAKEN or len(self.name) > 60:
            raise ValueError(
                "stages: a name must be of letters, digits, - and _, begin with a letter, and be no other field of a "
                f"recipe, got {self.name!r}"
            )

        if self.kind == "model" and self.start_from is None:
            raise ValueError(
                f"stages: {self.name}: a stage of kind model needs start_from, a folder or name of a model"
            )

    @property
    def split(self) -> str | None:
        """The split that its problems are of; None: it draws none."""
        if isinstance(self.settings, NoSettings):
            return None
        return "train" if type(self.settings) is SupervisedSettings else "rl"

    def to_dict(self) -> dict[str, Any]:
        """As in a file: the settings beside the name."""
        own = {"name": self.name, "kind": self.kind, "start_from": self.start_from}
        evaluate = {} if self.evaluate else {"evaluate": False}
        return without_none({**own, **evaluate, **asdict(self.settings)})


def read_stage(values: Any) -> Stage:
    """A stage from its table.

    Raises:
        ValueError: a field is missing, unknown or out of range; the message names the stage.
    """
    if isinstance(values, Stage):
        return values
    if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
        raise ValueError(f"must be a table with a name, got {values!r:.80}")
    rest = dict(values)
    name, kind = rest.pop("name"), rest.pop("kind", None)
    if kind not in KINDS:
        raise ValueError(f"{name}: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    start_from, evaluate = rest.pop("start_from", None), rest.pop("evaluate", True)
    if not isinstance(start_from, str | None) or not isinstance(evaluate, bool):
        raise ValueError(f"{name}: start_from must be a name or a folder, evaluate true or false")
    return Stage(name, kind, validated(KINDS[kind], rest, name), start_from, evaluate)


def spell_stages(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a recipe with its stages spelled out: tables of the name of a stage are merged into it, `like` is
    replaced by the fields it stands for, and `mixture` of a supervised stage by a phase.

    >>> stages = [{"name": "a", "kind": "rl", "steps": 3}, {"name": "b", "like": "a"}]
    >>> spell_stages({"stages": stages, "a": {"steps": 5}})
    {'stages': [{'name': 'a', 'kind': 'rl', 'steps': 5}, {'name': 'b', 'kind': 'rl', 'steps': 5}]}
    """
    spelt = dict(values)
    tables = spelt.get("stages")
    if isinstance(tables, list) and all(isinstance(each, Mapping) and "name" in each for each in tables):
        changed = [merge(each, spelt.pop(str(each["name"]), {})) for each in tables]
        spelt["stages"] = _without_like(changed)
    for name, kind in SHORT_FORM.items():
        if isinstance(spelt.get(name), Mapping):
            spelt[name] = _with_phases(spelt[name], kind)
    return spelt


def _without_like(tables: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for table in tables:
        name, like = str(table["name"]), table.pop("like", None)
        if like is not None:
            if like not in found:
                raise ValueError(f"stages: {name}: like must be a stage above it, got {like!r}")
            taken = {key: value for key, value in found[like].items() if key not in ("start_from", "evaluate")}
            table = merge(taken, table)
        if name in found:
            raise ValueError(f"stages: there are two stages {name!r}")
        found[name] = _with_phases(table, table.get("kind"))
    return list(found.values())


def _with_phases(table: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    if kind == "rl" or "mixture" not in table:
        return dict(table)
    if "phases" in table:
        raise ValueError("a supervised stage has either a mixture or phases")
    rest = {name: value for name, value in table.items() if name != "mixture"}
    return {**rest, "phases": [{"until": 1.0, "mixture": table["mixture"]}]}


def without_stages(values: Mapping[str, Any], removed: list[str]) -> dict[str, Any]:
    """The spelled values of a recipe without some of its stages.

    Raises:
        ValueError: there is no stage of this name.
    """
    tables = values.get("stages")
    known = [each["name"] for each in tables] if tables else list(SHORT_FORM)
    if unknown := set(removed) - set(known):
        raise ValueError(f"remove must be of {', '.join(known)}, got {sorted(unknown)[0]!r}")
    if tables:
        return {**values, "stages": [each for each in tables if each["name"] not in removed]}
    return {name: value for name, value in values.items() if name not in removed}


def seed_of_draw(seed: int, draw: int) -> int:
    """The seed of a stage before which `draw` stages have drawn from the same split, so that it draws other problems.

    >>> seed_of_draw(5, 0)
    5
    """
    if not draw:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {draw}".encode()).digest()[:8], "big") >> 1

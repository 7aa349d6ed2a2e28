"""What other installed packages add, found by the entry points of their metadata.

In the pyproject.toml of such a package:

    [project.entry-points."fastreason.themes"]
    harbour = "my_package.words"            # a package that holds harbour.toml
    [project.entry-points."fastreason.rewards"]
    sound = "my_package.rewards:sound"      # a function of a `Verdicts`
"""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import EntryPoint, entry_points

THEMES, REWARDS = "fastreason.themes", "fastreason.rewards"


def plugins(group: str, own: Collection[str]) -> dict[str, EntryPoint]:
    """The entry points of a group by name, sorted; nothing of other packages is imported.

    Args:
        group: THEMES or REWARDS.
        own: names of what ships with fastreason, which no package may replace.
    Raises:
        ValueError: a name is taken, or used by two packages; the message names them.
    """
    found: dict[str, EntryPoint] = {}
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        if point.name in own:
            raise ValueError(f"{group}: {point.name!r} of {_package(point)} has the name of one that ships; rename it")
        if point.name in found and point.value != found[point.name].value:
            both = f"{_package(found[point.name])} and {_package(point)}"
            raise ValueError(f"{group}: {point.name!r} is in both {both}; uninstall one of them")
        found[point.name] = point
    return found


def plugin_error(group: str, point: EntryPoint, error: object) -> ValueError:
    """For an entry point that leads nowhere."""
    return ValueError(f"{group}: {point.name} = {point.value!r} of {_package(point)}: {error}")


def _package(point: EntryPoint) -> str:
    return repr("an unnamed package" if point.dist is None else point.dist.name)

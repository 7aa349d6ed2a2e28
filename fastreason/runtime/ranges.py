"""Ranges of settings, with the same rules for every settings class.

NaN is in no range, and infinity only in those where it has a meaning ("never", "no clipping").
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from .annotated_types import describe, fits
from .arguments import as_written
from .json_files import shown


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`.

    >>> 0.5 in Range(0, 1), math.nan in Range(0, 1), 1 in Range(0, 1, open_high=True)
    (True, False, False)
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    """Whether `low` itself is excluded."""
    open_high: bool = False
    """Whether `high` itself is excluded."""
    or_zero: bool = False
    """Whether 0 is also allowed although it is below `low`."""
    infinite: bool = False
    """Whether infinity is allowed."""
    whole: bool = False
    """Whether only integers are allowed; bools and floats with an integral value are not integers."""

    def __contains__(self, value: object) -> bool:
        kind = numbers.Integral if self.whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, kind):
            return False
        number = int(value) if isinstance(value, numbers.Integral) else float(value)
        if self.whole and not -(2**63) <= number < 2**63:
            return False
        if self.or_zero and number == 0:
            return True
        # every comparison with NaN is false
        above = self.low < number if self.open_low else self.low <= number
        below = number < self.high if self.open_high else number <= self.high
        return above and below and (self.infinite or abs(number) != math.inf)

    def __str__(self) -> str:
        if self.high == math.inf and self.low == -math.inf:
            text = "a finite number" if not self.infinite else "a number"
        elif self.high == math.inf:
            text = f"> {as_written(self.low)}" if self.open_low else f"at least {as_written(self.low)}"
        elif self.open_low or self.open_high:
            low, high = "<" if self.open_low else "<=", "<" if self.open_high else "<="
            text = f"in {as_written(self.low)} {low} x {high} {as_written(self.high)}"
        else:
            text = f"in {as_written(self.low)} .. {as_written(self.high)}"
        return "0 or " + text if self.or_zero else text


POSITIVE = Range(0, open_low=True)
SHARE = Range(0, 1)
COUNT = Range(1, whole=True)
COUNT_OR_ZERO = Range(0, whole=True)
SEED = Range(0, 2**63 - 1, whole=True)
SECONDS_BETWEEN = Range(0, infinite=True)
"""Infinity: never."""
TEMPERATURE = Range(1e-6)
"""Dividing the largest float32 logits by less would overflow; `fastreason.kernels.sample` has the same limit."""
TEMPERATURE_OR_GREEDY = Range(1e-6, or_zero=True)


def check_settings(owner: str, settings: Any, ranges: Mapping[str, Range]) -> None:
    """Checks every field of a settings object against its annotation, and those in `ranges` against their range.

    None passes a range, and lists and tuples are checked by item.

    Raises:
        ValueError: names the owner, the field, what it may be and its value.
    """
    for name, hint in get_type_hints(type(settings)).items():
        value, allowed = getattr(settings, name), ranges.get(name)
        for item in value if isinstance(value, list | tuple) else (value,):
            if allowed is not None and item is not None and item not in allowed:
                raise ValueError(f"{owner}: {name} must be {allowed}, got {shown(value)}")
        if not fits(value, hint):
            raise ValueError(f"{owner}: {name} must be {describe(hint)}, got {shown(value)}")

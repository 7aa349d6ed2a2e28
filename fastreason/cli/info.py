"""The command `info` with flags: what a mixture holds, and the JSON Schema of recipes."""

from __future__ import annotations

import json

from ..runtime.arguments import number
from ..runtime.json_files import to_json
from ..tasks.graph_census import DRAWS, count_graphs, format_graphs
from ..tasks.mixture import Mixture, available_mixtures
from .parser import Parser


def info_command(arguments: list[str]) -> int:
    """`fastreason info` with flags; returns the exit status."""
    parser = Parser(
        prog="fastreason info",
        description="Without flags, this machine; otherwise a mixture or the schema of recipes.",
    )
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--schema", action="store_true", help="print the JSON Schema of recipe files, for editors")
    asked.add_argument(
        "--mixture",
        metavar="NAME|JSON",
        help=f"{', '.join(available_mixtures())}, or parts as recipes have them: "
        '\'[{"op": [2, 3], "themes": ["symbolic"]}]\'',
    )
    parser.add_argument("--tokens", type=float, metavar="N", help="of training, for example 14e6: what they show")
    parser.add_argument(
        "--draws", type=int, default=DRAWS, metavar="N", help=f"problems of an op to estimate from (default {DRAWS:,})"
    )
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="default 0: all cores")
    options = parser.parse_args(arguments)
    if options.schema:
        from ..studies.recipe_schema import recipe_schema

        print(to_json(recipe_schema(), indent=1))
        return 0
    if options.draws < 2:
        raise ValueError(f"--draws must be at least 2, got {options.draws}")
    if options.tokens is not None:
        number("--tokens", options.tokens, 0.0, above_low=True)
    mixture = read_mixture(options.mixture)
    print(f"{len(mixture.weights)} cells, themes {', '.join(mixture.themes)}")
    rows = count_graphs(mixture, draws=options.draws, threads=options.threads)
    print(format_graphs(rows, options.tokens))
    return 0


def read_mixture(text: str) -> Mixture:
    """A mixture by its name, or by its parts as JSON."""
    if not text.lstrip().startswith(("[", "{")):
        return Mixture.preset(text)
    try:
        parts = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"--mixture is no JSON ({error.msg} at character {error.pos}): {text!r}") from None
    return Mixture.from_dict(parts)

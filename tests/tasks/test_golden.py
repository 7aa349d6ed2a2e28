"""Documents never change unnoticed: a hash of some of them for every mode, depth, theme and op.

A change of the law, of a text or of the random numbers changes golden.json, which is then recorded anew with a reason:

    python -m tests.tasks.test_golden
"""

import hashlib
import json
from pathlib import Path

import pytest

import fastreason as fr
from fastreason.tasks.mixture import MAX_OP, MIN_OP, MODES

GOLDEN = Path(__file__).with_name("golden.json")
KINDS = [
    *((theme, mode, depth) for theme in ("zoo", "school", "festival") for mode in MODES for depth in (2, 3)),
    ("symbolic", "forward", 2),
]


def digest(mixture: fr.Mixture) -> str:
    documents = [
        document
        for split, n in (("train", 8), ("test", 2))
        for document in fr.TaskStream(mixture, seed=42, split=split)[0:n].documents
    ]
    return hashlib.sha256("\n".join(documents).encode()).hexdigest()[:16]


def digests(theme: str, mode: str, depth: int) -> dict[str, str]:
    def of(op, **settings):
        return digest(fr.Mixture.uniform(op=op, themes=[theme], modes=[mode], depths=[depth], **settings))

    found = {f"op {op}": of([op]) for op in range(MIN_OP, MAX_OP + 1)}
    found["no circles"] = of([3, 8], circular_distractors=False)
    if theme != "symbolic":
        found["padded"] = of([3, 8], context=500)
    return found


@pytest.mark.parametrize("theme, mode, depth", KINDS)
def test_documents_never_change_unnoticed(theme, mode, depth):
    wanted = json.loads(GOLDEN.read_text())[f"{theme}, {mode}, depth {depth}"]
    assert digests(theme, mode, depth) == wanted


if __name__ == "__main__":
    recorded = {f"{theme}, {mode}, depth {depth}": digests(theme, mode, depth) for theme, mode, depth in KINDS}
    GOLDEN.write_text(json.dumps(recorded, indent=1) + "\n")

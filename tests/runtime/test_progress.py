"""Progress bars."""

import gc
import sys

import pytest

from fastreason.runtime import progress


@pytest.mark.parametrize("at", ["_get_free_pos", "refresh", "_time", "__init__", None])
def test_a_bar_that_a_signal_interrupts_as_it_begins_is_silent(monkeypatch, capsys, at):
    """Ctrl-C and SIGTERM raise KeyboardInterrupt anywhere in tqdm's constructor."""

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    said = []
    monkeypatch.setattr(sys, "unraisablehook", said.append)
    if at == "_time":
        monkeypatch.setattr(progress._Bar, "refresh", lambda bar, **_: setattr(bar, "_time", interrupt))
    elif at is not None:
        monkeypatch.setattr(progress._Bar, at, interrupt)
    if at is None:
        with progress.progress_bar("whole", 3) as bar:
            bar.update(3)
    else:
        with pytest.raises(KeyboardInterrupt):
            progress.progress_bar("interrupted", 3)
    gc.collect()
    assert said == []
    assert ("whole" in capsys.readouterr().err) == (at is None)

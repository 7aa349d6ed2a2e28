"""Locks on folders, for processes on one or several machines that share a file system.

A lock is a folder `owner-0001`, written under another name and renamed into place, so it always identifies its owner.
Nobody removes another's lock: a process that finds an owner dead, or its lock released, takes the next number. Renaming
onto a non-empty folder fails, so of several contenders exactly one gets a number; the highest number counts.

An owner is dead if it ran on this machine and its process, identified by its start time, is gone; or if it ran
elsewhere and its heartbeat has not changed for `STALE_S` seconds of the observer's own clock. Clocks of different
machines are never compared.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .files import flush
from .json_files import to_json
from .processes import process_start, this_process

BEAT_S = 5.0
STALE_S = 120.0
# (lock folder) -> (heartbeat, when this process first saw it)
_seen: dict[Path, tuple[str, float]] = {}


class Lock:
    """A lock held by this process, created by `acquire`. A background thread updates the heartbeat."""

    def __init__(self, folder: Path, on_lost: Callable[[], None]) -> None:
        self.folder, self._on_lost = folder, on_lost
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    @classmethod
    def acquire(cls, place: Path, on_lost: Callable[[], None] = lambda: None) -> Lock | None:
        """Locks the folder `place`, creating it if needed; None if somebody else holds the lock.

        Args:
            on_lost: called from another thread if this process was considered dead and another one took over.
        """
        place.mkdir(parents=True, exist_ok=True)
        last = _last_owner(place)
        if last is not None and not _is_free(last):
            return None
        number = 1 + (0 if last is None else int(last.name.rpartition("-")[2]))
        temporary = place / f"owner-new-{uuid.uuid4().hex}"
        target = place / f"owner-{number:04d}"
        try:
            temporary.mkdir()
            (temporary / "owner.json").write_text(to_json(this_process()), encoding="utf-8")
            flush(temporary / "owner.json")  # so that no power failure leaves an unidentified owner
            flush(temporary)
        except FileNotFoundError:  # the previous owner has just removed the folder
            return None
        try:
            temporary.rename(target)
        except OSError:  # another process was faster
            shutil.rmtree(temporary, ignore_errors=True)
            return None
        return cls(target, on_lost)

    def release(self) -> None:
        """Releases the lock; the folder remains as a mark."""
        self._stop.set()
        self._thread.join()
        (self.folder / "released").touch()

    def withdraw(self) -> None:
        """Releases the lock after no work was needed, leaving no mark."""
        self._stop.set()
        self._thread.join()
        shutil.rmtree(self.folder, ignore_errors=True)

    def remove(self) -> None:
        """Releases the lock and removes the whole lock folder at once, leaving no mark."""
        self._stop.set()
        self._thread.join()
        if self._is_ours():
            place = self.folder.parent
            trash = place.with_name(f"{place.name}-{uuid.uuid4().hex}")
            place.rename(trash)  # so that nobody sees it half removed
            shutil.rmtree(trash, ignore_errors=True)

    def _is_ours(self) -> bool:
        return _last_owner(self.folder.parent) == self.folder and _owner(self.folder) == this_process()

    def _beat(self) -> None:
        count = 0
        while not self._stop.wait(BEAT_S):
            count += 1
            try:
                (self.folder / "heartbeat").write_text(str(count), encoding="utf-8")
                ours = self._is_ours()
            except OSError:
                ours = False  # the folder is gone
            if not ours:
                self._on_lost()
                return


@contextmanager
def held(place: Path, what: str, on_lost: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Holds the lock of the folder `place`, which exists only while it is held.

    An owner on another machine that may be dead is watched for up to `STALE_S` seconds.

    Args:
        what: what is locked, for the message.
        on_lost: see `Lock.acquire`.
    Raises:
        ValueError: another process holds it; the message says which.
    """
    seen: tuple[Path, str] | None = None
    while (lock := Lock.acquire(place, on_lost)) is None:
        last = _last_owner(place)
        if last is None or _is_free(last):
            continue  # it has just been released
        owner, before = _owner(last) or {}, seen
        seen = (last, _heartbeat(last))
        if _is_here(owner) or before not in (None, seen):
            raise ValueError(
                f"{what} is in use by process {owner.get('pid', '?')} on {owner.get('host', 'another machine')}; wait "
                "for it, or stop it first"
            )
        time.sleep(1.0)
    try:
        yield
    finally:
        lock.remove()


def _owner(lock: Path) -> dict[str, Any] | None:
    """The owner; None if it cannot be read."""
    try:
        owner = json.loads((lock / "owner.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    known = isinstance(owner, dict) and this_process().keys() <= owner.keys()
    return owner if known else None


def _is_here(owner: dict[str, Any]) -> bool:
    here = this_process()
    return all(owner.get(key) == here[key] for key in ("host", "boot", "namespace"))


def _heartbeat(lock: Path) -> str:
    try:
        return (lock / "heartbeat").read_text(encoding="utf-8")
    except OSError:
        return ""


def _last_owner(place: Path) -> Path | None:
    return max((p for p in place.glob("owner-[0-9]*") if p.is_dir()), default=None)


def _is_free(lock: Path) -> bool:
    """Whether the owner has released the lock or is dead."""
    if (lock / "released").exists():
        return True
    owner, here = _owner(lock), this_process()
    if owner is not None:
        if _is_here(owner):
            return process_start(owner["pid"]) is None or process_start(owner["pid"]) != owner["start"]
        if all(owner[key] == here[key] for key in ("host", "namespace")) and owner["boot"] and here["boot"]:
            return True  # this machine has been rebooted since
    # the owner is elsewhere or cannot be read
    beat, now = _heartbeat(lock), time.monotonic()
    if lock not in _seen or _seen[lock][0] != beat:
        _seen[lock] = (beat, now)
    return now - _seen[lock][1] > STALE_S

"""One run per workdir: a lock file that names the process that holds it.

It works on network file systems and across hosts. The file is created by a hard link, which is atomic there too; a process of
the same machine is asked for by its number and start time, one of another machine by the file's time, which the owner renews.
"""

import contextlib
import errno
import json
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxplm.data.atomic import existing_parent
from jaxplm.devices import stop_signals
from jaxplm.errors import UserError

NAME = ".lock"
_RENEWED_EVERY = 15.0  # seconds
# A lock of another machine that was not renewed for so long belongs to nobody. Network file systems show times up to a minute late.
_STALE_AFTER = 120.0
_TAKEOVER_SECONDS = 30.0  # a takeover takes milliseconds: one that is older was killed in it


@contextlib.contextmanager
def held_by_first(workdir: Path) -> Iterator[None]:
    """Hold the lock in this block, for all processes of a run; the first one has the file. See `held`."""
    from jaxplm.devices.processes import all_agree, is_first  # imports JAX: a run of one process is refused before that

    with contextlib.ExitStack() as stack:
        failure = None
        if is_first():
            try:
                stack.enter_context(held(workdir))
            except UserError as error:
                failure = error
        if not all_agree(failure is None):
            raise failure or UserError(f"the first process cannot hold {workdir}, and says why")
        yield


@contextlib.contextmanager
def held(workdir: Path) -> Iterator[None]:
    """Hold the workdir's lock in this block; a workdir that the lock creates and that stays empty is removed at the end.

    Where a directory with an export cannot be written, there is no lock: the run can only say that it is finished.

    Raises:
      UserError: another run holds it, or the directory cannot be written.
    """
    lock: _Lock | None = _Lock(workdir)
    try:
        created = existing_parent(workdir)
        lock.take()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS) or not (workdir / "export").is_dir():
            raise UserError(f"cannot write the workdir {workdir}: {error.strerror or error}") from None
        lock, created = None, workdir
    def give_back() -> None:
        if lock:
            lock.release()
        _remove_empty(workdir, created)

    with stop_signals.before_end(give_back):
        try:
            with lock.renewed() if lock else contextlib.nullcontext():
                yield
        finally:
            give_back()


def _remove_empty(workdir: Path, created: Path) -> None:
    """Remove the workdir and its parents below `created`, as far as they are empty."""
    while workdir != created:
        try:
            workdir.rmdir()
        except OSError:
            return
        workdir = workdir.parent


class _Lock:
    """The lock file of one workdir."""

    def __init__(self, workdir: Path) -> None:
        self._workdir = workdir
        self._path = workdir / NAME
        self._token = secrets.token_hex(8)

    # ---------------------------------------------------------------- taken and given back

    def take(self) -> None:
        """Create the file, in place of one whose owner is dead.

        Raises:
          UserError: the owner is alive.
          OSError: the directory cannot be written.
        """
        for attempt in range(3):
            self._workdir.mkdir(parents=True, exist_ok=True)
            try:
                if self._create(self._path):
                    return
                break
            except FileNotFoundError:  # a run that failed has removed the directory that it had created
                if attempt == 2:
                    raise
        self._require_dead_owner()
        # Of two processes that both find a dead owner, one must not remove the other's new lock.
        takeover = self._path.with_name(f"{NAME}.takeover")
        for _ in range(2):
            if self._create(takeover):
                break
            if self._age(takeover) < _TAKEOVER_SECONDS:
                raise UserError(f"{self._workdir} is being taken by another run at this moment; start again to see which")
            takeover.unlink(missing_ok=True)
        try:
            self._require_dead_owner()
            self._path.unlink(missing_ok=True)
            if not self._create(self._path):
                self._require_dead_owner()
                raise UserError(f"{self._workdir} was taken by another run at this moment; start again to see which")
        finally:
            takeover.unlink(missing_ok=True)

    def release(self) -> None:
        """Remove the file if it is this process's."""
        with contextlib.suppress(OSError):
            if self._is_mine():
                self._path.unlink()

    @contextlib.contextmanager
    def renewed(self) -> Iterator[None]:
        """Renew the file's time by a thread in this block."""
        ending = threading.Event()

        def renew() -> None:
            while not ending.wait(_RENEWED_EVERY):
                try:
                    if self._is_mine():
                        os.utime(self._path)
                    elif self._path.exists() or not self._create(self._path):
                        break
                except OSError:
                    continue  # a network that is away for a moment
            else:
                return
            # This process was stopped for minutes. Another one writes here now, and what this one would write destroys its files.
            print(f"jaxplm: {self._workdir} was taken by another run while this one stood still: {self._owner_text()}; ended"
                  " without saving", file=sys.stderr, flush=True)
            os._exit(2)

        thread = threading.Thread(target=renew, name="workdir lock", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()

    def _create(self, path: Path) -> bool:
        """Create a lock file whole; return False if there is one."""
        draft = self._path.with_name(f"{NAME}.{self._token}")
        try:
            with draft.open("x", encoding="utf-8") as file:
                # A copy of the directory is held by nobody: a copied file has another inode.
                content = {"host": socket.gethostname(), "process": os.getpid(), "started": _started(os.getpid()),
                           "machine": _machine(), "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
                           "inode": os.fstat(file.fileno()).st_ino, "token": self._token}
                file.write(json.dumps(content) + "\n")
            try:
                os.link(draft, path)
            except FileExistsError:
                return False
            except OSError:  # a file system without links
                return self._create_without_link(path, {**content, "inode": None})
            return True
        finally:
            draft.unlink(missing_ok=True)

    @staticmethod
    def _create_without_link(path: Path, content: dict[str, Any]) -> bool:
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(json.dumps(content) + "\n")
        except FileExistsError:
            return False
        return True

    # ---------------------------------------------------------------- whose it is

    def _read(self) -> tuple[dict[str, Any], int | None]:
        """Return what the lock file says and its inode; ({}, None) where it is unreadable or not there."""
        try:
            with self._path.open(encoding="utf-8") as file:
                content, inode = json.loads(file.read(10_000)), os.fstat(file.fileno()).st_ino
        except (OSError, ValueError, RecursionError):
            return {}, None
        return (content, inode) if isinstance(content, dict) else ({}, None)

    def _is_mine(self) -> bool:
        return self._read()[0].get("token") == self._token

    def _owner_text(self) -> str:
        owner, _ = self._read()
        if not owner:
            return f"the owner cannot be read from {self._path}"
        return f"process {owner.get('process')} on {owner.get('host')}, since {owner.get('since')}"

    def _require_dead_owner(self) -> None:
        """Return if no living process holds the lock.

        Raises:
          UserError: one does, with its name.
        """
        owner, inode = self._read()
        if not owner and not self._path.exists():
            return
        if owner and owner.get("machine") == _machine():
            copied = owner.get("inode") not in (None, inode)
            if copied or _started(owner.get("process")) != owner.get("started") or owner.get("started") is None:
                return
            raise UserError(f"{self._workdir} is in use by another run: {self._owner_text()}; wait for its end, or choose another"
                            " --workdir")
        with contextlib.suppress(FileNotFoundError):
            if (age := self._age(self._path)) < _STALE_AFTER:
                raise UserError(f"{self._workdir} is in use by another run: {self._owner_text()}, last seen {age:.0f} s ago; wait for"
                                f" its end, or choose another --workdir. If that run is dead, the workdir is free in"
                                f" {_STALE_AFTER - age:.0f} s")

    def _age(self, path: Path) -> float:
        """Return the seconds since a file was renewed, by the file system's own clock: hosts may differ."""
        probe = self._path.with_name(f"{NAME}.{self._token}.now")
        try:
            with probe.open("w") as file:
                now = os.fstat(file.fileno()).st_mtime
            with path.open() as file:  # opened: a network file system then asks for the current time
                return max(0.0, now - os.fstat(file.fileno()).st_mtime)
        except FileNotFoundError:
            return _STALE_AFTER
        finally:
            probe.unlink(missing_ok=True)


def _machine() -> str:
    """Identify the machine since its last start, and the process numbers that are valid here: containers have their own."""
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        parts = [Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")]
    return " ".join(parts)


def _started(process: Any) -> str | None:
    """Return when a process of this machine started, as its system says it; None if there is none."""
    if not isinstance(process, int) or process <= 0:
        return None
    if sys.platform.startswith("linux"):
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] in "ZX" else fields[19]
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(process)], capture_output=True, text=True, check=False).stdout.strip()
    return shown or None

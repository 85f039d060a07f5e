"""Files that are whole or not there: what is written appears under its name only when all of it is on the disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import uuid
from pathlib import Path

_BESIDE = ".tapegrad-"  # how the names of temporary files begin
_NOT_REPLACEABLE = {errno.EACCES, errno.EPERM, errno.EBUSY}  # its directory, its owner, mounted by itself


def write(path: str | os.PathLike[str], data: bytes) -> None:
    """Make `data` the content of the file `path`.

    A regular file, or one that is not there yet, is replaced in one step, behind symbolic links too; the new one has
    the mode and owner of the old. Written in place is what cannot be replaced by another file: pipes and devices, a
    file with further names (hard links, which go on naming the same file), one in a directory where no file can be
    made, one whose owner we cannot give.

    The new file has no name while it is written, so a process that is killed leaves nothing. Where the file system
    has no such files it is called ``.tapegrad-*``; the next `write` beside it removes what a killed one left.
    """
    target = Path(os.path.realpath(path))
    try:
        before = os.stat(path)
    except FileNotFoundError:
        _replace(target, data, None)
        return
    # A path like /proc/self/fd/3 leads to a file that has no name, or no longer the one its link shows.
    named = stat.S_ISREG(before.st_mode) and target.exists() and os.path.samefile(path, target)
    if named and before.st_nlink == 1 and os.access(target, os.W_OK):
        try:
            _replace(target, data, before)
            return
        except OSError as error:
            if error.errno not in _NOT_REPLACEABLE:
                raise
    with open(path, "wb") as file:
        file.write(data)


def _replace(target: Path, data: bytes, before: os.stat_result | None) -> None:
    """Write a file beside `target` and move it there."""
    beside = target.with_name(f"{_BESIDE}{uuid.uuid4().hex}")
    with os.fdopen(_new(target.parent, beside), "wb") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)  # held as long as this process lives: whoever gets it may remove the file
        _remove_left_over(target.parent)
        try:
            if before is not None:
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
                os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if os.fstat(file.fileno()).st_nlink == 0:
                os.link(f"/proc/self/fd/{file.fileno()}", beside, src_dir_fd=file.fileno())  # linkat, which follows
            os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)


def _new(directory: Path, path: Path) -> int:
    """A new file in `directory`: without a name where there can be such, else called `path`."""
    directory.stat()  # the error for a directory that is not there names it
    try:
        return os.open(directory, os.O_TMPFILE | os.O_WRONLY, 0o666)
    except (AttributeError, OSError):  # not this system; not this file system
        return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)


def _remove_left_over(directory: Path) -> None:
    """Remove the temporary files of processes that were killed. Empty ones may be new and not locked yet."""
    for path in directory.glob(f"{_BESIDE}*"):
        try:
            with open(path, "rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                if os.fstat(file.fileno()).st_size:
                    path.unlink(missing_ok=True)
        except OSError:  # locked: it is being written; or not ours to touch
            continue

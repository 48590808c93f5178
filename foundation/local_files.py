"""Local files: objects that are files of this machine. Links are followed when read, never when deleted."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections import deque
from collections.abc import Iterator, Sequence

from crossdim.foundation.object_store import PROBLEMS, TEMPORARY_PREFIX, StoredObject

_Identity = tuple[int, int]  # device and inode: the same for every name of a folder


class LocalFiles:
    """Files by their absolute paths; files written with ``private`` can be read by their owner only."""

    def __init__(self, *, private: bool = False) -> None:
        self._mode = 0o600 if private else 0o666

    def read(self, name: str) -> bytes:
        """All bytes of a file."""
        with open(open_regular(name), "rb") as file:
            return file.read()

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Read part of a file.

        Args:
            name: its absolute path.
            offset: first byte.
            length: number of bytes.

        Returns:
            ``length`` bytes, or fewer if the file ends earlier.
        """
        with open(open_regular(name), "rb") as file:
            file.seek(offset)
            return file.read(length)

    def exists(self, name: str) -> bool:
        """Whether a file or folder is there."""
        try:  # not ``os.path.exists``, which also says "no" where a folder above may not be entered
            os.stat(name)
        except PermissionError:
            raise
        except (OSError, ValueError):
            return False
        return True

    def list(self, name: str) -> list[StoredObject]:
        """Every file below the folder ``name``, through links too, or the file itself under the path ""."""
        found = os.stat(name)
        if not stat.S_ISDIR(found.st_mode):
            return [_build_stored_object("", found)]
        return _Walk(name, found).objects

    def put(self, name: str, data: bytes) -> None:
        """Write a file completely or not at all: a rename after fsync. Folders above it are made.

        Args:
            name: its absolute path.
            data: its bytes.
        """
        with _write_aside(name, data, self._mode) as aside:
            os.replace(aside, name)

    def create(self, name: str, data: bytes) -> None:
        """Write a file completely if there is none of its name. Folders above it are made.

        Args:
            name: its absolute path.
            data: its bytes.

        Raises:
            FileExistsError: if there is one.
        """
        with _write_aside(name, data, self._mode) as aside:
            os.link(aside, name)

    def delete(self, name: str) -> None:
        """Remove a file, a link (not what it leads to) or a folder with all that is in it."""
        if os.path.isdir(name) and not os.path.islink(name):
            shutil.rmtree(name)
        else:
            os.unlink(name)

    def delete_exactly(self, names: Sequence[str]) -> None:
        """Remove files or links, never folders; one that is gone already is no error."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)

    def delete_empty_folders(self, name: str) -> None:
        """Remove the folder ``name`` and the folders in it, as far as they hold nothing and may be removed. Links stay."""
        for folder, _, _ in os.walk(name, topdown=False):
            with contextlib.suppress(OSError):  # it is not empty, a mount point, or in a folder that may not be written into
                os.rmdir(folder)


def open_regular(name: str) -> int:
    """Open the file ``name`` for reading, without waiting for a pipe or device in its place.

    Returns:
        The file descriptor.

    Raises:
        OSError: if it cannot be opened, or is not a regular file.
    """
    descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    raise OSError(errno.EINVAL, PROBLEMS["special_file"], name)


def check_folder(path: str) -> None:
    """Check that a folder can be written into, or made. Nothing is written.

    Raises:
        OSError: that writing would raise.
    """
    place = path
    while not os.path.lexists(place):
        place = os.path.dirname(place)
    if not os.path.isdir(place):
        raise NotADirectoryError(errno.ENOTDIR, "there is a file, or a link to nothing, where a folder is to be", place)
    if not os.access(place, os.W_OK | os.X_OK):
        if os.statvfs(place).f_flag & os.ST_RDONLY:
            raise OSError(errno.EROFS, "the file system is mounted read-only; name a folder elsewhere", place)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), place)


class _Walk:
    """The files of a folder. Each folder is listed once, and real folders before those that links lead to.

    So the time is proportional to the tree and not to the number of paths, which links among folders can multiply without end.
    """

    def __init__(self, root: str, found: os.stat_result) -> None:
        self.objects: list[StoredObject] = []
        self._root = root
        self._links: deque[tuple[str, tuple[_Identity, ...]]] = deque()
        self._listed: set[_Identity] = set()
        self._list("", found, ())
        while self._links:
            path, above = self._links.popleft()
            self._follow(path, above)

    def _full(self, path: str) -> str:
        return os.path.join(self._root, path)

    def _add_problem(self, path: str, problem: str) -> None:
        self.objects.append(StoredObject(path=path, size=0, problem=problem))

    def _list(self, path: str, found: os.stat_result, above: tuple[_Identity, ...]) -> None:
        """List the folder at ``path`` and the folders in it; links to folders wait. ``above``: the folders that lead to it."""
        folders = [(path, _identity(found), above)]
        while folders:
            path, identity, above = folders.pop()
            self._listed.add(identity)
            above = (*above, identity)
            for entry in self._entries(path):
                inner = f"{path}/{entry.name}" if path else entry.name
                if entry.is_symlink():
                    self._links.append((inner, above))
                elif entry.is_dir(follow_symlinks=False):
                    identity = _identity(entry.stat(follow_symlinks=False))
                    if identity in self._listed:  # reached by a link to a folder above the source
                        self._add_problem(inner, "repeated_link")
                    else:
                        folders.append((inner, identity, above))
                else:
                    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                        self.objects.append(_build_stored_object(inner, entry.stat(follow_symlinks=False)))

    def _entries(self, path: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(self._full(path)) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except PermissionError:
            if not path:
                raise
            self._add_problem(path, "unreadable")
        except FileNotFoundError:  # removed meanwhile
            if not path:
                raise
        return []

    def _follow(self, path: str, above: tuple[_Identity, ...]) -> None:
        """List what the link at ``path`` leads to."""
        try:
            found = os.stat(self._full(path))
        except FileNotFoundError:
            self._add_problem(path, "dangling_link")
        except PermissionError:
            self._add_problem(path, "unreadable")
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            self._add_problem(path, "link_loop" if error.errno == errno.ELOOP else "dangling_link")
        else:
            if not stat.S_ISDIR(found.st_mode):
                self.objects.append(_build_stored_object(path, found, os.lstat(self._full(path))))
            elif _identity(found) in self._listed:
                self._add_problem(path, "link_loop" if _identity(found) in above else "repeated_link")
            else:
                self._list(path, found, above)


def _identity(found: os.stat_result) -> _Identity:
    return found.st_dev, found.st_ino


def _build_stored_object(path: str, found: os.stat_result, link: os.stat_result | None = None) -> StoredObject:
    """A file, and the link that leads to it, if one does: a link to another file is a change too."""
    if not stat.S_ISREG(found.st_mode):
        return StoredObject(path=path, size=0, problem="special_file")
    changed_at = max(one.st_ctime_ns for one in (found, link) if one)
    return StoredObject(path=path, size=found.st_size, version=str(found.st_mtime_ns), changed_at=changed_at)


@contextlib.contextmanager
def _write_aside(target: str, data: bytes, mode: int) -> Iterator[str]:
    """Write a temporary file beside ``target`` and fsync it; it is removed afterwards, unless it was renamed."""
    folder = os.path.dirname(target)
    os.makedirs(folder, exist_ok=True)
    aside = os.path.join(folder, f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield aside
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(aside)

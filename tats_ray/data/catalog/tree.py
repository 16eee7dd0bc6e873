"""What lies beneath a folder: videos, small text files, and what could not be looked into."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from tats_ray.core.errors import UsageError
from tats_ray.data.catalog.frame_folders import is_frame_folder
from tats_ray.data.manifest import VIDEO_ENDINGS

_VIDEO = re.compile(rf"(.+)\.(?:{VIDEO_ENDINGS})", re.IGNORECASE | re.DOTALL)
_TEXT = (".txt", ".csv", ".json")


@dataclass
class Tree:
    """The videos and text files of a folder; paths are relative to it, parts joined by `/`."""

    root: Path
    videos: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)
    """Folders and files that were left alone, with reasons."""

    def __post_init__(self) -> None:
        self._by_stem: dict[str, list[str]] = {}

    @classmethod
    def of(cls, root: Path) -> Tree:
        """Walk a folder; links are followed, each folder is looked into once.

        Raises:
            UsageError: when it is no folder, cannot be read, or holds no video.
        """
        if not root.is_dir():
            what = "is a file, not a folder" if root.exists() else "does not exist"
            raise UsageError(f"{root} {what}; name the folder that holds the videos")
        if is_frame_folder(root):
            raise UsageError(f"{root} holds pictures itself; name the folder above it")
        tree = cls(root)
        tree._walk(root, "", set())
        for name in tree.videos:
            tree._by_stem.setdefault(stem(name), []).append(name)
        if "" in tree.passed_over:
            raise UsageError(f"{root} {tree.passed_over['']}; make it readable")
        if not tree.videos:
            raise UsageError(
                f"{root} holds no videos, neither files ({VIDEO_ENDINGS.replace('|', ' ')}) nor "
                "folders of numbered pictures; unpack the download first, or name another folder"
            )
        return tree

    def find(self, name: str, parent: str = "") -> str | None:
        """The video of this name, whatever its ending and folder; one in `parent` comes first."""
        found = self._by_stem.get(name, [])
        return min(found, key=lambda path: (_parent(path) != parent, path), default=None)

    def text(self, name: str) -> str | None:
        """The text file of this name that lies the least deep."""
        found = [path for path in self.texts if path.rpartition("/")[2].lower() == name.lower()]
        return min(found, key=lambda path: (path.count("/"), path), default=None)

    def _walk(self, folder: Path, prefix: str, seen: set[tuple[int, int]]) -> None:
        try:
            status = folder.stat()
            # Links come last, so that a folder is listed under its own name.
            entries = sorted(os.scandir(folder), key=lambda each: (each.is_symlink(), each.name))
        except OSError as error:
            self.passed_over[prefix.rstrip("/")] = f"cannot be read ({error.strerror})"
            return
        here = (status.st_dev, status.st_ino)
        if here in seen:
            self.passed_over[prefix.rstrip("/")] = "is a link to a folder that is listed already"
            return
        seen.add(here)
        for entry in entries:
            path = prefix + entry.name
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
                is_broken = not is_folder and not entry.is_file()
            except OSError as error:
                self.passed_over[path] = f"cannot be read ({error.strerror})"
                continue
            is_video = is_frame_folder(entry.path) if is_folder else _VIDEO.fullmatch(entry.name)
            if is_video and (is_broken or not _is_writable(path)):
                why = "has a name that is not UTF-8 or has line breaks"
                self.passed_over[ascii(path)[1:-1]] = "is a broken link" if is_broken else why
            elif is_video:
                self.videos.append(path)
            elif is_folder:
                self._walk(Path(entry.path), f"{path}/", seen)
            elif entry.name.lower().endswith(_TEXT):
                self.texts.append(path)


def stem(path: str) -> str:
    """The name of a video without folder and ending."""
    name = path.rpartition("/")[2]
    match = _VIDEO.fullmatch(name)
    return match[1] if match else name


def _parent(path: str) -> str:
    return path.rpartition("/")[0].rpartition("/")[2]


def _is_writable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return not {"\n", "\r"} & {*name}


def read_text(path: Path) -> str:
    """A text file of a download, with any line ends and with or without a byte order mark.

    Raises:
        UsageError: when it cannot be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); make it readable") from error
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not a text file in UTF-8; download it again") from None

"""The official lists of UCF101, HMDB51, Kinetics-400 and Something-Something V2, as downloaded."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tats_ray.core.errors import UsageError
from tats_ray.core.words import counted
from tats_ray.data.catalog.tree import Tree, read_text, stem

Split = Literal["train", "val", "test", ""]


@dataclass(frozen=True, slots=True)
class OfficialEntry:
    """A video as an official list names it."""

    split: Split
    """Empty for a video that the lists leave out of this split."""
    name: str
    """Without folder and ending."""
    label: int | None
    parent: str
    """Folder that the video should lie in."""
    where: str
    """File and line, for messages."""


@dataclass(frozen=True, slots=True)
class Official:
    """What the official files of a data set say."""

    classes: list[str]
    videos: list[OfficialEntry]


@dataclass(frozen=True, slots=True)
class Collection:
    """A data set with lists of its own."""

    title: str
    num_classes: int
    mark: Callable[[Tree], bool]
    """Whether its official files are there."""
    needs: str
    """The files that it needs, in words."""
    read: Callable[[Tree, int], Official]


def read_official(kind: str, tree: Tree, split: int) -> Official:
    """Read and check the official files beneath a folder.

    Raises:
        UsageError: naming file and line, for files that are missing, of another data set, that
            contradict each other or name one video twice.
    """
    wanted = COLLECTIONS[kind]
    if not wanted.mark(tree):
        others = [name for name, each in COLLECTIONS.items() if each.mark(tree)]
        hint = f"; it has those of {COLLECTIONS[others[0]].title}, `{others[0]}`" if others else ""
        raise UsageError(
            f"{tree.root} lacks the official files of {wanted.title}, {wanted.needs}"
            f"{hint or '; put them beneath it, or use `tats data index folder`'}"
        )
    found = wanted.read(tree, split)
    if len(found.classes) != wanted.num_classes:
        raise UsageError(
            f"the official files beneath {tree.root} name {counted(len(found.classes), 'class')}, "
            f"but {wanted.title} has {wanted.num_classes}; they are of another data set"
        )
    return Official(found.classes, _without_repeats(found.videos))


def _without_repeats(videos: list[OfficialEntry]) -> list[OfficialEntry]:
    seen: dict[tuple[str, str], OfficialEntry] = {}
    for video in videos:
        first = seen.setdefault((video.name, video.parent), video)
        if (first.split, first.label) != (video.split, video.label):
            raise UsageError(
                f"{video.where}: {video.name} is in {first.where} too, with another class or "
                "split; download the lists again"
            )
    return list(seen.values())


def _lines(tree: Tree, path: str) -> Iterator[tuple[str, str]]:
    """`FILE, line N` and the line, of all lines that are not empty."""
    for number, line in enumerate(read_text(tree.root / path).split("\n"), start=1):
        if line.strip():
            yield f"{tree.root / path}, line {number}", line.strip()


def _inside(where: str, path: str) -> str:
    if path.startswith("/") or ".." in path.split("/"):
        raise UsageError(f"{where}: {path!r} leads out of the folder; download the list again")
    return path


# UCF101 ---------------------------------------------------------------------------------------


def _ucf101(tree: Tree, split: int) -> Official:
    index = tree.text("classInd.txt")
    assert index is not None
    ids: dict[str, int] = {}
    for where, line in _lines(tree, index):
        words = line.split()
        if len(words) != 2 or not words[0].isdigit() or int(words[0]) != len(ids) + 1:
            raise UsageError(
                f"{where}: {line[:80]!r} is not `{len(ids) + 1} CLASS`, as the official file has "
                "it; download it again"
            )
        ids[words[1]] = len(ids)
    videos = []
    halves: tuple[tuple[Split, str], ...] = (("train", "trainlist"), ("test", "testlist"))
    for half, name in halves:
        for where, line in _lines(tree, _of_split(tree, rf"{name}0*(\d+)\.txt", split)):
            path, _, label = _inside(where, line).partition(" ")
            parent = path.rpartition("/")[0]
            if parent not in ids:
                raise UsageError(f"{where}: classInd.txt has no class {parent!r}; use one download")
            if label and label.strip() != str(ids[parent] + 1):
                raise UsageError(
                    f"{where}: class id {label.strip()} is not that of {parent}, "
                    f"{ids[parent] + 1} in classInd.txt; use the files of one download"
                )
            videos.append(OfficialEntry(half, stem(path), ids[parent], parent, where))
    return Official(list(ids), videos)


def _of_split(tree: Tree, pattern: str, split: int) -> str:
    """The text file whose name ends in the number of a split."""
    found = {}
    for path in sorted(tree.texts, key=lambda path: (-path.count("/"), path)):
        match = re.fullmatch(pattern, path.rpartition("/")[2], re.IGNORECASE)
        if match:
            found[int(match[1])] = path
    if split not in found:
        there = ", ".join(map(str, sorted(found))) or "none"
        raise UsageError(
            f"{tree.root} has no lists of split {split} (splits found: {there}); give another "
            "--split"
        )
    return found[split]


# HMDB51 ---------------------------------------------------------------------------------------

_HMDB_FILE = re.compile(r"(.+)_test_split(\d)\.txt")


def _hmdb51(tree: Tree, split: int) -> Official:
    files: dict[int, dict[str, str]] = {}
    for path in tree.texts:
        if match := _HMDB_FILE.fullmatch(path.rpartition("/")[2]):
            files.setdefault(int(match[2]), {})[match[1]] = path
    if split not in files:
        raise UsageError(
            f"{tree.root} has no lists of split {split} (splits found: "
            f"{', '.join(map(str, sorted(files)))}); give another --split"
        )
    classes = sorted(files[split])
    splits: Mapping[str, Split] = {"0": "", "1": "train", "2": "test"}
    videos = []
    for label, name in enumerate(classes):
        for where, line in _lines(tree, files[split][name]):
            path, _, word = _inside(where, line).rpartition(" ")
            if word not in splits:
                raise UsageError(
                    f"{where}: {line[:80]!r} is not `VIDEO 0`, `VIDEO 1` or `VIDEO 2`, as the "
                    "official files have it; download them again"
                )
            videos.append(OfficialEntry(splits[word], stem(path.strip()), label, name, where))
    return Official(classes, videos)


# Kinetics -------------------------------------------------------------------------------------


def is_kinetics_file(path: Path) -> bool:
    """Whether a file is there and has the columns of Kinetics' lists."""
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return "youtube_id" in file.readline(1000)
    except OSError:
        return False


def _kinetics_files(tree: Tree) -> list[str]:
    names = (name for name in tree.texts if name.lower().endswith(".csv"))
    return [name for name in names if is_kinetics_file(tree.root / name)]


def _k400(tree: Tree, split: int) -> Official:
    rows = []
    for path in _kinetics_files(tree):
        lines = csv.DictReader(io.StringIO(read_text(tree.root / path)))
        for number, row in enumerate(lines, start=2):
            where = f"{tree.root / path}, line {number}"
            rows.append((where, _half(row.get("split") or path, where), row))
    names = {row.get("label") or "" for _, half, row in rows if half == "train"} - {""}
    classes = sorted(names)
    ids = {name: label for label, name in enumerate(classes)}
    videos = []
    for where, half, row in rows:
        name = row.get("label") or ""
        if name and name not in ids:
            raise UsageError(
                f"{where}: the training list has no class {name!r}; use the files of one download"
            )
        try:
            start, end = int(float(row["time_start"])), int(float(row["time_end"]))
        except (KeyError, TypeError, ValueError):
            raise UsageError(
                f"{where} has no start and end in seconds; download it again"
            ) from None
        clip = f"{row['youtube_id']}_{start:06d}_{end:06d}"
        videos.append(OfficialEntry(half, clip, ids.get(name), name, where))
    return Official(classes, videos)


def _half(word: str, where: str) -> Split:
    word = word.rpartition("/")[2].lower()
    for half, spellings in _HALVES.items():
        if any(spelling in word for spelling in spellings):
            return half
    raise UsageError(f"{where}: {word!r} is neither train, val nor test; correct the file")


_HALVES: Mapping[Split, tuple[str, ...]] = {"train": ("train",), "val": ("val",), "test": ("test",)}


# Something-Something --------------------------------------------------------------------------


def _ssv2_files(tree: Tree) -> dict[str, str]:
    """labels, train, validation and test -> file."""
    found: dict[str, str] = {}
    for what in ("labels", "train", "validation", "test"):
        for name in (f"something-something-v2-{what}.json", f"{what}.json"):
            if path := tree.text(name):
                found.setdefault(what, path)
    return found


def _json(tree: Tree, path: str) -> Any:
    try:
        return json.loads(read_text(tree.root / path))
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{tree.root / path}, line {error.lineno} is not JSON; download it again"
        ) from None


def _ssv2(tree: Tree, split: int) -> Official:
    files = _ssv2_files(tree)
    labels = _json(tree, files["labels"])
    try:
        ids = {str(name): int(label) for name, label in labels.items()}
    except (AttributeError, TypeError, ValueError):
        raise UsageError(
            f"{tree.root / files['labels']} does not map classes to numbers; download it again"
        ) from None
    if sorted(ids.values()) != list(range(len(ids))):
        raise UsageError(f"{tree.root / files['labels']} does not number its classes from 0")
    videos = []
    for what in ("train", "validation", "test"):
        if what not in files:
            continue
        for number, row in enumerate(_json(tree, files[what]), start=1):
            where = f"{tree.root / files[what]}, video {number}"
            if not isinstance(row, dict) or "id" not in row:
                raise UsageError(f"{where} has no id; download the list again")
            template = row.get("template")
            label = None
            if template is not None:
                name = re.sub(r"[\[\]]", "", template)
                if name not in ids:
                    raise UsageError(
                        f"{where}: the labels file has no class {name!r}; use the files of one "
                        "download"
                    )
                label = ids[name]
            name = _inside(where, str(row["id"]))
            videos.append(OfficialEntry(_half(what, where), name, label, "", where))
    return Official(sorted(ids, key=ids.__getitem__), videos)


def _has(tree: Tree, pattern: str) -> bool:
    return any(re.fullmatch(pattern, path.rpartition("/")[2], re.IGNORECASE) for path in tree.texts)


COLLECTIONS: Mapping[str, Collection] = {
    "ucf101": Collection(
        "UCF101",
        101,
        lambda tree: _has(tree, r"classInd\.txt") and _has(tree, r"trainlist\d+\.txt"),
        "classInd.txt, trainlist01.txt and testlist01.txt",
        _ucf101,
    ),
    "hmdb51": Collection(
        "HMDB51",
        51,
        lambda tree: _has(tree, _HMDB_FILE.pattern),
        "brush_hair_test_split1.txt and the other 152",
        _hmdb51,
    ),
    "k400": Collection(
        "Kinetics-400",
        400,
        lambda tree: bool(_kinetics_files(tree)),
        "csv files with the columns label, youtube_id, time_start and time_end",
        _k400,
    ),
    "ssv2": Collection(
        "Something-Something V2",
        174,
        lambda tree: {"labels", "train"} <= {*_ssv2_files(tree)},
        "labels.json, train.json and validation.json",
        _ssv2,
    ),
}

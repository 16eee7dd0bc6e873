"""Training and validation lists with classes: found, read, and checked against each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tats_ray.core.errors import UsageError
from tats_ray.core.words import counted
from tats_ray.data.clip_lists import shared_in_words
from tats_ray.data.manifest import VideoEntry, read_list
from tats_ray.evaluation.extract import warn, without_repeats


@dataclass(frozen=True)
class Labelled:
    """Videos, all with a class id below `num_classes`."""

    train: list[VideoEntry]
    val: list[VideoEntry]
    num_classes: int
    """The highest id of the training list, and one."""


def find_lists(
    data: str | Path | None,
    train: str | Path | None,
    val: str | Path | None,
    *,
    flags: tuple[str, str] = ("--train", "--val"),
) -> tuple[Path, Path]:
    """Training and validation list: those of a folder, or the named ones.

    Args:
        flags: what the command at hand names them with.

    Raises:
        UsageError: when there are both, or one is neither named nor in the folder.
    """
    refuse_both(data, {flags[0]: train, flags[1]: val})
    found = []
    for name, given in (("train", train), ("val", val)):
        if given:
            found.append(Path(given))
        elif data is not None and (Path(data) / f"{name}.csv").is_file():
            found.append(Path(data) / f"{name}.csv")
        else:
            where = f"there is no {name} list" if data is None else f"{data} has no {name}.csv"
            raise UsageError(
                f"{where}; give a folder with train.csv and val.csv, or, without a folder, "
                f"{flags[0]} LIST {flags[1]} LIST"
            )
    return found[0], found[1]


def refuse_both(data: str | Path | None, lists: Mapping[str, str | Path | None]) -> None:
    """A folder, and lists beside it: one of them would be passed over in silence.

    Args:
        lists: flag -> list that it names.

    Raises:
        UsageError: naming both.
    """
    named = {flag: path for flag, path in lists.items() if path}
    if data is not None and named:
        words = " ".join(f"{flag} {path}" for flag, path in named.items())
        raise UsageError(
            f"{data} and {words} both name videos; leave out {data}, or {' and '.join(named)}"
        )


def read_labelled(train_list: Path, val_list: Path, *, root: str | Path | None = None) -> Labelled:
    """Both lists, each video once. Classes without training videos are only noted.

    Args:
        root: what relative paths are relative to; default: the folder of each list.

    Raises:
        UsageError: for a list without labels, a single class, or a validation class beyond those
            of the training list.
    """
    train, val = (
        without_repeats(read_list(path, root=root, needs_labels=True), str(path))
        for path in (train_list, val_list)
    )
    seen = {entry.label for entry in train}
    num_classes = 1 + max(label for label in seen if label is not None)
    if len(seen) < 2:
        raise UsageError(f"{train_list} has only one class; it needs two or more")
    for entry in val:
        if entry.label is not None and entry.label >= num_classes:
            raise UsageError(
                f"{val_list}: {entry.path} has class {entry.label}, {train_list} has 0 to "
                f"{num_classes - 1}; use the same class numbers in both lists"
            )
    if shared := shared_in_words(train, val, (train_list, val_list), "accuracy"):
        warn(shared)
    empty = sorted(set(range(num_classes)) - seen)
    if empty == [0]:
        warn(
            f"{train_list}: class ids run from 1 to {num_classes - 1}, so class 0 has no video; "
            "subtract 1 from each id if the lists count from 1"
        )
    elif empty:
        some = ", ".join(map(str, empty[:5])) + (", ..." if len(empty) > 5 else "")
        warn(f"{train_list} has no video of {counted(len(empty), 'class')} ({some})")
    strange = sum(entry.label not in seen for entry in val)
    if strange:
        warn(f"{val_list}: {counted(strange, 'video')} of such classes will count as wrong")
    return Labelled(train, val, num_classes)

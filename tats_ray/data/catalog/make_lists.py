"""`tats data index`: lists of a downloaded data set, or of a folder of one's own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tats_ray.core.errors import UsageError
from tats_ray.core.storage import make_folder, replace_text, whole_file
from tats_ray.core.words import counted
from tats_ray.data.catalog.official_lists import COLLECTIONS, is_kinetics_file, read_official
from tats_ray.data.catalog.tree import Tree
from tats_ray.data.manifest import VideoEntry, list_text, read_list

_SPLITS = ("train", "val", "test")
_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_NUM_SHOWN = 5
_WIDTH = 98

Row = tuple[str, int | None]
"""Path beneath the root, and class id."""


@dataclass
class MadeLists:
    """What was written, and what a user should know about it."""

    title: str
    classes: list[str]
    rows: dict[str, list[Row]]
    notes: list[str] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    resolved: list[VideoEntry] = field(default_factory=list)
    """The first rows of the training list, as a run reads them."""

    def __str__(self) -> str:
        total = len({path for rows in self.rows.values() for path, _ in rows})
        classes = counted(len(self.classes), "class") if self.classes else "without classes"
        lines = [f"{self.title}: {total:,} video{'s' * (total != 1)}, {classes}"]
        for split, path in self.files.items():
            lines.append(f"  {path}  {len(self.rows[split]):,}")
        lines.append("first rows as a run reads them:")
        for entry in self.resolved:
            what = "" if entry.label is None else f"  {entry.label} {self.classes[entry.label]}"
            lines.append(f"  {entry.path}{what}")
        if self.classes:
            lines.append(f"videos of each class ({' + '.join(self.files)}):")
            lines += textwrap.wrap(
                ", ".join(self._counts()), _WIDTH, initial_indent="  ", subsequent_indent="  "
            )
        return "\n".join([*lines, *self.notes])

    def _counts(self) -> list[str]:
        counts = [Counter(label for _, label in self.rows[split]) for split in self.files]
        return [
            f"{name} {'+'.join(str(count[label]) for count in counts)}"
            for label, name in enumerate(self.classes)
        ]


def index_dataset(
    kind: str,
    root: Path,
    *,
    split: int = 1,
    out: Path | None = None,
    val_share: float = 0.1,
) -> MadeLists:
    """Write `train.csv`, `val.csv`, `test.csv` and `classes.json` for the videos beneath `root`.

    Args:
        kind: a name in `COLLECTIONS`, or "folder".
        split: which of the official splits of UCF101 or HMDB51.
        out: folder for the lists; without one, `root`.
        val_share: part of a folder without folders `train` and `val` that goes into `val.csv`.

    Raises:
        UsageError: for official files that are missing or wrong, and folders that cannot be used.
    """
    if not 0 <= val_share < 1:
        raise UsageError(f"--val-share {val_share:g} is not between 0 and 1")
    tree = Tree.of(root)
    made = _of_folder(tree, val_share) if kind == "folder" else _official(kind, tree, split)
    made.notes += [f"passed over: {path} {why}" for path, why in tree.passed_over.items()]
    _write(made, tree, make_folder(out or root, way_out="name another with --out"))
    return made


def _official(kind: str, tree: Tree, split: int) -> MadeLists:
    official = read_official(kind, tree, split)
    rows: dict[str, list[Row]] = {name: [] for name in _SPLITS}
    taken: set[str] = set()
    missing, repeated = [], []
    for video in official.videos:
        path = tree.find(video.name, video.parent)
        if path is None:
            missing.append(video.name)
        elif path in taken:
            repeated.append(path)
        else:
            taken.add(path)
            if video.split:
                rows[video.split].append((path, video.label))
    title = COLLECTIONS[kind].title
    if not rows["train"]:
        raise UsageError(
            f"none of the {counted(len(official.videos), 'video')} of {title} is beneath "
            f"{tree.root} (the lists name {missing[0] if missing else 'no training video'}, the "
            f"folder holds {tree.videos[0]}); name the folder that holds both"
        )
    made = MadeLists(title, official.classes, rows)
    is_split = kind in ("ucf101", "hmdb51")
    if is_split:
        made.title += f", split {split}"
        made.rows["val"] = made.rows["test"]
        made.notes.append(f"val.csv repeats test.csv: {title} has no validation list of its own")
    left_over = sorted({*tree.videos} - taken)
    made.notes += _some("missing: the lists name {} that the folder lacks", missing)
    made.notes += _some("left over: no list names {} of the folder", left_over)
    made.notes += _some("repeated: the lists name {} twice; the first line counts", repeated)
    return made


def _some(text: str, names: Sequence[str]) -> list[str]:
    """A note about some videos, the first few named; nothing where there are none."""
    if not names:
        return []
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return [f"{text.format(counted(len(names), 'video'))} ({', '.join(names[:3])}{more})"]


def _of_folder(tree: Tree, val_share: float) -> MadeLists:
    """Class folders, in folders `train`, `val` and `test` or not, or videos without classes."""
    top = {path.split("/")[0] for path in tree.videos if "/" in path}
    has_splits = bool(top) and all(name.lower() in _FOLDERS for name in top)
    pools: dict[str, dict[str, str]] = {name: {} for name in _SPLITS}
    for path in tree.videos:
        first, _, rest = path.partition("/")
        if has_splits and not rest:
            raise UsageError(
                f"{tree.root / path} lies beside the folders {', '.join(sorted(top))}; move it "
                "into one"
            )
        if has_splits:
            pools[_FOLDERS[first.lower()]][path] = rest
        else:
            pools["train"][path] = path
    classes = sorted({rest.split("/")[0] for rest in pools["train"].values() if "/" in rest})
    if len(classes) < 2:
        classes = []
    ids = {name: label for label, name in enumerate(classes)}
    rows = {
        split: [(path, _label(tree, path, rest, ids)) for path, rest in pool.items()]
        for split, pool in pools.items()
    }
    made = MadeLists(str(tree.root), classes, rows)
    if not has_splits:
        made.rows |= _held_out(rows["train"], val_share)
        if made.rows["val"]:
            made.notes.append(
                f"val.csv holds {val_share:.0%} of the videos, drawn by their names; clips of one "
                "recording may be in both lists. --val-share 0 makes none"
            )
    elif not made.rows["train"]:
        raise UsageError(f"{tree.root} has no videos in a folder train; add one")
    return made


def _label(tree: Tree, path: str, rest: str, ids: dict[str, int]) -> int | None:
    if not ids:
        return None
    name, _, inside = rest.partition("/")
    if not inside:
        raise UsageError(
            f"{tree.root / path} lies beside the class folders, such as {next(iter(ids))}; move it "
            "into one"
        )
    if name not in ids:
        raise UsageError(
            f"{tree.root / path}: there is no class {name!r} among those of the training videos; "
            "correct the name of the folder"
        )
    return ids[name]


def _held_out(rows: list[Row], share: float) -> dict[str, list[Row]]:
    """Training and validation videos, a share of each class, by the hash of the name."""
    by_class: dict[int | None, list[str]] = {}
    for path, label in rows:
        by_class.setdefault(label, []).append(path)
    val = set()
    for paths in by_class.values():
        count = min(max(round(share * len(paths)), 1), len(paths) - 1) if share else 0
        val |= {*sorted(paths, key=lambda path: hashlib.sha256(path.encode()).digest())[:count]}
    return {
        "train": [row for row in rows if row[0] not in val],
        "val": [row for row in rows if row[0] in val],
    }


def _write(made: MadeLists, tree: Tree, out: Path) -> None:
    """Write the lists, and read them back as a run will."""
    root = os.path.normpath(tree.root.absolute())
    prefix = os.path.relpath(root, out.absolute())
    if Path(prefix).parts[:1] == ("..",):
        prefix = root
    made.files = {split: out / f"{split}.csv" for split in _SPLITS if made.rows.get(split)}
    texts = {
        path: list_text([(os.path.normpath(f"{prefix}/{name}"), label) for name, label in rows])
        for path, rows in ((path, made.rows[split]) for split, path in made.files.items())
    }
    if made.classes:
        texts[out / "classes.json"] = json.dumps(made.classes, indent=1, ensure_ascii=False) + "\n"
    for path in texts:
        if is_kinetics_file(path):
            raise UsageError(f"{path} is an official file; name another folder with --out")
    try:
        made.notes += [note for path, text in texts.items() for note in put_text(path, text)]
    except OSError as error:
        raise UsageError(
            f"{out} cannot be written ({error.strerror}); name another folder with --out"
        ) from error
    for split in {*_SPLITS} - {*made.files}:
        if (out / f"{split}.csv").exists():
            made.notes.append(f"left as it was: {out / split}.csv, which this download has not")
    for split, path in made.files.items():
        entries = read_list(path)
        for entry, (name, _) in zip(entries, made.rows[split], strict=True):
            if os.path.normpath(Path(entry.path).absolute()) != os.path.normpath(f"{root}/{name}"):
                raise UsageError(f"{tree.root / name} is taken for {entry.path}; rename one")
        made.resolved = made.resolved or entries[:_NUM_SHOWN]


def put_text(path: Path, text: str) -> list[str]:
    """Write a file; one of another content stays beside it as `NAME.old`, or `.old2` and on."""
    notes = []
    if path.exists() and path.read_bytes() != text.encode():
        olds = (path.with_name(f"{path.name}.old{n or ''}") for n in (0, *range(2, 10_000)))
        old = next(old for old in olds if not old.exists())
        with whole_file(old) as draft:  # a copy: on a full disk, the list stays where it is
            shutil.copy2(path, draft)
        notes.append(f"replaced: {path}; what it was is {old}")
    replace_text(path, text)
    return notes

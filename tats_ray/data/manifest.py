"""Lists of videos: one a line, a path and mostly a class id."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tats_ray.core.errors import UsageError
from tats_ray.data.catalog.frame_folders import is_frame_folder
from tats_ray.data.catalog.video_index import VideoIndex, open_index
from tats_ray.data.decode import VideoInfo, probe

_EXPECTED = "each line must be `path<TAB>label`, where label is a class id from 0, or a path alone"
VIDEO_ENDINGS = "3gp|avi|flv|gif|m4v|mkv|mov|mp4|mpg|mpeg|ts|webm|wmv"
_VIDEO = rf".*\.(?:{VIDEO_ENDINGS})"
_LONGEST_LINE = 5000
"""A path has 4,096 bytes at most, and patterns take long over what is longer."""
_LONGEST_SHOWN = 200
_HEADER_NAMES = frozenset({"path", "video", "video_path", "file", "filename", "name", "clip"})


@dataclass(frozen=True, slots=True)
class VideoEntry:
    """One video of a list."""

    path: str
    label: int | None
    """Class id, from 0; None in a list without labels."""
    index: VideoIndex | None = field(default=None, compare=False, repr=False)
    """What is known of the videos of its list."""

    def probe(self) -> VideoInfo:
        """Size, length and codec; the file is opened only if its list's index has no line for it.

        Raises:
            VideoError: when the file is missing, unreadable or without a single frame.
        """
        return probe(self.path) if self.index is None else self.index.probe(self.path)


def read_list(
    path: str | Path,
    *,
    root: str | Path | None = None,
    num_classes: int | None = None,
    needs_labels: bool = False,
) -> list[VideoEntry]:
    """Reads a list in any of the usual spellings, and checks that every video is there.

    A line is `path<TAB>label`, `path label` or `path,label`. The path may hold spaces, and may be
    quoted. A header line is passed over. Either all lines have a label, or none has. A file name
    without a dot gets `.mp4` [AdaMAE kinetics.py; method section 2.1], unless it is the name of a
    folder of frames.

    Args:
        path: the list, in UTF-8.
        root: what relative paths are relative to; without one, the folder of the list.
        num_classes: how many classes there are; None takes any id from 0.
        needs_labels: refuse a list without them.

    Raises:
        UsageError: naming list, line and text, for a list that is missing or empty, a line that
            cannot be read, a class id out of range, or videos that are not there.
    """
    folder = Path(root) if root else Path(path).parent
    index = open_index(Path(path).with_suffix(".index"), folder)
    rows = _rows(path)
    is_labelled = rows[0][2] is not None
    if needs_labels and not is_labelled:
        raise UsageError(f"{path} has no labels; write a class id after each path")
    entries = []
    for number, name, label in rows:
        if (label is not None) != is_labelled:
            first = "has a label" if is_labelled else "has none"
            raise _bad(path, number, name, f"line {rows[0][0]} {first}; label all lines or none")
        if label is not None and (label < 0 or (num_classes is not None and label >= num_classes)):
            if label == num_classes and min(row[2] or 0 for row in rows) == 1:
                raise UsageError(
                    f"{path}: class ids run from 1 to {label}, as in UCF101's official lists; "
                    "subtract 1 from each, since they must start at 0"
                )
            allowed = "0 and up"
            if num_classes is not None:
                allowed = (
                    f"0 to {num_classes - 1}, since data.num_classes is {num_classes}; raise it, "
                    "or correct the list"
                )
            raise _bad(path, number, f"{name} {label}", f"class ids must be {allowed}")
        entries.append(VideoEntry(_resolved(folder / name), label, index))
    missing = [at for at, entry in enumerate(entries) if not _is_video(entry.path)]
    if missing:
        first_path = entries[missing[0]].path
        raise UsageError(
            f"{path}, line {rows[missing[0]][0]}: no such file {first_path} "
            f"({_count(len(missing), len(entries))} missing); correct the list, or set the root "
            "folder"
        )
    return entries


def list_text(rows: Sequence[tuple[str, int | None]]) -> str:
    """A list of these paths and class ids that `read_list` reads back as they are.

    Raises:
        UsageError: for a path that no line can hold.
    """
    lines = [_line(name, label) for name, label in rows]
    text = "".join(f"{line}\n" for line in lines)
    is_misread = _not_a_list(text) or _is_header(lines[0], lines[1] if len(lines) > 1 else "")
    header = "path" if rows[0][1] is None else "path\tlabel"
    return f"{header}\n{text}" if is_misread else text


def _line(name: str, label: int | None) -> str:
    for quote in ("", '"', "'"):
        quoted = f"{quote}{name}{quote}"
        line = quoted if label is None else f"{quoted}\t{label}"
        try:
            if line == line.strip() and _split(line) == (name, label) and "\r" not in line:
                return line
        except ValueError:
            continue
    raise UsageError(f"{name!r} cannot stand in a list; rename the file, without quotes and spaces")


def _resolved(path: Path) -> str:
    """The path, `.mp4` added to a name without a dot, unless it is that of a folder of frames."""
    if "." in path.name:
        return str(path)
    with_suffix = f"{path}.mp4"
    return str(path) if not _is_video(with_suffix) and is_frame_folder(path) else with_suffix


def _is_video(path: str) -> bool:
    try:
        return Path(path).is_file() or is_frame_folder(path)
    except (OSError, ValueError):  # a name that is too long, or holds what no name can
        return False


def _count(some: int, all_: int) -> str:
    return f"{some} of {all_} video{'s' * (all_ > 1)} {'is' if some == 1 else 'are'}"


def _bad(path: str | Path, number: int, text: str, complaint: str) -> UsageError:
    return UsageError(f"{path}, line {number}: {text[:_LONGEST_SHOWN]!r}: {complaint}")


def _rows(path: str | Path) -> list[tuple[int, str, int | None]]:
    """Line number, path and label of every line that names a video; at least one."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        where = "" if Path(path).is_absolute() else f" in {Path.cwd()}, the working directory"
        raise UsageError(
            f"{path}: the list cannot be read ({error.strerror}{where}); name a text file with one "
            "video per line"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not a text file in UTF-8; {_EXPECTED}") from error
    if what := _not_a_list(text):
        raise UsageError(f"{path} looks like {what}, not like a list of videos; {_EXPECTED}")
    lines = [(at, line.strip()) for at, line in enumerate(text.split("\n"), 1) if line.strip()]
    if (
        lines
        and len(lines[0][1]) < _LONGEST_LINE
        and _is_header(lines[0][1], lines[1][1] if len(lines) > 1 else "")
    ):
        del lines[0]
    if not lines:
        raise UsageError(f"{path}: the list is empty; {_EXPECTED}")
    rows = []
    for number, line in lines:
        if len(line) > _LONGEST_LINE:
            raise _bad(path, number, line, f"no path has {len(line):,} letters; {_EXPECTED}")
        try:
            name, label = _split(line)
        except ValueError as error:
            raise _bad(path, number, line, f"{error}; {_EXPECTED}") from None
        rows.append((number, name, label))
    return rows


def _not_a_list(text: str) -> str:
    """What a file is that people give for a list by mistake; empty for anything else."""
    start = text.lstrip()[:200].lower()
    if start.startswith(("<!doctype", "<html", "<?xml")):
        return "a web page, which a failed download leaves behind"
    if re.match(r"[\[{]\s*[\[{\"\]}]", start):
        return "a JSON file"
    if re.match(r"(?:[1-9]\d*[ \t]+[A-Za-z_]+\s+){2}", start):
        return "UCF101's classInd.txt, which names classes"
    return ""


def _is_header(line: str, after: str) -> bool:
    """Whether `line`, the first, names columns: a known name, or two words over a labelled row."""
    words = [word.strip("\"'") for word in re.split(r"[\t, ]+", line)]
    if words[0].lower() in _HEADER_NAMES and len(words) <= 2 and not words[-1].isdigit():
        return True
    is_plain = all(word.replace("_", "").isalpha() for word in words)
    return len(words) == 2 and is_plain and _label(re.split(r"[\t, ]+", after)[-1]) is not None


def _split(line: str) -> tuple[str, int | None]:
    """Path and label of a line.

    Raises:
        ValueError: saying what is wrong with it.
    """
    if re.fullmatch(_VIDEO + r"(?:[\s,]+[+-]?\d+){2,3}", line, re.IGNORECASE):
        raise ValueError(
            "this is VideoMAEv2's form, path, first frame and number of frames; leave only the "
            "path and its label"
        )
    if re.fullmatch(_VIDEO + r"\s*::.*", line, re.IGNORECASE):
        raise ValueError("`::` separates nothing here; write a tab or a space instead")
    word = re.fullmatch(_VIDEO + r"[\s,]+([^\s,.\"']+)", line, re.IGNORECASE)
    if word is not None and _label(word[1]) is None:
        raise ValueError(f"{word[1]!r} is not a class id; write the number of the class")
    quoted = re.fullmatch(r"""(["'])(.+?)\1\s*[\t, ]?\s*([^"']*)""", line)
    if quoted is not None:
        name, last = quoted[2], quoted[3]
        if last and _label(last) is None:
            raise ValueError(f"{last!r} is not a class id")
        return name, _label(last)
    if "\t" in line:
        name, *rest = (field.strip() for field in line.split("\t"))
        if len(rest) != 1 or _label(rest[0]) is None:
            raise ValueError(f"{' '.join(rest)!r} is not a class id")
        name = name.strip("\"'")
    else:
        # The label is what follows the last separator; a path may hold separators of its own.
        parts = re.fullmatch(r"(.*?)(?:\s*,\s*|\s+)([+-]?\d{1,9})", line)
        name, rest = (parts[1], [parts[2]]) if parts is not None else (line, [""])
    if not name:
        raise ValueError("there is no path")
    return name, _label(rest[0])


def _label(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?\d{1,9}", text) else None

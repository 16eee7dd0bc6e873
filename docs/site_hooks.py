"""Hooks of mkdocs: what the site needs beyond the pages in docs/.

Links in docs/ are relative, as GitHub follows them, and some lead out of docs/. So every file that
a page links to becomes a page of the site as well, and the links are turned to it. The API
reference has one page per part of the public interface, made from docstrings without importing
anything.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")

MARKS = re.compile(r"\](?=\[[A-Z]\d*\])")
"""Between two marks of sources, as [R][S]: Markdown takes such a pair for a link."""


def modules_of(folder: str) -> list[str]:
    """The modules in a folder of `tats_ray`, as dotted names."""
    found = sorted((ROOT / "tats_ray" / folder).glob("[!_]*.py"))
    return [
        path.relative_to(ROOT / "tats_ray").with_suffix("").as_posix().replace("/", ".")
        for path in found
    ]


API = {
    "load": (
        "Loading a checkpoint",
        ["evaluation.loaded_model.load", "evaluation.loaded_model.Model"],
    ),
    "envs": ("Environments", ["envs"]),
    "algorithms": ("Algorithms", ["algorithms.base"]),
    "samplers": ("Samplers", ["models.samplers", *modules_of("models/samplers")]),
    "protocols": ("Protocols", ["core.protocols"]),
    "types": ("Data structures", ["core.types"]),
    "config": ("Configuration", ["config.schema"]),
}
"""Page of the reference -> its title, and what it describes, under `tats_ray`."""


def site_path(path: str) -> str:
    """Where a file of the repository lies in the site's sources."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"repository/{path}" if path.endswith(".md") else f"repository/{path}.md"


def resolved(path: str, link: str) -> str:
    """What a relative link of a file leads to; all paths are relative to the top folder."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), link))


def links(path: str) -> set[str]:
    """Files of the repository that a page links to."""
    text = FENCE.sub("", (ROOT / path).read_text())
    return {resolved(path, to) for to in LINK.findall(text)}


def outside() -> list[str]:
    """Files outside docs/ that can be reached from its pages by links."""
    found: set[str] = set()
    todo = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")}
    while todo:
        page = todo.pop()
        new = {to for to in links(page) if (ROOT / to).is_file() and not to.startswith("docs/")}
        todo |= {to for to in new - found if to.endswith(".md")}
        found |= new
    return sorted(found)


def as_page(path: str) -> str:
    """Markdown as it is; any other file as one block of code."""
    text = (ROOT / path).read_text()
    if path.endswith(".md"):
        return text
    language = {".py": "python", ".yaml": "yaml", ".cff": "yaml", ".sh": "sh"}
    return f"# {path}\n\n```{language.get(Path(path).suffix, 'text')}\n{text}```\n"


def reference(title: str, names: list[str]) -> str:
    """A page of the reference, for mkdocstrings to fill in."""
    return f"# {title}\n\n" + "".join(f"::: tats_ray.{name}\n\n" for name in names)


def on_startup(**_: Any) -> None:
    """Lay the sources out as in the wheel, where envs/ is `tats_ray.envs`."""
    layout = ROOT / "build" / "site_source" / "tats_ray"
    shutil.rmtree(layout, ignore_errors=True)
    for folder, name in (("tats_ray", ""), ("envs", "envs")):
        for path in (ROOT / folder).rglob("*.py"):
            copy = layout / name / path.relative_to(ROOT / folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(MARKS.sub("], ", path.read_text()))


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are not in docs/."""
    for path in outside():
        files.append(File.generated(config, site_path(path), content=as_page(path)))
    for page, (title, names) in API.items():
        files.append(File.generated(config, f"api/{page}.md", content=reference(title, names)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn relative links from where a page lies in the repository to where it lies in the site."""
    here = page.file.src_uri
    source = here.removeprefix("repository/") if here.startswith("repository/") else f"docs/{here}"

    def turned(link: re.Match[str]) -> str:
        target = site_path(resolved(source, link[1]))
        return f"]({posixpath.relpath(target, posixpath.dirname(here) or '.')}"

    parts = FENCE.split(markdown)
    parts[::2] = [MARKS.sub("], ", LINK.sub(turned, part)) for part in parts[::2]]
    return "".join(parts)

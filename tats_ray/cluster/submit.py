"""`tats submit`, `status`, `logs`, `stop`: a run on a cluster, from a laptop."""

from __future__ import annotations

import platform
import shlex
import shutil
import tempfile
import time
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tats_ray.cluster.wheel import DISTRIBUTION, build_wheel, requirements
from tats_ray.core.errors import TatsError, UsageError
from tats_ray.runtime.cluster.job_server import Jobs
from tats_ray.view.tables import print_table

COMPARED = ("ray", "torch", "torchvision", "timm", "numpy", "decord", "av")
MAX_UPLOAD_MB = 10.0


def submit(
    words: Sequence[str],
    *,
    address: str = "",
    include: Sequence[Path] = (),
    name: str = "",
    is_followed: bool = True,
) -> None:
    """Start a command of `tats` on a cluster.

    Uploaded are this package as a wheel, files that the command names by a relative path, and
    `include`; nothing else, so neither videos nor runs.

    Raises:
        UsageError: for what can be known before anything is uploaded.
        TatsError: when the job fails.
    """
    if not words:
        raise UsageError("nothing to submit; use tats submit -- pretrain CONFIG")
    jobs = Jobs(address)
    check_versions(jobs.versions(COMPARED))
    job = name or f"tats-{words[0]}-{time.strftime('%m%d-%H%M%S')}"
    with tempfile.TemporaryDirectory() as folder:
        staged = stage(Path(folder), words, include)
        megabytes = packed_mb(staged)
        print(
            f"uploading {megabytes:.2f} MB: {', '.join(sorted(p.name for p in staged.iterdir()))}"
        )
        if megabytes > MAX_UPLOAD_MB:
            raise UsageError(
                f"{megabytes:.0f} MB are too much to upload (at most {MAX_UPLOAD_MB:g}); put data "
                "into the folder that all nodes share, and leave it out of --include"
            )
        command = ["python", "-m", "tats_ray", *words]
        print(f"same as: ray job submit --working-dir FOLDER -- {shlex.join(command)}")
        jobs.submit(command, name=job, working_dir=staged)
    print(f"job {job}; tats logs {job}; tats stop {job}", flush=True)
    if is_followed:
        follow(job, address=address, jobs=jobs)


def follow(job: str, *, address: str = "", jobs: Jobs | None = None) -> None:
    """Print a job's output until it ends; Ctrl-C leaves it running.

    Raises:
        TatsError: when it failed.
    """
    try:
        status = (jobs or Jobs(address)).follow(job)
    except KeyboardInterrupt:
        print(f"\njob {job} continues; tats logs {job} shows it again")
        return
    print(f"job {job}: {status}")
    if status == "FAILED":
        raise TatsError(f"job {job} failed; see its last lines above")


def show_status(*, address: str = "") -> None:
    rows = [list(row) for row in Jobs(address).all()]
    print_table(("job", "status", "command"), rows or [["none", "-", "-"]])


def stop(job: str, *, address: str = "") -> None:
    """Stop a job once it saved a checkpoint, and show its last lines: they say how to go on."""
    jobs = Jobs(address)
    print(f"stopping {job}: it saves a checkpoint first", flush=True)
    status = jobs.stop(job)
    for line in jobs.logs(job).rstrip().splitlines()[-3:]:
        print(f"  {line}")
    print(f"job {job}: {status}")


def check_versions(there: dict[str, str]) -> None:
    """Compare both sides, and refuse what this package's own requirements refuse.

    Raises:
        UsageError: naming every package of the cluster that is missing or out of bounds.
    """
    here = {"python": platform.python_version()}
    here |= {name: metadata.version(name) for name in COMPARED}
    bounds = {**requirements(), "python": metadata.metadata(DISTRIBUTION)["Requires-Python"] or ""}
    wrong = [
        f"{name} {there.get(name) or 'missing'} (needs {bounds.get(name) or 'any'})"
        for name in here
        if not there.get(name) or not _allows(bounds.get(name, ""), there[name])
    ]
    rows = [[name, here[name], there.get(name) or "-"] for name in here]
    print_table(("package", "here", "cluster"), rows)
    if wrong:
        raise UsageError(
            f"the cluster cannot run this: {', '.join(wrong)}; install requirements.lock there, "
            "as the setup commands of cluster.yaml do"
        )


def _allows(bounds: str, version: str) -> bool:
    # Local builds such as 2.15.0+cu132 count as their release.
    return SpecifierSet(bounds).contains(Version(version).public, prereleases=True)


def stage(folder: Path, words: Sequence[str], include: Sequence[Path]) -> Path:
    """A folder with exactly what the job needs: the package, and named files of this folder.

    Raises:
        UsageError: for a file outside the present folder, or one that does not exist.
    """
    staged = folder / "job"
    with zipfile.ZipFile(build_wheel(folder)) as wheel:
        wheel.extractall(staged)
    named = [Path(word) for word in words if not word.startswith("-") and Path(word).is_file()]
    for path in [*(path for path in named if not path.is_absolute()), *include]:
        where = staged / path
        if path.is_absolute() or ".." in path.parts:
            raise UsageError(f"{path} is not inside this folder; go to the folder that holds it")
        if not path.exists():
            raise UsageError(f"{path} does not exist; --include takes files and folders")
        if path.is_dir():
            ignored = shutil.ignore_patterns(".git", "__pycache__", ".venv*", "runs", "data")
            shutil.copytree(path, where, dirs_exist_ok=True, ignore=ignored)
        else:
            where.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, where)
    return staged


def packed_mb(folder: Path) -> float:
    """What an upload of the folder comes to, compressed."""
    with tempfile.TemporaryFile() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in folder.rglob("*"):
                archive.write(path, path.relative_to(folder))
        return file.tell() / 1e6

"""What a check found, and how a list of findings is shown."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from tats_ray.core.errors import TatsError

Verdict = Literal["ok", "note", "FAIL"]


@dataclass(frozen=True)
class Finding:
    """One line of a doctor or of lint."""

    what: str
    says: str
    verdict: Verdict = "ok"
    """note: works, but may surprise; FAIL: a run will not work."""
    help: str = ""
    """What to do about it, in one line."""


def try_out(what: str, check: Callable[[], Finding]) -> Finding:
    """A check's finding; one that breaks is a finding too, and does not hide the others."""
    try:
        return check()
    except Exception as error:
        lines = str(error).strip().splitlines() or ["no message"]
        advice = "reinstall with `pip install -r requirements.lock`"
        return Finding(what, f"{type(error).__name__}: {lines[0][:100]}", "FAIL", advice)


def show(title: str, findings: Iterable[Finding]) -> list[Finding]:
    """Print them as one table, with the advice under it; those that fail."""
    found = list(findings)
    width = max((len(each.what) for each in found), default=0)
    print(title)
    for each in found:
        print(f"  {each.what:<{width}}  {each.verdict:<4}  {each.says}")
    for each in found:
        if each.help:
            print(f"{each.verdict:>4}  {each.what}: {each.help}", flush=True)
    return [each for each in found if each.verdict == "FAIL"]


def refuse(failed: list[Finding], who: str) -> None:
    """End the command when something failed.

    Raises:
        TatsError: naming what failed.
    """
    if failed:
        raise TatsError(f"{who}: {', '.join(each.what for each in failed)} failed; see above")

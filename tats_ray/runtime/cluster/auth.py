"""Ray's authentication, as far as a person has to know about it. Needs no Ray."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tats_ray.core.errors import UsageError

MAKE_AUTH_TOKEN = "ray get-auth-token --generate && chmod 600 ~/.ray/auth_token"


@dataclass(frozen=True)
class AuthToken:
    """The cluster's password and where it was found. Its repr does not show the value."""

    value: str = field(repr=False)
    source: str
    is_private: bool
    """False for a file that others on this machine may read."""


def find_auth_token(environ: Mapping[str, str] = os.environ) -> AuthToken | None:
    """The auth token that Ray itself would use: environment, named file, file in the home folder.

    Raises:
        UsageError: for a file that is named by the environment and holds no auth token.
    """
    if environ.get("RAY_AUTH_TOKEN"):
        return AuthToken(environ["RAY_AUTH_TOKEN"].strip(), "RAY_AUTH_TOKEN", is_private=True)
    named = environ.get("RAY_AUTH_TOKEN_PATH", "")
    path = Path(named) if named else Path.home() / ".ray" / "auth_token"
    try:
        value = path.read_text().strip()
        mode = path.stat().st_mode
    except OSError as error:
        if named:
            raise UsageError(f"RAY_AUTH_TOKEN_PATH {named}: {error.strerror}") from error
        return None
    if not value:
        if named:
            raise UsageError(f"RAY_AUTH_TOKEN_PATH {named} is empty; make one: {MAKE_AUTH_TOKEN}")
        return None
    return AuthToken(value, str(path), is_private=not mode & (stat.S_IRWXG | stat.S_IRWXO))


def require_auth_token(environ: Mapping[str, str] = os.environ) -> AuthToken | None:
    """The token, or None where authentication was switched off on purpose.

    Raises:
        UsageError: with the one command that makes an auth token, where there is none.
    """
    if environ.get("RAY_AUTH_MODE") == "disabled":
        return None
    found = find_auth_token(environ)
    if found is None:
        raise UsageError(f"no auth token for the cluster was found; make one: {MAKE_AUTH_TOKEN}")
    return found

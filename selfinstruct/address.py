"""Where requests go: checks of an endpoint's address, and the key for it from the environment."""

from __future__ import annotations

import logging
import os
from urllib.parse import urlsplit

from selfinstruct.errors import AuthenticationError, UsageError

OPENAI_URL = "https://api.openai.com/v1"

logger = logging.getLogger(__name__)


def check_base_url(base_url: str) -> None:
    """Make sure that an address can be used and be written down.

    Raises:
        UsageError: When it has no scheme, or holds a secret.
    """
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https"):
        raise UsageError(f"--base-url: must start with https:// or http://, not '{base_url}'")
    if url.password or url.query:
        raise UsageError(
            "--base-url: holds a password or a query, which would be written to run.toml; use --api-key-env"
        )


def key_of(base_url: str, name: str, named: bool) -> str | None:
    """A key from the environment; None where none is needed.

    Args:
        base_url: Where it is sent.
        name: The environment variable; "" for no key.
        named: Whether the user named it, so that it has to be there.

    Raises:
        AuthenticationError: When the key is not set and the endpoint certainly needs one.
        UsageError: When the key would travel unencrypted to another machine, or the name is none.
    """
    if not name:
        return None
    if not name.isidentifier():
        raise UsageError("--api-key-env: must be the name of an environment variable, never a key itself")
    key = os.environ.get(name, "").strip()
    url = urlsplit(base_url)
    if not key:
        if base_url == OPENAI_URL or named:
            raise AuthenticationError(
                f"no key: set the environment variable {name}, or run the local model: --model embedded"
            )
        return None
    if url.scheme == "http" and not is_loopback(base_url):
        raise UsageError(
            f"--base-url: a key must not travel unencrypted to {url.hostname}; use https, or --api-key-env '' for a"
            " server that needs no key"
        )
    logger.warning("endpoint %s, key from %s", url.hostname, name)
    return key


def is_loopback(base_url: str) -> bool:
    """Whether an endpoint is on this machine."""
    return urlsplit(base_url).hostname in ("localhost", "127.0.0.1", "::1")

"""Whether hosts answer: within seconds, where urllib waits and the libraries of Hugging Face try
again for minutes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException
from threading import Thread
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import Request, build_opener

SECONDS = 5.0  # a host has to answer


def require_answer(url: str) -> None:
    """ConnectionError if the host of a URL cannot be reached."""
    if why := no_answer(url):
        raise ConnectionError(why)


def no_answer(url: str) -> str:
    """Why the host of a URL cannot be reached, or empty."""
    found: list[str] = []
    # in a thread of its own, as no timeout of urllib ends the look-up of a name
    asking = Thread(target=lambda: found.append(ask(url)), daemon=True)
    asking.start()
    asking.join(SECONDS)
    return found[0] if found else f"no answer within {SECONDS:g} s"


def ask(url: str) -> str:
    """Why the host of a URL cannot be reached, or empty. It need not have the file: the download
    itself tells more."""
    try:
        with build_opener().open(Request(plain(url), method="HEAD"), timeout=SECONDS):
            return ""
    except HTTPError as error:
        # 501: it answers, but not to HEAD
        return str(error) if error.code >= 500 and error.code != 501 else ""
    except URLError as error:
        return str(error.reason)
    except (OSError, HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"


def plain(url: str) -> str:
    """The URL as urllib takes it: without user and password, and with other signs escaped. Those
    who download take more."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{quote(parts.path, safe='/%')}"


@contextmanager
def hub() -> Iterator[str]:
    """For code that calls Hugging Face's libraries: where their hub cannot be reached, they read
    their cache alone. Yields why it cannot, or empty."""
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    why = "HF_HUB_OFFLINE is set" if before else no_answer(constants.ENDPOINT)
    constants.HF_HUB_OFFLINE = before or bool(why)  # read at every request
    try:
        yield f"{constants.ENDPOINT} cannot be reached: {why}" if why else ""
    finally:
        constants.HF_HUB_OFFLINE = before

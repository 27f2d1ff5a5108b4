"""Bringing data sets and the words that a score needs into the caches, from where there is internet."""

from __future__ import annotations

import io
import logging
import socket
from pathlib import Path

from hpcft.data.sources import is_cached, read_rows
from hpcft.errors import HpcftError
from hpcft.spec.job import DataSection

log = logging.getLogger(__name__)

_PATIENCE_S = 20.0


def fetch_set(name: str, data: DataSection) -> None:
    """Load a hub set once, which leaves it in the library's cache.

    Raises:
        UnavailableError: the hub does not give it. HpcftError: it gave it, and the cache does not have it.
    """
    next(iter(read_rows(name, data.subset, data.revision)), None)
    if not is_cached(name, data.subset):
        raise HpcftError("was loaded, and is not in the cache where jobs look for it", where=name)


def wordnet_folder() -> Path | None:
    """Where nltk finds WordNet, which METEOR takes synonyms from; None where it does not."""
    import nltk

    for name in ("corpora/wordnet", "corpora/wordnet.zip"):
        try:
            return Path(str(nltk.data.find(name)))
        except LookupError:
            continue
    return None


def fetch_wordnet() -> Path | None:
    """Get WordNet into NLTK_DATA or the home; None where its server does not answer."""
    import nltk

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_PATIENCE_S)
    said = io.StringIO()
    try:
        nltk.download("wordnet", quiet=True, print_error_to=said)
    except (OSError, ValueError) as error:
        log.warning("WordNet cannot be had: %s", error)
    finally:
        socket.setdefaulttimeout(before)
        log.info("%s", said.getvalue())
    return wordnet_folder()

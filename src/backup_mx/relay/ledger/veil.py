"""How addresses stand in the ledger: as they are, or as keyed hashes that can be asked for."""

from __future__ import annotations

import hashlib
import re
import secrets
import sqlite3
from collections.abc import Callable
from functools import lru_cache

_ADDRESS = re.compile(r"[^\s<>@\"]+@[^\s<>@\"]+")
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"@[^\s<>]+')
_HIDDEN = "[address]"


class Veil:
    """Replaces addresses by keyed hashes, if it ``hides``.

    With a key, a hashed address can be looked up even where new ones are not hidden any more.
    """

    def __init__(self, key: bytes = b"", *, hides: bool = False) -> None:
        self._key = key
        self.hides = hides
        self.sender = self._kept(512, self._sender)
        self.recipient = self._kept(512, self._recipient)
        self.words = self._kept(256, self._words)

    def _kept(self, most: int, hidden: Callable[[str], str]) -> Callable[[str], str]:
        """Return ``hidden`` with a cache of ``most`` texts; ``str`` where nothing is hidden."""
        return lru_cache(most)(hidden) if self.hides else str

    def _hash(self, text: str) -> str:
        return hashlib.blake2b(text.lower().encode(), key=self._key, digest_size=12).hexdigest()

    def _sender(self, text: str) -> str:
        """Return how a sender, or a Message-ID, stands in a ledger that hides; "" stays itself."""
        return f"#{self._hash(text)}" if text else text

    def _recipient(self, address: str) -> str:
        """Return how a recipient stands in it: his domain, which is ours, is no secret."""
        return self.twin(address)

    def twin(self, address: str) -> str:
        """Return how a recipient stands, or stood, in it hashed; himself if there is no key."""
        return f"#{self._hash(address)}@{domain(address)}" if self._key else address

    def forms(self, text: str) -> tuple[str, ...]:
        """Return every way in which exactly this sender, recipient or Message-ID may stand here."""
        return (text, f"#{self._hash(text)}", self.twin(text)) if self._key else (text,)

    def _words(self, text: str) -> str:
        """Return a server's words without the addresses it repeats."""
        return _ADDRESS.sub(_HIDDEN, _QUOTED.sub(_HIDDEN, text))


def domain(address: str) -> str:
    """Return an address's domain, in small letters."""
    return address.rpartition("@")[2].lower()


def stored(database: sqlite3.Connection) -> Veil:
    """Return the veil that a ledger is written with."""
    rows = database.execute("SELECT key, value FROM meta WHERE key IN ('hash_key', 'hashes')")
    found = dict(rows)
    return Veil(bytes.fromhex(found.get("hash_key", "")), hides=found.get("hashes") == "1")


def drawn(database: sqlite3.Connection, hash_addresses: bool) -> Veil:
    """Return the veil to write with, hiding what is there already when hashing begins.

    The key is made once and stays, so that what was hashed can be asked for.
    """
    before = stored(database)
    if before.hides == hash_addresses:
        return before
    database.execute("BEGIN IMMEDIATE")
    database.execute("INSERT OR IGNORE INTO meta VALUES ('hash_key', ?)", (secrets.token_hex(32),))
    database.execute(
        "INSERT OR REPLACE INTO meta VALUES ('hashes', ?)", (str(int(hash_addresses)),)
    )
    veil = stored(database)
    if veil.hides:
        _hide(database, veil)
    database.execute("COMMIT")
    return veil


def _hide(database: sqlite3.Connection, veil: Veil) -> None:
    for name in ("sender", "recipient", "words"):
        hidden = getattr(veil, name)
        database.create_function(
            name, 1, lambda text, hidden=hidden: text if text[:1] == "#" else hidden(text)
        )
    database.execute("UPDATE message SET sender = sender(sender), message_id = sender(message_id)")
    for table in ("recipient", "attempt"):
        database.execute(f"UPDATE {table} SET address = recipient(address), words = words(words)")  # noqa: S608

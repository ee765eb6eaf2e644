"""A small IMAP server for tests: folders in memory, STARTTLS, and what is needed to find mail."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from smtpd import Peer

_SEARCH = re.compile(r'SEARCH HEADER (\S+) "([^"]*)"')
_FETCH = re.compile(r"FETCH (\d+) \((.*)\)")


@dataclass
class Imap:
    """A server's mailbox: folders of messages by UID; plays as a script of smtpd.Server.

    listed are its answers to LIST, login the answer to a login; deleted are (folder, UID). As
    Dovecot does it announces before a login (offer) less than what it can afterwards (able).
    """

    certificate: Path
    folders: dict[str, dict[int, bytes]] = field(default_factory=lambda: {"INBOX": {}})
    listed: tuple[str, ...] = (r'(\HasNoChildren) "." INBOX',)
    offer: str = "IMAP4rev1 SASL-IR LITERAL+ STARTTLS AUTH=PLAIN"
    able: str = "IMAP4rev1 SASL-IR LITERAL+ UIDPLUS"
    login: str = "OK in"
    marked: set[tuple[str, int]] = field(default_factory=set)
    deleted: set[tuple[str, int]] = field(default_factory=set)
    secure: bool = False
    """Whether the last login came over TLS."""
    within: bool = False
    """Whether somebody is logged in."""
    folder: str = ""
    tired: bool = False
    """Whether it hangs up at the next search, once."""
    curt: bool = False
    """Whether it hangs up when it has deleted a message, before it says so, once."""

    def put(self, message: bytes, folder: str = "INBOX") -> None:
        """Let a message arrive."""
        box = self.folders.setdefault(folder, {})
        box[max(box, default=0) + 1] = message

    def __call__(self, peer: Peer) -> None:
        peer.say("* OK here")
        self.secure, self.within, self.folder, line = False, False, "", ""
        while line.upper() != "LOGOUT":
            tag, _, line = peer.hear().partition(" ")
            verb, _, rest = line.partition(" ")
            answer = getattr(self, f"_{verb.lower()}", None)
            peer.say(f"{tag} {(answer and answer(peer, rest)) or 'OK done'}")
            if verb == "STARTTLS":
                peer.secure(self.certificate)
                self.secure = True

    def _capability(self, peer: Peer, _rest: str) -> None:
        peer.say(f"* CAPABILITY {self.able if self.within else self.offer}")

    def _authenticate(self, peer: Peer, _rest: str) -> str:
        peer.say("+ ")
        return self._login(peer, peer.hear())

    def _login(self, _peer: Peer, _rest: str) -> str:
        self.within = self.login.startswith("OK")
        return self.login

    def _list(self, peer: Peer, _rest: str) -> None:
        for each in self.listed:
            peer.say(f"* LIST {each}")

    def _select(self, peer: Peer, rest: str) -> str:
        self.folder = rest.strip('"')
        if self.folder not in self.folders:
            return "NO there is none"
        peer.say(f"* {len(self.folders[self.folder])} EXISTS")
        return ""

    _examine = _select

    def _uid(self, peer: Peer, rest: str) -> None:
        box = self.folders[self.folder]
        if self.tired:
            self.tired = False
            raise EOFError
        if found := _SEARCH.fullmatch(rest):
            name, words = found[1].lower().encode(), found[2].encode()
            hits = [uid for uid, message in box.items() if _has(message, name, words)]
            peer.say(" ".join(["* SEARCH", *map(str, hits)]))
        elif (found := _FETCH.fullmatch(rest)) and int(found[1]) in box:
            whole = box[int(found[1])]
            text = whole.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if "HEADER" in found[2] else whole
            date = 'INTERNALDATE "22-Nov-2026 12:00:10 +0000" '
            peer.say(f"* 1 FETCH (UID {found[1]} {date}BODY[] {{{len(text)}}}")
            peer.line.sendall(text + b")\r\n")
        elif rest.startswith("STORE"):
            self.marked.add((self.folder, int(rest.split()[1])))
        elif rest.startswith("EXPUNGE"):
            place = (self.folder, int(rest.split()[1]))
            assert place in self.marked
            box.pop(place[1])
            self.deleted.add(place)
            if self.curt:
                self.curt = False
                raise EOFError


def _has(message: bytes, name: bytes, words: bytes) -> bool:
    head = message.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")
    return any(line.startswith(name + b":") and words.lower() in line for line in head)

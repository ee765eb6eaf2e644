"""What odd clients say to the relay, and the codes it answers: one table, the same for any Postfix.

Every reply of the relay to every client counts, also those that are not written down here.
"""

from __future__ import annotations

from dataclasses import dataclass

EHLO = b"EHLO client.example.net"
MAIL = b"MAIL FROM:<a@example.net>"
RCPT = b"RCPT TO:<alice@example.org>"
ENVELOPE = (EHLO, MAIL, RCPT)


@dataclass(frozen=True)
class Odd:
    """A client: what it does, its commands after the greeting, and the codes of the answers."""

    does: str
    says: tuple[bytes, ...]
    hears: tuple[int, ...]


def _mail(does: str, message: bytes) -> Odd:
    """Return a client that sends an odd message, which is taken."""
    return Odd(does, (*ENVELOPE, b"DATA", message + b"\r\n.\r\n"), (250, 250, 250, 354, 250))


def _sender(argument: bytes, code: int) -> Odd:
    """Return a client whose MAIL command is odd."""
    return Odd(f"says MAIL FROM:{argument[:60]!r}", (EHLO, b"MAIL FROM:" + argument), (250, code))


def _hello(hello: bytes) -> Odd:
    """Return a client whose HELO is odd, and which is served nevertheless."""
    return Odd(f"says {hello[:60]!r}", (hello, MAIL, RCPT), (250, 250, 250))


_HEADER = b"Subject: odd\r\n"
_MULTIPART = b"--b%d\r\nContent-Type: multipart/mixed; boundary=b%d\r\n\r\n"

CLIENTS = (
    Odd("says no HELO", (MAIL, RCPT), (250, 250)),
    *[
        _hello(hello)
        for hello in (
            b"HELO [192.0.2.1]",
            b"HELO 192.0.2.1",
            b"HELO !!__\xff \x00",
            b"EHLO mx2.example.org",
            b"EHLO example.org",
            b"EHLO a b c",
            b"HELO localhost",
            b"ehlo lower.case.example.net",
            b"EHLO " + b"a" * 4000,
        )
    ],
    Odd("names itself nothing", (b"HELO", b"EHLO"), (501, 501)),
    Odd("ends its commands with bare line feeds", (b"EHLO x\n" + MAIL, RCPT), (250, 250)),
    *[
        _sender(argument, 250)
        for argument in (
            b"<>",
            b"a@example.net",
            b" <a@example.net>",
            b"<a@nonexistent.example.com>",
            b"<alice@example.org>",
            b"<-a@example.net>",
            b"<a@[192.0.2.1]>",
            b"<a_b@under_score.net>",
            b"<j\xc3\xbcrgen@example.net>",
            b"<j\xfcrgen@example.net>",
            b"<a>",
            b"<postmaster>",
            b"<MAILER-DAEMON>",
            b"<@one.example:a@example.net>",
            b"<a@b@example.net>",
            b"<a@example.net> BODY=8BITMIME",
            b"<a@example.net> SIZE=52428800",
            b"<a@example.net> AUTH=<>",
        )
    ],
    *[_sender(argument, 501) for argument in (b"", b"<a b@example.net>", b"<a@192.0.2.1>",
      b"<" + b"x" * 3000 + b"@example.net>", b"<a@-x.net>", b"<a@example.net", b"<#@[]>",
      b"<a@example.net> SIZE=-1", b"<a@example.net> RET=FULL")],
    *[_sender(b"<a@example.net> " + option, 555) for option in (b"BODY=BINARYMIME", b"SMTPUTF8",
      b"REQUIRETLS", b"MT-PRIORITY=3", b"DELIVERBY=100;R", b"HOLDFOR=100")],
    *[
        Odd(
            f"asks for notices after {hello!r}",
            (hello, MAIL + b" RET=HDRS", MAIL + b"\tret=full", MAIL, RCPT + b" NOTIFY=NEVER",
             RCPT + b" ORCPT=rfc822;a@b\tnotify=success,failure"),
            (250, 501, 501, 250, 501, 501),
        )
        for hello in (EHLO, b"HELO client.example.net", b"NOOP")
    ],
    _sender(b"<a@example.net> SIZE=52428801", 552),
    _sender(b"<a@example.net> SIZE=99999999999999999999999", 552),
    Odd("breaks MAIL and RCPT", (EHLO, b"MAIL", b"MAIL <a@example.net>", MAIL, b"RCPT",
        b"RCPT FROM:<a@b>", RCPT + b" FOO=BAR", RCPT + b" NOTIFY=SUCCESS"),
        (250, 501, 501, 250, 501, 501, 555, 501)),
    Odd("writes broken recipients", (EHLO, MAIL, b"RCPT TO:<>", b"RCPT TO:<alice@>",
        b"RCPT TO:<a b@example.org>", b"RCPT TO:<al\x00ice@example.org>",
        b"RCPT TO:<alice@example..org>", b"RCPT TO:<x@203.0.113.20>",
        b"RCPT TO:<x@ex\xc3\xa4mple.org>"), (250, 250, *(7 * [501]))),
    Odd("asks for what is not offered", (EHLO, b"VRFY alice@example.org", b"EXPN staff",
        b"ETRN example.org", b"XCLIENT ADDR=192.0.2.9", b"XFORWARD ADDR=192.0.2.9",
        b"AUTH PLAIN AAAA", b"TURN"), (250, 502, 500, 459, 550, 550, 503, 500)),
    Odd("asks for nothing", (EHLO, b"NOOP", b"NOOP " + b"x" * 1000, b"RSET", b"RSET x", b"QUIT"),
        (250, 250, 250, 250, 501, 221)),
    Odd("speaks HTTP", (b"GET / HTTP/1.0",), (221,)),
    Odd("speaks TLS", (b"\x16\x03\x01\x02\x00\x01\x00",), (221,)),
    Odd("speaks nonsense", (EHLO, b"FOO", b"", b" "), (250, 500, 500, 500)),
    Odd("has no order", (EHLO, RCPT, b"DATA", MAIL, MAIL, b"DATA", RCPT, b"DATA x", b"STARTTLS x"),
        (250, 503, 503, 250, 503, 554, 250, 501, 501)),
    Odd("goes on although its recipient is refused", (EHLO, MAIL, b"RCPT TO:<x@example.com>",
        b"DATA", b"BDAT 3 LAST\r\nabc\r\n"), (250, 250, 554, 554, 554)),
    Odd("breaks BDAT", (*ENVELOPE, b"BDAT x LAST"), (250, 250, 250, 521)),
    Odd("sends in chunks", (*ENVELOPE, b"BDAT 22 LAST\r\nSubject: x\r\n\r\nhello\r\n\r\n"),
        (250, 250, 250, 250)),
    Odd("sends an empty chunk", (*ENVELOPE, b"BDAT 0 LAST"), (250, 250, 250, 250)),
    Odd("sends nothing", (*ENVELOPE, b"DATA", b".\r\n"), (250, 250, 250, 354, 250)),
    _mail("sends no header", b"just text"),
    _mail("sends no body", _HEADER.strip()),
    _mail("sends an envelope line", b"From a@example.net Sun Nov 22\r\n" + _HEADER),
    _mail("sends 200 Received fields", b"Received: from a by b; then\r\n" * 200 + _HEADER),
    _mail("sends a line of 9,000 octets", _HEADER + b"\r\n" + b"y" * 9000),
    _mail("sends NUL", b"Subject: \x00x\r\n\r\n\x00\x00"),
    _mail("sends bytes of no character set", b"Subject: \xff\xfe\r\n\r\n\x80"),
    _mail("sends bare line feeds", b"Subject: x\n\nhello\n"),
    _mail("sends a header of 2 MB",
          b"".join(b"X-%d: %b\r\n" % (number, b"z" * 900) for number in range(2300))),
    _mail("sends 200 nested parts", b"Content-Type: multipart/mixed; boundary=b0\r\n\r\n"
          + b"".join(_MULTIPART % (number, number + 1) for number in range(200))),
    _mail("encodes what must not be", b"Content-Type: message/rfc822\r\n"
          b"Content-Transfer-Encoding: base64\r\n\r\nx"),
    _mail("sends UTF-8 unannounced", "Subject: ü\r\nFrom: ü@ü.example\r\n\r\nx".encode()),
    _mail("sends what was delivered before", b"Delivered-To: alice@example.org\r\n" + _HEADER),
)  # fmt: skip

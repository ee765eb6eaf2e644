"""Reading the sending MTA's log, and counting queue files."""

from __future__ import annotations

from pathlib import Path

from backup_mx.lab.stations import files_below, queued, read_answers

LOG = """\
Nov 22 01:30:29 internet postfix/cleanup[99]: 4A1: message-id=<1@lab>
Nov 22 01:30:29 internet postfix/cleanup[99]: 4B2: message-id=<2@lab>
Nov 22 01:30:33 internet postfix/smtp[77]: 4A1: to=<alice@example.org>, relay=mx2.example.org[203.0.113.20]:25, delay=1, dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as 4d)
Nov 22 01:30:34 internet postfix/smtp[77]: 4B2: to=<bob@example.org>, relay=mx2.example.org[203.0.113.20]:25, delay=1, dsn=4.4.2, status=deferred (lost connection with mx2.example.org[203.0.113.20] while sending end of data -- message may be sent more than once)
Nov 22 01:30:35 internet postfix/smtp[77]: 4B2: to=<bob@example.org>, relay=mail.example.org[198.51.100.10]:25, delay=1, dsn=2.0.0, status=sent (250 2.0.0 Ok)
Nov 22 01:30:36 internet postfix/cleanup[99]: 4A1: message-id=<3@lab>
Nov 22 01:30:37 internet postfix/smtp[77]: 4A1: to=<carol@example.org>, relay=none, delay=1, dsn=4.4.1, status=deferred (connect to mail.example.org[198.51.100.10]:25: No route to host)
"""  # noqa: E501


def test_answers_of_the_relay() -> None:
    """What the relay took, and what it may have taken without saying so, are told apart."""
    answers = read_answers(LOG.splitlines(), "mx2.example.org")
    assert answers.accepted == {"<1@lab>"}
    assert answers.unanswered == {"<2@lab>"}


def test_a_queue_id_is_used_again() -> None:
    """A sender's short queue ID stands for the message it was last given to."""
    again = LOG + LOG.splitlines()[2] + "\n"
    assert "<3@lab>" in read_answers(again.splitlines(), "mx2.example.org").accepted


def test_only_finished_queue_files_count(tmp_path: Path) -> None:
    """A file that cleanup has not finished is nobody's message yet."""
    for name, mode in (("incoming/half", 0o600), ("deferred/A/whole", 0o700), ("defer/log", 0o700)):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.touch()
        path.chmod(mode)
    assert queued(tmp_path) == 1
    assert files_below(tmp_path, ("defer", "absent")) == 1

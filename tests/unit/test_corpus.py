from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from backup_mx.errors import LabError
from backup_mx.lab.corpus import KINDS, LINE_OCTETS, RECIPIENTS, Mail, corpus, uniform, write

ROUND = len(KINDS)


@pytest.fixture(scope="module")
def mails() -> list[Mail]:
    return corpus(6 * ROUND, seed=7)


def of_kind(mails: list[Mail], kind: str) -> list[Mail]:
    return [mail for mail in mails if mail.kind == kind]


def body(mail: Mail) -> bytes:
    return mail.data.partition(b"\r\n\r\n")[2]


def test_the_same_arguments_make_the_same_bytes_and_another_seed_makes_others() -> None:
    assert corpus(ROUND, seed=7) == corpus(ROUND, seed=7)
    assert corpus(1, seed=7)[0].data != corpus(1, seed=8)[0].data


def test_a_longer_corpus_begins_with_the_shorter_one(mails: list[Mail]) -> None:
    assert corpus(ROUND + 5, seed=7) == mails[: ROUND + 5]


@pytest.mark.parametrize("count", [0, 1, ROUND - 1, ROUND + 1])
def test_there_are_as_many_mails_as_asked_for_numbered_from_one(count: int) -> None:
    assert [mail.number for mail in corpus(count, seed=1)] == list(range(1, count + 1))


def test_every_kind_occurs_in_one_round_and_the_large_one_only_there(mails: list[Mail]) -> None:
    assert {mail.kind for mail in mails[:ROUND]} == set(KINDS)
    (large,) = (mail for mail in mails if len(mail.data) > 2_000_000)
    assert large.kind == "large"
    assert len(large.data) == pytest.approx(15_000_000, rel=0.01)


def test_message_ids_are_unique_and_stand_in_the_mail(mails: list[Mail]) -> None:
    assert len({mail.message_id for mail in mails}) == len(mails)
    assert mails[0].message_id == "<00001.7@lab.example.net>"
    for mail in mails:
        assert f"\r\nMessage-ID: {mail.message_id}\r\n".encode() in mail.data


def test_every_mail_is_one_that_smtp_can_carry_as_it_is(mails: list[Mail]) -> None:
    """Lines end in CRLF, none is above 998 octets, and none holds a NUL or a lone CR or LF."""
    for mail in mails:
        lines = mail.data.split(b"\r\n")
        assert lines[-1] == b"", mail.kind
        assert max(map(len, lines)) <= LINE_OCTETS, mail.kind
        assert not re.search(rb"[\0\r\n]", b"".join(lines)), mail.kind


def test_no_mail_has_a_field_that_a_stock_postfix_drops_or_that_looks_like_a_trace(
    mails: list[Mail],
) -> None:
    dropped = rb"(?im)^(bcc|resent-bcc|return-path|content-length|received|delivered-to):"
    for mail in mails:
        assert mail.data.startswith(b"From: ")
        assert not re.search(dropped, mail.data.partition(b"\r\n\r\n")[0])


def test_each_kind_is_what_its_name_says(mails: list[Mail]) -> None:
    def first(kind: str) -> Mail:
        return of_kind(mails, kind)[0]

    long_lines = body(first("long lines")).split(b"\r\n")
    assert [len(line) for line in long_lines].count(LINE_OCTETS) >= 3
    assert any(line[:1] == b"." and len(line) == LINE_OCTETS for line in long_lines)
    assert {b".", b"..", b".foo"} <= set(body(first("dot lines")).split(b"\r\n"))
    assert b"\r\n.\r\nafter" in b"".join(map(body, of_kind(mails, "dot lines")))
    assert max(body(first("8-bit, raw octets"))) > 0xF0
    assert body(first("8-bit, UTF-8")).decode()
    with pytest.raises(UnicodeDecodeError):
        body(first("8-bit, Latin-1")).decode()
    assert body(first("empty body")) == b""
    assert re.search(rb"\r\nSubject: [^\r]*[\x80-\xff]", first("8-bit subject").data)
    assert 9_000 < len(first("long header").data.partition(b"X-Long")[2]) < 11_000
    assert first("repeated headers").data.count(b"X-Twice:") == 3
    assert b"\r\n\t" in first("folded headers").data
    assert b"=C3=" in first("quoted-printable").data
    assert any(100_000 < len(mail.data) < 1_100_000 for mail in of_kind(mails, "multipart"))


def test_envelopes_follow_the_kind(mails: list[Mail]) -> None:
    for mail in mails:
        assert (mail.sender == "") == (mail.kind == "null sender")
        assert mail.sign == (mail.kind == "dkim-signed")
        assert (len(mail.recipients) > 1) == (mail.kind == "several recipients")
        assert set(mail.recipients) <= set(RECIPIENTS)
        assert len(set(mail.recipients)) == len(mail.recipients)
    assert {len(mail.recipients) for mail in mails} == {1, 2, 3, 4}


def test_written_mails_can_be_read_back_by_their_envelopes(tmp_path: Path) -> None:
    mails = corpus(5, seed=3)
    write(mails, tmp_path / "new")
    envelopes = json.loads((tmp_path / "new" / "envelopes.json").read_text())
    assert [envelope["message_id"] for envelope in envelopes] == [m.message_id for m in mails]
    for mail, envelope in zip(mails, envelopes, strict=True):
        assert (tmp_path / "new" / envelope["file"]).read_bytes() == mail.data


def test_a_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match=r"cannot write the drill's mail to .*file"):
        write([], tmp_path / "file")


def test_uniform_mail_is_all_of_one_size_and_for_each_recipient_in_turn() -> None:
    mails = uniform(9, seed=3, octets=10_240)
    assert {len(mail.data) for mail in mails} == {10_240}
    assert len({mail.message_id for mail in mails}) == 9
    assert [mail.recipients for mail in mails[:4]] == [mail.recipients for mail in mails[4:8]]
    assert len({mail.recipients for mail in mails}) == len(RECIPIENTS)
    for mail in mails:
        assert mail.data.endswith(b"\r\n")
        assert max(map(len, mail.data.split(b"\r\n"))) <= 998
    assert uniform(9, seed=3, octets=10_240) == mails

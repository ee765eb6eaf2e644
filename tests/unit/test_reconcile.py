from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from backup_mx.errors import LabError
from backup_mx.lab.reconcile import (
    Collected,
    Copy,
    Sent,
    collected_from_json,
    reconcile,
    sent_from_json,
)

ALICE, BOB = "alice@example.org", "bob@example.org"


def sent(number: int, *recipients: str, signed: bool = False) -> Sent:
    return Sent(number, f"<{number}>", "plain", recipients, signed, f"{number}", 10, 250, "Ok")


def copy(number: int, user: str, **changes: object) -> Collected:
    made = Collected(
        user, "INBOX", f"<{number}>", f"{number}", 10, None, (), is_dsn=False, trace=""
    )
    return replace(made, **changes)  # type: ignore[arg-type]


ONE = [sent(1, ALICE), sent(2, ALICE, BOB)]
ALL = [copy(1, ALICE), copy(2, ALICE), copy(2, BOB)]
IDS = {"<1>", "<2>"}


def test_all_there_once_and_unchanged_passes() -> None:
    result = reconcile(ONE, IDS, ALL, dsn=0)
    assert (result.verdict, result.reasons) == ("pass", ())
    assert (result.sent, result.accepted, result.delivered) == (2, 2, 2)
    assert (result.lost, result.duplicated, result.altered, result.dsn) == (0, 0, 0, 0)


def test_an_accepted_message_that_one_of_two_recipients_lacks_is_lost() -> None:
    result = reconcile(ONE, IDS, ALL[:2], dsn=0)
    assert (result.verdict, result.lost, result.delivered) == ("fail", 1, 1)
    assert result.missing == (Copy("<2>", BOB),)
    assert result.kinds[0].delivered == 1


def test_a_message_lost_for_two_recipients_counts_once() -> None:
    result = reconcile(ONE, IDS, ALL[:1], dsn=0)
    assert (result.lost, len(result.missing)) == (1, 2)


def test_a_message_that_nobody_accepted_is_not_lost_yet_fails() -> None:
    result = reconcile(ONE, {"<1>"}, ALL[:1], dsn=0)
    assert (result.lost, result.accepted, result.unaccepted) == (0, 1, ("<2>",))
    assert result.reasons == ("1 never accepted by any MTA",)


def test_a_copy_in_a_mailbox_proves_acceptance_for_all_recipients() -> None:
    result = reconcile(ONE, {"<1>"}, ALL[:2], dsn=0)
    assert (result.accepted, result.lost, result.unaccepted) == (2, 1, ())


def test_a_second_copy_fails_and_each_extra_copy_counts() -> None:
    result = reconcile(ONE, IDS, [*ALL, ALL[0], ALL[0]], dsn=0)
    assert (result.verdict, result.duplicated) == ("fail", 2)
    assert result.extra == (Copy("<1>", ALICE),) * 2


def test_a_power_cut_excuses_one_extra_copy_which_is_still_counted() -> None:
    result = reconcile(ONE, IDS, [*ALL, ALL[0]], 0, excusable_duplicates={"<1>"})
    assert (result.verdict, result.duplicated, result.excused) == ("pass", 1, (Copy("<1>", ALICE),))
    assert result.kinds[0].duplicated == 1


def test_a_power_cut_does_not_excuse_a_third_copy_nor_another_message() -> None:
    third = reconcile(ONE, IDS, [*ALL, ALL[0], ALL[0]], 0, excusable_duplicates={"<1>"})
    other = reconcile(ONE, IDS, [*ALL, ALL[0]], 0, excusable_duplicates={"<2>"})
    assert (third.verdict, third.duplicated, len(third.extra)) == ("fail", 2, 1)
    assert other.verdict == "fail"


def test_a_copy_with_another_hash_is_altered_and_delivered() -> None:
    result = reconcile(ONE, IDS, [*ALL[:2], copy(2, BOB, sha256="x")], dsn=0)
    assert (result.verdict, result.altered, result.delivered) == ("fail", 1, 2)
    assert result.changed == (Copy("<2>", BOB),)


@pytest.mark.parametrize("dkim", [False, None])
def test_a_signed_message_must_verify_and_a_missing_signature_does_not(dkim: bool | None) -> None:
    signed = [sent(1, ALICE, signed=True)]
    assert reconcile(signed, {"<1>"}, [copy(1, ALICE, dkim=True)], 0).verdict == "pass"
    result = reconcile(signed, {"<1>"}, [copy(1, ALICE, dkim=dkim)], 0)
    assert (result.verdict, result.dkim_failed) == ("fail", 1)


def test_bounces_count_wherever_they_were_seen() -> None:
    bounce = copy(9, ALICE, is_dsn=True)
    result = reconcile(ONE, IDS, [*ALL, bounce], dsn=2)
    assert (result.verdict, result.dsn, result.unexpected) == ("fail", 3, ())
    assert result.bounces == (Copy("<9>", ALICE),)


def test_mail_that_nobody_sent_there_fails() -> None:
    result = reconcile(ONE, IDS, [*ALL, copy(1, BOB), copy(9, ALICE)], dsn=0)
    assert (result.verdict, result.duplicated) == ("fail", 0)
    assert result.unexpected == (Copy("<1>", BOB), Copy("<9>", ALICE))


def test_a_drill_that_sent_nothing_does_not_pass() -> None:
    assert reconcile([], (), [], dsn=0).reasons == ("nothing was sent",)


def test_a_message_id_sent_twice_is_refused() -> None:
    with pytest.raises(LabError, match="<1> twice"):
        reconcile([ONE[0], ONE[0]], IDS, ALL, dsn=0)


def test_records_are_read_from_mailkits_lines() -> None:
    assert sent_from_json(json.dumps(asdict(each)) for each in ONE) == ONE
    assert collected_from_json(json.dumps(asdict(each)) for each in ALL) == ALL


@pytest.mark.parametrize("line", ["", "mailkit: refused", "[]", "3", "{}", '{"user": "a"}'])
def test_a_line_that_is_not_mailkits_is_one_clear_error(line: str) -> None:
    for read in (sent_from_json, collected_from_json):
        with pytest.raises(LabError, match="not a line of mailkit's"):
            read([line])

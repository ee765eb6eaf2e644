"""Which messages a relay's verbs mean: whoever names them, only queue IDs get through."""

from __future__ import annotations

from typing import Any

import pytest

from backup_mx.errors import MachineError
from backup_mx.relay.operator import changing, listing, look, moving, selecting
from backup_mx.relay.operator.asking import Asked
from backup_mx.relay.operator.selecting import UsageError
from backup_mx.relay.root import client
from backup_mx.relay.root.protocol import Who

ID = "4jXLpZ33n0001zJ0G7"
HOSTILE = ("ALL", "-", "--help", f"{ID}\n{ID}", f"{ID} {ID}", "\x1b]0;x\x07", "../x", "")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Any:  # noqa: ANN401
    """A setter of the IDs under which the ledger has messages."""

    def named(*ids: str) -> None:
        monkeypatch.setattr(look, "ids", lambda _wanted: list(ids))

    return named


def asked(verb: str, *given: str, **options: object) -> Asked:
    def no(question: str) -> bool:
        raise AssertionError(question)

    return Asked(verb, given, options, Who("eve"), (), None, print, no)


@pytest.mark.parametrize("hostile", HOSTILE)
def test_what_the_ledger_names_is_checked(waits: Any, hostile: str) -> None:  # noqa: ANN401
    """An ID that is none reaches neither the helper nor the question nor another verb's input."""
    waits(ID, hostile)
    for run, verb, options in (
        (changing.change, "delete", {"all": True}),
        (changing.change, "hold", {"all": True}),
        (listing.queue, "queue", {"ids": True}),
        (moving.export, "export", {"all": True, "carry": True}),
    ):
        with pytest.raises(MachineError, match="no queue ID") as told:
            run(asked(verb, **options))
        assert str(told.value).isprintable()


def test_what_the_ledger_names_is_meant(waits: Any, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ANN401
    """IDs pass as they are, once each."""
    monkeypatch.setattr(client, "change", lambda *_a, **_k: [])
    waits(ID, ID)
    assert listing.queue(asked("queue", ids=True)).lines == [ID]
    assert selecting.meant((), {"all": True}, ()) == [ID]


def test_what_somebody_names_wrongly_is_his_mistake() -> None:
    """An ID on the command line or on standard input that is none is wrong usage."""
    for given, stdin in ((("ALL",), ()), (("-",), (f"{ID}\n", "-h\n"))):
        with pytest.raises(UsageError, match="no queue ID"):
            selecting.meant(given, {}, stdin)


def test_nothing_to_import_is_his_mistake() -> None:
    """Who names no file is told what to name, before anything is looked for."""
    with pytest.raises(UsageError, match="takes files"):
        moving.take_in(asked("import"))


def test_whose_word_it_is_stands_below_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one looks last, above the sums."""
    item = look.Item(ID, "waiting", "new", 0.0, 5, "a@example.net", 1, (("b@example.org", ""),))
    found = look.Listing((item,), 1, None, agent=False)
    monkeypatch.setattr(look, "listing", lambda _: found)
    title, row, note, total = listing.queue(asked("queue")).lines
    assert (title.split()[0], row.split()[0]) == ("ID", ID)
    assert note == "The agent does not tell what waits; Postfix itself does."
    assert total == "1 message of that kind"

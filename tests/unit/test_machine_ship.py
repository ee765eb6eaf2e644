"""Carrying a bundle to a machine, with programs of this host in the place of ssh."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backup_mx.errors import HostError, MachineError, UnreachableError
from backup_mx.machine.ship import Answer, SshHost, Tell, deploy, run_local
from backup_mx.values import SshTarget


@dataclass
class FakeHost:
    """A machine that answers each program as told."""

    answers: dict[str, Answer] = field(default_factory=dict)
    ran: list[list[str]] = field(default_factory=list)

    def run(self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None) -> Answer:
        """Remember the command, and give the answer for its program."""
        del stdin
        self.ran.append([*argv])
        answer = self.answers.get(argv[0], Answer(0, "/tmp/x\n" if argv[0] == "mktemp" else "", ""))
        for line in answer.stdout.splitlines():
            if tell:
                tell(line)
        return answer


def test_a_deploy_leaves_nothing_behind() -> None:
    """The archive is carried over, run and taken away again."""
    host, said = FakeHost({"python3": Answer(0, "relay mx2\ndone\n", "")}), list[str]()
    deploy(host, b"archive", said.append, diff=True)
    assert said == ["relay mx2", "done"]
    assert host.ran[1:] == [
        ["dd", "status=none", "of=/tmp/x/relay.pyz"],
        ["python3", "/tmp/x/relay.pyz", "--diff"],
        ["rm", "-r", "/tmp/x"],
    ]


@pytest.mark.parametrize(
    ("program", "answer", "message"),
    [
        ("mktemp", Answer(1, "", "sudo: a password is required\n"), "sudo: a password is required"),
        ("dd", Answer(1, "", "dd: No space left on device\n"), "dd: No space left on device"),
        ("dd", Answer(1, "", ""), "dd ended with 1"),
        ("python3", Answer(1, "", "relay.pyz: postfix refuses\n"), "postfix refuses"),
        ("python3", Answer(127, "", "bash: python3: not found\n"), "bash: python3: not found"),
        ("python3", Answer(1, "", ""), "relay.pyz ended with 1"),
    ],
)
def test_the_machine_s_own_words_are_the_message(
    program: str, answer: Answer, message: str
) -> None:
    """A step that fails is told in the words of whoever failed; the folder goes all the same."""
    host = FakeHost({program: answer})
    with pytest.raises(MachineError) as caught:
        deploy(host, b"", print)
    assert str(caught.value) == message
    assert program == "mktemp" or host.ran[-1][0] == "rm"


def test_a_lost_connection_is_told_once() -> None:
    """If the folder cannot be cleared away either, the first error is the one that is told."""

    class Lost(FakeHost):
        def run(
            self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None
        ) -> Answer:
            if argv[0] in {"python3", "rm"}:
                raise UnreachableError(f"lost in {argv[0]}")
            return super().run(argv, stdin=stdin, tell=tell)

    with pytest.raises(UnreachableError, match="lost in python3"):
        deploy(Lost(), b"", print)


def test_much_is_said_on_every_side() -> None:
    """A program that says much on both of its outputs, and reads nothing, holds nobody up."""
    program = "import sys; sys.stderr.write('e' * 300_000); print('line\\n' * 3)"
    said: list[str] = []
    answer = run_local(["python3", "-c", program], b"x" * 300_000, said.append)
    assert (answer.code, len(answer.stderr), said[:3]) == (0, 300_000, ["line"] * 3)


def test_a_host_without_ssh() -> None:
    """The program that is missing here is named."""
    with pytest.raises(HostError, match="no-such-ssh is not installed on this host"):
        run_local(["no-such-ssh"], b"", None)


def test_ssh_is_asked_for_keys_only_and_not_for_a_terminal() -> None:
    """A user who is not root gets there by sudo; no host name can be taken for an option."""
    host = SshHost(SshTarget("admin", "-oProxyCommand=x", 2222), Path("/tmp/config"))
    command = host.ssh()
    assert command[:4] == ["ssh", "-F", "/tmp/config", "-T"]
    assert "BatchMode=yes" in command
    assert command[-6:] == ["-p", "2222", "-l", "admin", "--", "-oProxyCommand=x"]

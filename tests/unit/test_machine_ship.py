"""Carrying a bundle to a machine, with programs of this host in the place of ssh."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from backup_mx.config.values import SshTarget
from backup_mx.errors import HostError, MachineError, UnreachableError
from backup_mx.machine import ship
from backup_mx.machine.ship import Answer, SshHost, Tell, deploy, run_local


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
        (
            "mktemp",
            Answer(1, "this account is not available\n", ""),
            "this account is not available",
        ),
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


def test_a_deploy_that_shuts_us_out_is_told() -> None:
    """The connection that it came over lives on; that none else gets in, and what stays, is told.

    An error of the machine's own counts more: what was is restored then.
    """

    class Shut(FakeHost):
        def run(
            self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None
        ) -> Answer:
            if argv[0] == "rm":
                raise UnreachableError("root@mx2:22 cannot be reached: timed out")
            return super().run(argv, stdin=stdin, tell=tell)

    told = r"it is done, but .*: timed out\. Does \[access\] ssh_from .*; /tmp/x is still there$"
    with pytest.raises(UnreachableError, match=told):
        deploy(Shut(), b"", print)
    with pytest.raises(MachineError, match=r"^postfix refuses$"):
        deploy(Shut({"python3": Answer(1, "", "relay.pyz: postfix refuses\n")}), b"", print)


def test_much_is_said_on_every_side() -> None:
    """A program that says much on both of its outputs, and reads nothing, holds nobody up."""
    program = "import sys; sys.stderr.write('e' * 300_000); print('line\\n' * 3)"
    said: list[str] = []
    answer = run_local(["python3", "-c", program], b"x" * 300_000, said.append)
    assert (answer.code, len(answer.stderr), said[:3]) == (0, 300_000, ["line"] * 3)


def run(program: str, tell: Tell | None = None) -> Answer:
    return run_local([sys.executable, "-c", program], b"", tell)


@pytest.mark.parametrize("line", ["x" * 65536, "x" * 65535 + "\\n"])
def test_an_answer_without_an_end_is_left(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line or in many: no more of it is kept than is sensible."""
    monkeypatch.setattr(ship, "OCTETS", 1 << 20)
    program = f"import sys\nwhile True: sys.stdout.write('{line}')"
    with pytest.raises(MachineError, match="more than 1,048,576 bytes"):
        run(program)


def test_whoever_hears_each_line_hears_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """An export brings more than other answers, but has an end as well."""
    monkeypatch.setattr(ship, "OCTETS", 1 << 20)
    said: list[str] = []
    assert len(run("for _ in range(4): print('x' * (1 << 19))", said.append).stdout) > 1 << 21
    assert [len(each) for each in said] == [1 << 19] * 4
    with pytest.raises(MachineError, match="more than 8,388,608 bytes"):
        run("import sys\nwhile True: sys.stdout.write('x' * 65536)", said.append)


def test_of_complaints_a_mebibyte_is_kept() -> None:
    """And no more than its end goes into a message."""
    answer = run("import sys; sys.stderr.write('e' * 5_000_000 + ' gone'); sys.exit(1)")
    assert (answer.code, len(answer.stderr)) == (1, 1 << 20)
    assert len(answer.words) == 2000
    assert answer.words.endswith(" gone")


@pytest.mark.parametrize("closed", ["", "import os; os.close(1); os.close(2)\n"])
def test_a_program_without_an_end_is_left(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even one that drips, or has closed its output; not one whose lines somebody hears."""
    monkeypatch.setattr(ship, "SECONDS", 1.0)
    drips = "import time\nwhile True: time.sleep(0.05)" + ("" if closed else "; print(flush=True)")
    with pytest.raises(UnreachableError, match="did not end within 1 s"):
        run(closed + drips)
    heard: list[str] = []
    assert run("import time; print('a'); time.sleep(1.2); print('b')", heard.append).code == 0
    assert heard == ["a", "b"]


def test_what_would_change_is_not_waited_for_without_an_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Gates ask for it on a timer, with nobody there to interrupt it."""
    monkeypatch.setattr(ship, "SECONDS", 0.5)

    class Hangs(FakeHost):
        def run(
            self, argv: Sequence[str], *, stdin: bytes = b"", tell: Tell | None = None
        ) -> Answer:
            if "--diff" not in argv:
                return super().run(argv, stdin=stdin, tell=tell)
            endless = "import time\nfor _ in range(200): time.sleep(0.05); print(flush=True)"
            return run_local([sys.executable, "-c", endless], stdin, tell)

    with pytest.raises(UnreachableError, match="did not end within"):
        deploy(Hangs(), b"", print, diff=True)


def test_what_ssh_says_is_written_in_lines() -> None:
    """It ends its own with CR LF, which is no part of what it says, nor is our own name."""
    answer = Answer(255, "", "x: Permission denied.\r\nbackup-mx: first\nbackup-mx: second\r\n")
    assert answer.words == answer.told == "x: Permission denied.\nfirst\nsecond"


@pytest.mark.parametrize("said", ["", "[]", "[" * 200_000, '{"a": 1', "5"])
def test_what_is_no_object_tells_no_facts(said: str) -> None:
    """Whatever a machine says instead, it is one message."""
    assert ship.facts('{"a": [1]}') == {"a": [1]}
    with pytest.raises(MachineError, match="answered no facts"):
        ship.facts(said)


def test_a_host_without_ssh() -> None:
    """The program that is missing here is named."""
    with pytest.raises(HostError, match="no-such-ssh is not installed on this host"):
        run_local(["no-such-ssh"], b"", None)


def test_an_image_without_root_says_who_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """cloud-init's forced command says it on standard output; what to do about it is added."""
    said = 'Please login as the user "debian" rather than the user "root".\n\n'
    monkeypatch.setattr(ship, "run_local", lambda *_: Answer(142, said, ""))
    with pytest.raises(MachineError, match=r'write ssh = "debian@\[2001:db8::20\]:22" into'):
        SshHost(SshTarget("root", "2001:db8::20", 22)).run(["true"])
    monkeypatch.setattr(ship, "run_local", lambda *_: Answer(142, "other words", ""))
    assert SshHost(SshTarget("root", "mx2", 22)).run(["true"]).code == 142


def test_nothing_of_this_host_is_lent_to_a_machine(tmp_path: Path) -> None:
    """Whatever ssh_config(5) says for other errands, as ssh itself understands it."""
    config = tmp_path / "config"
    config.write_text(
        "Host *\n ForwardAgent yes\n ForwardX11 yes\n PermitLocalCommand yes\n"
        " LocalForward 8025 127.0.0.1:8025\n"
    )
    first, *command = SshHost(SshTarget("root", "mx2", 22), config).ssh()
    told = subprocess.run([first, "-G", *command], capture_output=True, check=True).stdout.decode()
    assert {"forwardagent no", "forwardx11 no", "permitlocalcommand no"} <= set(told.splitlines())
    assert "clearallforwardings yes" in told


def test_ssh_is_asked_for_keys_only_and_not_for_a_terminal() -> None:
    """A user who is not root gets there by sudo; no host name can be taken for an option."""
    host = SshHost(SshTarget("admin", "-oProxyCommand=x", 2222), Path("/tmp/config"))
    command = host.ssh()
    assert command[:4] == ["ssh", "-F", "/tmp/config", "-T"]
    assert "BatchMode=yes" in command
    assert command[-6:] == ["-p", "2222", "-l", "admin", "--", "-oProxyCommand=x"]

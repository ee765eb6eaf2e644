"""Secrets: the config says where one is kept; what it is shows nowhere but where it is needed."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from backup_mx.errors import SecretError

_COMMAND_SECONDS = 60.0  # a password manager may ask somebody first


@dataclass(frozen=True)
class SecretFile:
    """A secret that is a file's content; a relative path counts from the config file's folder."""

    path: Path

    def read(self, folder: Path) -> str:
        """Return the file's text without white space around it.

        Raises SecretError when it cannot be read, or when everybody on this host may read it.
        """
        place = folder / self.path
        try:
            with place.open(encoding="utf-8-sig") as file:
                if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & stat.S_IROTH:
                    raise SecretError(f"everybody may read {place}: chmod 600 {place}")
                return _filled(file.read(), f"the file {place}")
        except OSError as error:
            raise SecretError(f"{place} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SecretError(f"{place} is not text in UTF-8") from None


@dataclass(frozen=True)
class SecretVariable:
    """A secret that an environment variable holds."""

    name: str

    def read(self, _folder: Path) -> str:
        """Return its value. Raises SecretError when it is not set."""
        if self.name not in os.environ:
            raise SecretError(f"the environment variable {self.name} is not set")
        return _filled(os.environ[self.name], f"the environment variable {self.name}")


@dataclass(frozen=True)
class SecretCommand:
    """A secret that a program prints: pass, vault, sops, op, …; run in the config file's folder."""

    argv: tuple[str, ...]

    def read(self, folder: Path) -> str:
        """Run the program, at most a minute, and return what it printed on standard output.

        It has the terminal, to ask for a passphrase. Raises SecretError when it fails.
        """
        shown = shlex.join(self.argv)
        try:
            done = subprocess.run(
                self.argv,
                stdout=subprocess.PIPE,
                cwd=folder,
                timeout=_COMMAND_SECONDS,
                check=True,
                text=True,
            )
        except subprocess.CalledProcessError as error:
            raise SecretError(f"`{shown}` ended with {error.returncode}") from None
        except subprocess.TimeoutExpired:
            raise SecretError(f"`{shown}` did not end within {_COMMAND_SECONDS:.0f} s") from None
        except OSError as error:
            raise SecretError(f"`{shown}` cannot be run: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SecretError(f"`{shown}` printed no text in UTF-8") from None
        return _filled(done.stdout, f"`{shown}`")


Secret = SecretFile | SecretVariable | SecretCommand


def _filled(text: str, source: str) -> str:
    if not text.strip():
        raise SecretError(f"{source} holds nothing")
    return text.strip()

"""Changes by dynamic update (RFC 2136), signed with TSIG (RFC 8945), at one name server."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from contextlib import suppress

import dns.message
import dns.name
import dns.rcode
import dns.tsig
import dns.update

from backup_mx.config.options_live import Rfc2136
from backup_mx.dns.plan import Change
from backup_mx.dns.provider import Room
from backup_mx.errors import DnsError, SecretError
from backup_mx.net import dns as net

_REFUSED = {
    dns.rcode.REFUSED: "refuses (may the key change such records of this zone there?)",
    dns.rcode.NOTAUTH: "does not have this zone, or does not accept the key for it",
    dns.rcode.NOTZONE: "says that the name is not in this zone",
    dns.rcode.NOTIMP: "takes no updates",
}


class Updates:
    """A name server that takes updates: `backup_mx.dns.provider.Provider`."""

    def __init__(self, options: Rfc2136, secret: str) -> None:
        """Take the key's secret, in base64. Raises SecretError where it is none."""
        self._server = options.server
        try:
            raw = base64.b64decode(secret, validate=True)
        except (binascii.Error, ValueError):
            raise SecretError("[dns.rfc2136] key: what is kept there is not base64") from None
        self._key = dns.tsig.Key(options.key_name, raw, options.algorithm)

    @property
    def words(self) -> str:
        """How it is called in a plan."""
        return f"by updates to {self._server}"

    def room(self, _zone: str) -> Room | None:
        """Return None: no name server counts."""
        return None

    def apply(self, zone: str, changes: Sequence[Change]) -> None:
        """Send all changes as one update, of which all or nothing is done. Raises DnsError."""
        update = dns.update.UpdateMessage(zone, keyring=self._key)
        for change in changes:
            for record in change.gone:
                update.delete(f"{record.name}.", record.kind, record.text)
            if put := change.put:
                update.add(f"{put.name}.", change.ttl, put.kind, put.text)
        code = self._sent(update).rcode()
        if code != dns.rcode.NOERROR:
            said = _REFUSED.get(code, f"answers {dns.rcode.to_text(code)}")
            raise DnsError(f"{zone}: {self._server} {said}. Nothing was changed there.")

    def _sent(self, update: dns.update.UpdateMessage) -> dns.message.Message:
        """Send it to the server's addresses in turn: what comes twice changes nothing."""
        *others, last = net.addresses(self._server.host)
        for address in others:
            with suppress(DnsError):
                return net.exchange(update, address, self._server.port)
        return net.exchange(update, last, self._server.port)

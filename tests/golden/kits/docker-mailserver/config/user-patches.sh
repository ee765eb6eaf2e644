#!/bin/bash
# docker-mailserver runs this at every start, when its own configuration stands and before Postfix
# and rspamd start. It may run on a container that it has patched before: the kit finds that in place.
if [[ ${ENABLE_RSPAMD:-0} != 1 ]]; then
  echo "backup-mx: ENABLE_RSPAMD is not 1: mail from a relay is let in, but judged as the relay's own" >&2
fi
if ! sh /tmp/docker-mailserver/backup-mx/backup-mx-kit apply; then
  echo "backup-mx: the kit was not applied; a relay keeps what it cannot hand over" >&2
fi

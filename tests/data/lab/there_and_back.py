"""Run as the lab's operator: submit a message, find it by IMAP within 30 s, print it."""

import imaplib
import smtplib
import ssl
import sys
import time
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path

PASSWORD = Path("prober.password").read_text()
MESSAGE = EmailMessage()
MESSAGE["From"], MESSAGE["To"] = "prober@example.net", "prober@example.org"
MESSAGE["Date"], MESSAGE["Message-ID"] = formatdate(), make_msgid(domain="example.net")
MESSAGE.set_content("there and back")

trust = ssl.create_default_context(cafile="lab.pem")
with smtplib.SMTP("mta.example.net", 587, timeout=20) as server:
    server.starttls(context=trust)
    server.login("prober@example.net", PASSWORD)
    server.send_message(MESSAGE)

box = imaplib.IMAP4_SSL("mail.example.org", 993, ssl_context=trust, timeout=20)
box.login("prober@example.org", PASSWORD)
deadline = time.monotonic() + 30
found = b""
while not found and time.monotonic() < deadline:
    box.select()
    found = box.search(None, "HEADER", "Message-ID", MESSAGE["Message-ID"])[1][0]
    time.sleep(0.2)
if not found:
    sys.exit("the message did not come")
fetched = box.fetch(found.split()[0].decode(), "(RFC822)")[1][0]
assert isinstance(fetched, tuple)
sys.stdout.write(fetched[1].decode())

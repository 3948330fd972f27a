"""smtplib sends mail, where the server speaks first: `smtp.py HOST PORT`."""

import smtplib
import sys

host, port = sys.argv[1], int(sys.argv[2])
for size in (10, 1000, 1_000_000):
    with smtplib.SMTP(host, port, local_hostname="client", timeout=10) as one:
        print(one.ehlo_resp or one.ehlo("client"))
        print(size, one.sendmail("a@client", ["b@server"], "Subject: x\r\n\r\n" + ("y" * 70 + "\r\n") * (size // 72)))
        print(one.noop(), one.rset())
for _ in range(20):
    with smtplib.SMTP(host, port, local_hostname="client", timeout=10) as one:
        one.sendmail("a@client", ["b@server", "c@server"], "Subject: x\r\n\r\nshort")
print("sent 20")

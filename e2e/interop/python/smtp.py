"""smtplib sends mail, where the server speaks first: `smtp.py HOST PORT`."""

import concurrent.futures
import smtplib
import sys

AT_ONCE = 50
host, port = sys.argv[1], int(sys.argv[2])
for size in (10, 1000, 1_000_000):
    with smtplib.SMTP(host, port, local_hostname="client", timeout=10) as one:
        print(one.ehlo_resp or one.ehlo("client"))
        print(size, one.sendmail("a@client", ["b@server"], "Subject: x\r\n\r\n" + ("y" * 70 + "\r\n") * (size // 72)))
        print(one.noop(), one.rset())


def send(number):
    """A mail on a connection of its own: whether no recipient was refused."""
    with smtplib.SMTP(host, port, local_hostname="client", timeout=20) as one:
        return not one.sendmail("a@client", ["b@server", "c@server"], "Subject: x\r\n\r\n" + f"{number}\r\n" * 100)


with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
    print(f"sent {sum(pool.map(send, range(AT_ONCE)))} at once")

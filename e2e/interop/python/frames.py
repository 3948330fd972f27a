"""HTTP/2 frames made by hand, for peers that break the protocol's rules."""

import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 2, 3, 4, 6, 7, 8, 9
ACK = END_STREAM = 1
END_HEADERS = 4
# Bytes before the content of a frame.
HEAD = 9


def frame(kind, flags, stream, content=b""):
    return struct.pack(">I", len(content))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + content


def read_head(head):
    """Length, kind, flags and stream of a frame."""
    return int.from_bytes(head[:3], "big"), head[3], head[4], int.from_bytes(head[5:9], "big") & 0x7FFFFFFF

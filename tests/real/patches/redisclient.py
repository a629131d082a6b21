"""usage: redisclient.py PORT COMMAND: one inline command to a Redis server; prints the reply, one element a line."""
import socket
import sys


def reply(stream, depth=0):
    kind, rest = stream.read(1), stream.readline()[:-2]
    if kind == b"$" and int(rest) >= 0:
        rest = stream.read(int(rest) + 2)[:-2]
    print(" " * depth + kind.decode() + repr(rest)[1:])
    for _ in range(max(int(rest), 0) if kind == b"*" else 0):
        reply(stream, depth + 1)


with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=15) as server:
    server.sendall(sys.argv[2].encode() + b"\r\n")
    reply(server.makefile("rb"))

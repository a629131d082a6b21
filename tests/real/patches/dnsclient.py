"""usage: dnsclient.py PORT "TYPE NAME": one DNS query over UDP (RFC 1035, section 4); prints the answer without its id."""
import socket
import struct
import sys

TYPES = {"A": 1, "CNAME": 5, "PTR": 12, "MX": 15, "TXT": 16, "AAAA": 28, "SRV": 33, "ANY": 255}

kind, _, name = sys.argv[2].partition(" ")
question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".") if label) + b"\0"
query = struct.pack(">6H", 7, 0x0100, 1, 0, 0, 0) + question + struct.pack(">2H", TYPES[kind], 1)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
    server.settimeout(15)
    server.sendto(query, ("127.0.0.1", int(sys.argv[1])))
    answer = server.recv(1 << 16)
print(f"flags {answer[2:4].hex()}, records {struct.unpack('>4H', answer[4:12])}")
print(answer[12:].hex())

#!/usr/bin/python3
"""Captures what an interface carries, and counts what of it tells of a torrent or offers peer exchange.

usage: capture.py INTERFACE INFO_HASH

Prints `capturing`, and for each packet of interest a line: `dht` for a UDP datagram that asks of the info-hash in the DHT or
announces it, `discovery` for any other that holds it, raw or in hexadecimal, and `exchange` for a TCP segment that holds the
name of the peer exchange extension.
"""

import socket
import struct
import sys

ETH_P_ALL, ETH_IPV4, ETH_IPV6, TCP, UDP = 0x0003, 0x0800, 0x86DD, 6, 17

interface, info_hash = sys.argv[1], bytes.fromhex(sys.argv[2])
names = [info_hash, info_hash.hex().encode(), info_hash.hex().upper().encode()]
capture = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
capture.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 << 20)
capture.bind((interface, 0))
print("capturing", flush=True)
while True:
    frame = capture.recv(65535)
    kind = struct.unpack("!H", frame[12:14])[0]
    if kind == ETH_IPV4:
        protocol = frame[14 + 9]
    elif kind == ETH_IPV6:
        protocol = frame[14 + 6]
    else:
        continue
    payload = frame[34:]
    if protocol == UDP and any(name in payload for name in names):
        print("dht" if b"9:info_hash20:" + info_hash in payload else "discovery", flush=True)
    if protocol == TCP and b"ut_pex" in payload:
        print("exchange", flush=True)

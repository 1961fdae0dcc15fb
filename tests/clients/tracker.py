#!/usr/bin/python3
"""A tracker by HTTP or HTTPS and by UDP (BEP 15) that names nobody and says whom it heard.

usage: tracker.py ADDRESS [--certificate FILE --key FILE]

Takes any free port, the same for both, and prints `listening PORT`; for each request that it could read
`http SOURCE TARGET` or `udp SOURCE EVENT`, where the events are none, completed, started, stopped. With a
certificate it speaks TLS in the place of plain HTTP, and prints `refused REASON` when a handshake fails. Runs until it is ended.
"""

import argparse
import socket
import ssl
import struct
import threading

REPLY = b"d8:intervali60e12:min intervali60e5:peers0:e"
EVENTS = ["none", "completed", "started", "stopped"]


def say(*words):
    print(*words, flush=True)


def converse(stream, source, tls):
    try:
        stream.settimeout(20)
        if tls:
            stream = tls.wrap_socket(stream, server_side=True)
        pending = b""
        while True:
            while b"\r\n\r\n" not in pending:
                some = stream.recv(4096)
                if not some:
                    return
                pending += some
            head, _, pending = pending.partition(b"\r\n\r\n")
            say("http", source, head.decode(errors="replace").split(" ")[1])
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(REPLY) + REPLY)
    except ssl.SSLError as error:
        say("refused", error.reason)
    except OSError:
        pass
    finally:
        stream.close()


def answer(datagrams):
    while True:
        request, source = datagrams.recvfrom(4096)
        if len(request) < 16:
            continue
        action, transaction = struct.unpack(">II", request[8:16])
        if action == 0:
            reply = struct.pack(">IIQ", 0, transaction, 0x5EED)
        elif action == 1 and len(request) >= 98:
            say("udp", source[0], EVENTS[request[83] % 4])
            reply = struct.pack(">IIIII", 1, transaction, 60, 0, 0)
        else:
            reply = struct.pack(">II", 3, transaction) + b"no such request"
        datagrams.sendto(reply, source)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("--certificate")
    parser.add_argument("--key")
    options = parser.parse_args()
    family = socket.AF_INET6 if ":" in options.address else socket.AF_INET
    tls = None
    if options.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate, options.key)
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.bind((options.address, 0))
    listener.listen(64)
    port = listener.getsockname()[1]
    datagrams = socket.socket(family, socket.SOCK_DGRAM)
    datagrams.bind((options.address, port))
    threading.Thread(target=answer, args=(datagrams,), daemon=True).start()
    say("listening", port)
    while True:
        stream, source = listener.accept()
        threading.Thread(target=converse, args=(stream, source[0], tls), daemon=True).start()


main()

"""A web server over TLS: the files of a folder, on a free port of loopback.

    https.py FOLDER CERTIFICATE KEY

Prints `listening PORT`, then a line for each request.
"""

import functools
import http.server
import ssl
import sys


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *arguments):
        print("http", format % arguments, flush=True)


def main():
    folder, certificate, key = sys.argv[1:]
    handler = functools.partial(Handler, directory=folder)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print("listening", server.server_address[1], flush=True)
    server.serve_forever()


main()

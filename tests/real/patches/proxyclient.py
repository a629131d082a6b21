"""usage: proxyclient.py PORT REQUEST: sends a request through a proxy to a server that lives in this process.

`\\r` and `\\n` in the request are line ends, UPSTREAM is that server. Prints the status line and body of the answer, and what
the server was asked for with which headers."""
import http.server
import re
import socket
import sys
import threading


class Upstream(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = "".join(f"{name}: {value}\n" for name, value in sorted(self.headers.items())).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *about):
        pass


server = http.server.HTTPServer(("127.0.0.1", 0), Upstream)
threading.Thread(target=server.serve_forever, daemon=True).start()
upstream = f"127.0.0.1:{server.server_address[1]}"
request = sys.argv[2].replace("\\r", "\r").replace("\\n", "\n").replace("UPSTREAM", upstream)
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=15) as proxy:
    proxy.sendall(request.encode())
    answer = b"".join(iter(lambda: proxy.recv(1 << 16), b"")).decode(errors="backslashreplace")
server.shutdown()
head, _, body = answer.replace(upstream, "UPSTREAM").partition("\r\n\r\n")
print(head.splitlines()[0] if head else "no answer")
print(re.sub(r"\d\d:\d\d:\d\d|\d+ \w+ \d{4}", "TIME", body))

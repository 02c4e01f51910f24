"""A very small API server: who has the token may join. Arguments: its directory and its port."""
import http.server
import json
import pathlib
import ssl
import sys
import urllib.parse

directory = pathlib.Path(sys.argv[1])
port = int(sys.argv[2])


class Api(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        if url.path == '/healthz':
            return self.answer(200, 'ok')
        token = (directory / 'token').read_text().strip()
        if self.headers.get('Authorization') != f'Bearer {token}':
            return self.answer(401, 'wrong token')
        node = urllib.parse.parse_qs(url.query)['node'][0]
        with (directory / 'nodes').open('a') as nodes:
            nodes.write(f'{node}\n')
        return self.answer(200, json.dumps({'joined': node}))

    def answer(self, status, text):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(f'{text}\n'.encode())


server = http.server.ThreadingHTTPServer(('127.0.0.1', port), Api)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(directory / 'api.crt', directory / 'api.key')
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()

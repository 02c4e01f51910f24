"""A very small database: it answers those whose address is allowed and who know the password. Arguments: directory, port."""
import base64
import http.server
import pathlib
import sys

directory = pathlib.Path(sys.argv[1])
port = int(sys.argv[2])


class Database(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path != '/query':
            return self.answer(200, 'a database')
        if self.client_address[0] not in (directory / 'allowed').read_text().split():
            return self.answer(403, f'{self.client_address[0]} is not allowed')
        user, _, password = base64.b64decode(self.headers.get('Authorization', '').removeprefix('Basic ')).decode().partition(':')
        if password != (directory / 'password').read_text().strip():
            return self.answer(401, 'wrong password')
        return self.answer(200, f'42 rows for {user}')

    def answer(self, status, text):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(f'{text}\n'.encode())


http.server.ThreadingHTTPServer(('127.0.0.1', port), Database).serve_forever()

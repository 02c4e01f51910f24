/** Sends back what it is sent over TLS, in a process of its own: how long a message takes from one process to another. */
import type { AddressInfo } from 'node:net';
import process from 'node:process';
import { createServer, type TlsOptions } from 'node:tls';

process.once('message', (files) => {
  const server = createServer({ ...(files as TlsOptions), requestCert: true }, (socket) => {
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => socket.write(chunk));
    socket.on('error', () => undefined);
  });
  server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port));
});
process.once('disconnect', () => process.exit(0));

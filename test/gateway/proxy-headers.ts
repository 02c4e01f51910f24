/** PROXY headers of version 2 as balancers write them, made by the specification and not by the reader's constants. */

export interface HeaderParts {
  readonly version?: number;
  readonly command?: number;
  readonly family?: number;
  readonly addresses: Uint8Array;
  readonly tlvs?: Uint8Array;
  /** What the header says its length is, where that is a lie. */
  readonly length?: number;
}

export const tcp4 = 0x11;
export const tcp6 = 0x21;

export const proxyHeader = (parts: HeaderParts): Buffer => {
  const { version = 2, command = 1, family = tcp4, addresses, tlvs = new Uint8Array() } = parts;
  const fixed = Buffer.from('\r\n\r\n\0\r\nQUIT\n____', 'latin1');
  fixed[12] = version * 16 + command;
  fixed[13] = family;
  fixed.writeUInt16BE(parts.length ?? addresses.length + tlvs.length, 14);
  return Buffer.concat([fixed, addresses, tlvs]);
};

/** From the address to a server, over IPv4. */
export const ipv4Addresses = (source: readonly number[], port: number): Buffer => {
  const ports = Buffer.alloc(4);
  ports.writeUInt16BE(port, 0);
  ports.writeUInt16BE(7421, 2);
  return Buffer.concat([Buffer.from(source), Buffer.from([10, 0, 0, 1]), ports]);
};

export const fromClient = (address: string, port: number): Buffer =>
  proxyHeader({ addresses: ipv4Addresses(address.split('.').map(Number), port) });

export const ownConnection = (): Buffer =>
  proxyHeader({ command: 0, family: 0, addresses: new Uint8Array() });

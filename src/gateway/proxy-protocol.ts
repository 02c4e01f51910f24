/**
 * The header of the PROXY protocol, version 2, by which a load balancer that passes TCP through says whose connection it
 * is (haproxy.org, proxy-protocol.txt, section 2.2). Pure: bytes in, what they say out.
 *
 * Strict: version 1, datagrams, Unix sockets and anything that does not fit its own lengths are refused. What a balancer
 * adds about itself (TLVs) must be well formed, and is not looked at.
 */

/** 0D 0A 0D 0A 00 0D 0A 51 55 49 54 0A: no other protocol begins so. */
const signature = Uint8Array.from([0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a]);

const fixedBytes = 16;

/** Behind the fixed part: 36 bytes are addresses, and balancers add some hundred at most. */
const variableBytesMax = 2048;

export const proxyHeaderBytesMax = fixedBytes + variableBytesMax;

/** Where the agent is, as the balancer sees it. */
interface ClientAddress {
  /** As Node writes it: dotted, or the shortest form of IPv6. */
  readonly address: string;
  readonly port: number;
}

export type ProxyHeader =
  /** More bytes are needed. */
  | { readonly kind: 'incomplete' }
  | { readonly kind: 'refused'; readonly problem: string }
  /** `bytes` of what was given are the header. `client` undefined: the connection is the balancer's own, or it does not know. */
  | { readonly kind: 'complete'; readonly bytes: number; readonly client: ClientAddress | undefined };

const incomplete: ProxyHeader = { kind: 'incomplete' };
const refused = (problem: string): ProxyHeader => ({ kind: 'refused', problem });

const commands = { local: 0, proxy: 1 } as const;

/** Address family and transport, as in one byte. */
const unspecified = 0x00;
const tcpOverIpv4 = 0x11;
const tcpOverIpv6 = 0x21;

/** What the bytes that a connection begins with say. Never throws. */
export const readProxyHeader = (bytes: Uint8Array): ProxyHeader => {
  for (const [index, expected] of signature.entries()) {
    if (index >= bytes.length) return incomplete;
    if (bytes[index] !== expected)
      return refused('the connection does not begin with a PROXY header of version 2');
  }
  if (bytes.length < fixedBytes) return incomplete;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const version = view.getUint8(12) >> 4;
  const command = view.getUint8(12) & 0x0f;
  const family = view.getUint8(13);
  const length = view.getUint16(14);
  if (version !== 2) return refused(`the PROXY header is of version ${version}, only 2 is read`);
  if (command !== commands.local && command !== commands.proxy)
    return refused(`the PROXY header has the unknown command ${command}`);
  if (length > variableBytesMax)
    return refused(
      `the PROXY header has ${length} bytes of addresses and more, at most ${variableBytesMax} are read`,
    );
  if (bytes.length < fixedBytes + length) return incomplete;
  const variable = bytes.subarray(fixedBytes, fixedBytes + length);
  const total = fixedBytes + length;
  // What a balancer's own connection says of addresses is to be skipped, whatever it is.
  if (command === commands.local) return { kind: 'complete', bytes: total, client: undefined };
  switch (family) {
    case unspecified:
      return { kind: 'complete', bytes: total, client: undefined };
    case tcpOverIpv4:
      return addressed(variable, 4, ipv4Text, total);
    case tcpOverIpv6:
      return addressed(variable, 16, ipv6Text, total);
    default:
      return refused(`the PROXY header is for 0x${family.toString(16)}, which is not TCP over IP`);
  }
};

/** Source address, destination address, source port, destination port, then TLVs. */
const addressed = (
  variable: Uint8Array,
  addressBytes: number,
  textOf: (address: Uint8Array) => string,
  total: number,
): ProxyHeader => {
  const bytes = 2 * addressBytes + 4;
  if (variable.length < bytes)
    return refused(`the PROXY header has ${variable.length} bytes, its addresses need ${bytes}`);
  if (!areTlvs(variable.subarray(bytes)))
    return refused('what follows the addresses in the PROXY header does not fit');
  const view = new DataView(variable.buffer, variable.byteOffset, variable.byteLength);
  const client = {
    address: textOf(variable.subarray(0, addressBytes)),
    port: view.getUint16(2 * addressBytes),
  };
  return { kind: 'complete', bytes: total, client };
};

/** Each a type, two bytes of length, and so many bytes. */
const areTlvs = (bytes: Uint8Array): boolean => {
  let at = 0;
  while (at < bytes.length) {
    const high = bytes[at + 1];
    const low = bytes[at + 2];
    if (high === undefined || low === undefined) return false;
    at += 3 + high * 256 + low;
  }
  return at === bytes.length;
};

const ipv4Text = (address: Uint8Array): string => address.join('.');

/** The one short form of RFC 5952, as Node and everybody else writes it. */
const ipv6Text = (address: Uint8Array): string => {
  const groups: string[] = [];
  for (let at = 0; at < 16; at += 2)
    groups.push((((address[at] ?? 0) << 8) | (address[at + 1] ?? 0)).toString(16));
  return new URL(`http://[${groups.join(':')}]`).hostname.slice(1, -1);
};

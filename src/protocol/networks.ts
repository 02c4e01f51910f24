/** Lists of IP addresses and networks, as operators write them: `192.0.2.7`, `10.0.0.0/8`, `2001:db8::/32`. */
import { BlockList, isIP } from 'node:net';

interface Network {
  readonly address: string;
  readonly family: 'ipv4' | 'ipv6';
  readonly prefix: number;
}

const parseNetwork = (text: string): Network | undefined => {
  const [address = '', prefixText, ...rest] = text.split('/');
  const version = isIP(address);
  // A zone ('fe80::1%eth0') names an interface of this machine, not an address.
  if (version === 0 || rest.length > 0 || address.includes('%')) return undefined;
  const bits = version === 4 ? 32 : 128;
  const family = version === 4 ? 'ipv4' : 'ipv6';
  if (prefixText === undefined) return { address, family, prefix: bits };
  if (!/^(0|[1-9][0-9]{0,2})$/.test(prefixText) || Number(prefixText) > bits) return undefined;
  return { address, family, prefix: Number(prefixText) };
};

/** Whether it is an IP address or a network in CIDR notation. */
export const isNetwork = (text: string): boolean => parseNetwork(text) !== undefined;

export class Networks {
  readonly #list = new BlockList();
  readonly #isEmpty: boolean;

  /** Throws a RangeError for what is no network. */
  constructor(networks: readonly string[]) {
    this.#isEmpty = networks.length === 0;
    for (const text of networks) {
      const network = parseNetwork(text);
      if (network === undefined) throw new RangeError(`${text} is no address and no network`);
      this.#list.addSubnet(network.address, network.prefix, network.family);
    }
  }

  /** An IPv4 address counts also where it is written as an IPv6 one (::ffff:192.0.2.7), as on a socket for both. */
  has(address: string | undefined): boolean {
    if (this.#isEmpty || address === undefined) return false;
    return this.#list.check(address, isIP(address) === 6 ? 'ipv6' : 'ipv4');
  }
}

/** How a server of the cluster is named and reached: the forms that configurations and requests have in common. */

export interface HostAndPort {
  readonly host: string;
  readonly port: number;
}

/** Longer ones name nothing: a DNS name has at most 253 characters. */
const addressLengthMax = 300;

/** 'host:port' or '[IPv6]:port'. */
export const parseHostAndPort = (text: string): HostAndPort | undefined => {
  if (text.length > addressLengthMax) return undefined;
  const parts = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})$/.exec(text);
  const host = parts?.[1] ?? parts?.[2];
  const port = Number(parts?.[3]);
  return host === undefined || port > 65_535 ? undefined : { host, port };
};

/** The inverse of `parseHostAndPort`. */
export const formatHostAndPort = ({ host, port }: HostAndPort): string =>
  host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`;

/** Where a server can be reached: 'host:port' with a port. */
export const isPeersAddress = (text: string): boolean => (parseHostAndPort(text)?.port ?? 0) > 0;

/** wss://host:port, no path. */
export const isAgentsUrl = (text: string): boolean =>
  text.startsWith('wss://') && isPeersAddress(text.slice('wss://'.length));

/** What a server's certificate has as its CN: 1 to 64 characters, one segment of the grammar of keys. */
export const isMemberName = (text: string): boolean => /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(text);

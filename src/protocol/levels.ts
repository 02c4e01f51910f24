/**
 * Clients read strictly, so what is added to a server's frames would end the connections of older ones. A client says up
 * to which level it knows the additions, by a token that it offers beside its subprotocols and that no server ever chooses:
 * servers before it skip what they don't know there, and a browser can offer it too.
 *
 * Level 2: Goaway.endpoints, and `draining` of a member and of its status.
 * Level 3: Goaway.here.
 */
export const protocolLevel = 3;

const prefix = 'futurestore.v1.level.';

/** To be offered behind the subprotocols. */
export const levelToken = `${prefix}${protocolLevel}`;

/** Up to which level a client that offers these can be told. */
export const levelAmong = (offered: Iterable<string>): number => {
  for (const name of offered) {
    const digits = name.startsWith(prefix) ? name.slice(prefix.length) : '';
    if (/^[1-9][0-9]{0,3}$/.test(digits)) return Number(digits);
  }
  return 1;
};

import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { revocationListReader } from '../../src/gateway/revocation-list-reader.ts';
import { parseAuthorities } from '../../src/gateway/authorities.ts';
import { makeAuthority, makeRevocationList } from '../gateway/certificates.ts';

const thread = new URL('../../dist/gateway/revocation-list-thread.js', import.meta.url);

describe('a long revocation list', () => {
  const serials = Array.from({ length: 3000 }, (_, at) => (0x100000 + at).toString(16).padStart(8, '0'));

  test('is read by a thread, while the server goes on', async () => {
    expect(existsSync(fileURLToPath(thread)), 'it is built').toBe(true);
    const authority = await makeAuthority('CN=Puppet CA');
    const text = await makeRevocationList(authority, { revoked: serials });
    const authorities = parseAuthorities('puppet', authority.pem).map(({ fingerprint, certificate }) => ({
      fingerprint,
      certificate: certificate.raw,
    }));
    const read = revocationListReader(thread);
    const reading = { text, source: '/crl.pem', authorities, wallMs: Date.now() };
    // It turns a hundred times and more while it waits; it would stand still if it read the list itself.
    let turns = 0;
    const turning = setInterval(() => (turns += 1), 1);
    const lists = await read(reading);
    clearInterval(turning);
    expect(turns).toBeGreaterThan(20);
    const [list] = lists.values();
    expect(list?.serials.size).toBe(serials.length);
    expect(lists.has(authorities[0]?.fingerprint ?? '')).toBe(true);

    const impostor = await makeAuthority('CN=Puppet CA');
    const forged = await makeRevocationList(impostor, { revoked: serials });
    await expect(read({ ...reading, text: forged })).rejects.toThrow(/was not signed by the authority/);
    await expect(
      revocationListReader(new URL('file:///nowhere.js'))({ ...reading, text: forged }),
    ).rejects.toThrow(/crl.pem cannot be read/);
  });
});

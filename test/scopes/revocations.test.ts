import * as fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  parseSerial,
  Revocations,
  revokes,
  type Credential,
  type Revocation,
} from '../../src/scopes/index.ts';

const realm = fc.constantFrom('puppet', 'ci');
const name = fc.constantFrom('web1', 'web2', 'web1 x');
const serial = fc.constantFrom('1', '2', 'ab');
const id = fc.constantFrom('t1', 't2');
const atMs = fc.integer({ min: 0, max: 5 });

const revocation: fc.Arbitrary<Revocation> = fc.oneof(
  fc.record({ kind: fc.constant('certificate'), realm, serial }),
  fc.record({ kind: fc.constant('principal'), realm, name }),
  fc.record({ kind: fc.constant('token'), realm, tokenId: id }),
  fc.record({ kind: fc.constant('issued_before'), realm, atMs }),
  fc.record({ kind: fc.constant('issued_before'), realm, name, atMs }),
);
const certificate = fc.record({ serial, issuedAtMs: atMs });
const token = fc.oneof(fc.record({ issuedAtMs: atMs }), fc.record({ id, issuedAtMs: atMs }));
const credential: fc.Arbitrary<Credential> = fc.oneof(
  fc.record({ realm, name, certificate }),
  fc.record({ realm, name, token }),
  fc.record({ realm, name, certificate, token }),
);

const web1: Credential = {
  realm: 'puppet',
  name: 'web1',
  certificate: { serial: '1f', issuedAtMs: 1000 },
  token: { id: 't1', issuedAtMs: 2000 },
};

describe('a revocation', () => {
  test.each<[Revocation, boolean]>([
    [{ kind: 'certificate', realm: 'puppet', serial: '1f' }, true],
    [{ kind: 'certificate', realm: 'puppet', serial: '1e' }, false],
    [{ kind: 'certificate', realm: 'ci', serial: '1f' }, false],
    [{ kind: 'principal', realm: 'puppet', name: 'web1' }, true],
    [{ kind: 'principal', realm: 'puppet', name: 'web10' }, false],
    [{ kind: 'principal', realm: 'ci', name: 'web1' }, false],
    [{ kind: 'token', realm: 'puppet', tokenId: 't1' }, true],
    [{ kind: 'token', realm: 'puppet', tokenId: 't2' }, false],
    [{ kind: 'issued_before', realm: 'puppet', atMs: 1000 }, false],
    [{ kind: 'issued_before', realm: 'puppet', atMs: 1001 }, true],
    [{ kind: 'issued_before', realm: 'puppet', name: 'web1', atMs: 1001 }, true],
    [{ kind: 'issued_before', realm: 'puppet', name: 'web2', atMs: 9999 }, false],
    [{ kind: 'issued_before', realm: 'ci', atMs: 9999 }, false],
  ])('%j of a credential with certificate and token: %s', (one, expected) => {
    expect(revokes(one, web1)).toBe(expected);
    expect(new Revocations([one]).find(web1)).toEqual(expected ? one : undefined);
  });

  test('of tokens does not mean a credential without one, nor one without an id', () => {
    const revoked = new Revocations([{ kind: 'token', realm: 'puppet', tokenId: 'undefined' }]);
    expect(revoked.find({ realm: 'puppet', name: 'web1' })).toBeUndefined();
    expect(revoked.find({ realm: 'puppet', name: 'web1', token: { issuedAtMs: 0 } })).toBeUndefined();
  });
});

test('many revocations find one exactly if one of them revokes, and it is one that does', () => {
  fc.assert(
    fc.property(fc.array(revocation, { maxLength: 8 }), credential, (list, shown) => {
      const revocations = new Revocations(list);
      const found = revocations.find(shown);
      expect(found !== undefined).toBe(list.some((one) => revokes(one, shown)));
      if (found !== undefined) expect(revokes(found, shown)).toBe(true);
      expect(revocations.list).toEqual(list);
    }),
    { numRuns: 3000 },
  );
});

test.each([
  ['1F', '1f'],
  ['0x00AB', 'ab'],
  ['00:a0:0B', 'a00b'],
  ['0', '0'],
  ['000', '0'],
  ['', undefined],
  ['0x', undefined],
  ['xyz', undefined],
  ['-1', undefined],
  ['f'.repeat(81), undefined],
])('the serial number %j is read as %j', (text, expected) => {
  expect(parseSerial(text)).toBe(expected);
});

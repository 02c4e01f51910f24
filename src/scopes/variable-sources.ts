/** Where in a certificate or a token the value of a variable is from. */

import type { TlsIdentity } from './document.ts';

export type VariableSource =
  /** 'cn' or 'dns': the principal's name, by what its realm takes it from. */
  | { readonly kind: 'name'; readonly identity: TlsIdentity }
  /** 'extension:pp_role' or 'oid:1.3.6.1.4.1.34380.1.1.13': an extension of the certificate. */
  | { readonly kind: 'extension'; readonly oid: string }
  /** 'claim:department': a claim of the token. */
  | { readonly kind: 'claim'; readonly name: string };

const registered = '1.3.6.1.4.1.34380.1.1';
const authorization = '1.3.6.1.4.1.34380.1.3';

/** The short names that Puppet gives to its certificate extensions (its manual, "CSR attributes and extensions"). */
const puppetExtensions: ReadonlyMap<string, string> = new Map([
  ...[
    'pp_uuid',
    'pp_instance_id',
    'pp_image_name',
    'pp_preshared_key',
    'pp_cost_center',
    'pp_product',
    'pp_project',
    'pp_application',
    'pp_service',
    'pp_employee',
    'pp_created_by',
    'pp_environment',
    'pp_role',
    'pp_software_version',
    'pp_department',
    'pp_cluster',
    'pp_provisioner',
    'pp_region',
    'pp_datacenter',
    'pp_zone',
    'pp_network',
    'pp_securitypolicy',
    'pp_cloudplatform',
    'pp_apptier',
    'pp_hostname',
  ].map((name, index) => [name, `${registered}.${index + 1}`] as const),
  ['pp_authorization', `${authorization}.1`],
  ['pp_auth_role', `${authorization}.13`],
  ['pp_cli_auth', `${authorization}.39`],
]);

const oidPattern = /^[0-2](\.(0|[1-9][0-9]{0,15})){1,31}$/;
/** A claim's name may be a URL; it is no text for people, so blanks and control characters are a mistake. */
const claimPattern = /^[\x21-\x7e]{1,256}$/;

/** undefined: the text names no source. */
export function parseVariableSource(text: string): VariableSource | undefined {
  if (text === 'cn' || text === 'dns') return { kind: 'name', identity: text };
  const colon = text.indexOf(':');
  const rest = text.slice(colon + 1);
  switch (text.slice(0, Math.max(colon, 0))) {
    case 'extension': {
      const oid = puppetExtensions.get(rest);
      return oid === undefined ? undefined : { kind: 'extension', oid };
    }
    case 'oid':
      return oidPattern.test(rest) ? { kind: 'extension', oid: rest } : undefined;
    case 'claim':
      return claimPattern.test(rest) ? { kind: 'claim', name: rest } : undefined;
    default:
      return undefined;
  }
}

/** What Puppet writes into its agents' certificates besides their names, and how it is read. */

const puppetArc = '1.3.6.1.4.1.34380.1';

/** Puppet's own short names: https://www.puppet.com/docs/puppet/8/ssl_attributes_extensions. */
const registered = [
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
  'pp_owner',
];

const oidByName: ReadonlyMap<string, string> = new Map([
  ...registered.map((name, index): [string, string] => [name, `${puppetArc}.1.${index + 1}`]),
  ['pp_authorization', `${puppetArc}.3.1`],
  ['pp_auth_role', `${puppetArc}.3.13`],
  ['pp_cli_auth', `${puppetArc}.3.39`],
]);

const oidPattern = /^(?:oid:)?([0-2](?:\.(?:0|[1-9]\d{0,18})){1,30})$/;

/** Of 'pp_role', 'oid:1.3.6.1.4.1.34380.1.1.13' or the bare number; undefined: it is none of them. */
export const extensionOid = (name: string): string | undefined =>
  oidByName.get(name) ?? oidPattern.exec(name)?.[1];

/** Puppet's part of the tree of OIDs: what may become a variable without being named by its number. */
export const isPuppetOid = (oid: string): boolean => oid.startsWith(`${puppetArc}.`);

/** UTF8String, PrintableString, IA5String: what Puppet and OpenSSL write texts as. */
const textTags: ReadonlySet<number> = new Set([0x0c, 0x13, 0x16]);
const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * The text of an extension's value: one string in DER that fills it, as Puppet has written it since version 4. undefined:
 * it is anything else. Longer ones than 127 bytes have no room in a key's segment, so a longer form of length is not read.
 */
export const extensionText = (value: Uint8Array): string | undefined => {
  const [tag, length] = value;
  if (tag === undefined || length === undefined || !textTags.has(tag)) return undefined;
  if (length > 127 || value.length !== 2 + length) return undefined;
  try {
    return strictUtf8.decode(value.subarray(2));
  } catch {
    return undefined;
  }
};

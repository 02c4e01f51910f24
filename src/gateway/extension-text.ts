/** UTF8String, PrintableString, IA5String: what Puppet and OpenSSL write texts as. */
const textTags: ReadonlySet<number> = new Set([0x0c, 0x13, 0x16]);
const strictUtf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/**
 * The text of a certificate extension's value: one string in DER that fills it, as Puppet has written it since version 4.
 * undefined: it is anything else. A longer form of length is not read, because longer texts than 127 bytes have no room
 * in a key's segment.
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

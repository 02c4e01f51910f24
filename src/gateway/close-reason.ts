/** RFC 6455, 5.5.1: a close frame's reason has at most 123 bytes of UTF-8. */
const reasonBytesMax = 123;

/** The text, shortened to what a close frame may carry; never in the middle of a character. */
export const closeReason = (text: string): string => {
  if (Buffer.byteLength(text) <= reasonBytesMax) return text;
  const ellipsis = '…';
  const room = reasonBytesMax - Buffer.byteLength(ellipsis);
  let bytes = 0;
  let kept = '';
  for (const character of text) {
    bytes += Buffer.byteLength(character);
    if (bytes > room) break;
    kept += character;
  }
  return kept + ellipsis;
};

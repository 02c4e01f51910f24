/** Two FNV-1a hashes of 32 bits side by side: against bugs, not against attackers. */
const prime = 0x01000193;

export class Digest {
  #one = 0x811c9dc5;
  #other = 0x2ad7eb25;

  addBytes(bytes: Uint8Array): void {
    this.#addLength(bytes.length);
    for (const byte of bytes) this.#add(byte);
  }

  /** ASCII. */
  addText(text: string): void {
    this.#addLength(text.length);
    for (let i = 0; i < text.length; i++) this.#add(text.charCodeAt(i));
  }

  /** 16 digits. */
  hex(): string {
    return [this.#one, this.#other].map((half) => (half >>> 0).toString(16).padStart(8, '0')).join('');
  }

  #addLength(length: number): void {
    for (let shift = 0; shift < 32; shift += 8) this.#add((length >>> shift) & 0xff);
  }

  #add(byte: number): void {
    this.#one = Math.imul(this.#one ^ byte, prime);
    // Fed in another order of bits, so that what collides in one does not in the other.
    this.#other = Math.imul((this.#other << 7) ^ (this.#other >>> 25) ^ byte, prime);
  }
}

/**
 * A parser for JSON from strangers. Unlike JSON.parse it refuses an object that names a member twice, bounds depth and
 * number of values while it reads, keeps members in maps (so that no name can reach a prototype), and gives Infinity
 * or NaN, which no check of a field lets pass, for a number that would be rounded.
 */

export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject;
export type JsonObject = ReadonlyMap<string, JsonValue>;

/** What is wrong with the text, and where. */
class JsonTextError extends Error {
  constructor(problem: string, offset: number) {
    super(`${problem} at offset ${offset}`);
    this.name = 'JsonTextError';
  }
}

export interface JsonLimits {
  /** Arrays and objects inside each other. */
  readonly depthMax: number;
  readonly valuesMax: number;
}

/** The value that the text is. Throws JsonTextError. */
export function parseJson(text: string, limits: JsonLimits): JsonValue {
  return new JsonParser(text, limits).parse();
}

const numberPattern = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const spacePattern = /[ \t\n\r]*/y;
/** A double holds every decimal number of so many digits. */
const exactDigitsMax = 15;

class JsonParser {
  readonly #text: string;
  readonly #depthMax: number;
  #valuesLeft: number;
  #at = 0;

  constructor(text: string, { depthMax, valuesMax }: JsonLimits) {
    this.#text = text;
    this.#depthMax = depthMax;
    this.#valuesLeft = valuesMax;
  }

  parse(): JsonValue {
    const value = this.#value(0);
    this.#skipSpace();
    if (this.#at < this.#text.length) throw this.#error('something after the end of the value');
    return value;
  }

  #error(problem: string): JsonTextError {
    return new JsonTextError(problem, this.#at);
  }

  #skipSpace(): void {
    spacePattern.lastIndex = this.#at;
    spacePattern.test(this.#text);
    this.#at = spacePattern.lastIndex;
  }

  #value(depth: number): JsonValue {
    this.#valuesLeft -= 1;
    if (this.#valuesLeft < 0) throw this.#error('too many values');
    this.#skipSpace();
    switch (this.#text[this.#at]) {
      case '{':
        return this.#object(depth + 1);
      case '[':
        return this.#array(depth + 1);
      case '"':
        return this.#string();
      case 't':
        return this.#word('true', true);
      case 'f':
        return this.#word('false', false);
      case 'n':
        return this.#word('null', null);
      default:
        return this.#number();
    }
  }

  #word<T extends JsonValue>(word: string, value: T): T {
    if (!this.#text.startsWith(word, this.#at)) throw this.#error('no value');
    this.#at += word.length;
    return value;
  }

  #number(): number {
    numberPattern.lastIndex = this.#at;
    const text = numberPattern.exec(this.#text)?.[0];
    if (text === undefined) throw this.#error('no value');
    this.#at += text.length;
    const value = Number(text);
    if (/[.eE]/.test(text)) {
      const digits = text.replace(/[eE].*$/, '').replaceAll(/[^0-9]/g, '').length;
      return digits > exactDigitsMax || (Number.isInteger(value) && !Number.isSafeInteger(value))
        ? Number.NaN
        : value;
    }
    return Number.isSafeInteger(value) ? value : Number.POSITIVE_INFINITY * Math.sign(value);
  }

  #string(): string {
    const start = this.#at;
    for (let at = start + 1; at < this.#text.length; at += 1) {
      const code = this.#text.charCodeAt(at);
      if (code === 0x22) {
        this.#at = at + 1;
        return this.#copy(start);
      }
      if (code < 0x20) break;
      if (code === 0x5c) at += 1;
    }
    throw this.#error('a string without an end, or with a control character');
  }

  /** Not a slice, even where nothing is escaped: a slice would keep the whole frame's text alive. */
  #copy(start: number): string {
    try {
      return String(JSON.parse(this.#text.slice(start, this.#at)));
    } catch {
      this.#at = start;
      throw this.#error('a string with an escape that JSON does not have');
    }
  }

  #enter(depth: number): void {
    if (depth > this.#depthMax) throw this.#error(`more than ${this.#depthMax} levels`);
    this.#at += 1;
    this.#skipSpace();
  }

  /** After a member: true at the end, false where another follows. */
  #ends(close: string): boolean {
    this.#skipSpace();
    const found = this.#text[this.#at];
    if (found !== ',' && found !== close) throw this.#error(`neither ',' nor '${close}'`);
    this.#at += 1;
    return found === close;
  }

  #array(depth: number): readonly JsonValue[] {
    this.#enter(depth);
    const values: JsonValue[] = [];
    if (this.#text[this.#at] === ']') {
      this.#at += 1;
      return values;
    }
    do values.push(this.#value(depth));
    while (!this.#ends(']'));
    return values;
  }

  #object(depth: number): JsonObject {
    this.#enter(depth);
    const members = new Map<string, JsonValue>();
    if (this.#text[this.#at] === '}') {
      this.#at += 1;
      return members;
    }
    do {
      this.#skipSpace();
      if (this.#text[this.#at] !== '"') throw this.#error('no name of a member');
      const name = this.#string();
      if (members.has(name)) throw this.#error('a member that is there twice');
      this.#skipSpace();
      if (this.#text[this.#at] !== ':') throw this.#error("no ':'");
      this.#at += 1;
      members.set(name, this.#value(depth));
    } while (!this.#ends('}'));
    return members;
  }
}

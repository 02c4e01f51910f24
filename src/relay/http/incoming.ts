/** What a local program sent: path, query and body, within their limits. */
import type { IncomingMessage } from 'node:http';
import { FuturestoreError, limits } from '../../protocol/index.ts';
import type { Position } from '../../protocol/index.ts';

const invalid = (message: string): FuturestoreError => new FuturestoreError('INVALID_ARGUMENT', message);

export interface Target {
  readonly path: string;
  readonly query: URLSearchParams;
}

export const targetOf = (request: IncomingMessage): Target => {
  const [path = '/', query = ''] = (request.url ?? '/').split('?', 2);
  return { path, query: new URLSearchParams(query) };
};

export const decoded = (text: string): string => {
  try {
    return decodeURIComponent(text);
  } catch {
    throw invalid('the path is not percent-encoded as it should be');
  }
};

/** INVALID_ARGUMENT for a parameter that the route does not have. */
export const checkQuery = (query: URLSearchParams, known: readonly string[]): void => {
  for (const name of query.keys()) {
    if (!known.includes(name))
      throw invalid(`unknown parameter ${JSON.stringify(name.slice(0, 100))}: see /v1/openapi.yaml`);
  }
};

export const booleanParameter = (query: URLSearchParams, name: string): boolean => {
  const text = query.get(name) ?? 'false';
  if (text !== 'true' && text !== 'false') throw invalid(`${name}: it must be true or false`);
  return text === 'true';
};

export const numberParameter = (query: URLSearchParams, name: string, most: number): number | undefined => {
  const text = query.get(name);
  if (text === null) return undefined;
  const number = /^[0-9]{1,16}$/.test(text) ? Number(text) : Number.NaN;
  if (number <= most) return number;
  throw invalid(`${name}: it must be a whole number up to ${most}`);
};

/** 'cluster:epoch:revision'. */
export const positionAsText = ({ clusterId, epoch, revision }: Position): string =>
  `${clusterId}:${epoch}:${revision}`;

export const startParameter = (query: URLSearchParams): 'present' | 'new' | Position => {
  const text = query.get('from') ?? 'present';
  if (text === 'present' || text === 'new') return text;
  const [, clusterId, epoch, revision] = /^([^:]{1,128}):([0-9]{1,16}):([0-9]{1,16})$/.exec(text) ?? [];
  if (clusterId === undefined)
    throw invalid('from: it must be present, new, or a position that an earlier watch gave');
  return { clusterId, epoch: Number(epoch), revision: Number(revision) };
};

/** Bodies that are being read, of all connections together. */
export class Bodies {
  readonly #bodyBytesMax: number;
  readonly #bytesMax: number;
  #bytes = 0;

  constructor(bounds: { readonly bodyBytesMax: number; readonly bodiesBytesMax: number }) {
    this.#bodyBytesMax = bounds.bodyBytesMax;
    this.#bytesMax = bounds.bodiesBytesMax;
  }

  /** The JSON of a request. LIMIT_EXCEEDED, TOO_MANY_REQUESTS or INVALID_ARGUMENT. */
  async json(request: IncomingMessage): Promise<unknown> {
    const chunks: Buffer[] = [];
    let bytes = 0;
    try {
      // Not destroyed when it is left: the answer goes over the same socket.
      const read = request.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>;
      for await (const chunk of read) {
        bytes += chunk.length;
        this.#bytes += chunk.length;
        if (bytes > this.#bodyBytesMax) {
          const text = `the body has more than ${this.#bodyBytesMax} bytes: a value may have ${limits.valueBytesMax}, and value_base64 makes it a third longer`;
          throw new FuturestoreError('LIMIT_EXCEEDED', text);
        }
        if (this.#bytes > this.#bytesMax) {
          const text = `the relay is reading ${this.#bytesMax} bytes of other requests just now: try again`;
          throw new FuturestoreError('TOO_MANY_REQUESTS', text);
        }
        chunks.push(chunk);
      }
      return parse(Buffer.concat(chunks));
    } finally {
      this.#bytes -= bytes;
    }
  }
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

const parse = (bytes: Buffer): unknown => {
  try {
    return JSON.parse(utf8.decode(bytes)) as unknown;
  } catch {
    // The engine's own text quotes the body, which may hold a secret.
    throw invalid('the body is no JSON (in UTF-8)');
  }
};

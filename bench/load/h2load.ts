/**
 * Load for gRPC by `h2load` (Debian's nghttp2-client): it costs next to nothing, so that what etcd is measured with is
 * never slower than what we are measured with. Each process sends one and the same request to one server, again and
 * again; so all puts go to one key for each server, which spares etcd's index (it favours etcd).
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { versionOf } from '../systems/programs.ts';
import type { LoadResult, LoadShape } from './load.ts';
import { processorSeconds } from '../machine.ts';

export const h2loadVersion = (): string | undefined => versionOf('h2load', ['--version'], /nghttp2\/(\S+)/);

export interface GrpcRequest {
  /** 'etcdserverpb.KV/Put'. */
  readonly method: string;
  /** With gRPC's five bytes before it. */
  readonly body: Uint8Array;
}

/** Closed loop, for `seconds`, on all endpoints at once; connections are dealt out to them. */
export const h2load = async (
  endpoints: readonly string[],
  { method, body }: GrpcRequest,
  { connections, outstanding, seconds }: LoadShape,
): Promise<LoadResult> => {
  const directory = mkdtempSync(join(tmpdir(), 'futurestore-bench-h2load-'));
  try {
    const bodyFile = join(directory, 'body');
    writeFileSync(bodyFile, body);
    const shares = endpoints
      .map((endpoint, index) => ({
        endpoint,
        log: join(directory, `log-${index}`),
        connections:
          Math.floor(connections / endpoints.length) + (index < connections % endpoints.length ? 1 : 0),
      }))
      .filter((share) => share.connections > 0);
    const used = await Promise.all(
      shares.map(({ endpoint, log, connections: own }) =>
        runOne([
          `--clients=${own}`,
          `--max-concurrent-streams=${outstanding}`,
          `--duration=${seconds}`,
          `--data=${bodyFile}`,
          '--header=content-type: application/grpc',
          '--header=te: trailers',
          `--log-file=${log}`,
          `${endpoint}/${method}`,
        ]),
      ),
    );
    const latenciesMs: number[] = [];
    for (const { log } of shares) readLatencies(log, latenciesMs);
    return {
      operations: latenciesMs.length,
      seconds,
      latenciesMs,
      generatorSeconds: used.reduce((sum, value) => sum + value, 0),
    };
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
};

/** Lines of: start (µs since 1970), HTTP status, µs until the answer was whole. */
const readLatencies = (file: string, into: number[]): void => {
  for (const line of readFileSync(file, 'utf8').split('\n')) {
    if (line === '') continue;
    const [, status, microseconds] = line.split('\t');
    if (status !== '200') throw new Error(`h2load got HTTP status ${status ?? ''}: ${line}`);
    into.push(Number(microseconds) / 1000);
  }
};

/** Gives the processor seconds that it used. */
const runOne = (args: readonly string[]): Promise<number> =>
  new Promise((resolve, reject) => {
    const child = spawn('h2load', args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    let used = 0;
    const look = setInterval(() => {
      if (child.pid !== undefined) used = Math.max(used, processorSeconds([child.pid]));
    }, 100);
    child.stdout.on('data', (chunk: Buffer) => (said += chunk.toString()));
    child.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
    child.on('error', reject);
    child.on('exit', (code) => {
      clearInterval(look);
      if (code === 0) resolve(used);
      else reject(new Error(`h2load ended with ${code}: ${said.slice(-500)}`));
    });
  });

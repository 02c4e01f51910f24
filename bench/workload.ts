/** What every workload gets, and how its figures are told. */
import { connect, loadProfile, type Client } from '../src/client/index.ts';
import type { ProcessCluster } from '../test/support/process-cluster.ts';

export interface Figure {
  readonly workload: string;
  readonly figure: string;
  readonly value: number;
  readonly unit: string;
  /** What it must not exceed, where something was promised. */
  readonly limit?: number;
}

export interface Bench {
  /** A shorter run, for a first look. */
  readonly quick: boolean;
  readonly cluster: ProcessCluster;
  report(figure: Omit<Figure, 'workload'>): void;
}

export interface Workload {
  readonly name: string;
  readonly about: string;
  /** Default 3. */
  readonly servers?: number;
  readonly run: (bench: Bench) => Promise<void>;
}

/** One that needs no servers. */
export interface LocalWorkload {
  readonly name: string;
  readonly about: string;
  readonly measure: (bench: Omit<Bench, 'cluster'>) => void;
}

export const percentile = (values: readonly number[], part: number): number => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? Number.NaN;
};

/** Clients with a connection of their own each, spread over the servers in turn. */
export const clients = (cluster: ProcessCluster, count: number): Client[] => {
  const profile = loadProfile(cluster.path('admin.yaml'));
  return Array.from({ length: count }, (_, index) =>
    connect({ ...profile, endpoints: [profile.endpoints[index % profile.endpoints.length] ?? ''] }),
  );
};

export const closeAll = async (all: readonly Client[]): Promise<void> => {
  await Promise.all(all.map((client) => client.close()));
};

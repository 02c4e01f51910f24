/** Futures and operations as JSON on the relay's own disk: all of their fields, values in base64. */
import type { Future, Operation } from '../protocol/index.ts';

export const futureToRecord = ({ value, ...rest }: Future): unknown =>
  value === undefined ? rest : { ...rest, value: Buffer.from(value).toString('base64') };

/** Undefined: it is none. What is read was written by this program: only its outline is looked at. */
export const futureFromRecord = (record: unknown): Future | undefined => {
  if (typeof record !== 'object' || record === null || !('key' in record) || !('state' in record))
    return undefined;
  const { value, ...rest } = record as Omit<Future, 'value'> & { readonly value?: string };
  return value === undefined ? rest : { ...rest, value: Buffer.from(value, 'base64') };
};

export const operationToRecord = (operation: Operation): unknown =>
  operation.kind === 'resolve'
    ? { ...operation, value: Buffer.from(operation.value).toString('base64') }
    : operation;

export const operationFromRecord = (record: unknown): Operation | undefined => {
  if (typeof record !== 'object' || record === null || !('key' in record) || !('kind' in record))
    return undefined;
  const operation = record as Operation;
  if (operation.kind !== 'resolve') return operation;
  return { ...operation, value: Buffer.from(String(operation.value), 'base64') };
};

/**
 * The one JSON text of plain data: names in one order, whatever order they were written in, and no blanks. So two
 * texts are the same exactly if the data are. What is undefined is left out, as JSON does.
 */
export function canonicalJson(data: unknown): string {
  return JSON.stringify(data, (_name, value: unknown) => (isRecord(value) ? sorted(value) : value));
}

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Without a prototype, so that a name like __proto__ is a name like any other. */
function sorted(record: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const copy = Object.create(null) as Record<string, unknown>;
  for (const name of Object.keys(record).toSorted()) copy[name] = record[name];
  return copy;
}

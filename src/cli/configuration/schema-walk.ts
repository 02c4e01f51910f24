/** What can be read off a table of settings without a value: its names, kinds, defaults and descriptions. */
import * as v from 'valibot';
import { nearestName } from './nearest-name.ts';

type Schema = v.GenericSchema;

const hasEntries = (
  schema: Schema,
): schema is Schema & { readonly entries: Readonly<Record<string, Schema>> } => 'entries' in schema;
const hasItem = (schema: Schema): schema is Schema & { readonly item: Schema } => 'item' in schema;
const hasWrapped = (schema: Schema): schema is Schema & { readonly wrapped: Schema } => 'wrapped' in schema;

const unwrapped = (schema: Schema): Schema => (hasWrapped(schema) ? unwrapped(schema.wrapped) : schema);

const isGroup = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const below = (place: string, name: string): string => (place === '' ? name : `${place}.${name}`);

/** Written beside its place, which is all that is known of a name that may hold anything. */
const shownName = (name: string): string => {
  const text = JSON.stringify(name);
  return text.length > 60 ? `${text.slice(0, 57)}...` : text;
};

/**
 * A problem for each name in `value` that the table does not have, with the name that was probably meant; and for each
 * list where the table has a group, which valibot takes for a group without entries.
 */
export const unknownSettings = (table: Schema, value: unknown, place = ''): string[] => {
  const schema = unwrapped(table);
  if (hasEntries(schema) && Array.isArray(value)) {
    return [`${place === '' ? 'the file' : place}: must be a group of settings, got a list`];
  }
  if (hasEntries(schema) && isGroup(value)) {
    const known = Object.keys(schema.entries);
    return Object.entries(value).flatMap(([name, inner]) => {
      const entry = Object.hasOwn(schema.entries, name) ? schema.entries[name] : undefined;
      if (entry !== undefined) return unknownSettings(entry, inner, below(place, name));
      const meant = nearestName(name, known);
      const advice = meant === undefined ? `known are ${known.join(', ')}` : `did you mean ${meant}?`;
      return [`${place === '' ? 'the file' : place}: unknown setting ${shownName(name)} (${advice})`];
    });
  }
  if (hasItem(schema) && Array.isArray(value)) {
    const items: readonly unknown[] = value;
    return items.flatMap((item, index) => unknownSettings(schema.item, item, `${place}[${index}]`));
  }
  return [];
};

export interface DescribedSetting {
  /** As in `log.level` or `cluster.members[].id`. */
  readonly place: string;
  readonly description: string;
  /** As written in the file; undefined: the setting is required. */
  readonly defaultValue: string | undefined;
}

/** Every setting of a table, in its order. */
export const describeSettings = (table: Schema, place = ''): DescribedSetting[] => {
  const schema = unwrapped(table);
  if (hasEntries(schema)) {
    return Object.entries(schema.entries).flatMap(([name, entry]) =>
      describeSettings(entry, below(place, name)),
    );
  }
  if (hasItem(schema)) {
    const items = describeSettings(schema.item, `${place}[]`);
    const mayBeEmpty = 'default' in table && Array.isArray(table.default);
    return mayBeEmpty ? items.map((item) => ({ ...item, defaultValue: item.defaultValue ?? 'none' })) : items;
  }
  const found: unknown = 'default' in table ? table.default : undefined;
  const defaultValue =
    typeof found === 'number' || typeof found === 'boolean' || Array.isArray(found)
      ? JSON.stringify(found)
      : found;
  return [
    {
      place,
      description: v.getDescription(table) ?? '',
      defaultValue: typeof defaultValue === 'string' ? defaultValue : undefined,
    },
  ];
};

/** The place of an issue, as in `cluster.members[1].name`. */
export const placeOf = (issue: v.BaseIssue<unknown>): string => {
  let place = '';
  for (const { key } of issue.path ?? []) {
    place = typeof key === 'number' ? `${place}[${key}]` : below(place, String(key));
  }
  return place;
};

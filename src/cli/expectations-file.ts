/** The file of `acl test`: a list of who is expected to be allowed what. */
import { readFileSync } from 'node:fs';
import * as v from 'valibot';
import { parse } from 'yaml';
import { FuturestoreError } from '../protocol/index.ts';
import type { Expectation } from '../scopes/index.ts';

const text = v.pipe(v.string(), v.nonEmpty('must not be empty'));

const expectationsSchema = v.array(
  v.strictObject({
    as: text,
    variables: v.exactOptional(v.record(v.string(), v.string())),
    verb: text,
    on: v.exactOptional(text),
    expect: v.picklist(['allow', 'deny'], 'must be allow or deny'),
  }),
  'must be a list of expectations',
);

/** Throws CONFIGURATION_INVALID that names the file and the places of its problems. */
export const readExpectations = (file: string): readonly Expectation[] => {
  let data: unknown;
  try {
    data = parse(readFileSync(file, 'utf8'), { maxAliasCount: 0 });
  } catch (cause) {
    const why = cause instanceof Error ? (cause.message.split('\n', 1)[0] ?? '') : String(cause);
    throw new FuturestoreError('CONFIGURATION_INVALID', `cannot read the expectations ${file}: ${why}`, {
      cause,
    });
  }
  const checked = v.safeParse(expectationsSchema, data);
  if (checked.success) return checked.output;
  const problems = checked.issues.map(
    (issue) => `${(issue.path ?? []).map(({ key }) => `[${String(key)}]`).join('')}: ${issue.message}`,
  );
  throw new FuturestoreError('CONFIGURATION_INVALID', `${file} is not valid: ${problems.join('; ')}`);
};

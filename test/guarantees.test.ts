import { readdirSync, readFileSync, statSync } from 'node:fs';
import { basename, dirname, join, relative, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** Scenarios that may not go missing, whatever else is in the table. */
const requiredScenarios = Array.from({ length: 55 }, (_, at) => at + 1);

// ---- GUARANTEES.md ----

interface Reference {
  readonly file: string;
  readonly title: string;
}

interface Guarantee {
  readonly number: number;
  readonly group: string;
  statement: string;
  readonly tests: Reference[];
}

interface Scenario {
  readonly number: number;
  readonly story: string;
  readonly tests: readonly Reference[];
}

interface Document {
  readonly guarantees: readonly Guarantee[];
  readonly scenarios: readonly Scenario[];
  /** Lines that look as if they meant something, and do not. */
  readonly strange: readonly string[];
}

const referenceOf = (text: string): Reference | undefined => {
  const [, file, title] = /^`(test\/[^`]+\.ts)`: (\S.*)$/.exec(text) ?? [];
  return file === undefined || title === undefined ? undefined : { file, title };
};

const scenarioOf = (line: string): Scenario | undefined => {
  const [, number, story, cell] = /^\| (\d+) +\| (\S.*?) +\| (`test\/.*?) +\|$/.exec(line) ?? [];
  if (story === undefined || cell === undefined) return undefined;
  const tests = cell.split('<br>').map(referenceOf);
  return tests.includes(undefined)
    ? undefined
    : { number: Number(number), story, tests: tests.filter((one) => one !== undefined) };
};

const readDocument = (text: string): Document => {
  const guarantees: Guarantee[] = [];
  const scenarios: Scenario[] = [];
  const strange: string[] = [];
  let group = '';
  let current: Guarantee | undefined;
  for (const line of text.split('\n')) {
    const [, number, statement] = /^\*\*G(\d+)\.\*\* (\S.*)$/.exec(line) ?? [];
    const reference = line.startsWith('- ') ? referenceOf(line.slice(2)) : undefined;
    const scenario = line.startsWith('|') ? scenarioOf(line) : undefined;
    if (line.startsWith('#')) {
      group = line.replace(/^#+ /, '');
      current = undefined;
    } else if (statement !== undefined) {
      current = { number: Number(number), group, statement, tests: [] };
      guarantees.push(current);
    } else if (reference !== undefined && current !== undefined) {
      current.tests.push(reference);
    } else if (scenario !== undefined) {
      scenarios.push(scenario);
    } else if (/`test\/|^\*\*G|^\| *\d/.test(line)) {
      strange.push(line);
    } else if (current !== undefined && current.tests.length === 0) {
      current.statement += ` ${line}`;
    }
  }
  return { guarantees, scenarios, strange };
};

// ---- the tests as they are written ----

interface Token {
  readonly kind: 'word' | 'string' | 'number' | 'regex' | 'mark';
  /** Of a string, what it stands for; of a template, what stands between the backticks. */
  readonly text: string;
}

const quoted = /'(?:[^'\\\n]|\\[^])*'|"(?:[^"\\\n]|\\[^])*"/y;
const plain: readonly (readonly [Token['kind'] | 'nothing', RegExp])[] = [
  ['nothing', /\s+|\/\/.*|\/\*[^]*?\*\//y],
  ['word', /[A-Za-z_$][\w$]*/y],
  ['number', /\d[\w.]*/y],
];
const regexLiteral = /\/(?![*/])(?:[^/\\\n[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+\/[a-z]*/y;

const matchAt = (pattern: RegExp, text: string, at: number): string | undefined => {
  pattern.lastIndex = at;
  return pattern.exec(text)?.[0];
};

/** Just behind the template that begins at `at`. */
const endOfTemplate = (text: string, at: number): number => {
  let depth = 0;
  for (let i = at + 1; i < text.length; i += 1) {
    const char = text[i];
    if (char === '\\') i += 1;
    else if (depth === 0 && char === '`') return i + 1;
    else if (depth === 0 && char === '$' && text[i + 1] === '{') [depth, i] = [1, i + 1];
    else if (depth > 0 && char === '`') i = endOfTemplate(text, i) - 1;
    else if (depth > 0 && char === '{') depth += 1;
    else if (depth > 0 && char === '}') depth -= 1;
    else if (depth > 0) i += Math.max(0, (matchAt(quoted, text, i)?.length ?? 0) - 1);
  }
  throw new Error(`a template that begins at ${at} has no end`);
};

const escapes: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', 0: '\0', b: '\b' };
const unescape = (text: string): string =>
  text.replace(
    /\\(?:u\{([\da-f]+)\}|u([\da-f]{4})|x([\da-f]{2})|([^]))/gi,
    (_, braced: string | undefined, four: string | undefined, two: string | undefined, char: string) => {
      const code = braced ?? four ?? two;
      return code === undefined ? (escapes[char] ?? char) : String.fromCodePoint(Number.parseInt(code, 16));
    },
  );

/** A slash behind these begins no regular expression, but divides. */
const isOperand = (token: Token | undefined): boolean => {
  if (token === undefined) return false;
  if (token.kind === 'mark') return token.text === ')' || token.text === ']';
  return token.kind !== 'word' || !['return', 'case', 'typeof', 'await', 'of', 'in'].includes(token.text);
};

const tokensOf = (text: string): Token[] => {
  const tokens: Token[] = [];
  for (let at = 0; at < text.length;) {
    const [kind, pattern] = plain.find(([, each]) => matchAt(each, text, at) !== undefined) ?? [];
    const string = matchAt(quoted, text, at);
    const regex = isOperand(tokens.at(-1)) ? undefined : matchAt(regexLiteral, text, at);
    let length = 1;
    if (kind !== undefined && pattern !== undefined) {
      const found = matchAt(pattern, text, at) ?? '';
      length = found.length;
      if (kind !== 'nothing') tokens.push({ kind, text: found });
    } else if (string !== undefined) {
      length = string.length;
      tokens.push({ kind: 'string', text: unescape(string.slice(1, -1)) });
    } else if (text[at] === '`') {
      length = endOfTemplate(text, at) - at;
      tokens.push({ kind: 'string', text: unescape(text.slice(at + 1, at + length - 1)) });
    } else if (regex !== undefined) {
      length = regex.length;
      tokens.push({ kind: 'regex', text: regex });
    } else {
      tokens.push({ kind: 'mark', text: text[at] ?? '' });
    }
    at += length;
  }
  return tokens;
};

const isMark = (token: Token | undefined, marks: string): boolean =>
  token?.kind === 'mark' && marks.includes(token.text);

/** Just behind what closes the bracket at `at`. */
const endOfBrackets = (tokens: readonly Token[], at: number): number => {
  let depth = 0;
  for (let i = at; i < tokens.length; i += 1) {
    if (isMark(tokens[i], '([{')) depth += 1;
    else if (isMark(tokens[i], ')]}')) depth -= 1;
    if (depth === 0) return i + 1;
  }
  throw new Error(`a bracket is not closed, ${tokens.length - at} tokens before the end`);
};

/** Just behind the type arguments that may be at `at`. */
const endOfTypes = (tokens: readonly Token[], at: number): number => {
  let depth = 0;
  for (let i = at; i < tokens.length; i += 1) {
    if (isMark(tokens[i], '<')) depth += 1;
    else if (isMark(tokens[i], '>') && !isMark(tokens[i - 1], '=')) depth -= 1;
    if (depth === 0) return isMark(tokens[at], '<') ? i + 1 : at;
  }
  return at;
};

/** The elements of the array that begins at the first token. */
const elementsOf = (tokens: readonly Token[]): Token[][] => {
  const elements: Token[][] = [];
  let element: Token[] = [];
  for (let i = 1; i < endOfBrackets(tokens, 0) - 1;) {
    const end = isMark(tokens[i], '([{') ? endOfBrackets(tokens, i) : i + 1;
    if (isMark(tokens[i], ',')) {
      elements.push(element);
      element = [];
    } else {
      element.push(...tokens.slice(i, end));
    }
    i = end;
  }
  return element.length > 0 ? [...elements, element] : elements;
};

type Cell = string | number | undefined;

const cellOf = (tokens: readonly Token[]): Cell => {
  const [token, ...rest] = tokens;
  if (token === undefined || rest.length > 0) return undefined;
  if (token.kind === 'string') return token.text;
  return token.kind === 'number' ? Number(token.text.replaceAll('_', '')) : undefined;
};

/** The title of one row of a table; undefined where it shows something that only the running test knows. */
const titleOfRow = (title: string, cells: readonly Cell[]): string | undefined => {
  let shown = 0;
  let known = true;
  const text = title.replace(/%[sdifjoO%]/g, (mark) => {
    if (mark === '%%') return '%';
    const cell = cells[shown];
    shown += 1;
    if (cell === undefined) known = false;
    return mark === '%j' ? JSON.stringify(cell ?? '') : String(cell);
  });
  return known && shown > 0 ? text : undefined;
};

const titlesOfTable = (title: string, table: readonly Token[]): string[] => {
  if (!isMark(table[0], '[')) return [];
  return elementsOf(table)
    .map((row) =>
      titleOfRow(title, isMark(row[0], '[') ? elementsOf(row).map((cell) => cellOf(cell)) : [cellOf(row)]),
    )
    .filter((one) => one !== undefined);
};

interface FoundTest {
  /** As written, with its %s. */
  readonly title: string;
  /** Of a table that is written in place: the title of each row. */
  readonly rows: readonly string[];
}

interface FoundTests {
  readonly tests: readonly FoundTest[];
  readonly describes: readonly string[];
  /** Titles of tests that need not run: skipped, expected to fail, or run only under a condition. */
  readonly conditional: readonly string[];
  /** How many calls of `test` have no title that could be read. */
  readonly unread: number;
}

/** What the file calls `test` and `describe`. */
const callersOf = (text: string): ReadonlyMap<string, 'test' | 'describe'> => {
  const callers = new Map<string, 'test' | 'describe'>();
  for (const [, names = ''] of text.matchAll(/import \{([^}]*)\} from '(?:vitest|@fast-check\/vitest)'/g)) {
    for (const name of names.split(',')) {
      const [imported = '', local = imported] = name.trim().split(/ as /);
      if (['test', 'it'].includes(imported)) callers.set(local, 'test');
      if (imported === 'describe') callers.set(local, 'describe');
    }
  }
  return callers;
};

const takesArguments = new Set(['each', 'for', 'prop', 'skipIf', 'runIf']);
const needNotRun = new Set(['skip', 'todo', 'fails', 'only', 'skipIf', 'runIf']);

const findTests = (text: string): FoundTests => {
  const callers = callersOf(text);
  const tokens = tokensOf(text);
  const tests: FoundTest[] = [];
  const describes: string[] = [];
  const conditional: string[] = [];
  let conditionalUpTo = 0;
  let unread = 0;
  for (const [start, { kind, text: name }] of tokens.entries()) {
    const caller = kind === 'word' && !isMark(tokens[start - 1], '.') ? callers.get(name) : undefined;
    if (caller === undefined) continue;
    const modifiers: string[] = [];
    let at = start + 1;
    for (; isMark(tokens[at], '.'); at += 2) modifiers.push(tokens[at + 1]?.text ?? '');
    at = endOfTypes(tokens, at);
    let table: readonly Token[] = [];
    if (modifiers.some((modifier) => takesArguments.has(modifier)) && isMark(tokens[at], '(')) {
      const end = endOfBrackets(tokens, at);
      if (modifiers.includes('each')) table = tokens.slice(at + 1, end - 1);
      at = end;
    }
    const title = tokens[at + 1];
    if (!isMark(tokens[at], '(')) continue;
    if (title?.kind !== 'string' || !isMark(tokens[at + 2], ',')) {
      if (caller === 'test') unread += 1;
      continue;
    }
    const mayRest = modifiers.some((modifier) => needNotRun.has(modifier));
    if (caller === 'describe') {
      describes.push(title.text);
      if (mayRest) conditionalUpTo = Math.max(conditionalUpTo, endOfBrackets(tokens, at));
    } else if (mayRest || start < conditionalUpTo) {
      conditional.push(title.text);
    } else {
      tests.push({ title: title.text, rows: titlesOfTable(title.text, table) });
    }
  }
  return { tests, describes, conditional, unread };
};

// ---- both, side by side ----

const filesBelow = (directory: string): string[] =>
  readdirSync(directory).flatMap((name) => {
    const path = join(directory, name);
    if (statSync(path).isDirectory()) return filesBelow(path);
    return path.endsWith('.ts') ? [path] : [];
  });

type Files = ReadonlyMap<string, FoundTests>;

/** A file of tests runs by itself; any other one where a file of tests beside it imports it. */
const readTests = (): Files => {
  const sources = new Map(
    filesBelow(join(root, 'test')).map((path) => [
      relative(root, path).split(sep).join('/'),
      readFileSync(path, 'utf8'),
    ]),
  );
  const runs = (file: string): boolean =>
    file.endsWith('.test.ts') ||
    [...sources].some(
      ([other, text]) =>
        other.endsWith('.test.ts') &&
        dirname(other) === dirname(file) &&
        text.includes(`from './${basename(file)}'`),
    );
  return new Map([...sources].filter(([file]) => runs(file)).map(([file, text]) => [file, findTests(text)]));
};

/**
 * The groups whose tests need programs that npm does not bring, and their files. They say so themselves, and where
 * continuous integration runs the programs are installed; elsewhere these tests are skipped, with a warning.
 */
const groupsWithPrograms: ReadonlyMap<string, RegExp> = new Map([
  ['With Puppet', /^test\/processes\/puppet[a-z-]*\.test\.ts$/],
  ['With other programs', /^test\/processes\/(load-balancer|python-client|browser)\.test\.ts$/],
]);

const problemOf = ({ file, title }: Reference, files: Files, group = ''): string | undefined => {
  const found = files.get(file);
  if (found === undefined) return `${file} does not exist, or holds no tests`;
  const mayRest = groupsWithPrograms.get(group)?.test(file) === true;
  const resting = found.conditional.filter((one) => one === title).length;
  if (resting > 0 && !mayRest) return `${file}: "${title}" need not run, so it holds nothing`;
  const count = resting + found.tests.filter((one) => one.title === title || one.rows.includes(title)).length;
  if (count === 0) return `${file} has no test "${title}"`;
  return count > 1 ? `${file} has ${count} tests "${title}": which one is meant?` : undefined;
};

const problemsOf = (references: readonly Reference[], files: Files, group?: string): string[] =>
  references.map((reference) => problemOf(reference, files, group)).filter((one) => one !== undefined);

/** The scenarios that a title says it is about. */
const scenariosIn = (title: string): number[] => {
  const [, numbers = ''] = /\bpitfalls? (\d+(?:(?:, | and )\d+)*): /.exec(title) ?? [];
  return (numbers.match(/\d+/g) ?? []).map(Number);
};

/** Tests that name a scenario in whose row they are not. */
const missingFromTable = (scenarios: readonly Scenario[], files: Files): string[] => {
  const missing: string[] = [];
  const heldBy = (number: number): readonly Reference[] =>
    scenarios.find((scenario) => scenario.number === number)?.tests ?? [];
  for (const [file, { tests, describes, conditional }] of files) {
    const titles = tests.flatMap(({ title, rows }) => (scenariosIn(title).length > 0 ? [title] : rows));
    for (const title of [...titles, ...conditional])
      for (const number of scenariosIn(title))
        if (!heldBy(number).some((one) => one.file === file && one.title === title))
          missing.push(`${number}: \`${file}\`: ${title}`);
    for (const title of describes)
      for (const number of scenariosIn(title))
        if (!heldBy(number).some((one) => one.file === file)) missing.push(`${number}: ${file}: ${title}`);
  }
  return missing;
};

const twice = <T>(values: readonly T[]): T[] => values.filter((value, at) => values.indexOf(value) !== at);
const shown = ({ file, title }: Reference): string => `${file}: ${title}`;

describe('GUARANTEES.md', () => {
  const { guarantees, scenarios, strange } = readDocument(readFileSync(join(root, 'GUARANTEES.md'), 'utf8'));
  const files = readTests();

  test('is understood to the last line, and so are the tests', () => {
    expect(strange).toEqual([]);
    expect(guarantees.length).toBeGreaterThan(0);
    expect(scenarios.length).toBeGreaterThan(0);
    const count = [...files.values()].reduce((sum, { tests }) => sum + tests.length, 0);
    expect(count).toBeGreaterThan(500);
    expect([...files].filter(([, { unread }]) => unread > 0).map(([file]) => file)).toEqual([]);
  });

  test('numbers its guarantees in their order, and each says something and has a test', () => {
    const numbers = guarantees.map(({ number }) => number);
    expect(numbers).toEqual(numbers.map((_, index) => index + 1));
    for (const { number, group, statement, tests } of guarantees) {
      expect(group, `G${number} is in a group`).not.toBe('');
      expect(statement.trim(), `G${number} is a sentence`).toMatch(/^[^a-z].{20,}[.)]$/);
      expect(tests.length, `G${number} has tests`).toBeGreaterThan(0);
      expect(twice(tests.map(shown)), `G${number} names a test twice`).toEqual([]);
    }
  });

  test('names only tests that exist, and run', () => {
    expect(
      guarantees.flatMap(({ number, group, tests }) =>
        problemsOf(tests, files, group).map((problem) => `G${number}: ${problem}`),
      ),
    ).toEqual([]);
  });

  test('has every known failure scenario that it must have, where it came from, and the test that holds it', () => {
    const numbers = scenarios.map(({ number }) => number);
    expect(numbers).toEqual(numbers.map((_, index) => index + 1));
    expect(requiredScenarios.filter((number) => !numbers.includes(number))).toEqual([]);
    for (const { number, story, tests } of scenarios) {
      expect(story, `scenario ${number} says where it came from`).toMatch(/\([^()]+\)$/);
      expect(twice(tests.map(shown)), `scenario ${number} names a test twice`).toEqual([]);
      expect(problemsOf(tests, files), `scenario ${number}`).toEqual([]);
    }
  });

  test('misses no test that is named for a scenario', () => {
    expect(missingFromTable(scenarios, files)).toEqual([]);
  });
});

describe('what reads it', () => {
  const source = [
    "import { describe, it, test } from 'vitest';",
    "import { test as property } from '@fast-check/vitest';",
    "describe('pitfall 7: a group', () => {",
    "  test('it\\'s one', () => { expect(/['\"`]/.test(`${a ? `}'` : '}'}`)).toBe(true); });",
    '  it("the \\"second\\" one", { timeout: 5 }, () => {}); // test(\'a comment\', f)',
    '  test(`a template`, () => {});',
    '});',
    "test.each<[string, number]>([['pitfall 8: x', 1], ['y', f(1, 2)]])('%s is %d', (a) => {});",
    "test.each([f, g])(\n  'row of %s',\n  () => {},\n);",
    "property.prop([fc.nat()])('a law', () => {});",
    "test.skip('skipped', () => {});",
    "describe.skipIf(!a)(`maybe ${b}`, () => { test('pitfall 9: now and then', () => {}); });",
    "other.test('no test', () => {});",
    'test(titleOf(a), () => {});',
  ].join('\n');
  const files: Files = new Map([['test/a.test.ts', findTests(source)]]);
  const document = (...lines: string[]): Document => readDocument(lines.join('\n'));
  const at = (title: string): Reference => ({ file: 'test/a.test.ts', title });

  test('finds tests however they are written, and only these', () => {
    const { tests, describes, conditional, unread } = findTests(source);
    expect(tests).toEqual([
      { title: "it's one", rows: [] },
      { title: 'the "second" one', rows: [] },
      { title: 'a template', rows: [] },
      { title: '%s is %d', rows: ['pitfall 8: x is 1'] },
      { title: 'row of %s', rows: [] },
      { title: 'a law', rows: [] },
    ]);
    expect(describes).toEqual(['pitfall 7: a group', 'maybe ${b}']);
    expect(conditional).toEqual(['skipped', 'pitfall 9: now and then']);
    expect(unread).toBe(1);
  });

  test('sees a test that is not there, is there twice, or need not run', () => {
    expect(problemsOf([at("it's one"), at('%s is %d'), at('pitfall 8: x is 1')], files)).toEqual([]);
    expect(problemsOf([at('its one')], files)).toEqual(['test/a.test.ts has no test "its one"']);
    expect(problemsOf([at('skipped')], files)).toEqual([expect.stringContaining('need not run')]);
    for (const group of groupsWithPrograms.keys())
      expect(problemsOf([at('skipped')], files, group)).toHaveLength(1);
    expect(problemsOf([{ file: 'test/b.test.ts', title: 'a law' }], files)).toHaveLength(1);
    const doubled: Files = new Map([['test/a.test.ts', findTests(source + source)]]);
    expect(problemsOf([at('a law')], doubled)).toEqual([expect.stringContaining('which one')]);
  });

  test('sees a test that is named for a scenario and is not in its row', () => {
    const row = { number: 8, story: 'a story (a place)', tests: [at('pitfall 8: x is 1')] };
    expect(missingFromTable([row], files)).toEqual([
      '9: `test/a.test.ts`: pitfall 9: now and then',
      '7: test/a.test.ts: pitfall 7: a group',
    ]);
    expect(scenariosIn('pitfalls 32 and 44: both')).toEqual([32, 44]);
  });

  test('sees lines that are nearly right', () => {
    const nearly = [
      '**G1** without its full stop',
      '- `test/a.test.ts` without a colon',
      '| 3 | a story (a place) | no test |',
      'as `test/a.test.ts`: a law says',
    ];
    expect(document('## A', ...nearly).strange).toEqual(nearly);
    expect(document('- `test/a.test.ts`: a law').strange).toHaveLength(1);
    expect(document('## A', '**G1.** Holds.', 'Always.', '', '- `test/a.test.ts`: a law')).toEqual({
      guarantees: [{ number: 1, group: 'A', statement: 'Holds. Always. ', tests: [at('a law')] }],
      scenarios: [],
      strange: [],
    });
    expect(
      document('| 3 | a story (a place) | `test/a.test.ts`: a law<br>`test/a.test.ts`: b |').scenarios,
    ).toEqual([{ number: 3, story: 'a story (a place)', tests: [at('a law'), at('b')] }]);
  });
});

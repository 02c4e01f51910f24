// Generates the protobuf code from proto/ (never edited, never committed):
//   node src/protocol/generate.mjs              writes src/protocol/generated/
//   node src/protocol/generate.mjs --copy DIR   copies it to DIR, which is how it reaches dist/
import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdirSync, readdirSync, renameSync, statSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..');
const generated = join(here, 'generated');
const names = ['messages.js', 'messages.d.ts'];

if (process.argv[2] === '--copy') {
  const target = join(root, process.argv[3]);
  mkdirSync(target, { recursive: true });
  for (const name of names) copyFileSync(join(generated, name), join(target, name));
} else {
  const protoDirectory = join(root, 'proto');
  const sources = readdirSync(protoDirectory)
    .filter((name) => name.endsWith('.proto'))
    .map((name) => join(protoDirectory, name));
  const newestSource = Math.max(
    ...[...sources, fileURLToPath(import.meta.url)].map((file) => statSync(file).mtimeMs),
  );
  const upToDate = names.every((name) => {
    const file = join(generated, name);
    return existsSync(file) && statSync(file).mtimeMs > newestSource;
  });
  if (!upToDate) {
    mkdirSync(generated, { recursive: true });
    const pbjs = createRequire(import.meta.url).resolve('protobufjs-cli/bin/pbjs');
    const flags =
      '-t static-module -w esm --null-semantics --force-number --no-delimited --no-typeurl --no-service --dependency protobufjs/minimal.js -d';
    // Written beside and renamed, so that two builds at once never read half a file.
    const temporary = join(generated, `new-${process.pid}.js`);
    execFileSync(process.execPath, [pbjs, ...flags.split(' '), '-o', temporary, ...sources], {
      stdio: 'inherit',
    });
    renameSync(temporary.replace(/\.js$/, '.d.ts'), join(generated, 'messages.d.ts'));
    renameSync(temporary, join(generated, 'messages.js'));
  }
}

/**
 * The command `futurestore`: the composition of all rooms into processes, and what people and scripts call.
 *
 * Owns the command line, its exit codes, the cluster's directory (certificates, configurations, profiles) and server
 * configurations. May call every room's door; none calls it. Loads what is heavy only in the commands that need it:
 * `futurestore get` in a script costs little more than Node's own start.
 *
 * Promises: standard output has the data and nothing else, standard error at most one line per failure that says what
 * to do, the exit code says what kind of failure it was; no value that is sensitive is shown but by `get` and `await`
 * of its own key.
 *
 * The process itself begins in futurestore.ts.
 */
export type { CommandClient, CommandEnvironment } from './environment.ts';
export { run } from './program.ts';

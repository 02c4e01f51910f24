/** What a processor profile, and one of what is allocated, say by room and by function. */
import { readFileSync } from 'node:fs';
import type { HeapProfiler, Profiler, Runtime } from 'node:inspector';

type Node = Profiler.ProfileNode;

const roomPattern = /dist\/(?:bench\/src\/)?(\w+)\/(.*)$/;

/** Of where it is written: 'store/writes.js', 'ws/lib/sender.js', 'node:net'. */
const placeOf = ({ url }: Runtime.CallFrame): string =>
  roomPattern.exec(url)?.slice(1).join('/') ?? /node_modules\/(.*)$/.exec(url)?.[1] ?? url;

/** Waiting for events is also counted below the call that began the profile. */
const isIdle = ({ callFrame: { functionName, url } }: Node): boolean =>
  functionName === '(idle)' || (functionName === 'dispatch' && url === '');

/** Lines with shares of the time in which the main thread did anything. */
export const profileLines = (file: string, functions: number): readonly string[] => {
  const { nodes, samples = [], timeDeltas = [] } = JSON.parse(readFileSync(file, 'utf8')) as Profiler.Profile;
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const parents = new Map(nodes.flatMap(({ id, children = [] }) => children.map((child) => [child, id])));
  /** The room whose code it is, or that called it. */
  const roomOf = (node: Node): string => {
    if (node.callFrame.functionName.startsWith('(')) return node.callFrame.functionName;
    let at: Node | undefined = node;
    while (at !== undefined) {
      const room = roomPattern.exec(at.callFrame.url)?.[1];
      if (room !== undefined) return room;
      at = byId.get(parents.get(at.id) ?? -1);
    }
    return '(node)';
  };
  const rooms = new Map<string, number>();
  const places = new Map<string, number>();
  let all = 0;
  for (const [index, id] of samples.entries()) {
    const node = byId.get(id);
    const time = timeDeltas[index] ?? 0;
    if (node === undefined || isIdle(node)) continue;
    const room = roomOf(node);
    const place = `${node.callFrame.functionName || '(anonymous)'} ${placeOf(node.callFrame)}`;
    all += time;
    rooms.set(room, (rooms.get(room) ?? 0) + time);
    places.set(place, (places.get(place) ?? 0) + time);
  }
  const lines = (times: ReadonlyMap<string, number>, count: number): string[] =>
    [...times]
      .sort((a, b) => b[1] - a[1])
      .slice(0, count)
      .map(([name, time]) => `${((time / all) * 100).toFixed(1).padStart(6)} %  ${name}`);
  return ['by room:', ...lines(rooms, 20), 'by function:', ...lines(places, functions)];
};

/** Lines with the bytes that each of so many operations allocated in JavaScript's heap: buffers' contents are elsewhere. */
export const heapLines = (file: string, operations: number, functions: number): readonly string[] => {
  const { head } = JSON.parse(readFileSync(file, 'utf8')) as HeapProfiler.SamplingHeapProfile;
  const rooms = new Map<string, number>();
  const places = new Map<string, number>();
  let all = 0;
  const visit = (node: HeapProfiler.SamplingHeapProfileNode, callers: string): void => {
    const { callFrame, selfSize } = node;
    const room = roomPattern.exec(callFrame.url)?.[1] ?? callers;
    const place = `${callFrame.functionName || '(anonymous)'} ${placeOf(callFrame)}:${callFrame.lineNumber + 1}`;
    all += selfSize;
    rooms.set(room, (rooms.get(room) ?? 0) + selfSize);
    places.set(place, (places.get(place) ?? 0) + selfSize);
    for (const child of node.children) visit(child, room);
  };
  visit(head, '(node)');
  const lines = (sizes: ReadonlyMap<string, number>, count: number): string[] =>
    [...sizes]
      .sort((a, b) => b[1] - a[1])
      .slice(0, count)
      .map(([name, bytes]) => `${(bytes / operations).toFixed(0).padStart(7)}  ${name}`);
  return [
    `bytes for each operation, ${(all / operations).toFixed(0)} in all, by room:`,
    ...lines(rooms, 20),
    'by function:',
    ...lines(places, functions),
  ];
};

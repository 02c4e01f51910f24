export * from './patterns.ts';
export * from './policies.ts';

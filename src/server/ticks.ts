/** Raft's time goes in smaller steps than heartbeats: two members that wait equally long would split the votes. */
export const ticksPerHeartbeat = 4;

export const tickMsOf = ({ heartbeatIntervalMs }: { readonly heartbeatIntervalMs: number }): number =>
  heartbeatIntervalMs / ticksPerHeartbeat;

/** How a server that the cluster has removed ends: the last line of its log. */
export const removedText = 'stopped: this server is no member of the cluster any more';

/** Whether a server's log ends so. */
export const endsRemoved = (lastLine: string | undefined): boolean =>
  lastLine?.includes(removedText) === true;

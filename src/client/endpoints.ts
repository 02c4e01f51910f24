/** The servers' addresses. */

/** What is wrong with an address of a server; undefined: nothing. */
export function endpointProblem(endpoint: string): string | undefined {
  let url: URL;
  try {
    url = new URL(endpoint);
  } catch {
    return `${JSON.stringify(endpoint.slice(0, 200))} is no address: write wss://host:port`;
  }
  // Without TLS nobody is who they say.
  if (url.protocol !== 'wss:')
    return `${JSON.stringify(url.protocol)} is not possible: write wss://host:port`;
  if (url.username !== '' || url.password !== '')
    return 'it must hold no user name or password: certificates identify';
  if (url.pathname !== '/' || url.search !== '' || url.hash !== '') return 'it must end after the port';
  return undefined;
}

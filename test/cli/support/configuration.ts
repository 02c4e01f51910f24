/** A server.yaml as plain data, to be spoilt by tests. */
export const validSettings = () => ({
  cluster: {
    id: '00112233445566778899aabbccddeeff',
    members: [
      { id: 2, name: 'server-2', peers: '10.0.0.2:7432', agents: 'wss://b.example.com:7422' },
      { id: 1, name: 'server-1', peers: '127.0.0.1:7431', agents: 'wss://127.0.0.1:7421' },
      { id: 3, name: 'server-3', peers: '[::1]:7433', agents: 'wss://[::1]:7423' },
    ],
  },
  member: 1,
  data: 'data',
  agents: { listen: '127.0.0.1:7421', cert: 'server.pem', key: '/etc/server.key' },
  peers: { listen: '0.0.0.0:7431', ca: '../ca/servers.pem', cert: 'peer.pem', key: 'peer.key' },
  admin: { listen: '127.0.0.1:0' },
  policy: '../policy.yaml',
});

# A worker: it installs everything first, then waits for what it needs to join, and joins. The token is in no log.
$dir = $facts['example_dir']
$node = $facts['example_node']

file { "${dir}/kubelet.conf": ensure => file, content => "node: ${node}\n" }

file { "${dir}/join.curl":
  ensure  => file,
  mode    => '0600',
  content => Sensitive(Deferred('inline_epp', [
    @(TEXT),
      insecure
      pinnedpubkey = "sha256//<%= $key_hash %>"
      header = "Authorization: Bearer <%= $token %>"
      url = "https://<%= $endpoint %>/join?node=<%= $node %>"
      | TEXT
    {
      'node'     => $node,
      'endpoint' => Deferred('futurestore::await', ['nodes/cp1/out/join/endpoint']),
      'token'    => Deferred('futurestore::await', ['nodes/cp1/out/join/token']),
      'key_hash' => Deferred('futurestore::await', ['nodes/cp1/out/join/key-hash']),
    },
  ])),
}

exec { 'join':
  command => "curl -sSf --config ${dir}/join.curl -o ${dir}/joined",
  creates => "${dir}/joined",
  path    => $facts['path'],
  require => [File["${dir}/join.curl"], File["${dir}/kubelet.conf"]],
}

futurestore_value { "nodes/${node}/out/joined": value => true, require => Exec['join'] }

# Last in the manifest, and done first: it needs nobody.
file { "${dir}/motd": ensure => file, content => "This is ${node}.\n" }

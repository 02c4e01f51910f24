# The fourth member: it gives its peer URL, and starts with what the first one's `member add` said.
$dir = $facts['example_dir']
$port = Integer($facts['example_port'])
$node = $facts['example_node']
$peer_url = "http://127.0.0.1:${$port + 1}"

Exec { path => $facts['path'], provider => shell }

file { "${dir}/members": ensure => file, content => Deferred('futurestore::await', ['nodes/etcd1/out/etcd/added']) }

-> exec { 'start etcd':
  command => "setsid etcd --name ${node} --data-dir ${dir}/data --listen-client-urls http://127.0.0.1:${port} --advertise-client-urls http://127.0.0.1:${port} --listen-peer-urls ${peer_url} --initial-advertise-peer-urls ${peer_url} --initial-cluster \"$(cat ${dir}/members)\" --initial-cluster-state existing >${dir}/etcd.log 2>&1 & echo $! >${dir}/etcd.pid; for i in $(seq 150); do curl -sf http://127.0.0.1:${port}/health && exit 0; sleep 0.1; done; exit 1",
  unless  => "kill -0 $(cat ${dir}/etcd.pid)",
}

futurestore_value { "nodes/${node}/out/etcd/peer-url": value => $peer_url }

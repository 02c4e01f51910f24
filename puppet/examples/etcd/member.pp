# One of the three who begin the etcd: each publishes its peer URL, waits for all three, and starts.
$dir = $facts['example_dir']
$port = Integer($facts['example_port'])
$node = $facts['example_node']
$members = ['etcd1', 'etcd2', 'etcd3']
$peer_url = "http://127.0.0.1:${$port + 1}"

Exec { path => $facts['path'], provider => shell }

file { "${dir}/members":
  ensure  => file,
  content => Deferred('inline_epp', [
    '<%= $names.map |$at, $name| { "${name}=${urls[$at]}" }.join(",") %>',
    {
      'names' => $members,
      'urls'  => Deferred('futurestore::await', [$members.map |$name| { "nodes/${name}/out/etcd/peer-url" }]),
    },
  ]),
}

-> exec { 'start etcd':
  command => "setsid etcd --name ${node} --data-dir ${dir}/data --listen-client-urls http://127.0.0.1:${port} --advertise-client-urls http://127.0.0.1:${port} --listen-peer-urls ${peer_url} --initial-advertise-peer-urls ${peer_url} --initial-cluster \"$(cat ${dir}/members)\" --initial-cluster-state new >${dir}/etcd.log 2>&1 & echo $! >${dir}/etcd.pid; for i in $(seq 150); do curl -sf http://127.0.0.1:${port}/health && exit 0; sleep 0.1; done; exit 1",
  unless  => "kill -0 $(cat ${dir}/etcd.pid)",
}

futurestore_value { "nodes/${node}/out/etcd/peer-url": value => $peer_url }

# The first one takes in the fourth. etcd refuses for some seconds after a start, so it is asked again.
if $node == $members[0] {
  file { "${dir}/fourth": ensure => file, content => Deferred('futurestore::await', ['nodes/etcd4/out/etcd/peer-url']) }

  futurestore_value { "nodes/${node}/out/etcd/added":
    command => "for i in $(seq 60); do ETCDCTL_API=3 etcdctl --endpoints http://127.0.0.1:${port} member add etcd4 --peer-urls \"$(cat ${dir}/fourth)\" 2>>${dir}/add.log | sed -n 's/^ETCD_INITIAL_CLUSTER=\"\\(.*\\)\"/\\1/p' | grep . && exit 0; sleep 0.5; done; exit 1",
    require => [File["${dir}/fourth"], Exec['start etcd']],
  }
}

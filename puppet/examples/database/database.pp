# The database: it waits for the addresses of its clients before it starts, and they wait for it.
$dir = $facts['example_dir']
$port = $facts['example_port']
$node = $facts['example_node']
$clients = ['web1', 'web2']

Exec { path => $facts['path'], provider => shell }

file { "${dir}/database.py": ensure => file, source => "${facts['example_source']}/database.py" }

file { "${dir}/allowed":
  ensure  => file,
  content => Deferred('inline_epp', [
    '<% $addresses.each |$one| { %><%= $one %><%= "\n" %><% } %>',
    { 'addresses' => Deferred('futurestore::await', [$clients.map |$client| { "nodes/${client}/out/web/address" }]) },
  ]),
}

exec { 'make the password':
  command => "umask 077; openssl rand -hex 12 > ${dir}/password",
  creates => "${dir}/password",
}

exec { 'start the database':
  command => "setsid python3 ${dir}/database.py ${dir} ${port} >${dir}/database.log 2>&1 & echo $! >${dir}/database.pid; for i in $(seq 100); do curl -s http://127.0.0.1:${port}/ && break; sleep 0.1; done",
  unless  => "kill -0 $(cat ${dir}/database.pid)",
  require => [File["${dir}/allowed"], File["${dir}/database.py"], Exec['make the password']],
}

# Known early: nobody has to wait for the start to write a configuration.
futurestore_value {
  "nodes/${node}/out/database/host": value => '127.0.0.1';
  "nodes/${node}/out/database/port": value => $port;
  "nodes/${node}/out/database/password":
    command => "cat ${dir}/password", sensitive => true, require => Exec['make the password'];
}

futurestore_value { "nodes/${node}/out/database/ready": value => true, require => Exec['start the database'] }

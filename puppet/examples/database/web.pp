# A web server: its address goes to the database's allow list, and the database's address and password come here.
$dir = $facts['example_dir']
$port = $facts['example_port']
$node = $facts['example_node']

Exec { path => $facts['path'], provider => shell }

file { "${dir}/database.curl":
  ensure  => file,
  mode    => '0600',
  content => Sensitive(Deferred('inline_epp', [
    "user = \"<%= \$user %>:<%= \$password %>\"\nurl = \"http://<%= \$host %>:<%= \$port %>/query\"\n",
    {
      'user'     => $node,
      'host'     => Deferred('futurestore::await', ['nodes/db1/out/database/host']),
      'port'     => Deferred('futurestore::await', ['nodes/db1/out/database/port']),
      'password' => Deferred('futurestore::await', ['nodes/db1/out/database/password']),
    },
  ])),
}

futurestore_wait { 'nodes/db1/out/database/ready': }

exec { 'fill the page from the database':
  command => "mkdir -p ${dir}/www && curl -sSf --interface ${facts['example_address']} --config ${dir}/database.curl -o ${dir}/www/index.html",
  creates => "${dir}/www/index.html",
  require => [File["${dir}/database.curl"], Futurestore_wait['nodes/db1/out/database/ready']],
}

exec { 'start the web server':
  command => "setsid python3 -m http.server --bind ${facts['example_address']} --directory ${dir}/www ${port} >${dir}/web.log 2>&1 & echo $! >${dir}/web.pid; for i in $(seq 100); do curl -s http://${facts['example_address']}:${port}/ && break; sleep 0.1; done",
  unless  => "kill -0 $(cat ${dir}/web.pid)",
  require => Exec['fill the page from the database'],
}

# Last in the manifest. It waits for nobody, so the database need not wait long for it.
futurestore_value { "nodes/${node}/out/web/address": value => $facts['example_address'] }

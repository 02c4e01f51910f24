# The first control-plane node: it makes the cluster's certificate, starts the API (a small one, with real TLS), makes a
# join token, and publishes where to join, with which token, and by which key the API is to be known.
$dir = $facts['example_dir']
$port = $facts['example_port']
$node = $facts['example_node']

Exec { path => $facts['path'] }

exec { 'make the certificate':
  command => "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=kubernetes -keyout ${dir}/api.key -out ${dir}/api.crt",
  creates => "${dir}/api.crt",
}

file { "${dir}/api.py": ensure => file, source => "${facts['example_source']}/api.py" }

exec { 'make the join token':
  command => "umask 077; openssl rand -hex 16 > ${dir}/token",
  creates => "${dir}/token",
  provider => shell,
}

exec { 'start the API':
  command  => "setsid python3 ${dir}/api.py ${dir} ${port} >${dir}/api.log 2>&1 & echo $! >${dir}/api.pid; for i in $(seq 100); do curl -sk https://127.0.0.1:${port}/healthz && break; sleep 0.1; done",
  unless   => "kill -0 $(cat ${dir}/api.pid)",
  provider => shell,
  require  => [Exec['make the certificate'], Exec['make the join token'], File["${dir}/api.py"]],
}

futurestore_value {
  default: require => Exec['start the API'];
  "nodes/${node}/out/join/endpoint": value => "127.0.0.1:${port}";
  "nodes/${node}/out/join/token":
    command => "cat ${dir}/token", sensitive => true, ttl => '2h';
  "nodes/${node}/out/join/key-hash":
    command   => "openssl x509 -in ${dir}/api.crt -pubkey -noout | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64",
    sensitive => true, ttl => '2h';
}

# frozen_string_literal: true

# Facts are looked up at the start of every run, before the catalog is there: so this is where Puppet learns of futures.
if defined?(Puppet) && Puppet.respond_to?(:version)
  require_relative '../puppet_x/futurestore/hooks' unless defined?(PuppetX::Futurestore::Hooks)
else
  require 'puppet'
end
require_relative '../puppet_x/futurestore/relay' unless defined?(PuppetX::Futurestore::Relay)

Facter.add(:futurestore) do
  setcode do
    relay = PuppetX::Futurestore::Relay.new
    status = relay.status
    { 'socket' => relay.socket, 'reachable' => true }.merge(status.slice('connected', 'server', 'cluster_id', 'principal', 'version'))
  rescue PuppetX::Futurestore::Failure => e
    { 'socket' => relay&.socket, 'reachable' => false, 'reason' => e.message }.compact
  end
end

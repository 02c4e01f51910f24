# frozen_string_literal: true

# Answers the value of a future, as soon as it has one. To be used as a Deferred: the agent does everything else first.
#
# @example The address of a database, as soon as it is known
#   file { '/etc/app/db': content => Deferred('futurestore::await', ['nodes/db1/out/address']) }
# @example A secret
#   content => Sensitive(Deferred('futurestore::await', ['nodes/db1/out/password']))
# @example The first of two, for five minutes, else a default
#   Deferred('futurestore::await', [['nodes/a/out/url', 'nodes/b/out/url'], { any => true, timeout => '5m', default => 'none' }])
Puppet::Functions.create_function(:'futurestore::await', Puppet::Functions::InternalFunction) do
  # @param keys A key, or several: then all of their values in their order, or with `any` the first that comes.
  # @param options
  #   `timeout` (seconds, or '90s', '10m'): from when nothing else is left to do. `default`: the value when none comes in
  #   time, or it is rejected. `any`: of several keys one is enough. `least_generation`: no earlier generation counts.
  # @return [Any] a text; data, where the future is JSON
  dispatch :await do
    scope_param
    param 'Variant[String[1], Array[String[1], 1]]', :keys
    optional_param 'Hash[String[1], Any]', :options
  end

  def await(scope, keys, options = {})
    require_relative '../../../puppet_x/futurestore/functions' unless defined?(PuppetX::Futurestore::Functions)
    PuppetX::Futurestore::Functions.await(scope, keys, options)
  end
end

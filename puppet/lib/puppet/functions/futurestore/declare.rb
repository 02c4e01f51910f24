# frozen_string_literal: true

# Declares a future that this node gives by other means than futurestore_value, for example by a program that it starts.
# Those who wait for it are told when the run ends without it. To be used as a Deferred.
#
# @example
#   notify { 'the ticket is on its way': message => Deferred('futurestore::declare', ['nodes/web1/out/ticket', { deadline => '10m' }]) }
Puppet::Functions.create_function(:'futurestore::declare', Puppet::Functions::InternalFunction) do
  # @param key The key.
  # @param options
  #   `deadline` (seconds, or '90s', '10m'): it may come after the run has ended, but by then. Without it, it is rejected
  #   when the run ends and it is not there.
  # @return [String] the key
  dispatch :declare do
    scope_param
    param 'String[1]', :key
    optional_param 'Hash[String[1], Any]', :options
    return_type 'String'
  end

  def declare(scope, key, options = {})
    require_relative '../../../puppet_x/futurestore/functions' unless defined?(PuppetX::Futurestore::Functions)
    PuppetX::Futurestore::Functions.declare(scope, key, options)
  end
end

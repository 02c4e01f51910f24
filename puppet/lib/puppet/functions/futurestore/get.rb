# frozen_string_literal: true

# Answers the value that a future has now, without waiting. To be used as a Deferred.
#
# @example
#   content => Deferred('futurestore::get', ['shared/motd', { default => 'Welcome.' }])
Puppet::Functions.create_function(:'futurestore::get', Puppet::Functions::InternalFunction) do
  # @param key The key.
  # @param options `default`: the value where there is none; without it, that is an error.
  # @return [Any] a text; data, where the future is JSON
  dispatch :get do
    scope_param
    param 'String[1]', :key
    optional_param 'Hash[String[1], Any]', :options
  end

  def get(scope, key, options = {})
    require_relative '../../../puppet_x/futurestore/functions' unless defined?(PuppetX::Futurestore::Functions)
    PuppetX::Futurestore::Functions.get(scope, key, options)
  end
end

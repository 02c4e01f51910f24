# frozen_string_literal: true

require 'puppet/parameter/boolean'
require_relative '../../puppet_x/futurestore/hooks' unless defined?(PuppetX::Futurestore::Hooks)

Puppet::Type.newtype(:futurestore_wait) do
  @doc = <<~DOC
    A gate: it is applied when the futures have values, and what depends on it comes after that. It needs no lazy evaluation
    of Deferreds.

        futurestore_wait { 'the database':
          keys   => ['nodes/db1/out/address', 'nodes/db1/out/port'],
          before => Service['web'],
        }

    It fails when one of them is rejected, or none comes in time.
  DOC

  newproperty(:ensure) do
    desc 'That the futures have values.'

    newvalue(:available) { provider.wait }
    defaultto :available

    def retrieve
      provider.state
    end

    def change_to_s(_current, _desired)
      provider.change
    end
  end

  newparam(:name, namevar: true) do
    desc 'A name; the key, where `keys` is not given.'
  end

  newparam(:keys) do
    desc 'A key, or several.'
    munge { |value| Array(value) }
  end

  newparam(:any, boolean: true, parent: Puppet::Parameter::Boolean) do
    desc 'Whether one of the keys is enough.'
    defaultto false
  end

  newparam(:timeout) do
    desc "How long to wait, in seconds or as '90s', '10m', from when nothing else is left to do. Default: the agent's setting."
  end

  newparam(:least_generation) do
    desc 'No earlier generation counts.'
    munge { |value| Integer(value) }
  end

  validate { need }

  def futurestore_need?
    true
  end

  # @return [PuppetX::Futurestore::Need]
  def need
    @need ||= begin
      options = { 'any' => self[:any] == true, 'timeout' => self[:timeout], 'least_generation' => self[:least_generation] }
      PuppetX::Futurestore::Need.new(self[:keys] || [self[:name]], options.compact)
    end
  end
end

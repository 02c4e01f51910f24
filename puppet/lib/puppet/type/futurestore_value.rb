# frozen_string_literal: true

require 'puppet/parameter/boolean'
require_relative '../../puppet_x/futurestore/hooks' unless defined?(PuppetX::Futurestore::Hooks)

Puppet::Type.newtype(:futurestore_value) do
  @doc = <<~DOC
    Publishes the value of a future when it is applied: `require`, `->` and `notify` decide when that is. It is declared
    when the run starts, with this agent as its producer, and rejected when the run ends without it.

        futurestore_value { "nodes/${trusted['certname']}/out/port":
          value   => 5432,
          require => Service['postgresql'],
        }

    The value is given by exactly one of `value`, `source` and `command`. Where the store has it already, nothing changes;
    another value supersedes it. `ensure => rejected` tells those who wait that it will not come, and why.
  DOC

  newproperty(:ensure) do
    desc 'Whether the future has a value (`resolved`) or is `rejected`, with `code` and `reason`.'

    newvalue(:resolved) { provider.publish }
    newvalue(:rejected) { provider.reject }
    defaultto :resolved

    def retrieve
      provider.state
    end

    def insync?(is)
      is == should && provider.as_wanted?
    end

    # What it was and is, never the value.
    def change_to_s(_current, _desired)
      provider.change
    end
  end

  newparam(:key, namevar: true) do
    desc 'The key: segments of `A-Z a-z 0-9 . _ ~ @ : = -`, with slashes between.'

    validate do |value|
      unless value.is_a?(String) && value.match?(%r{\A[A-Za-z0-9._~@:=-]+(/[A-Za-z0-9._~@:=-]+){0,15}\z})
        raise ArgumentError, "#{value.inspect} is no key: it has up to 16 segments of A-Z a-z 0-9 . _ ~ @ : = -, with slashes between"
      end
    end
  end

  newparam(:value) do
    desc 'The value. A text is published as it is; a number, a boolean, an array or a hash as JSON. It may be Deferred, anywhere ' \
         'in it. A `Sensitive` one is published as sensitive.'
  end

  newparam(:source) do
    desc 'The absolute path of a file on this machine whose content is the value. It is read each time.'

    validate do |value|
      raise ArgumentError, "source has to be an absolute path, not #{value.inspect}" unless Puppet::Util.absolute_path?(value.to_s)
    end
  end

  newparam(:command) do
    desc 'A command whose standard output, without one newline at its end, is the value: a text for `/bin/sh -c`, or an array ' \
         '(the program and its arguments). It runs only while the future has no value (or it has expired or was rejected), and ' \
         'again when the resource is notified.'

    validate do |value|
      texts = value.is_a?(Array) ? value : [value]
      unless texts.any? && texts.all? { |one| one.is_a?(String) && !one.empty? }
        raise ArgumentError, 'command has to be a text or an array of texts'
      end
    end
  end

  newparam(:command_timeout) do
    desc 'How long the command may take, in seconds. 0: for ever.'
    defaultto 300
    validate { |value| Float(value) }
    munge { |value| Float(value) }
  end

  newparam(:content_type) do
    desc 'The content type. By default `application/json` for data, `text/plain; charset=utf-8` for texts, ' \
         '`application/octet-stream` for bytes that are no UTF-8.'
  end

  newparam(:ttl) do
    desc "How long the value holds, in seconds or as '90s', '2h', '1d'. After that it is given to nobody. It is counted from when it " \
         'was published; see `renew`.'
    munge { |value| PuppetX::Futurestore::Durations.ms(value, 'ttl') }
  end

  newparam(:renew, boolean: true, parent: Puppet::Parameter::Boolean) do
    desc 'Whether each run begins the `ttl` anew, for values that are right as long as runs come.'
    defaultto false
  end

  newparam(:sensitive, boolean: true, parent: Puppet::Parameter::Boolean) do
    desc 'Whether the value is a secret: shown in no listing, log or report, and awaited with `Sensitive(Deferred(…))`. A ' \
         '`Sensitive` value always is.'
    defaultto false
  end

  newparam(:code) do
    desc 'With `ensure => rejected`: a short code.'
    defaultto 'REJECTED'
  end

  newparam(:reason) do
    desc 'With `ensure => rejected`: why, in words. It is the text of the failure of each resource that waits for it.'
  end

  validate do
    given = %i[value source command].reject { |name| self[name].nil? }
    if self[:ensure] == :rejected
      raise ArgumentError, "reason has to say why #{self[:key]} is rejected" if self[:reason].to_s.empty?
      raise ArgumentError, "#{given.first} has no place in a rejection" if given.any?
    elsif given.size != 1
      raise ArgumentError, "exactly one of value, source and command has to be given, not #{given.empty? ? 'none' : given.join(' and ')}"
    elsif self[:reason]
      raise ArgumentError, 'reason is for ensure => rejected'
    end
  end

  autorequire(:file) { self[:source] }

  # A notified command is run again.
  def refresh
    provider.publish_again if self[:command] && self[:ensure] == :resolved
  end

  # Deferreds inside of the value are resolved when Puppet resolves the resource's own.
  def futurestore_resolve
    @resolved = PuppetX::Futurestore::Deferreds.resolved(self[:value])
  end

  # The value as the manifest has it; whether it is a secret.
  # @return [Array(Object, Boolean)]
  def revealed_value
    data, secret = PuppetX::Futurestore::Values.revealed(@resolved.nil? ? futurestore_resolve : @resolved)
    [data, secret || secret?]
  end

  def secret?
    @secret == true || self[:sensitive] == true
  end

  # Of a parameter Puppet can only warn that it is not redacted; these are, since no event shows them.
  def set_sensitive_parameters(names) # rubocop:disable Naming/AccessorMethodName
    own = names & %i[value source command]
    @secret = true if own.any?
    own.each { |name| parameter(name).sensitive = true if parameter(name) }
    super(names - own)
  end
end

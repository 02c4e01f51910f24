# frozen_string_literal: true

require_relative '../../../puppet_x/futurestore/hooks' unless defined?(PuppetX::Futurestore::Hooks)

Puppet::Type.type(:futurestore_wait).provide(:relay) do
  desc 'Through the Futurestore relay on this machine.'

  # @return [Symbol] available; pending: not all of them are there
  def state
    need = resource.need
    return :pending if need.state == :timed_out || need.state == :stopped

    relay.patiently { need.there?(relay) } ? :available : :pending
  rescue PuppetX::Futurestore::RelayUnreachable
    raise
  rescue PuppetX::Futurestore::Failure
    # What is wrong is said where it matters, by the wait.
    :pending
  end

  def wait
    @started_ms = PuppetX::Futurestore::Durations.now_ms
    resource.need.wait(relay)
  end

  def change
    waited = PuppetX::Futurestore::Durations.now_ms - @started_ms
    "#{resource.need} available after #{PuppetX::Futurestore::Durations.text(waited)}"
  end

  private

  def relay
    PuppetX::Futurestore::Run.relay
  end
end

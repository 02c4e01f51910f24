# frozen_string_literal: true

require 'yaml'
require_relative 'durations'
require_relative 'errors'

module PuppetX
  module Futurestore
    # The agent's settings: `futurestore.yaml` in Puppet's confdir. All have defaults; an unknown one is refused.
    class Settings
      DEFAULT_SOCKET = '/run/futurestore-relay/relay.sock'

      # name => [default, meaning]
      KNOWN = {
        'socket' => [DEFAULT_SOCKET, "the relay's socket (the environment's FUTURESTORE_SOCKET comes first)"],
        'timeout' => ['10m', 'how long an await waits that has no timeout of its own'],
        'relay_patience' => ['60s', 'how long a relay that does not answer is waited for'],
        'declare_deadline' => ['1h', 'when those who wait are told at the latest that a run was lost without a trace'],
        'publish_run' => [true, 'whether nodes/<certname>/run is published'],
      }.freeze

      # Read anew for each run: an agent may run for weeks.
      def self.load
        new(read(file))
      end

      def self.file
        File.join(Puppet[:confdir], 'futurestore.yaml') if defined?(Puppet) && Puppet.settings.app_defaults_initialized?
      end

      def self.read(path)
        return {} unless path && File.exist?(path)

        content = YAML.safe_load(File.read(path, encoding: 'utf-8')) || {}
        raise Failure.new("#{path} has to be a map of settings", code: 'CONFIGURATION_INVALID') unless content.is_a?(Hash)

        unknown = content.keys - KNOWN.keys
        return content if unknown.empty?

        raise Failure.new("#{path} has the unknown setting #{unknown.first.inspect}: there are #{KNOWN.keys.join(', ')}",
                          code: 'CONFIGURATION_INVALID')
      rescue Psych::Exception, SystemCallError => e
        raise Failure.new("#{path} cannot be read: #{e.message}", code: 'CONFIGURATION_INVALID')
      end
      private_class_method :read

      def initialize(values)
        @values = values
      end

      def socket
        ENV['FUTURESTORE_SOCKET'] || value('socket').to_s
      end

      def timeout_ms
        duration('timeout')
      end

      def relay_patience_ms
        duration('relay_patience')
      end

      def declare_deadline_ms
        duration('declare_deadline')
      end

      def publish_run?
        value('publish_run') == true
      end

      private

      def value(name)
        @values.fetch(name) { KNOWN.fetch(name).first }
      end

      def duration(name)
        Durations.ms(value(name), name)
      rescue ArgumentError => e
        raise Failure.new("futurestore.yaml: #{e.message}", code: 'CONFIGURATION_INVALID')
      end
    end
  end
end

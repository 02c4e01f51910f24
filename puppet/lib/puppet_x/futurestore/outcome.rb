# frozen_string_literal: true

require 'json'
require 'time'
require_relative 'relay'
require_relative 'values'

module PuppetX
  module Futurestore
    # How a run went, as the future nodes/<certname>/run.
    module Outcome
      # Failed resources that are told by name.
      FAILED_MAX = 20
      MESSAGE_MAX = 300

      def self.key
        "nodes/#{Puppet[:certname]}/run"
      end

      # @return [Hash] status (failed, changed, unchanged), counts, failed, started_at, ended_at
      def self.of(report)
        statuses = report.resource_statuses.values
        failed = statuses.select { |one| one.failed? || one.failed_to_restart? }
        {
          'status' => report.status,
          'completed' => report.transaction_completed == true,
          'counts' => { 'total' => statuses.size, 'changed' => statuses.count(&:changed?), 'failed' => failed.size,
                        'skipped' => statuses.count(&:skipped?) },
          'failed' => failed.first(FAILED_MAX).map { |one| { 'resource' => one.resource, 'message' => message(one) } },
          'started_at' => report.time.getutc.iso8601(3),
          'ended_at' => Time.now.getutc.iso8601(3),
        }
      end

      # In noop nothing has converged. Where there is no relay nobody asked for it.
      def self.publish(report)
        return if Puppet[:noop] || report.noop

        relay = Relay.new
        return unless relay.settings.publish_run? && relay.present?

        body = { 'key' => key, 'supersede' => true }
        relay.write('resolve', body.merge(Values.to_request(JSON.generate(of(report)), Values::JSON_TYPE)))
      rescue Failure => e
        Puppet.warning("Futurestore: the outcome of this run is not published: #{e.message}")
      end

      def self.message(status)
        failure = status.events.find { |event| event.status == 'failure' }
        failure ? failure.message.to_s[0, MESSAGE_MAX] : ''
      end
      private_class_method :message
    end
  end
end

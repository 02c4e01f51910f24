# frozen_string_literal: true

require_relative 'deferreds'
require_relative 'durations'
require_relative 'relay'

module PuppetX
  module Futurestore
    # What a run owes: it declares the keys that its catalog publishes when it starts, and when it ends rejects those that
    # did not come, so that nobody waits for them.
    class Promises
      # Of a rejection's text.
      MESSAGE_MAX = 1000

      def initialize(run)
        @run = run
        @transaction = run.transaction
        @owed = {}
        @queued = {}
      end

      # Declares the keys of the catalog's futurestore_value resources that have no value now, and has the relay fetch what
      # others will await. A relay that is not there is no reason to do nothing at all: each resource says so itself.
      def declare
        publishers = @transaction.catalog.resources.select { |one| publisher?(one) && !one.noop? && one[:ensure] == :resolved }
        keys = wanted_keys
        say('awaits', keys)
        say('publishes', publishers.map { |one| one[:key] })
        publishers.each { |one| promise(one[:key], one) }
        relay.prefetch(keys) unless keys.empty?
      rescue RelayUnreachable => e
        Puppet.warning("Futurestore: #{e.message}")
      rescue Failure => e
        Puppet.warning("Futurestore: not all is declared: #{e.message}")
      end

      # Declares a key that is owed from now on.
      # @param publisher [Puppet::Type, nil] the resource that publishes it, if one does
      # @param deadline_ms [Integer, nil] it is not owed at the end of the run, but by then
      def promise(key, publisher = nil, deadline_ms: nil)
        present = known(key)
        return if present && present['state'] == 'resolved'

        body = { 'key' => key, 'renew' => !present.nil? && present['state'] != 'pending',
                 'deadline_ms' => deadline_ms || relay.settings.declare_deadline_ms }
        body['tied'] = false if deadline_ms
        answer = relay.write('declare', body)
        @owed[key] = [publisher, answer.dig('result', 'generation')] unless deadline_ms
      rescue RelayUnreachable
        raise
      rescue Failure => e
        # What the servers do not answer for one key they will not for the next ones either.
        raise if publisher.nil? || %w[TIMED_OUT UNAVAILABLE].include?(e.code)

        # Whoever may not declare a key may not publish it either, which its resource says.
        publisher.debug("not declared: #{e.message}")
      end

      # A resource has published it, or found it published.
      def kept(key)
        @owed.delete(key)
      end

      # It was accepted while no server could be reached.
      def queued(id, resource)
        @queued[id] = resource
      end

      # @param cause [Exception, nil] what ended the run early
      def keep_or_break(cause)
        @owed.each { |key, (publisher, generation)| break_promise(key, publisher, generation, cause) }
        report_queued
      rescue RelayUnreachable => e
        return if @owed.empty?

        Puppet.err("Futurestore: those who wait for #{@owed.keys.join(', ')} could not be told that it will not come: " + e.message)
      end

      private

      # @return [Hash, nil] nil: there is none, or nobody can tell
      def known(key)
        relay.status['connected'] ? relay.future(key) : nil
      rescue Failure => e
        raise unless e.code == 'PERMISSION_DENIED'

        nil
      end

      def relay
        @run.relay
      end

      def say(verb, keys)
        Puppet.info("Futurestore: this catalog #{verb} #{keys.join(', ')}") unless keys.empty?
      end

      def publisher?(resource)
        resource.is_a?(Puppet::Type) && resource.class.name == :futurestore_value
      end

      def wanted_keys
        needs = @transaction.catalog.resources.reject(&:noop?).flat_map { |one| Deferreds.needs_of(one) }
        needs.grep(Need).flat_map(&:keys).uniq
      end

      def break_promise(key, publisher, generation, cause)
        code, message = reason(publisher, cause)
        body = { 'key' => key, 'code' => code, 'message' => message[0, MESSAGE_MAX] }
        body['if_generation'] = generation if generation
        relay.write('reject', body)
        Puppet.notice("Futurestore: #{key} is rejected with #{code}: #{message}")
      rescue RelayUnreachable
        raise
      rescue Failure => e
        # Somebody else has settled it meanwhile, which is as good.
        return if %w[ALREADY_SETTLED PRECONDITION_FAILED].include?(e.code)

        Puppet.err("Futurestore: #{key} could not be rejected: #{e.message}")
      end

      # @return [Array(String, String)] code and message: the resource that failed and its error, or that nothing was done
      def reason(publisher, cause)
        failed = publisher && culprit(publisher)
        return ['PRODUCER_FAILED', "#{failed.resource} failed on #{Puppet[:certname]}: #{error_of(failed)}"] if failed
        return ['OMITTED', "the run of #{Puppet[:certname]} ended early (#{cause.class.name}), before it was published"] if cause

        ['OMITTED', "the run of #{Puppet[:certname]} ended without publishing it#{": #{publisher.ref} was skipped" if publisher}"]
      end

      # @return [Puppet::Resource::Status, nil] of the resource itself, or of the one that it depends on
      def culprit(publisher)
        status = @transaction.report.resource_statuses[publisher.to_s]
        return nil unless status
        return status if status.failed?

        first = Array(status.failed_dependencies).first
        first && @transaction.report.resource_statuses[first.to_s]
      end

      def error_of(status)
        failure = status.events.find { |event| event.status == 'failure' }
        failure ? failure.message.to_s.sub(/\Achange from .*? failed: /, '') : 'see its log'
      end

      # They may have come through by now; one that was refused would be known to nobody else.
      def report_queued
        @queued.each do |id, resource|
          answer = relay.queued(id)
          resource.err("was queued and then refused: #{answer.dig('error', 'message')}") if answer['state'] == 'failed'
        end
      rescue Failure => e
        Puppet.debug { "Futurestore: queue: #{e.message}" }
      end
    end
  end
end

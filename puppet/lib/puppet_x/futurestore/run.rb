# frozen_string_literal: true

require_relative 'deferreds'
require_relative 'promises'

module PuppetX
  module Futurestore
    # One application of a catalog: what its resources wait for, and in which order they are taken.
    class Run
      NONE = [].freeze
      # The relay is asked this often at most while there is something else to do.
      LOOK_MS = 50
      # A generation is no event that the relay tells: where a least one is wanted it is looked up this often.
      GENERATION_POLL_MS = 250
      # The relay takes so many in one request.
      ALTERNATIVES_MAX = 64
      # A stop that was asked for is noticed within this.
      WAIT_MS = 10_000

      class << self
        # @return [Run, nil] the one under way
        attr_reader :current

        def during(transaction)
          run = new(transaction)
          @current = run
          run.promises.declare
          yield
        rescue Exception => e # rubocop:disable Lint/RescueException -- a signal ends a run, too, and is passed on
          cause = e
          raise
        ensure
          ended(run, cause) if run
        end

        # @return [Run, nil] the one that this graph is walked for. Files that are managed recursively have catalogs of
        #   their own, whose resources wait for nothing.
        def of_graph(graph)
          current if current && current.transaction.catalog.instance_variable_get(:@relationship_graph).equal?(graph)
        end

        def of_transaction(transaction)
          current if current && current.transaction.equal?(transaction)
        end

        # @return [Relay] the run's own, so that what is known of it is known to all
        def relay
          current ? current.relay : Relay.new
        end

        private

        def ended(run, error)
          run.promises.keep_or_break(error)
        ensure
          @current = nil
        end
      end

      attr_reader :transaction, :promises
      # @return [Puppet::Type, nil] the resource whose parameters are being resolved
      attr_reader :resolving

      def initialize(transaction)
        @transaction = transaction
        @promises = Promises.new(self)
        @needs = {}.compare_by_identity
        @looked_ms = nil
      end

      # Made when it is first needed: what is wrong with the agent's settings is of no matter to a catalog without futures.
      def relay
        @relay ||= Relay.new
      end

      # @return [Array<Need, LateNeed>] what a resource whose turn it is needs: nothing if it will be skipped
      def needs(resource)
        @needs[resource] ||= begin
          needs = Deferreds.needs_of(resource)
          needs.empty? || resource.noop? || skipped?(resource) ? NONE : needs
        end
      end

      # Whether Puppet will skip it, as far as that is known before it is looked at.
      def skipped?(resource)
        @transaction.futurestore_skips?(resource)
      end

      # @param held [Array] ready resources that need futures, in the catalog's order
      # @param free [Puppet::Type, nil] the next one that needs none
      # @return [Puppet::Type] the first one that can go on; if there is none, it waits until there is
      def choose(held, free)
        look(held) if free.nil? || due?
        loop do
          chosen = held.find { |resource| goes_on?(resource) } || free
          return chosen if chosen
          return stopped(held.first) if Puppet::Application.stop_requested?

          late = overdue(held)
          return late if late

          wait_for(held)
        end
      end

      def resolving_of(resource)
        @resolving = resource
        yield
      ensure
        @resolving = nil
      end

      private

      # Those whose keys are known: an await's keys may depend on another's value.
      def known(needs)
        known = []
        needs.each do |one|
          need = one.is_a?(LateNeed) ? late(one, known) : one
          known << need if need
        end
        known
      end

      # What it depends on stands before it in the list.
      def late(one, before)
        one.need if before.all? { |need| need.state == :met }
      end

      def goes_on?(resource)
        known = known(needs(resource))
        known.any? { |need| need.state == :failed } || known.all? { |need| need.state == :met }
      end

      def due?
        @looked_ms.nil? || Durations.now_ms - @looked_ms >= LOOK_MS
      end

      def open_needs(held)
        held.flat_map { |resource| known(needs(resource)) }.uniq
      end

      def look(held)
        needs = open_needs(held)
        needs.each { |need| need.state = :unmet }
        settle(needs, 0)
        @looked_ms = Durations.now_ms
      rescue RelayUnreachable
        @looked_ms = Durations.now_ms
      end

      def stopped(resource)
        open_needs([resource]).each { |need| need.state = :stopped }
        resource
      end

      # One whose time is over fails when its turn comes, which is now.
      def overdue(held)
        held.find do |resource|
          over = open_needs([resource]).find { |need| need.state == :unmet && need.deadline_ms(relay.settings) <= Durations.now_ms }
          over.state = :timed_out if over
          over
        end
      end

      def wait_for(held)
        needs = open_needs(held).select { |need| need.state == :unmet }
        return if needs.empty?

        Puppet.info("Futurestore: nothing else is left to do, waiting for #{needs.map(&:to_s).uniq.join('; ')}") unless @announced == needs
        @announced = needs
        end_ms = needs.map { |need| need.deadline_ms(relay.settings) }.min
        relay.patiently(end_ms) { settle(needs, (end_ms - Durations.now_ms).clamp(0, WAIT_MS)) }
      rescue RelayUnreachable
        # Each of them says so itself when its turn comes.
        needs.each { |need| need.state = :met } if relay.given_up?
      end

      # Asks which of them can be had by now, and waits until one can.
      def settle(needs, timeout_ms)
        needs = needs.select { |need| need.state == :unmet }
        return if needs.empty?

        counted, plain = needs.partition(&:least_generation)
        counted.each { |need| need.state = :met if generation_there?(need) }
        return if counted.any? { |need| need.state == :met }

        timeout_ms = [timeout_ms, GENERATION_POLL_MS].min if counted.any?
        return sleep(timeout_ms / 1000.0) if plain.empty?

        ask(plain, timeout_ms)
      end

      def ask(needs, timeout_ms)
        owned = needs.flat_map { |need| need.open_alternatives.map { |keys| [need, keys] } }
        slices = owned.each_slice(ALTERNATIVES_MAX).to_a
        # Of several requests none may wait long: what it waits for may be in another one.
        timeout_ms = [timeout_ms, GENERATION_POLL_MS / slices.size].min if slices.size > 1
        slices.each { |slice| told(slice, relay.available(slice.map(&:last), timeout_ms)) }
      rescue RelayUnreachable
        raise
      rescue Failure
        # One of them is to blame (a wrong key, for example), and says so itself when its turn comes.
        return needs.first.state = :failed if needs.one?

        needs.each { |need| ask([need], 0) }
      end

      def told(owned, answer)
        rejected = answer.fetch('rejected', []).map { |one| one['index'] }
        (answer['available'] - rejected).each { |index| owned[index].first.state = :met }
        rejected.each { |index| owned[index].first.lose(owned[index].last) }
      end

      # What is wrong with it, it says itself when its turn comes.
      def generation_there?(need)
        need.there?(relay)
      rescue RelayUnreachable
        raise
      rescue Failure
        true
      end
    end
  end
end

# frozen_string_literal: true

require_relative 'durations'
require_relative 'errors'
require_relative 'relay'
require_relative 'values'

module PuppetX
  module Futurestore
    # What somebody waits for: all of several keys, or any one of them, for a certain time.
    class Need
      OPTIONS = %w[timeout default any least_generation].freeze
      # A value that is known to be there is given this long to arrive.
      ARRIVAL_MS = 5_000
      # Whether a generation is there, only an await can tell.
      LOOK_MS = 200

      attr_reader :keys, :least_generation, :default

      # @param keys [String, Array<String>]
      # @param options [Hash] timeout, default, any, least_generation
      # @raise [ArgumentError] with what is wrong
      def initialize(keys, options = {})
        @arguments = [keys, options]
        @single = keys.is_a?(String)
        @keys = @single ? [keys] : keys
        check_keys(keys)
        check_options(options)
        @any = options['any'] == true
        @timeout_ms = Durations.ms(options['timeout'], 'timeout') if options['timeout']
        @least_generation = options['least_generation']
        @has_default = options.key?('default')
        @default = options['default']
        @state = :unmet
        @gone = []
      end

      def of?(keys, options)
        @arguments == [keys, options]
      end

      def any?
        @any
      end

      def default?
        @has_default
      end

      # @return [Array<Array<String>>] sets of keys, one of which is enough
      def alternatives
        @any ? @keys.map { |key| [key] } : [@keys]
      end

      def timeout_ms(settings)
        @timeout_ms || settings.timeout_ms
      end

      # The clock starts when for the first time there is nothing else to do but wait.
      def deadline_ms(settings)
        @started_ms ||= Durations.now_ms
        @started_ms + timeout_ms(settings)
      end

      # @return [Symbol] :unmet; :met: it can be had; :failed: its failure is known; :timed_out; :stopped: the run is
      attr_reader :state

      def state=(state)
        @gone = [] if state == :unmet
        @state = state
      end

      # @return [Array<Array<String>>] those that may still come
      def open_alternatives
        alternatives - @gone
      end

      # An alternative is rejected. Another one may still come.
      def lose(keys)
        @gone |= [keys]
        @state = :failed if @state == :unmet && open_alternatives.empty?
      end

      def to_s
        @keys.join(@any ? ' or ' : ', ')
      end

      # Whether it can be had now. Where the relay has not looked yet, it does.
      def there?(relay)
        return generation_there?(relay) if @least_generation

        answer = relay.available(alternatives, 0)
        rejected = answer.fetch('rejected', []).map { |one| one['index'] }
        (answer['available'] - rejected).any?
      end

      # Waits, if it has to, and gives the value as Puppet has it.
      # @yieldparam futures [Array<Hash>] what it got, to be looked at first
      # @raise [Failure]
      def value(relay)
        value_of(wait(relay)) { |futures| yield futures }
      rescue Failure => e
        raise e unless default? && %w[TIMED_OUT FUTURE_REJECTED].include?(e.code)

        @default
      end

      # @yieldparam futures [Array<Hash>]
      def value_of(futures)
        yield futures
        values = futures.map { |future| Values.to_puppet(future) }
        @single || @any ? values.first : values
      end

      # @return [Array<Hash>] the futures
      # @raise [Failure]
      def wait(relay)
        raise timed_out(relay) if @state == :timed_out
        raise Failure.new("the run is stopped, #{self} was not waited for", code: 'CANCELLED') if @state == :stopped

        deadline = deadline_ms(relay.settings)
        deadline = [deadline, Durations.now_ms + ARRIVAL_MS].max if @state == :met
        waited_for(relay, deadline)
      end

      private

      def generation_there?(relay)
        relay.await(alternatives, LOOK_MS, @least_generation)
        true
      rescue Failure => e
        raise e unless e.code == 'TIMED_OUT'

        false
      end

      # One alternative that is rejected ends an await of any; the others may still come.
      def waited_for(relay, deadline)
        left = alternatives
        begin
          relay.patiently(deadline) { poll(relay, left, deadline) }
        rescue Failure => e
          raise timed_out(relay) if e.code == 'TIMED_OUT'
          raise e unless e.code == 'FUTURE_REJECTED'

          left = left.reject { |keys| keys.include?(e.details['key']) }
          raise rejected(e) if left.empty? || !e.details['key']

          retry
        end
      end

      def poll(relay, alternatives, deadline)
        loop do
          left = deadline - Durations.now_ms
          begin
            return relay.await(alternatives, left.clamp(1, Relay::POLL_MS), @least_generation)
          rescue Failure => e
            raise e if e.code != 'TIMED_OUT' || left <= Relay::POLL_MS
          end
        end
      end

      def timed_out(relay)
        Failure.new("no value for #{self} within #{Durations.text(timeout_ms(relay.settings))}: nobody has published it, " \
                    'or those who would are late (give it longer with timeout, or a default)', code: 'TIMED_OUT')
      end

      def rejected(error)
        key, producer, code, message = error.details.values_at('key', 'producer', 'code', 'message')
        return error unless key && code

        Failure.new("#{key} was rejected#{" by #{producer}" if producer} with #{code}: #{message}",
                    code: 'FUTURE_REJECTED', details: error.details)
      end

      def check_keys(keys)
        return if !@keys.empty? && @keys.all? { |key| key.is_a?(String) && !key.empty? }

        raise ArgumentError, "a key or a list of keys is wanted, not #{keys.inspect}"
      end

      def check_options(options)
        unknown = options.keys - OPTIONS
        raise ArgumentError, "there is no option #{unknown.first.inspect}: there are #{OPTIONS.join(', ')}" if unknown.any?

        least = options['least_generation']
        return if least.nil? || (least.is_a?(Integer) && least.positive?)

        raise ArgumentError, "least_generation has to be a whole number from 1 on, not #{least.inspect}"
      end
    end

    # An await whose keys are Deferred themselves: known when these can be resolved.
    class LateNeed
      def initialize(&arguments)
        @arguments = arguments
      end

      # @return [Need, nil] nil: its arguments are wrong, which the await itself says best
      def need
        return @need if defined?(@need)

        @need = begin
          Need.new(*@arguments.call)
        rescue StandardError
          nil
        end
      end
    end
  end
end

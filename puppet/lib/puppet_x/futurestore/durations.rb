# frozen_string_literal: true

module PuppetX
  module Futurestore
    # Spans of time as they are written in manifests: seconds as a number, or a text such as '500ms', '90s', '10m', '2h', '1d'.
    module Durations
      UNITS_MS = { 'ms' => 1, 's' => 1000, 'm' => 60_000, 'h' => 3_600_000, 'd' => 86_400_000 }.freeze
      MAX_MS = 10 * 365 * 86_400_000

      # @return [Integer] milliseconds
      # @raise [ArgumentError] with the value, if it is none
      def self.ms(value, name)
        ms = parsed(value)
        return ms if ms && ms >= 0 && ms <= MAX_MS

        raise ArgumentError,
              "#{name} has to be a number of seconds or a text such as '90s', '10m' or '2h', up to ten years, not #{value.inspect}"
      end

      def self.parsed(value)
        case value
        when Integer, Float then (value * 1000).round
        when /\A(\d+(?:\.\d+)?)(ms|s|m|h|d)?\z/
          (Regexp.last_match(1).to_f * UNITS_MS.fetch(Regexp.last_match(2) || 's')).round
        end
      end
      private_class_method :parsed

      # @return [String] '1.5s', '10m'
      def self.text(milliseconds)
        return "#{milliseconds}ms" if milliseconds < 1000

        unit = %w[d h m].find { |one| (milliseconds % UNITS_MS[one]).zero? }
        return "#{milliseconds / UNITS_MS[unit]}#{unit}" if unit

        "#{(milliseconds / 1000.0).round(1)}s".sub('.0s', 's')
      end

      # A clock that never goes back, in milliseconds.
      def self.now_ms
        Process.clock_gettime(Process::CLOCK_MONOTONIC, :millisecond)
      end
    end
  end
end

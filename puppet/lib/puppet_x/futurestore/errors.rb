# frozen_string_literal: true

require 'puppet'

module PuppetX
  module Futurestore
    # What goes wrong with a future: the failure of the one resource that needs it.
    class Failure < Puppet::Error
      # @return [String] a code of Futurestore's registry, such as FUTURE_REJECTED or TIMED_OUT
      attr_reader :code
      # @return [Hash] what the relay says beside, such as `key` and `producer`
      attr_reader :details

      def initialize(message, code: 'INTERNAL', details: {})
        super(message)
        @code = code
        @details = details
      end
    end

    # Nobody answers on the relay's socket, or the connection broke off.
    class RelayUnreachable < Failure
      def initialize(message)
        super(message, code: 'UNAVAILABLE')
      end
    end

    # In noop a resource cannot be shown without a value that is not there yet.
    class NotShownInNoop < Puppet::Error
    end
  end
end

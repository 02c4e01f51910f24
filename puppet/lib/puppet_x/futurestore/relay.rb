# frozen_string_literal: true

require 'json'
require 'net/http'
require 'socket'
require_relative 'durations'
require_relative 'errors'
require_relative 'settings'

module PuppetX
  module Futurestore
    # The relay on this machine: HTTP and JSON over its Unix socket. One connection for each request; none is kept, so that
    # a relay that was restarted is as good as the one before.
    class Relay
      # Net::HTTP with a Unix socket under it.
      class Http < Net::HTTP
        def initialize(path)
          super('localhost', 80)
          @path = path
          self.max_retries = 0
          self.read_timeout = 30
        end

        def self.new(path)
          http = allocate
          http.send(:initialize, path)
          http
        end

        private

        def connect
          @socket = Net::BufferedIO.new(UNIXSocket.new(@path), read_timeout: @read_timeout,
                                                               continue_timeout: @continue_timeout,
                                                               debug_output: @debug_output)
          on_connect
        end
      end

      # How much longer than it was told to wait the relay may take to answer.
      ANSWER_MS = 15_000
      # One request waits no longer than this, so that a relay that stands still is noticed.
      POLL_MS = 30_000
      # What waits for nobody: an election and a reconnect.
      ASK_MS = 10_000
      # Between two attempts to reach a relay that is not there.
      RETRY_S = 0.1

      attr_reader :settings

      def initialize(settings = Settings.load)
        @settings = settings
        @given_up = false
      end

      def socket
        @settings.socket
      end

      def present?
        File.socket?(socket)
      end

      # What went wrong lately, when the relay was waited for in vain: from then on each request is tried once.
      def given_up?
        @given_up
      end

      # Tries again while the relay does not answer, as long as `relay_patience` and `deadline_ms` (of
      # `Durations.now_ms`) allow. What is asked in here must be harmless when it is done twice.
      def patiently(deadline_ms = nil)
        end_ms = [Durations.now_ms + @settings.relay_patience_ms, deadline_ms].compact.min
        begin
          result = yield
          @given_up = false
          result
        rescue RelayUnreachable
          if @given_up || Durations.now_ms >= end_ms
            @given_up = true if deadline_ms.nil? || Durations.now_ms < deadline_ms
            raise
          end
          sleep RETRY_S
          retry
        end
      end

      def status
        get_json('/v1/status', 1000)
      end

      # @return [Hash, nil] the future; nil: there is no such key
      def future(key)
        get_json("/v1/futures/#{escape(key)}?timeout_ms=#{ASK_MS}", ASK_MS)['future']
      rescue Failure => e
        raise unless e.code == 'NOT_FOUND'

        nil
      end

      # @return [Array<Hash>] the futures of the alternative that came first, in its order
      def await(alternatives, timeout_ms, least_generation)
        body = { 'any_of' => alternatives, 'timeout_ms' => timeout_ms }
        body['least_generation'] = least_generation if least_generation
        post('/v1/await', body, timeout_ms)['futures']
      end

      # @return [Hash] `available`: indices; `rejected`: those of them that are rejected
      def available(alternatives, timeout_ms)
        post('/v1/available', { 'alternatives' => alternatives, 'timeout_ms' => timeout_ms }, timeout_ms)
      end

      def prefetch(keys)
        post('/v1/prefetch', { 'keys' => keys }, 1000)
      end

      # Safe on the relay's disk when it is answered, and at the servers where these can be reached.
      # @return [Hash] `result` or `queued`
      def write(kind, body)
        post("/v1/#{kind}", body.merge('wait' => 'queued', 'timeout_ms' => ASK_MS), ASK_MS)
      end

      # @return [Hash] `state` and `error` of a queued write
      def queued(id)
        get_json("/v1/queue/#{id}", 1000)
      end

      private

      # Each segment by itself: the relay takes slashes as they are.
      def escape(key)
        key.split('/', -1).map { |segment| URI.encode_www_form_component(segment).gsub('+', '%20') }.join('/')
      end

      def get_json(path, timeout_ms)
        request(Net::HTTP::Get.new(path), timeout_ms)
      end

      def post(path, body, timeout_ms)
        message = Net::HTTP::Post.new(path)
        message['content-type'] = 'application/json'
        message.body = JSON.generate(body)
        request(message, timeout_ms)
      end

      def request(message, timeout_ms)
        message['connection'] = 'close'
        http = Http.new(socket)
        http.read_timeout = (timeout_ms + ANSWER_MS) / 1000.0
        answer = http.start { |connection| connection.request(message) }
        body = answer.body.to_s.empty? ? {} : JSON.parse(answer.body)
        return body if answer.is_a?(Net::HTTPSuccess)

        raise failure(answer, body)
      rescue SystemCallError, IOError, Timeout::Error, SocketError, Net::ProtocolError, JSON::ParserError => e
        raise RelayUnreachable, "the Futurestore relay does not answer on #{socket} (#{reason(e)}): #{advice(e)}"
      rescue ArgumentError => e
        raise RelayUnreachable, "#{socket} is no path of a socket: #{e.message}"
      end

      # Not the exception's own message: a parser's shows what it read, which may be a value.
      def reason(error)
        case error
        when Errno::ENOENT then 'there is no such socket'
        when Errno::EACCES then 'permission denied'
        when Errno::ECONNREFUSED then 'nobody listens'
        when Timeout::Error then 'it took too long'
        else error.class.name
        end
      end

      def advice(error)
        return 'run the agent as a member of the group that owns the socket' if error.is_a?(Errno::EACCES)

        "start it, or name its socket in #{Settings.file || 'FUTURESTORE_SOCKET'}"
      end

      def failure(answer, body)
        error = body.is_a?(Hash) && body['error'].is_a?(Hash) ? body['error'] : {}
        Failure.new(error['message'] || "the relay answered #{answer.code}",
                    code: error['code'] || 'INTERNAL', details: error['details'] || {})
      end
    end
  end
end

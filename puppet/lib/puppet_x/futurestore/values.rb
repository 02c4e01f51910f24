# frozen_string_literal: true

require 'base64'
require 'json'
require_relative 'errors'

module PuppetX
  module Futurestore
    # Values as Puppet has them, and as futures have them: bytes and a content type.
    module Values
      JSON_TYPE = 'application/json'
      TEXT_TYPE = 'text/plain; charset=utf-8'
      BINARY_TYPE = 'application/octet-stream'

      # @return [String] the bytes of a resolved future, as UTF-8 where they are
      def self.bytes(future)
        base64 = future['valueBase64']
        base64 ? Base64.decode64(base64) : future['value'].to_s
      end

      # JSON becomes data, anything else a text; bytes that are no UTF-8 stay bytes.
      def self.to_puppet(future)
        return bytes(future) unless json?(future['contentType'])

        JSON.parse(bytes(future))
      rescue JSON::ParserError
        raise Failure.new("#{future['key']} has the content type #{future['contentType']}, but is no JSON", code: 'NO_VALUE')
      end

      # @return [Array(String, String)] bytes and content type. A text stays a text, any other data becomes JSON.
      def self.from_puppet(data, content_type = nil)
        return [data, content_type || text_type(data)] if data.is_a?(String)

        [JSON.generate(data), content_type || JSON_TYPE]
      end

      def self.text_type(bytes)
        text?(bytes) ? TEXT_TYPE : BINARY_TYPE
      end

      # @return [Hash] the members of a request that carry the value
      def self.to_request(bytes, content_type)
        content = { 'content_type' => content_type }
        return content.merge('value' => bytes.dup.force_encoding('UTF-8')) if text?(bytes)

        content.merge('value_base64' => Base64.strict_encode64(bytes))
      end

      # JSON is the same where its data is, however it is written.
      def self.same?(future, bytes, content_type)
        return false unless future['contentType'] == content_type
        return true if bytes(future).b == bytes.b

        json?(content_type) && JSON.parse(bytes(future)) == JSON.parse(bytes)
      rescue JSON::ParserError
        false
      end

      # Data without its Sensitive wrappers.
      # @return [Array(Object, Boolean)] the data, and whether any of it was sensitive
      def self.revealed(data)
        case data
        when Puppet::Pops::Types::PSensitiveType::Sensitive
          [revealed(data.unwrap).first, true]
        when Array
          parts = data.map { |one| revealed(one) }
          [parts.map(&:first), parts.any?(&:last)]
        when Hash
          parts = data.transform_values { |one| revealed(one) }
          [parts.transform_values(&:first), parts.values.any?(&:last)]
        when :undef then [nil, false]
        when Symbol then [data.to_s, false]
        else [data, false]
        end
      end

      def self.json?(content_type)
        content_type.to_s.split(';').first == JSON_TYPE
      end
      private_class_method :json?

      def self.text?(bytes)
        bytes.dup.force_encoding('UTF-8').valid_encoding?
      end
      private_class_method :text?
    end
  end
end

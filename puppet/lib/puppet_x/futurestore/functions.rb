# frozen_string_literal: true

require_relative 'hooks' unless defined?(PuppetX::Futurestore::Hooks)

module PuppetX
  module Futurestore
    # What the functions have in common: where they may be called, noop, sensitive values.
    module Functions
      class << self
        def await(scope, keys, options)
          deferred_only(scope, 'futurestore::await')
          need = Deferreds.need(keys, options)
          return shown_in_noop(need) if noop?

          need.value(Run.relay) { |futures| may_be_shown('await', futures) }
        rescue ArgumentError => e
          raise Failure.new("futurestore::await: #{e.message}", code: 'INVALID_ARGUMENT')
        end

        def get(scope, key, options)
          deferred_only(scope, 'futurestore::get')
          only(options, 'futurestore::get', %w[default])
          relay = Run.relay
          future = relay.patiently { relay.future(key) }
          return value('get', future) if future && future['state'] == 'resolved'
          return options['default'] if options.key?('default')

          raise Failure.new("#{key} has no value now#{": it is #{future['state']}" if future} (give a default, or use " \
                            'futurestore::await)', code: 'NO_VALUE')
        end

        # @return [String] the key
        def declare(scope, key, options)
          deferred_only(scope, 'futurestore::declare')
          only(options, 'futurestore::declare', %w[deadline])
          return key if noop?

          deadline_ms = options['deadline'] && Durations.ms(options['deadline'], 'deadline')
          run = Run.current
          raise Failure.new('futurestore::declare needs preprocess_deferred = false', code: 'INVALID_ARGUMENT') unless run

          run.promises.promise(key, deadline_ms: deadline_ms)
          key
        rescue ArgumentError => e
          raise Failure.new("futurestore::declare: #{e.message}", code: 'INVALID_ARGUMENT')
        end

        private

        # The compiler of a server has no relay of the agent's, and nothing may wait there.
        def deferred_only(scope, name)
          return if Deferreds.place || scope.compiler.is_a?(Puppet::Parser::ScriptCompiler)

          raise Puppet::ParseError, "#{name} is called by the agent, just before its resource: write Deferred('#{name}', [...])"
        end

        def only(options, name, known)
          unknown = options.keys - known
          return if unknown.empty?

          raise Failure.new("#{name}: there is no option #{unknown.first.inspect}: there is #{known.join(', ')}", code: 'INVALID_ARGUMENT')
        end

        def noop?
          run = Run.current
          run&.resolving ? run.resolving.noop? : Puppet[:noop]
        end

        # What is there is shown; what is not is waited for by nobody.
        def shown_in_noop(need)
          relay = Run.relay
          return unknown_in_noop(need) unless need.there?(relay)

          need.value(relay) { |found| may_be_shown('await', found) }
        rescue Failure => e
          raise e if e.code == 'INVALID_ARGUMENT'

          unknown_in_noop(need)
        end

        def unknown_in_noop(need)
          need.default? ? need.default : "(in noop, without a value: #{need})"
        end

        def value(name, future)
          may_be_shown(name, [future])
          Values.to_puppet(future)
        end

        def may_be_shown(name, futures)
          secret = futures.find { |one| one['sensitive'] }
          return if secret.nil? || Deferreds.place&.sensitive

          key = secret['key']
          raise Failure.new("#{key} is sensitive: write Sensitive(Deferred('futurestore::#{name}', ['#{key}'])), with Sensitive around " \
                            'the whole value of the parameter, so that it is shown nowhere', code: 'INVALID_ARGUMENT')
        end
      end
    end
  end
end

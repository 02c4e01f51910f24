# frozen_string_literal: true

require_relative 'need'

module PuppetX
  module Futurestore
    # What is known of Deferred values that involve Futurestore: which futures they need, and whether what they give is
    # handled as Sensitive.
    module Deferreds
      AWAIT = 'futurestore::await'
      PREFIX = 'futurestore::'

      # Where a function of ours is called from.
      # sensitive: the Deferred is in Sensitive(…); lazy: just before its resource; needs: the keys of its awaits.
      Place = Struct.new(:sensitive, :lazy, :needs, :ours)

      class << self
        # The place of the call that is under way; nil: not from a Deferred.
        attr_reader :place

        def at(place)
          outer = @place
          @place = place
          yield
        ensure
          @place = outer
        end

        # @return [Array<Place>] of all Deferred values in a parameter's value that involve Futurestore
        def in_value(value)
          case value
          when Puppet::Pops::Evaluator::DeferredValue then [places[value]].compact
          when Array then value.flat_map { |one| in_value(one) }
          when Hash then value.values.flat_map { |one| in_value(one) }
          when Puppet::Pops::Types::PSensitiveType::Sensitive then in_value(value.unwrap)
          else []
          end
        end

        # The need that an await with these arguments is, so that it goes on where the run has left it.
        def need(keys, options)
          known = place ? place.needs.map { |one| one.is_a?(LateNeed) ? one.need : one } : []
          known.compact.find { |one| one.of?(keys, options) } || Need.new(keys, options)
        end

        def in_resource(resource)
          resource.enum_for(:eachparameter).flat_map { |parameter| in_value(parameter.value) }
        end

        # @return [Array<Need, LateNeed>] what a resource needs before it can be applied
        def needs_of(resource)
          own = resource.respond_to?(:futurestore_need?) ? [resource.need] : []
          in_resource(resource).flat_map(&:needs) + own
        end

        # Deferred values anywhere in it, resolved.
        def resolved(value)
          case value
          when Puppet::Pops::Evaluator::DeferredValue then value.resolve
          when Array then value.map { |one| resolved(one) }
          when Hash then value.transform_values { |one| resolved(one) }
          when Puppet::Pops::Types::PSensitiveType::Sensitive
            Puppet::Pops::Types::PSensitiveType::Sensitive.new(resolved(value.unwrap))
          else value
          end
        end

        # A value that is resolved at its place, and that never leaves a Sensitive behind: Puppet 7 ends the run over one
        # that a function gives, Puppet 8 shows what is in it.
        def register(value, place)
          wrapped = Puppet::Pops::Evaluator::DeferredValue.new(
            proc do
              result = at(place) { value.resolve }
              result.is_a?(Puppet::Pops::Types::PSensitiveType::Sensitive) ? revealed(result, place) : result
            end,
          )
          places[wrapped] = place
          wrapped
        end

        private

        def revealed(result, place)
          return result.unwrap if place.sensitive

          raise Failure.new('what this Deferred gives is sensitive: write Sensitive(Deferred(…)) around the whole of it, ' \
                            'so that it is shown nowhere', code: 'INVALID_ARGUMENT')
        end

        def places
          @places ||= ObjectSpace::WeakMap.new
        end
      end

      # Prepended to Puppet::Pops::Evaluator::DeferredResolver, which turns the catalog's Deferreds into lazy values.
      module Resolver
        # A compiled catalog has what was Sensitive without its wrapper, and the parameters' names beside.
        def resolve_futures(catalog)
          @futurestore_secrets = catalog.resources.each_with_object({}.compare_by_identity) do |resource, secrets|
            resource.sensitive_parameters.each { |name| secrets[resource.parameters[name.to_sym]] = true }
          end
          super
        end

        def resolve(value)
          secret = value.is_a?(Puppet::Pops::Types::PSensitiveType::Sensitive) || @futurestore_secrets&.key?(value)
          return super unless secret

          begin
            @futurestore_sensitive = @futurestore_sensitive.to_i + 1
            super
          ensure
            @futurestore_sensitive -= 1
          end
        end

        # Arguments may be Deferred, too: what they need, the outermost one needs, and it is the outermost one whose value
        # the resource gets.
        def resolve_future(future)
          outer = @futurestore_place
          place = Place.new(outer ? outer.sensitive : @futurestore_sensitive.to_i.positive?, !@preprocess_deferred, [],
                            future.name.start_with?(PREFIX))
          @futurestore_place = place
          value = Deferreds.at(place) { super }
          futurestore_needs(future, place) if future.name == AWAIT && place.lazy
          value.instance_of?(Puppet::Pops::Evaluator::DeferredValue) && place.ours ? Deferreds.register(value, place) : value
        ensure
          @futurestore_place = outer
          if outer && place
            outer.needs.concat(place.needs)
            outer.ours ||= place.ours
          end
        end

        private

        # Arguments that are wrong are no need: the await itself says what is wrong with them.
        def futurestore_needs(future, place)
          arguments = map_arguments(future.arguments)
          if arguments.any? { |one| futurestore_lazy?(one) }
            place.needs << LateNeed.new { arguments.map { |one| resolve_lazy_args(one) } }
          else
            place.needs << Need.new(*arguments)
          end
        rescue ArgumentError
          nil
        end

        def futurestore_lazy?(value)
          case value
          when Puppet::Pops::Evaluator::DeferredValue then true
          when Array then value.any? { |one| futurestore_lazy?(one) }
          when Hash then value.values.any? { |one| futurestore_lazy?(one) }
          else false
          end
        end
      end
    end
  end
end

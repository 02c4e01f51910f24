# frozen_string_literal: true

require 'puppet'
require 'puppet/configurer'
require 'puppet/transaction'
require 'puppet/graph/relationship_graph'
require 'puppet/pops/evaluator/deferred_resolver'
require_relative 'run'
require_relative 'outcome'

module PuppetX
  module Futurestore
    # The four places where Puppet is made to know of futures. Each is a Module#prepend that calls what was there, and does
    # nothing for a catalog without futures. Why each is needed is said in the module's README.
    module Hooks
      # What this was tried with, and what has the same source in these places.
      VERSIONS = Gem::Requirement.new('>= 7.17', '< 10')

      # Puppet::Transaction
      module Transaction
        def evaluate(&block)
          return super if !catalog.host_config? || for_network_device

          Run.during(self) { super(&block) }
        end

        # Whether the resource will be skipped, without saying so yet.
        def futurestore_skips?(resource)
          return true if skip_tags?(resource) || missing_tags?(resource) || !scheduled?(resource) || resource.virtual?

          relationship_graph.direct_dependencies_of(resource).any? do |one|
            status = resource_status(one)
            status.failed? || status.failed_to_restart? || status.dependency_failed?
          end
        end

        private

        # Puppet lets an error of a Deferred end the whole run.
        def eval_resource(resource, ancestor = nil)
          super
        rescue NotShownInNoop => e
          resource.notice(e.message)
          resource_status(resource).skipped = true
          futurestore_leave(resource)
        rescue Failure => e
          resource.err(e.message)
          resource_status(resource).fail_with_event(e.message)
          futurestore_leave(resource)
        end

        # Puppet resolves a resource's Deferreds before it looks whether the resource is to be skipped.
        def resolve_resource(resource)
          run = Run.of_transaction(self)
          return super if run.nil? || Deferreds.in_resource(resource).empty?
          return if run.skipped?(resource)

          run.resolving_of(resource) do
            super
            resource.futurestore_resolve if resource.respond_to?(:futurestore_resolve)
          end
        rescue Failure
          raise
        rescue Puppet::Error, ArgumentError, TypeError => e
          raise unless run && Deferreds.in_resource(resource).any?
          raise NotShownInNoop, "not shown in noop: #{futurestore_unfit(resource, e)}" if resource.noop?

          raise Failure, futurestore_unfit(resource, e)
        end

        # What Puppet says of a value that a parameter refuses shows the value.
        def futurestore_unfit(resource, error)
          return error.message unless Deferreds.in_resource(resource).any?(&:sensitive)

          "a value that is sensitive, and so not shown, does not fit its parameter (#{error.class.name})"
        end

        def futurestore_leave(resource)
          event_manager.dequeue_all_events_for_resource(resource)
          persistence.copy_skipped(resource.ref)
        end
      end

      # Puppet::Graph::RelationshipGraph: which resource is next.
      module Graph
        def next_resource
          run = Run.of_graph(self)
          return super unless run

          held = []
          while (free = super)
            break if run.needs(free).empty?

            held << free
          end
          return free if held.empty?

          chosen = run.choose(held, free)
          enqueue(*[*held, free].compact.reject { |one| one.equal?(chosen) })
          chosen
        end
      end

      # Puppet::Configurer: the report is final when it is sent.
      module Configurer
        def send_report(report)
          Outcome.publish(report)
          super
        end
      end

      PLACES = [
        [Puppet::Pops::Evaluator::DeferredResolver, Deferreds::Resolver,
         %i[resolve_futures resolve resolve_future map_arguments resolve_lazy_args]],
        [Puppet::Transaction, Transaction, %i[evaluate eval_resource resolve_resource skip_tags? missing_tags? scheduled?]],
        [Puppet::Graph::RelationshipGraph, Graph, %i[next_resource enqueue direct_dependencies_of]],
        [Puppet::Configurer, Configurer, %i[send_report]],
      ].freeze

      # Once in a process. In a Puppet that is not known nothing is touched, and each await waits when its turn comes.
      def self.install
        return if @installed

        @installed = true
        missing = PLACES.flat_map { |owner, _, names| names.reject { |name| there?(owner, name) }.map { |name| "#{owner}##{name}" } }
        known = VERSIONS.satisfied_by?(Gem::Version.new(Puppet.version)) && missing.empty?
        return PLACES.each { |owner, hook, _| owner.prepend(hook) } if known

        Puppet.warning("Futurestore does not know Puppet #{Puppet.version}" \
                       "#{": there is no #{missing.join(', ')}" if missing.any?}. Waiting holds up later resources, " \
                       'a future that fails ends the run, and nothing is declared: use futurestore_wait')
      end

      def self.there?(owner, name)
        owner.method_defined?(name) || owner.private_method_defined?(name)
      end
      private_class_method :there?
    end
  end
end

PuppetX::Futurestore::Hooks.install

# frozen_string_literal: true

require 'timeout'
require_relative '../../../puppet_x/futurestore/hooks' unless defined?(PuppetX::Futurestore::Hooks)

Puppet::Type.type(:futurestore_value).provide(:relay) do
  desc 'Through the Futurestore relay on this machine.'

  # @return [Symbol] absent, pending, resolved, rejected, expired; unknown: no server can be reached
  def state
    @present = relay.patiently { relay.status['connected'] ? relay.future(resource[:key]) : :unknown }
    return :unknown if @present == :unknown

    @present ? @present['state'].to_sym : :absent
  end

  # Called where the state is the wanted one.
  def as_wanted?
    wanted = resource[:ensure] == :rejected ? same_rejection? : same_value?
    return false unless wanted

    kept
    touch if resource[:renew] && resource[:ttl]
    true
  end

  def publish
    bytes, content_type, secret = content
    body = { 'key' => resource[:key], 'supersede' => true, 'sensitive' => secret }
    body['ttl_ms'] = resource[:ttl] if resource[:ttl]
    write('resolve', body.merge(PuppetX::Futurestore::Values.to_request(bytes, content_type)))
  end

  def reject
    body = { 'key' => resource[:key], 'supersede' => true, 'code' => resource[:code], 'message' => resource[:reason] }
    body['ttl_ms'] = resource[:ttl] if resource[:ttl]
    write('reject', body)
  end

  # The command is run again, and its new value published.
  def publish_again
    return if @published

    publish
    resource.notice(change)
  end

  # @return [String] what was done, without the value
  def change
    what = resource[:ensure] == :rejected ? "rejected with #{resource[:code]}" : 'published'
    return "#{what} (queued: no server can be reached now, it is sent as soon as one can)" unless @result

    "#{what} (generation #{@result['generation']}, revision #{@result['revision']})"
  end

  private

  def relay
    PuppetX::Futurestore::Run.relay
  end

  def write(kind, body)
    answer = relay.patiently { relay.write(kind, body) }
    @result = answer['result']
    @published = true
    kept
    return if @result

    PuppetX::Futurestore::Run.current&.promises&.queued(answer['queued']['id'], resource)
  end

  def kept
    PuppetX::Futurestore::Run.current&.promises&.kept(resource[:key])
  end

  def same_rejection?
    @present['rejection'].to_h.values_at('code', 'message') == [resource[:code], resource[:reason]]
  end

  # What a command would give now is not asked as long as there is a value.
  def same_value?
    return true if resource[:command]

    bytes, content_type, secret = content
    @present['sensitive'] == secret && PuppetX::Futurestore::Values.same?(@present, bytes, content_type)
  end

  def touch
    relay.patiently { relay.write('touch', { 'key' => resource[:key], 'ttl_ms' => resource[:ttl] }) }
  end

  # @return [Array(String, String, Boolean)] bytes, content type, whether it is a secret
  def content
    return [*PuppetX::Futurestore::Values.from_puppet(output, resource[:content_type]), resource.secret?] if resource[:command]
    return [*PuppetX::Futurestore::Values.from_puppet(file, resource[:content_type]), resource.secret?] if resource[:source]

    data, secret = resource.revealed_value
    [*PuppetX::Futurestore::Values.from_puppet(data, resource[:content_type]), secret]
  end

  def file
    File.binread(resource[:source])
  rescue SystemCallError => e
    raise Puppet::Error, "#{resource[:source]}, whose content is to be published, cannot be read: #{e.message}"
  end

  def output
    words = Array(resource[:command])
    words = ['/bin/sh', '-c', words.first] if words.one?
    result = Timeout.timeout(resource[:command_timeout]) do
      Puppet::Util::Execution.execute(words, failonfail: false, combine: false, override_locale: false, sensitive: resource.secret?)
    end
    return result.to_s.b.chomp unless result.exitstatus != 0

    raise Puppet::Error, "the command for #{resource[:key]} ended with exit code #{result.exitstatus}, so nothing is published"
  rescue Timeout::Error
    raise Puppet::Error, "the command for #{resource[:key]} took longer than #{resource[:command_timeout].to_i} s " \
                         '(command_timeout), so nothing is published'
  end
end

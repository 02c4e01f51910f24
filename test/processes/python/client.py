"""A client of Futurestore, made of proto/agent.proto and proto/README.md alone.

It takes commands from standard input and tells what comes of them on standard output, as lines of JSON:

  {"await": KEY}                    {"awaited": KEY, "state": "RESOLVED", "value": TEXT}
  {"resolve": KEY, "value": TEXT}   {"resolved": KEY, "generation": N}; opens the next generation
    with "if_generation": N         … of this one, or {"failed": "PRECONDITION_FAILED"}
    with "cut_after_ms": N          the connection is cut so long after the request, so mostly before its answer
  {"subscribe": PATTERN}            {"changed": KEY, "revision": N, "value": TEXT}, {"caught_up": PATTERN}, {"reset": PATTERN}
  {"cut": true}                     the connection is cut

Arguments: the files of the CA, the certificate and its key, then the servers' addresses.
"""
import asyncio
import itertools
import json
import os
import random
import ssl
import sys

import agent_pb2 as agent
import websockets

SERVER_FRAME_BYTES_MAX = 2 * (1024 + 64) * 1024
GRACE_MS = 60_000


def tell(**line):
    print(json.dumps(line), flush=True)


class Failed(Exception):
    def __init__(self, error):
        super().__init__(f"{error.code}: {error.message}")
        self.error = error


class Subscription:
    def __init__(self, pattern):
        self.pattern = pattern
        self.position = None  # until the server has said where it starts
        self.caught_up = False


class Client:
    def __init__(self, endpoints, tls):
        self.endpoints = endpoints
        self.tls = tls
        self.socket = None  # only while requests may be sent
        self.failures = 0  # in a row
        self.last_id = 0
        self.unanswered = {}  # id: (request, future of its answer)
        self.subscriptions = {}  # id: Subscription
        self.new_session()

    # ---- requests

    def next_id(self):
        self.last_id += 1
        return self.last_id

    def new_session(self):
        self.session_id = os.urandom(16)
        self.confirmed = False
        self.last_sequence = 0

    async def ask(self, **body):
        """The answer, over as many connections as it takes."""
        request = agent.Request(id=self.next_id(), **body)
        answer = asyncio.get_running_loop().create_future()
        self.unanswered[request.id] = (request, answer)
        await self.send([request])
        return await answer

    async def write(self, operation):
        self.last_sequence += 1
        numbers = [r.write.sequence for r, _ in self.unanswered.values() if r.HasField("write")]
        write = agent.Write(sequence=self.last_sequence, operations=[operation])
        write.answered_below = min([*numbers, self.last_sequence])
        return (await self.ask(write=write)).write.results[0]

    async def subscribe(self, pattern):
        subscription = Subscription(pattern)
        self.subscriptions[self.next_id()] = subscription
        await self.send([self.subscribing(self.last_id)])

    def subscribing(self, number):
        subscription = self.subscriptions[number]
        subscription.caught_up = False
        body = agent.Subscribe(patterns=[subscription.pattern])
        if subscription.position is not None:
            body.position.CopyFrom(subscription.position)
        return agent.Request(id=number, subscribe=body)

    async def send(self, requests):
        """Without a connection nothing is lost: what has no answer is sent again on the next one."""
        socket = self.socket
        if socket is None:
            return
        try:
            for request in requests:
                await socket.send(agent.ClientFrame(requests=[request]).SerializeToString())
        except websockets.ConnectionClosed:
            pass

    def cut(self):
        if self.socket is not None:
            self.socket.transport.abort()
            self.socket = None

    # ---- the connection

    async def run(self):
        random.shuffle(self.endpoints)
        for endpoint in itertools.cycle(self.endpoints):
            try:
                await self.serve(endpoint)
            except websockets.ConnectionClosed as closed:
                if closed.rcvd is not None and 4500 <= closed.rcvd.code <= 4999:
                    raise
            except (OSError, websockets.InvalidHandshake) as problem:
                tell(problem=str(problem))
            self.socket = None
            self.failures += 1
            await asyncio.sleep(random.random() * min(10, 0.1 * 2 ** (self.failures // len(self.endpoints))))

    async def serve(self, endpoint):
        """Until the connection ends."""
        async with websockets.connect(
            endpoint,
            ssl=self.tls,
            subprotocols=["futurestore.v1.protobuf"],
            max_size=SERVER_FRAME_BYTES_MAX,
        ) as socket:
            opening = agent.OpenSession(session_id=self.session_id, grace_ms=GRACE_MS, resume=self.confirmed)
            first = agent.ClientFrame(
                hello=agent.Hello(client_name="python"),
                requests=[agent.Request(id=self.next_id(), open_session=opening)],
            )
            opening_id = self.last_id
            await socket.send(first.SerializeToString())
            async for message in socket:
                frame = agent.ServerFrame.FromString(message)
                if frame.HasField("welcome"):
                    tell(connected=frame.welcome.server_id, principal=frame.welcome.principal)
                for answer in frame.answers:
                    if answer.id == opening_id:
                        if not self.opened(answer):
                            return
                        self.socket = socket
                        await self.send([request for request, _ in self.unanswered.values()])
                        await self.send([self.subscribing(number) for number in self.subscriptions])
                    else:
                        self.answered(answer)
                for push in frame.pushes:
                    self.pushed(push)
                if frame.HasField("revision"):
                    for subscription in self.subscriptions.values():
                        if subscription.caught_up:
                            subscription.position.revision = frame.revision
                if frame.HasField("goaway"):
                    self.later(random.random() * frame.goaway.grace_ms / 1000, socket.close())

    def opened(self, answer):
        if answer.HasField("session_opened"):
            self.confirmed = True
            self.failures = 0
            return True
        if answer.error.code == "SESSION_EXPIRED":
            for request, waiting in list(self.unanswered.values()):
                if request.HasField("write"):
                    del self.unanswered[request.id]
                    waiting.set_exception(Failed(answer.error))
            self.new_session()
        elif not answer.error.retryable:
            raise Failed(answer.error)
        return False

    # ---- what the server says

    def answered(self, answer):
        if answer.id in self.subscriptions:
            subscription = self.subscriptions[answer.id]
            if answer.HasField("error"):
                self.subscription_failed(answer.id, answer.error)
            else:
                if answer.subscribed.reset:
                    tell(reset=subscription.pattern)
                subscription.position = answer.subscribed.position
            return
        request, waiting = self.unanswered.get(answer.id, (None, None))
        if request is None:
            return
        if answer.HasField("error") and answer.error.retryable and answer.error.code != "TIMED_OUT":
            self.again_later(request, answer.error)
            return
        del self.unanswered[answer.id]
        if answer.HasField("error"):
            waiting.set_exception(Failed(answer.error))
        else:
            waiting.set_result(answer)

    def pushed(self, push):
        subscription = self.subscriptions.get(push.subscription)
        if subscription is None:
            return
        for change in push.changes:
            if change.HasField("deleted"):
                tell(changed=change.deleted, revision=change.revision)
            else:
                tell(changed=change.future.key, revision=change.revision, value=change.future.value.decode())
        subscription.position.revision = push.revision
        if push.caught_up:
            subscription.caught_up = True
            tell(caught_up=subscription.pattern)
        if push.HasField("ended"):
            self.subscription_failed(push.subscription, push.ended)

    def subscription_failed(self, number, error):
        if error.retryable:
            self.again_later(self.subscribing(number), error)
        else:
            del self.subscriptions[number]
            tell(failed=error.code, message=error.message)

    def again_later(self, request, error):
        wait = (error.retry_after_ms + random.random() * 500) / 1000
        self.later(wait, self.send([request]))

    def later(self, seconds, coroutine):
        asyncio.get_running_loop().call_later(seconds, asyncio.ensure_future, coroutine)


async def obey(client, command):
    try:
        if "await" in command:
            key = command["await"]
            body = agent.Await(alternatives=[agent.KeySet(keys=[key])])
            # The field has the name of a word of Python's.
            future = getattr(await client.ask(**{"await": body}), "await").futures[0]
            tell(awaited=key, state=agent.FutureState.Name(future.state), value=future.value.decode())
        elif "resolve" in command:
            key = command["resolve"]
            value = agent.Resolve(value=command["value"].encode(), supersede=True)
            operation = agent.Operation(key=key, resolve=value)
            if "if_generation" in command:
                operation.if_generation = command["if_generation"]
            writing = asyncio.ensure_future(client.write(operation))
            if "cut_after_ms" in command:
                await asyncio.sleep(command["cut_after_ms"] / 1000)
                client.cut()
            tell(resolved=key, generation=(await writing).generation)
        elif "subscribe" in command:
            await client.subscribe(command["subscribe"])
        elif "cut" in command:
            client.cut()
    except Failed as failed:
        tell(failed=failed.error.code, message=failed.error.message)


async def main(ca, certificate, key, *endpoints):
    tls = ssl.create_default_context(cafile=ca)
    tls.load_cert_chain(certificate, key)
    client = Client(list(endpoints), tls)

    async def commands():
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            asyncio.ensure_future(obey(client, json.loads(line)))

    tasks = [asyncio.ensure_future(client.run()), asyncio.ensure_future(commands())]
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        if task.exception() is not None:
            tell(ended=str(task.exception()))
    # Standard input may still be waited for by a thread.
    os._exit(0 if tasks[1].done() else 1)


asyncio.run(main(*sys.argv[1:]))

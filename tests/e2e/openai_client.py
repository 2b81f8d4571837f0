"""The official openai client against `bessemer serve`, with the model inside the program.

BESSEMER names the program. Each class starts a server of its own on a port that the system chooses.
"""

import asyncio
import math
import signal
import threading
import time
import unittest

import openai

from server import Server

KEY = "e2e-key"
MODEL = "default"
STORY = [{"role": "user", "content": "Tell me a story about a cat."}]


def options(server, **changes):
    """How a client finds the server and is let in; it makes each request once."""
    return {"base_url": f"{server.url}/v1", "api_key": KEY, "max_retries": 0, "timeout": 120, **changes}


class ServerCase(unittest.TestCase):
    """Tests that share one server."""

    arguments = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server(*cls.arguments, BESSEMER_API_KEY=KEY)
        cls.client = openai.OpenAI(**options(cls.server))

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        code = cls.server.stop()
        assert code == 0, f"exit code {code}:\n{''.join(cls.server.log)}"

    def chat(self, **changes):
        request = {"model": MODEL, "messages": STORY, "max_tokens": 24, "temperature": 0, **changes}
        return self.client.chat.completions.create(**request)

    def complete(self, **changes):
        request = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 12, "temperature": 0, **changes}
        return self.client.completions.create(**request)


class Chat(ServerCase):
    def test_answer(self):
        answer = self.chat()
        self.assertEqual(answer.object, "chat.completion")
        self.assertRegex(answer.id, "^chatcmpl-")
        self.assertAlmostEqual(answer.created, time.time(), delta=120)
        self.assertEqual(answer.model, self.client.models.list().data[0].id)
        self.assertTrue(answer.system_fingerprint)
        choice = answer.choices[0]
        self.assertEqual((choice.index, choice.message.role, choice.message.refusal), (0, "assistant", None))
        self.assertIn(choice.finish_reason, ("stop", "length"))
        self.assertGreater(len(choice.message.content.split()), 5)
        usage = answer.usage
        self.assertGreater(usage.prompt_tokens, 5)
        self.assertTrue(0 < usage.completion_tokens <= 24)
        self.assertEqual(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
        self.assertEqual(self.chat().choices[0].message.content, choice.message.content)

    def test_conversation_goes_on(self):
        first = self.chat(max_tokens=400).choices[0].message
        messages = [*STORY, first.model_dump(), {"role": "user", "content": "What happened next?"}]
        second = self.chat(messages=messages)
        self.assertTrue(second.choices[0].message.content)
        self.assertGreater(second.usage.prompt_tokens, self.chat().usage.prompt_tokens)

    def test_stream(self):
        whole = self.chat()
        chunks = list(self.chat(stream=True, stream_options={"include_usage": True}))
        self.assertEqual(len({chunk.id for chunk in chunks}), 1)
        self.assertEqual(chunks[0].choices[0].delta.role, "assistant")
        self.assertEqual((chunks[-1].choices, chunks[-1].usage), ([], whole.usage))
        self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))
        pieces = [chunk.choices[0] for chunk in chunks[:-1]]
        text = "".join(piece.delta.content or "" for piece in pieces)
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(pieces[-1].finish_reason, whole.choices[0].finish_reason)
        self.assertGreater(len(pieces), 5)

    def test_stream_without_usage(self):
        chunks = list(self.chat(stream=True))
        self.assertTrue(all(chunk.usage is None and chunk.choices for chunk in chunks))

    def test_stream_helper(self):
        # The helper takes an end by length for an error.
        request = {"model": MODEL, "messages": STORY, "max_tokens": 400, "temperature": 0, "stop": "."}
        with self.client.chat.completions.stream(**request) as stream:
            deltas = "".join(event.delta for event in stream if event.type == "content.delta")
            final = stream.get_final_completion()
        self.assertEqual(deltas, final.choices[0].message.content)

    def test_n_and_seed(self):
        draw = {"n": 3, "temperature": 1.0, "seed": 11, "extra_body": {"top_k": 0}}
        texts = [choice.message.content for choice in self.chat(**draw).choices]
        self.assertEqual(len(set(texts)), 3)
        self.assertEqual([choice.message.content for choice in self.chat(**draw).choices], texts)
        alone = self.chat(**{**draw, "n": 1})
        self.assertEqual(alone.choices[0].message.content, texts[0])
        other = self.chat(**{**draw, "seed": 12})
        self.assertNotIn(other.choices[0].message.content, texts)

    def test_logprobs(self):
        answer = self.chat(logprobs=True, top_logprobs=4)
        tokens = answer.choices[0].logprobs.content
        joined = b"".join(bytes(token.bytes) for token in tokens).decode()
        self.assertTrue(joined.startswith(answer.choices[0].message.content), joined)
        for token in tokens:
            self.assertEqual(len(token.top_logprobs), 4)
            values = [top.logprob for top in token.top_logprobs]
            self.assertEqual(values, sorted(values, reverse=True))
            self.assertLessEqual(sum(math.exp(value) for value in values), 1.001)
            self.assertLessEqual(token.logprob, 0)

    def test_stop(self):
        whole = self.chat().choices[0].message.content
        words = whole.split(" ")
        stop = f"{words[3]} {words[4]}"
        before = whole[: whole.index(stop)]
        for given in (stop, ["never to be seen", stop]):
            choice = self.chat(stop=given).choices[0]
            self.assertEqual((choice.message.content, choice.finish_reason), (before, "stop"))
        streamed = "".join(chunk.choices[0].delta.content or "" for chunk in self.chat(stop=stop, stream=True))
        self.assertEqual(streamed, before)

    def test_limits(self):
        for field in ("max_tokens", "max_completion_tokens"):
            answer = self.chat(**{"max_tokens": openai.omit, field: 3, "extra_body": {"ignore_eos": True}})
            self.assertEqual((answer.usage.completion_tokens, answer.choices[0].finish_reason), (3, "length"))


class Completions(ServerCase):
    def test_prompts(self):
        one = self.complete()
        self.assertEqual((one.object, len(one.choices)), ("text_completion", 1))
        self.assertIn(one.choices[0].finish_reason, ("stop", "length"))
        many = self.complete(prompt=["The dog", "Once upon a time"])
        self.assertEqual([choice.index for choice in many.choices], [0, 1])
        self.assertEqual(many.choices[1].text, one.choices[0].text)
        self.assertTrue(self.complete(prompt=[5, 6, 7]).choices[0].text)

    def test_stream(self):
        whole = self.complete().choices[0]
        chunks = list(self.complete(stream=True))
        self.assertEqual("".join(chunk.choices[0].text for chunk in chunks), whole.text)
        self.assertEqual(chunks[-1].choices[0].finish_reason, whole.finish_reason)

    def test_echo_and_logprobs(self):
        choice = self.complete(echo=True, logprobs=2).choices[0]
        self.assertTrue(choice.text.startswith("Once upon a time"))
        logprobs = choice.logprobs
        self.assertEqual("".join(logprobs.tokens), choice.text)
        self.assertEqual(len(logprobs.tokens), len(logprobs.token_logprobs))
        self.assertIsNone(logprobs.token_logprobs[0])
        for token, value, top in list(zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs))[1:]:
            self.assertEqual(top[token], value)

    def test_models(self):
        models = self.client.models.list().data
        self.assertEqual(len(models), 1)
        self.assertEqual(self.client.models.retrieve(models[0].id), models[0])


class Errors(ServerCase):
    def test_bad_requests(self):
        table = [
            ({"temperature": 3}, "temperature", "invalid_value"),
            ({"extra_body": {"temprature": 1}}, "temprature", "unknown_parameter"),
            ({"response_format": {"type": "json_object"}}, "response_format", "unsupported_parameter"),
            ({"messages": []}, "messages", "invalid_value"),
            ({"messages": [{"role": "user", "content": "word " * 3000}]}, "messages", "context_length_exceeded"),
            ({"stream": True, "n": 0}, "n", "invalid_value"),
        ]
        for change, param, code in table:
            with self.subTest(change=str(change)[:60]), self.assertRaises(openai.BadRequestError) as caught:
                self.chat(**change)
            error = caught.exception
            self.assertEqual((error.param, error.code, error.type), (param, code, "invalid_request_error"))
            self.assertIn(param, error.body["message"])
            self.assertTrue(error.request_id)

    def test_classes_by_status(self):
        with self.assertRaises(openai.NotFoundError) as caught:
            self.chat(model="gpt-4o")
        self.assertEqual(caught.exception.code, "model_not_found")
        with self.assertRaises(openai.AuthenticationError):
            openai.OpenAI(**options(self.server, api_key="wrong")).models.list()
        with self.assertRaises(openai.NotFoundError):
            self.client.embeddings.create(model=MODEL, input="a")


class Narrow(ServerCase):
    """One sequence, no queue: whoever comes second is turned away, unless the first has left."""

    arguments = ("--max-sequences", "1", "--max-queue", "0")

    def endless(self):
        """A stream that has begun; a chat's first chunk comes before its first token."""
        stream = self.chat(stream=True, max_tokens=1000, extra_body={"ignore_eos": True})
        next(iter(stream))
        return stream

    def served_within(self, seconds):
        start = time.monotonic()
        while True:
            try:
                return self.complete(max_tokens=2)
            except openai.RateLimitError:
                if time.monotonic() - start > seconds:
                    raise
                time.sleep(0.02)

    def turned_away(self):
        """A stream, and the refusal of whoever came second. A busy machine may be done with the first by then."""
        for _ in range(10):
            stream = self.endless()
            try:
                self.complete()
            except openai.RateLimitError as refusal:
                return stream, refusal
            stream.close()
        self.fail("nobody was turned away")

    def test_busy_and_cancelled(self):
        for _ in range(3):
            stream, refusal = self.turned_away()
            self.assertEqual(refusal.response.headers["retry-after"], "1")
            stream.close()
            self.assertEqual(len(self.served_within(60).choices), 1)

    def test_timeout_cancels(self):
        # A fast machine needs a fifth of a second for so many tokens.
        with self.assertRaises(openai.APITimeoutError):
            openai.OpenAI(**options(self.server, timeout=0.03)).completions.create(
                model=MODEL, prompt="Once", max_tokens=1000, temperature=0, extra_body={"ignore_eos": True}
            )
        self.served_within(60)

    def test_client_retries(self):
        stream = self.endless()
        threading.Timer(0.5, stream.close).start()
        patient = openai.OpenAI(**options(self.server, max_retries=5))
        answer = patient.completions.create(model=MODEL, prompt="Once", max_tokens=2)
        self.assertTrue(answer.choices)


class Concurrent(ServerCase):
    arguments = ("--max-sequences", "4")

    def test_eight_clients_get_what_each_gets_alone(self):
        subjects = ["cat", "dog", "bird", "boat", "tree", "king", "girl", "star"]
        request = lambda subject: {
            "model": MODEL,
            "messages": [{"role": "user", "content": f"Tell me a story about a {subject}."}],
            "max_tokens": 24,
            "temperature": 0.8,
            "seed": 4,
        }
        alone = [
            self.client.chat.completions.create(**request(subject)).choices[0].message.content for subject in subjects
        ]

        async def whole(client, subject):
            answer = await client.chat.completions.create(**request(subject))
            return answer.choices[0].message.content

        async def streamed(client, subject):
            stream = await client.chat.completions.create(**request(subject), stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

        async def together():
            clients = [openai.AsyncOpenAI(**options(self.server)) for _ in subjects]
            ways = [whole, streamed] * 4
            try:
                return await asyncio.gather(*(way(*pair) for way, *pair in zip(ways, clients, subjects)))
            finally:
                await asyncio.gather(*(client.close() for client in clients))

        self.assertEqual(asyncio.run(together()), alone)
        self.assertEqual(len(set(alone)), len(alone))


class End(unittest.TestCase):
    def test_sigterm_lets_a_stream_finish(self):
        server = Server(BESSEMER_API_KEY=KEY)
        client = openai.OpenAI(**options(server))
        stream = client.chat.completions.create(
            model=MODEL, messages=STORY, max_tokens=200, temperature=0, stream=True, extra_body={"ignore_eos": True}
        )
        chunks = iter(stream)
        next(chunks)
        server.process.send_signal(signal.SIGTERM)
        self.assertEqual(list(chunks)[-1].choices[0].finish_reason, "length")
        self.assertEqual(server.process.wait(timeout=60), 0, "".join(server.log))
        server.stop()
        with self.assertRaises(openai.APIConnectionError):
            client.models.list()
        client.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)

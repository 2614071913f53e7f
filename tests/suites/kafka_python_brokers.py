"""Takes the place of `test/service.py`, which kafka-python leaves out of its source package: the brokers that its integration
tests would start are those named in the environment, one for each way to connect. Loaded by pytest as a plugin, so that it is
there before the tests are."""

import os
import sys
import time

import pytest


class ExternalService:
    def __init__(self, host, port):
        self.host, self.port = host, port

    def stop(self):
        pass

    def dump_logs(self):
        pass


class SpawnedService:
    def __init__(self, *args, **kwargs):
        raise RuntimeError("no test may start a broker of its own")


@pytest.hookimpl(trylast=True)
def pytest_configure(config):
    from kafka import KafkaAdminClient, KafkaConsumer
    from test.integration import fixtures

    def instance(cls, broker_id, transport="PLAINTEXT", sasl_mechanism=None, partitions=4, tmp_dir=None, **_):
        broker = os.environ["BROKER_" + transport]
        if not broker:
            pytest.skip("no broker for " + transport)
        host, port = broker.rsplit(":", 1)
        fixture = cls(host, int(port), broker_id, external=True, transport=transport, sasl_mechanism=sasl_mechanism, partitions=partitions)
        if transport == "SSL":
            fixture.ssl_dir = os.environ["BROKER_SSL_DIR"]
        return fixture

    def get_topic_names(self):
        with KafkaAdminClient(**fixtures.client_params(self, "topics")) as admin:
            return list(admin.list_topics())

    fixtures.KafkaFixture.instance = classmethod(instance)
    fixtures.KafkaFixture.get_topic_names = get_topic_names
    fixtures.KafkaFixture.start = lambda self: True
    fixtures.KafkaFixture.dump_logs = lambda self: None

    # A consumer loses a subscription that comes while a metadata request of its is under way: it takes that answer, which names no
    # topic, for fresh and asks again after five minutes (the TODO in `set_topics` of kafka/cluster.py). Of 100 consumers of an Apache
    # Kafka that subscribed up to 10 ms after they were made 7 never read a record. So it is made to ask until it knows its topics.
    subscribe = KafkaConsumer.subscribe

    def subscribe_and_ask(self, topics=(), *args, **kwargs):
        subscribe(self, topics, *args, **kwargs)
        deadline = time.monotonic() + 10
        while any(self._cluster.partitions_for_topic(topic) is None for topic in topics) and time.monotonic() < deadline:
            self._cluster.request_update()
            time.sleep(0.1)

    KafkaConsumer.subscribe = subscribe_and_ask

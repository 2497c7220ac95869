"""What the tests ask of a Kafka cluster, through confluent-kafka: a client of its own, with a librdkafka of its own.

    client.py BROKERS create TOPIC PARTITIONS REPLICATION [NAME=VALUE ...]
    client.py BROKERS delete TOPIC
    client.py BROKERS leaders TOPIC                     one line: the leader of each partition
    client.py BROKERS settings TOPIC NAME               one line: the value
    client.py BROKERS fence TRANSACTIONAL_ID            takes the id over
    client.py BROKERS read [--committed] TOPIC ...      for each line on stdin, all that is new: one JSON object a line, then {}
"""

import base64
import json
import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

LIMIT = 30


def admin(brokers):
    return AdminClient({"bootstrap.servers": brokers})


def create(brokers, topic, partitions, replication, *settings):
    config = dict(setting.split("=", 1) for setting in settings)
    wanted = NewTopic(topic, int(partitions), int(replication), config=config)
    client = admin(brokers)
    client.create_topics([wanted])[topic].result(LIMIT)
    deadline = time.monotonic() + LIMIT
    while "-1" in leaders_of(client, topic) or not leaders_of(client, topic):
        assert time.monotonic() < deadline, "no leaders"
        time.sleep(0.05)


def delete(brokers, topic):
    client = admin(brokers)
    client.delete_topics([topic])[topic].result(LIMIT)


def leaders_of(client, topic):
    partitions = client.list_topics(timeout=LIMIT).topics.get(topic)
    return [str(part.leader) for _, part in sorted(partitions.partitions.items())] if partitions else []


def leaders(brokers, topic):
    print(" ".join(leaders_of(admin(brokers), topic)))


def settings(brokers, topic, name):
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    client = admin(brokers)  # has to outlive its answers
    print(client.describe_configs([resource])[resource].result(LIMIT)[name].value)


def fence(brokers, transactional_id):
    Producer({"bootstrap.servers": brokers, "transactional.id": transactional_id}).init_transactions(LIMIT)


def read(brokers, *topics):
    is_committed = topics[0] == "--committed"
    level = "read_committed" if is_committed else "read_uncommitted"
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "reader", "isolation.level": level,
                         "enable.auto.commit": False, "enable.partition.eof": True, "auto.offset.reset": "earliest",
                         "reconnect.backoff.max.ms": 500, "log_level": 0, "fetch.wait.max.ms": 50})
    topics = topics[1:] if is_committed else topics
    assigned = {}
    for _ in sys.stdin:
        known = consumer.list_topics(timeout=LIMIT).topics
        for topic in topics:
            for partition in known[topic].partitions if topic in known else []:
                assigned.setdefault((topic, partition), 0)
        read_new(consumer, assigned)
        print("{}", flush=True)


def read_new(consumer, assigned):
    """From where the last call ended to what are the ends now."""
    open_parts = set()
    for part in assigned:
        _, end = consumer.get_watermark_offsets(TopicPartition(*part), timeout=LIMIT)
        if end > assigned[part]:
            open_parts.add(part)
    consumer.assign([TopicPartition(*part, assigned[part]) for part in open_parts])
    deadline = time.monotonic() + LIMIT
    while open_parts:
        assert time.monotonic() < deadline, f"not read to the end: {open_parts}"
        record = consumer.poll(1)
        if record is None:
            continue
        if record.error():
            if record.error().name() == "_PARTITION_EOF":
                open_parts.discard((record.topic(), record.partition()))
                continue
            if record.error().fatal():
                raise KafkaException(record.error())
            continue
        assigned[record.topic(), record.partition()] = record.offset() + 1
        print(json.dumps({
            "topic": record.topic(), "partition": record.partition(), "offset": record.offset(),
            "key": (record.key() or b"").decode(),
            "headers": {name: value.decode() for name, value in record.headers() or []},
            "value": base64.b64encode(record.value() or b"").decode(),
        }))
    consumer.unassign()


if __name__ == "__main__":
    brokers, command, *arguments = sys.argv[1:]
    {"create": create, "delete": delete, "leaders": leaders, "settings": settings, "fence": fence, "read": read}[command](brokers, *arguments)

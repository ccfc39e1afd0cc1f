"""Carries a Kafka topic into the inbox. Offsets are committed after Redis accepted: a crash doubles, and loses nothing.

KAFKA=localhost:9092 TOPIC=crm.public.friendships python bridge.py    (pip install confluent-kafka redis)
"""

import os

import redis
from confluent_kafka import Consumer, KafkaException

kafka = {"bootstrap.servers": os.environ["KAFKA"], "group.id": "contact-sync", "auto.offset.reset": "earliest"}
consumer = Consumer({**kafka, "enable.auto.commit": False})
consumer.subscribe([os.environ["TOPIC"]])
inbox = redis.from_url(os.environ.get("CONTACT_SYNC_REDIS_URL", "redis://localhost:6379/0"))
while True:
    messages = consumer.consume(500, timeout=1.0)
    if failed := next((each.error() for each in messages if each.error()), None):
        raise KafkaException(failed)  # ends, and is started again where it committed last
    pipe = inbox.pipeline(transaction=False)
    for each in messages:
        pipe.xadd("contact-sync:inbox", {"value": each.value() or b"null"})  # a tombstone has no value
    pipe.execute()  # raises if Redis did not accept one of them
    if messages:
        consumer.commit(asynchronous=False)

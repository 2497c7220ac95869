"""Empties a queue for each line of stdin, which names it: a JSON object per message, then `null`."""

import json
import sys

import pika


def show(delivery, properties, body):
    message = {
        "id": properties.message_id,
        "exchange": delivery.exchange,
        "routing_key": delivery.routing_key,
        "content_type": properties.content_type,
        "delivery_mode": properties.delivery_mode,
        "type": properties.type,
        "headers": properties.headers,
        "body": body.decode(),
    }
    print(json.dumps(message))


def drain(channel, queue):
    """Consuming is quick but does not say when a queue is empty; getting one message does."""
    while True:
        try:
            delivery, properties, body = channel.basic_get(queue)
        except pika.exceptions.ChannelClosedByBroker as closed:
            if closed.reply_code == 404:  # no such queue holds nothing
                return
            raise
        if delivery is None:
            return
        show(delivery, properties, body)
        channel.basic_ack(delivery.delivery_tag)
        for delivery, properties, body in channel.consume(queue, inactivity_timeout=0.2):
            if delivery is None:
                break
            show(delivery, properties, body)
            channel.basic_ack(delivery.delivery_tag)
        channel.cancel()


for line in sys.stdin:
    connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=500)
    drain(channel, line.strip())
    connection.close()
    print("null", flush=True)

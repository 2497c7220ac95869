"""Empties a queue for each line of stdin, which names it: a JSON object per message, then `null`."""

import json
import sys

import pika

for line in sys.stdin:
    connection = pika.BlockingConnection(pika.URLParameters(sys.argv[1]))
    channel = connection.channel()
    while True:
        try:
            delivery, properties, body = channel.basic_get(line.strip())
        except pika.exceptions.ChannelClosedByBroker as closed:
            if closed.reply_code == 404:  # no such queue holds nothing
                break
            raise
        if delivery is None:
            break
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
        channel.basic_ack(delivery.delivery_tag)
        print(json.dumps(message))
    connection.close()
    print("null", flush=True)

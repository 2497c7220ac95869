"""Reads requests as a consumer would. Each line of standard input is one: {"headers": {...}, "body": "<base64>"}. Verifies the
signature with the reference library of Standard Webhooks, reads the events with the CloudEvents SDK, and prints each event as a
line of JSON. Ends with an error at the first request that either does not take."""

import base64
import json
import sys
from datetime import datetime

from cloudevents.core.bindings.http import HTTPMessage, from_binary_event, from_structured_event
from standardwebhooks import Webhook


def messages(headers, body):
    """The SDK has no batch mode: each member of a batch is what structured mode would hold."""
    if headers["content-type"] != "application/cloudevents-batch+json":
        return [HTTPMessage(headers=headers, body=body)]
    structured = {"content-type": "application/cloudevents+json"}
    return [HTTPMessage(headers=structured, body=json.dumps(event).encode()) for event in json.loads(body)]


def shown(event):
    def text(value):
        if not isinstance(value, datetime):
            return value
        return value.isoformat().replace("+00:00", "Z")

    data = event.get_data()
    if isinstance(data, (bytes, str)):
        data = json.loads(data)
    attributes = {name: text(value) for name, value in event.get_attributes().items()}
    return json.dumps({**attributes, "data": data})


def main():
    webhook = Webhook(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        headers, body = request["headers"], base64.b64decode(request["body"])
        webhook.verify(body, headers)
        for message in messages(headers, body):
            is_binary = "ce-id" in message.headers
            print(shown(from_binary_event(message) if is_binary else from_structured_event(message)))


main()

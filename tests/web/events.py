"""An event stream as httpx-sse reads it, unmodified, and what its caller does to go on behind the last id.

    python events.py URL      (a hub with a data directory and without authentication)
"""

import json
import sys

import httpx
from httpx_sse import connect_sse

URL = sys.argv[1]


def post(client, path, body):
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


def read(client, count, **headers):
    """The texts of so many events, and the last id."""
    params, texts, last = {"stream": "py", "start": "earliest"}, [], ""
    with connect_sse(client, "GET", "/v1/events", params=params, headers=headers) as source:
        source.response.raise_for_status()
        for sse in source.iter_sse():
            if sse.event == "message":
                texts.append(json.loads(sse.data)["event"]["text"])
                last = sse.id
            if len(texts) == count:
                return texts, last


with httpx.Client(base_url=URL, timeout=30) as client:
    post(client, "/switchyard.v1.StreamService/CreateStream", {"stream": {"name": "py", "filters": ["py.>"]}})
    post(client, "/v1/publish", {"events": [{"topic": "py.x", "text": str(n)} for n in range(20)]})
    first, last = read(client, 7)
    rest, last = read(client, 13, **{"Last-Event-ID": last})
    assert first + rest == [str(n) for n in range(20)], first + rest
    polled = client.get("/v1/poll", params={"stream": "py", "cursor": last, "wait": "0"}).json()
    assert polled == {"events": [], "cursor": last, "caughtUp": True}, polled
print("ok")

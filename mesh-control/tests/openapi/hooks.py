"""What schemathesis is told about this API beyond its description."""

import re

import schemathesis

LOOKS_LIKE_A_SUBNET = re.compile(r"^([0-9]{1,3}\.){3}[0-9]{1,3}/[0-9]{1,2}$")


@schemathesis.hook
def map_query(context, query):
    """Waits for news are real waits: a short one shows the same as one of a minute."""
    wait = query.get("wait") if isinstance(query, dict) else None
    if isinstance(wait, (int, float)) and not isinstance(wait, bool) and 0.05 < wait <= 60:
        query["wait"] = 0.05
    return query


@schemathesis.hook
def map_body(context, body):
    """Hardly any text that looks like a subnet is one, and reports would end there. What is wrong stays wrong."""
    peers = body.get("peers") if isinstance(body, dict) else None
    for position, peer in enumerate(peers if isinstance(peers, list) else []):
        subnet = peer.get("subnet") if isinstance(peer, dict) else None
        if isinstance(subnet, str) and LOOKS_LIKE_A_SUBNET.match(subnet):
            peer["subnet"] = f"10.42.{position % 256}.0/24"
    return body

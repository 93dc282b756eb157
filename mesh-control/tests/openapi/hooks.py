"""What schemathesis is told about this API beyond its description."""

import schemathesis


@schemathesis.hook
def map_query(context, query):
    """Waits for news are real waits: a short one shows the same as one of a minute."""
    wait = query.get("wait") if isinstance(query, dict) else None
    if isinstance(wait, (int, float)) and not isinstance(wait, bool) and 0.05 < wait <= 60:
        query["wait"] = 0.05
    return query

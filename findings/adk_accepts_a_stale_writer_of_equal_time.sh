#!/usr/bin/env bash
# google-adk 2.13.0 with SQLite (PyPI), looked at on 2026-11-30.
#
# DatabaseSessionService takes a writer for stale by the time of the last event. Where another writer's event carries the time that was
# there already (a coarse clock, imported events), the stale writer is accepted and its state replaces what it never saw. Seen:
#
#   another timestamp: refused: StaleSessionError, plan: of one
#   the same timestamp: accepted, plan: of the other
#
# Fails once that changes. Needs Python 3.11 with venv, and PyPI.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet google-adk==2.13.0 'sqlalchemy[asyncio]==2.1.9' aiosqlite==0.22.1
cd "$dir"
cat >seen.py <<'PY'
import asyncio, os, tempfile
from google.adk.events import Event, EventActions
from google.adk.sessions import DatabaseSessionService

WHO = dict(app_name="app", user_id="user")

def event(author, when, delta):
    return Event(author=author, timestamp=when, actions=EventActions(state_delta=delta))

async def stale(same_timestamp, path):
    service = DatabaseSessionService(f"sqlite+aiosqlite:///{path}")
    created = await service.create_session(**WHO, session_id="s")
    await service.append_event(created, event("user", 1_800_000_000.0, {"plan": "first"}))
    one = await service.get_session(**WHO, session_id="s")
    other = await service.get_session(**WHO, session_id="s")
    await service.append_event(one, event("agent", 1_800_000_000.0 if same_timestamp else 1_800_000_001.0, {"plan": "of one"}))
    try:
        await service.append_event(other, event("agent", 1_800_000_002.0, {"plan": "of the other"}))
        said = "accepted"
    except Exception as error:
        said = "refused: " + type(error).__name__
    now = await service.get_session(**WHO, session_id="s")
    return f"{said}, plan: {now.state['plan']}"

async def main():
    with tempfile.TemporaryDirectory() as d:
        print("another timestamp:", await stale(False, os.path.join(d, "a.db")))
        print("the same timestamp:", await stale(True, os.path.join(d, "b.db")))

asyncio.run(main())
PY
seen=$(venv/bin/python seen.py 2>/dev/null)
echo "$seen"
[ "$seen" = "another timestamp: refused: StaleSessionError, plan: of one
the same timestamp: accepted, plan: of the other" ]

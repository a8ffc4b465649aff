#!/usr/bin/env bash
# google-adk 2.13.0 with SQLite (PyPI), looked at on 2026-11-30.
#
# Two DatabaseSessionService objects on one SQLite file, as two processes have them, append events of two sessions of one user, each with
# a key of its own under `user:`. Every append is acknowledged; of 40 keys about half are in the user's state afterwards, since the state
# of a user is one row that is read, changed and written. (Databases that lock the row are said to escape; not looked at.) Seen:
#
#   acknowledged: 40
#   some keys are lost: True
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

async def shared(path):
    services = [DatabaseSessionService(f"sqlite+aiosqlite:///{path}") for _ in range(2)]
    sessions = [await s.create_session(**WHO, session_id=f"s{n}") for n, s in enumerate(services)]
    acknowledged = 0
    async def write(n):
        nonlocal acknowledged
        for turn in range(20):
            await services[n].append_event(sessions[n], event("agent", 1_800_000_000.0 + turn, {f"user:key-{n}-{turn}": 1}))
            acknowledged += 1
    await asyncio.gather(write(0), write(1))
    now = await services[0].get_session(**WHO, session_id="s0")
    kept = sum(key.startswith("user:key-") for key in now.state)
    return acknowledged, kept

async def main():
    with tempfile.TemporaryDirectory() as d:
        acknowledged, kept = await shared(os.path.join(d, "sessions.db"))
        print("acknowledged:", acknowledged)
        print("some keys are lost:", kept < acknowledged)

asyncio.run(main())
PY
seen=$(venv/bin/python seen.py 2>/dev/null)
echo "$seen"
[ "$seen" = "acknowledged: 40
some keys are lost: True" ]

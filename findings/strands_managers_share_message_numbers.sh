#!/usr/bin/env bash
# strands-agents 1.62.0 (PyPI), looked at on 2026-11-30.
#
# Two FileSessionManagers of one session, as two processes have them, each count the number of the next message in memory. Both store
# their message under the same number, both calls succeed, and the first message is overwritten. Seen:
#
#   errors: 0
#   kept: ['from the second process']
#
# Fails once that changes. Needs python3 with venv, and PyPI.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet strands-agents==1.62.0
cd "$dir"
cat >seen.py <<'PY'
import tempfile
from strands import Agent
from strands.session.file_session_manager import FileSessionManager

with tempfile.TemporaryDirectory() as directory:
    def manager():
        return FileSessionManager(session_id="conversation", storage_dir=directory)
    def message(text):
        return {"role": "user", "content": [{"text": text}]}
    first, second = manager(), manager()
    agents = [Agent(agent_id="assistant", session_manager=m, callback_handler=None) for m in (first, second)]
    errors = 0
    for m, agent, text in ((first, agents[0], "from the first process"), (second, agents[1], "from the second process")):
        try:
            m.append_message(message(text), agent)
        except Exception as error:
            errors += 1
            print("error:", type(error).__name__)
    kept = manager().list_messages("conversation", "assistant")
    print("errors:", errors)
    print("kept:", [m.message["content"][0]["text"] for m in kept])
PY
seen=$(venv/bin/python seen.py 2>/dev/null)
echo "$seen"
[ "$seen" = "errors: 0
kept: ['from the second process']" ]

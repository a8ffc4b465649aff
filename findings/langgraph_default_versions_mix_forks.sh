#!/usr/bin/env bash
# langgraph 1.2.24 with langgraph-checkpoint 4.3.2 (PyPI), looked at on 2026-11-30.
#
# `BaseCheckpointSaver.get_next_version` counts 1, 2, 3. A saver that keeps that default and stores values by (channel, version), as
# InMemorySaver does, gives two forks of one checkpoint the same version: the later fork's value takes the place of the other's, and the
# first fork reads the second one's messages. InMemorySaver itself adds a random part. Seen, the third message of both forks:
#
#   default versions: ['right', 'right']
#   versions of InMemorySaver: ['left', 'right']
#
# Fails once that changes. Needs python3 with venv, and PyPI.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet langgraph==1.2.24 langgraph-checkpoint==4.3.2
cd "$dir"
cat >seen.py <<'PY'
from langgraph.checkpoint.base import BaseCheckpointSaver, empty_checkpoint
from langgraph.checkpoint.memory import InMemorySaver
from typing import Annotated, TypedDict
import operator
from langgraph.graph import START, StateGraph

class Counting(InMemorySaver):
    """A saver that keeps the version numbers that its base class documents as the default."""
    get_next_version = BaseCheckpointSaver.get_next_version

class State(TypedDict):
    messages: Annotated[list[str], operator.add]

def run(saver):
    graph = StateGraph(State)
    graph.add_node("answer", lambda state: {"messages": ["answer to " + state["messages"][-1]]})
    graph.add_edge(START, "answer")
    app = graph.compile(checkpointer=saver)
    thread = {"configurable": {"thread_id": "1"}}
    app.invoke({"messages": ["question"]}, thread)
    fork_at = app.get_state(thread).config
    ends = []
    for name in ("left", "right"):
        app.invoke({"messages": [name]}, fork_at)
        ends.append(app.get_state(thread).config)
    return [app.get_state(end).values["messages"][2] for end in ends]

print("default versions:", run(Counting()))
print("versions of InMemorySaver:", run(InMemorySaver()))
PY
seen=$(venv/bin/python seen.py 2>/dev/null)
echo "$seen"
[ "$seen" = "default versions: ['right', 'right']
versions of InMemorySaver: ['left', 'right']" ]

#!/usr/bin/env bash
# langgraph 1.2.24 with langgraph-checkpoint 4.3.2 (PyPI), looked at on 2026-11-30.
#
# Two runs on one thread at the same time both end well, each with its own two messages; the state of the thread has those of one run. The
# newest checkpoint is the state, `put` has no condition, and no error says that the other run's messages are not in it. Seen:
#
#   both runs ended: True
#   messages kept: 2 of 4
#
# Fails once that changes. Needs python3 with venv, and PyPI.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet langgraph==1.2.24 langgraph-checkpoint==4.3.2
cd "$dir"
cat >seen.py <<'PY'
import asyncio
from typing import Annotated, TypedDict
import operator
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, StateGraph

class State(TypedDict):
    messages: Annotated[list[str], operator.add]

started = asyncio.Barrier(2)
async def answer(state):
    await started.wait()
    return {"messages": ["answer to " + state["messages"][-1]]}

async def main():
    graph = StateGraph(State)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    app = graph.compile(checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    results = await asyncio.gather(*(app.ainvoke({"messages": [q]}, config) for q in ("question a", "question b")))
    print("both runs ended:", all(len(r["messages"]) == 2 for r in results))
    state = await app.aget_state(config)
    print("messages kept:", len(state.values["messages"]), "of 4")
asyncio.run(main())
PY
seen=$(venv/bin/python seen.py 2>/dev/null)
echo "$seen"
[ "$seen" = "both runs ended: True
messages kept: 2 of 4" ]

// The page of one node. Everything that comes from the cluster is put into the document as text, never as markup.
"use strict";

const $ = (id) => document.getElementById(id);
const POLL_MS = 2000, POINTS = 150, PAGE = 50;

/** An element; children are elements or text. */
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== false) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}
function svg(name, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// --- numbers for people ---
const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const count = (n) => (n == null ? "–" : Math.abs(n) < 100000 ? number.format(n) : short.format(n));
function bytes(n) {
  if (n == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) { n /= 1024; at++; }
  return `${at === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[at]}`;
}
function span(ms) {
  const s = Math.floor(Math.abs(ms) / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}
const millis = (ms) => (ms == null || !isFinite(ms) ? "–" : ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : number.format(ms));
const moment = (ms) => (ms ? new Date(ms).toLocaleString() : "–");

// --- asking the node ---
class Refused extends Error { constructor(status, message) { super(message); this.status = status; } }
let token = sessionStorage.getItem("token") || "";
async function ask(path, body) {
  const headers = {};
  if (token) headers.authorization = `Bearer ${token}`;
  if (body) headers["content-type"] = "application/json";
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), cache: "no-store", credentials: "omit" });
  if (answer.ok) return path === "metrics" ? answer.text() : answer.json();
  let message = `${answer.status}`;
  try { const text = await answer.text(); message = JSON.parse(text).error || message; } catch { /* the code has to do */ }
  if (answer.status === 401 || answer.status === 403) askForToken(token ? message : "");
  throw new Refused(answer.status, message);
}
function askForToken(error) {
  $("token-error").textContent = error;
  $("token-error").hidden = !error;
  if (!$("ask").open) $("ask").showModal();
}
$("token-form").addEventListener("submit", () => {
  token = $("token").value.trim();
  $("token").value = "";
  sessionStorage.setItem("token", token);
  tick();
  if (location.hash === "#sessions") list();
});
$("leave").addEventListener("click", () => { token = ""; sessionStorage.removeItem("token"); location.reload(); });

// --- the past five minutes ---
const series = { at: [], writes: [], reads: [], p50: [], p99: [], lag: new Map(), sync: new Map() };
let before = null;
function push(list, value) { list.push(value); if (list.length > POINTS) list.shift(); }
function pushFor(map, id, value) {
  if (!map.has(id)) map.set(id, new Array(Math.max(0, series.at.length - 1)).fill(null));
  push(map.get(id), value);
}
/** Cumulative buckets of all operations, by upper bound in seconds. */
function buckets(text) {
  const all = new Map();
  for (const line of text.split("\n")) {
    const found = /^quorate_operation_duration_seconds_bucket\{.*le="([^"]+)"\} (\S+)/.exec(line);
    if (found) { const le = found[1] === "+Inf" ? Infinity : +found[1]; all.set(le, (all.get(le) || 0) + +found[2]); }
  }
  return [...all].sort((a, b) => a[0] - b[0]);
}
/** The quantile of what came between two looks, in ms; null if nothing did. */
function quantile(now, past, q) {
  const old = new Map(past || []);
  const fresh = now.map(([le, n]) => [le, n - (old.get(le) || 0)]);
  const total = fresh.length ? fresh[fresh.length - 1][1] : 0;
  if (!past || total <= 0) return null;
  let low = 0, under = 0;
  for (const [le, n] of fresh) {
    if (n >= q * total) return 1000 * (le === Infinity ? low : low + (le - low) * ((q * total - under) / Math.max(n - under, 1e-9)));
    low = le; under = n;
  }
  return null;
}
function record(status, histogram) {
  const now = performance.now();
  const nodes = new Map(status.nodes.map((node) => [node.id, node]));
  const head = Math.max(0, ...status.nodes.filter((n) => n.reachable).map((n) => n.last_log || 0));
  push(series.at, Date.now());
  let writes = null, reads = null;
  if (before) {
    const seconds = (now - before.now) / 1000;
    writes = reads = 0;
    for (const [id, node] of nodes) {
      const past = before.nodes.get(id);
      // A node that restarted counts from zero again.
      if (!node.reachable || !past || !past.reachable || node.uptime_ms < past.uptime_ms) continue;
      writes += Math.max(0, node.writes - past.writes) / seconds;
      reads += Math.max(0, node.reads - past.reads) / seconds;
      const syncs = node.syncs - past.syncs;
      pushFor(series.sync, id, syncs > 0 ? (node.sync_us_total - past.sync_us_total) / syncs / 1000 : null);
    }
  }
  for (const [id, node] of nodes) pushFor(series.lag, id, node.reachable ? Math.max(0, head - (node.applied || 0)) : null);
  push(series.writes, writes); push(series.reads, reads);
  push(series.p50, before ? quantile(histogram, before.histogram, 0.5) : null);
  push(series.p99, before ? quantile(histogram, before.histogram, 0.99) : null);
  before = { now, nodes, histogram };
}

// --- charts ---
const colour = (at) => `var(--c${at % 6})`;
function nice(max) {
  if (!(max > 0)) return 1;
  const unit = 10 ** Math.floor(Math.log10(max));
  return [1, 2, 2.5, 5, 10].map((step) => step * unit).find((step) => step >= max);
}
function chart(into, lines, show) {
  // As wide as it is shown: text keeps its shape.
  const W = into.clientWidth || 640, H = 150, left = 44, bottom = 18, top = 8;
  // Of whole things the middle of the axis is a whole one too.
  const max = Math.max(show === count ? 2 : 0, nice(Math.max(0, ...lines.flatMap((line) => line.points.filter((p) => p != null))) * 1.05));
  const x = (i) => left + ((POINTS - series.at.length + i) / (POINTS - 1)) * (W - left - 4);
  const y = (v) => top + (1 - v / max) * (H - top - bottom);
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img", "aria-label": lines.map((l) => `${l.name} ${show(last(l.points))}`).join(", ") });
  for (const part of [0, 0.5, 1]) {
    picture.append(svg("line", { class: "grid", x1: left, x2: W - 4, y1: y(part * max), y2: y(part * max) }));
    picture.append(svg("text", { class: "axis", x: left - 6, y: y(part * max) + 4, "text-anchor": "end" }, show(part * max)));
  }
  const past = ((POINTS - 1) * POLL_MS) / 60000;
  picture.append(svg("text", { class: "axis", x: left, y: H - 3 }, `${Math.round(past)} min ago`), svg("text", { class: "axis", x: W - 4, y: H - 3, "text-anchor": "end" }, "now"));
  lines.forEach((line, at) => {
    let path = "", pen = false, first = null, end = 0;
    line.points.forEach((value, i) => {
      if (value == null) { pen = false; return; }
      path += `${pen ? "L" : "M"}${x(i).toFixed(1)} ${y(Math.min(value, max)).toFixed(1)}`;
      if (!pen && first === null) first = x(i);
      pen = true; end = x(i);
    });
    if (!path) return;
    if (line.filled && (path.match(/M/g) || []).length === 1) picture.append(svg("path", { d: `${path}L${end} ${y(0)}L${first} ${y(0)}Z`, fill: colour(line.colour ?? at), opacity: 0.13 }));
    picture.append(svg("path", { d: path, fill: "none", stroke: colour(line.colour ?? at), "stroke-width": 1.8, "stroke-linejoin": "round", "vector-effect": "non-scaling-stroke" }));
  });
  const legend = el("div", { class: "legend" });
  const say = (i) => legend.replaceChildren(...lines.map((line, at) => {
    const swatch = el("i", { class: "swatch" });
    swatch.style.background = colour(line.colour ?? at);
    return el("span", {}, swatch, `${line.name} `, el("b", {}, show(i == null ? last(line.points) : line.points[i])));
  }), ...(i == null ? [] : [el("span", {}, new Date(series.at[i]).toLocaleTimeString())]));
  say(null);
  const cursor = svg("line", { class: "cursor", x1: -9, x2: -9, y1: top, y2: H - bottom });
  picture.append(cursor);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const i = Math.round(((((event.clientX - box.left) / box.width) * W - left) / (W - left - 4)) * (POINTS - 1)) - (POINTS - series.at.length);
    if (i >= 0 && i < series.at.length) { cursor.setAttribute("x1", x(i)); cursor.setAttribute("x2", x(i)); say(i); }
  });
  picture.addEventListener("pointerleave", () => { cursor.setAttribute("x1", -9); cursor.setAttribute("x2", -9); say(null); });
  into.replaceChildren(picture, legend);
}
const last = (points) => { for (let i = points.length - 1; i >= 0 && i >= points.length - 3; i--) if (points[i] != null) return points[i]; return null; };

// --- overview ---
function tile(name, value, unit, more, state) {
  return el("div", { class: "card tile" }, el("div", { class: "name" }, name),
    el("div", { class: `value ${state || ""}` }, value, unit ? el("small", {}, unit) : null), el("div", { class: "more" }, more || "\u00a0"));
}
function leaderOf(status) {
  return status.nodes.filter((node) => node.reachable && node.role === "leader").sort((a, b) => b.term - a.term)[0];
}
function show(status) {
  const up = status.nodes.filter((node) => node.reachable);
  const leader = leaderOf(status);
  const failing = up.flatMap((node) => node.checks.filter((check) => !check.ok).map((check) => ({ node, check })));
  const [text, state] = !leader ? ["no leader: no writes", "bad"] : up.length < status.nodes.length ? [`${status.nodes.length - up.length} of ${status.nodes.length} nodes down`, "warn"]
    : failing.some((f) => f.check.required) ? ["a node takes no traffic", "warn"] : failing.length ? [`${failing.length} warning${failing.length > 1 ? "s" : ""}`, "warn"] : ["healthy", "good"];
  $("health").textContent = text;
  $("health").className = `pill ${state}`;
  $("cluster").textContent = `${status.cluster_name || "–"} · seen by node ${status.asked}`;
  $("cluster").title = status.cluster_id;
  document.title = `${state === "good" ? "" : "⚠ "}${status.cluster_name || "quorate"} · quorate`;
  const lag = Math.max(0, ...[...series.lag.values()].map((points) => last(points) || 0));
  const disk = up.filter((node) => node.disk_total_bytes).map((node) => ({ id: node.id, share: node.disk_free_bytes / node.disk_total_bytes, free: node.disk_free_bytes })).sort((a, b) => a.share - b.share)[0];
  $("tiles").replaceChildren(
    tile("Leader", leader ? `Node ${leader.id}` : "none", null, leader ? `term ${leader.term}` : "a majority is missing", leader ? "" : "bad"),
    tile("Writes", count(last(series.writes)), "/s", `p50 ${millis(last(series.p50))} · p99 ${millis(last(series.p99))} ms`),
    tile("Reads", count(last(series.reads)), "/s", "all nodes"),
    tile("Sessions", count(Math.max(0, ...up.map((node) => node.sessions))), null, `${count(Math.max(0, ...up.map((node) => node.clients)))} clients`),
    tile("Lag", count(lag), "entries", "the farthest node"),
    tile("Disk free", disk ? `${Math.round(disk.share * 100)} %` : "–", null, disk ? `${bytes(disk.free)} on node ${disk.id}` : "", disk && disk.share < 0.05 ? "bad" : ""));
  chart($("chart-throughput"), [{ name: "writes", points: series.writes, filled: true }, { name: "reads", points: series.reads, filled: true }], count);
  chart($("chart-latency"), [{ name: "p50", points: series.p50, filled: true }, { name: "p99", points: series.p99, colour: 2 }], millis);
  chart($("chart-lag"), [...series.lag].map(([id, points]) => ({ name: `node ${id}`, points })), count);
  chart($("chart-sync"), [...series.sync].map(([id, points]) => ({ name: `node ${id}`, points })), millis);
  $("nodes").replaceChildren(...status.nodes.map((node) => nodeCard(node, leader, status.asked)));
}
function nodeCard(node, leader, asked) {
  const title = el("h3", {}, `Node ${node.id}`, el("span", { class: `badge ${node.role === "leader" ? "leader" : ""}` }, node.reachable ? node.role : "unreachable"), node.id === asked ? el("span", { class: "badge" }, "this page") : null);
  const card = el("article", { class: `card node ${node.reachable ? "" : "dim"}`, "data-node": node.id }, title, el("div", { class: "address" }, node.client));
  if (!node.reachable) { card.append(el("p", { class: "error" }, node.error || "it does not answer")); return card; }
  const facts = [["Applied", count(node.applied)], ["Flushed", count(node.flushed)], ["Log", bytes(node.log_bytes)], ["State", bytes(node.state_bytes)],
    ["Clock", node.clock_offset_ms == null ? "–" : `${node.clock_offset_ms > 0 ? "+" : ""}${node.clock_offset_ms} ms`], ["Slowest sync", `${millis(node.sync_us_max / 1000)} ms`],
    ["Up", span(node.uptime_ms)], ["Release", node.version], ["Rot checked", node.scrubbed_ms ? `${span(Date.now() - node.scrubbed_ms)} ago` : "not yet"], ["Rules", `v${node.cluster_version}`]];
  card.append(el("dl", {}, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)])));
  if (node.disk_total_bytes) {
    const used = 1 - node.disk_free_bytes / node.disk_total_bytes;
    const fill = el("i", { class: used > 0.95 ? "low" : "" });
    fill.style.width = `${(used * 100).toFixed(1)}%`;
    card.append(el("div", { class: "bar", title: "disk in use" }, fill), el("div", { class: "address" }, `${bytes(node.disk_free_bytes)} of ${bytes(node.disk_total_bytes)} free`));
  }
  const failing = node.checks.filter((check) => !check.ok);
  if (failing.length) card.append(el("ul", { class: "checks" }, ...failing.map((check) => el("li", { class: check.required ? "bad" : "warn" }, `${check.name}: ${check.detail || "does not hold"}`))));
  return card;
}

let busy = false;
async function tick() {
  if (busy || document.hidden) return;
  busy = true;
  try {
    const [status, metrics] = await Promise.all([ask("api/status"), ask("metrics")]);
    $("leave").hidden = !token;
    record(status, buckets(metrics));
    if (location.hash !== "#sessions") show(status); else { const leader = leaderOf(status); $("health").textContent = leader ? `node ${leader.id} leads` : "no leader"; $("health").className = `pill ${leader ? "good" : "bad"}`; $("cluster").textContent = `${status.cluster_name} · seen by node ${status.asked}`; }
    document.body.dataset.ready = "1";
  } catch (error) {
    $("health").textContent = error instanceof Refused ? "a token is needed" : "this node does not answer";
    $("health").className = "pill bad";
  } finally { busy = false; }
}

// --- sessions ---
let stack = [], after = null, chosen = null;
async function orStale(path, body) {
  try { $("stale").hidden = true; return await ask(path, body); } catch (error) {
    if (error.status !== 503) throw error;
    const answer = await ask(path, { ...body, stale: true });
    $("stale").textContent = `No leader answers. Shown is what this node has${answer.age_ms == null ? "" : `, ${span(answer.age_ms)} old at most`}.`;
    $("stale").hidden = false;
    return answer;
  }
}
async function list() {
  const rows = $("rows");
  try {
    const page = await orStale("api/sessions", { prefix: $("prefix").value, after, limit: PAGE });
    rows.replaceChildren(...page.sessions.map(row));
    $("empty").hidden = page.sessions.length > 0;
    $("back").disabled = stack.length === 0;
    $("next").disabled = !page.more;
    $("where").textContent = page.sessions.length ? `${stack.length * PAGE + 1} – ${stack.length * PAGE + page.sessions.length}` : "";
    $("next").onclick = () => { stack.push(after); after = page.sessions[page.sessions.length - 1].id; list(); };
    $("back").onclick = () => { after = stack.pop() ?? null; list(); };
  } catch (error) { rows.replaceChildren(el("tr", {}, el("td", { colspan: 5, class: "error" }, error.message))); }
}
function row(session) {
  const line = el("tr", { tabindex: 0, "aria-selected": session.id === chosen }, el("td", { title: session.id }, session.id === "" ? "(empty id)" : session.id),
    el("td", { class: "num" }, count(session.version)), el("td", { class: "num" }, count(session.items)), el("td", { class: "num" }, bytes(session.raw_bytes)), el("td", { class: "num", title: moment(session.updated_ms) }, `${span(Date.now() - session.updated_ms)} ago`));
  const open = () => { chosen = session.id; for (const other of $("rows").children) other.setAttribute("aria-selected", other === line); read(session.id); };
  line.addEventListener("click", open);
  line.addEventListener("keydown", (event) => { if (event.key === "Enter") open(); });
  return line;
}
async function read(id, from) {
  const into = $("transcript");
  try {
    const session = await orStale("api/session", { id, ...(from == null ? {} : { from }) });
    if (chosen !== id) return;
    if (!session.found) { $("reader-head").replaceChildren(el("h2", {}, id)); into.replaceChildren(el("p", { class: "note" }, "There is no such session any more.")); return; }
    $("reader-head").replaceChildren(el("h2", {}, id), el("p", {}, ...[`version ${session.version}`, `${count(session.items)} items`, `${bytes(session.raw_bytes)}, ${bytes(session.stored_bytes)} stored`,
      `created ${moment(session.created_ms)}`, `updated ${moment(session.updated_ms)}`, session.deadline_ms ? `expires ${moment(session.deadline_ms)}` : "never expires"].map((text) => el("span", {}, text))));
    if (session.kind === "value") { into.replaceChildren(whole(session.value), ...(session.cut ? [el("p", { class: "note" }, "Only the beginning is shown.")] : [])); into.scrollTop = 0; return; }
    const parts = session.messages.map((message, at) => bubble(message, session.from + at));
    const end = session.from + session.messages.length;
    if (session.from > 0) parts.unshift(more("Earlier messages", () => read(id, Math.max(0, session.from - 500))));
    if (end < session.total) parts.push(more("Later messages", () => read(id, end)));
    if (session.total === 0) parts.push(el("p", { class: "note" }, "No messages."));
    parts.push(el("details", {}, el("summary", {}, "The rest of the state"), el("pre", {}, text(session.head)), el("pre", {}, session.counters)));
    into.replaceChildren(...parts);
    into.scrollTop = from == null ? into.scrollHeight : 0;
  } catch (error) { into.replaceChildren(el("p", { class: "note error" }, error.message)); }
}
function more(label, action) {
  const button = el("button", { type: "button", class: "center" }, label);
  button.addEventListener("click", action);
  return button;
}
function text(content) {
  if ("json" in content) return typeof content.json === "string" ? content.json : JSON.stringify(content.json, null, 2);
  return "text" in content ? content.text : `${content.bytes} bytes, not text:\n${content.hex}`;
}
const whole = (content) => el("pre", { class: "whole" }, text(content));
/** A message as Bob's agents store them; anything else as its JSON or text. */
function bubble(content, at) {
  const message = content.json;
  const known = message && typeof message === "object" && typeof message.role === "string" && typeof message.content === "string";
  if (!known) return el("div", { class: "message" }, el("div", { class: "who" }, el("span", {}, "item"), el("span", {}, `${at + 1}`)), el("pre", {}, text(content)));
  const role = ["user", "assistant", "system", "tool"].includes(message.role.toLowerCase()) ? message.role.toLowerCase() : "other";
  const calls = Array.isArray(message.tool_calls) ? message.tool_calls : [];
  const name = typeof message.tool_name === "string" ? `${message.role} · ${message.tool_name}` : message.role;
  return el("div", { class: `message ${role}` }, el("div", { class: "who" }, el("span", {}, name), el("span", {}, `${at + 1}`)),
    message.content ? el("div", { class: "text" }, message.content) : null,
    ...calls.map((call) => el("pre", {}, `${call && call.name ? call.name : "tool"}(${JSON.stringify(call && call.arguments, null, 2) ?? ""})`)));
}
$("search").addEventListener("submit", (event) => { event.preventDefault(); stack = []; after = null; list(); });

// --- views and theme ---
function route() {
  const view = location.hash === "#sessions" ? "sessions" : "overview";
  for (const name of ["overview", "sessions"]) {
    $(name).hidden = name !== view;
    if (name === view) $(`tab-${name}`).setAttribute("aria-current", "page"); else $(`tab-${name}`).removeAttribute("aria-current");
  }
  if (view === "sessions") list(); else tick();
}
const theme = sessionStorage.getItem("theme");
if (theme) document.documentElement.dataset.theme = theme;
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.theme = dark ? "light" : "dark";
  sessionStorage.setItem("theme", dark ? "light" : "dark");
});
addEventListener("hashchange", route);
document.addEventListener("visibilitychange", tick);
route();
tick();
setInterval(tick, POLL_MS);

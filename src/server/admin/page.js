// The page of one node. Everything that comes from the cluster is put into the document as text, never as markup.
"use strict";

const $ = (id) => document.getElementById(id);
const POLL_MS = 2000, POINTS = 150, PAGE = 50, PATIENCE_MS = 8000;
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
const plural = (n, what) => `${count(n)} ${what}${n === 1 ? "" : "s"}`;
function bytes(n) {
  if (n == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) { n /= 1024; at++; }
  return `${at === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[at]}`;
}
function span(ms) {
  const s = Math.floor(Math.max(0, ms) / 1000);
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min`;
  if (s < 86400) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} d ${Math.floor((s % 86400) / 3600)} h`;
}
const millis = (ms) => (ms == null || !isFinite(ms) ? "–" : ms < 10 ? ms.toFixed(2) : ms < 100 ? ms.toFixed(1) : number.format(ms));
/** As the command line prints it. */
function moment(ms) {
  const at = new Date(ms);
  return !ms || isNaN(at) ? "–" : `${at.toISOString().slice(0, -5)}Z`;
}
/** The node's clock, by which it wrote what it says: this machine's may be another. */
let ahead = 0;
const clock = () => Date.now() + ahead;
function heard(answer) { if (answer.now_ms) ahead = answer.now_ms - Date.now(); return answer; }

// --- asking the node ---
class Refused extends Error { constructor(status, message) { super(message); this.status = status; } }
let token = sessionStorage.getItem("token") || "";
async function ask(path, body) {
  const headers = {};
  if (token) headers.authorization = `Bearer ${token}`;
  if (body) headers["content-type"] = "application/json";
  const answer = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(PATIENCE_MS) });
  if (answer.ok) return heard(await answer.json());
  let message = `the node answers with code ${answer.status}`;
  try { message = (await answer.json()).error || message; } catch { /* the code has to do */ }
  throw new Refused(answer.status, message);
}
const asksForToken = (error) => error.status === 401 || error.status === 403;
/** Why a token was not good enough, in words. */
function problem(error) {
  if (error.status === 401 && /not known/.test(error.message)) return "This token is not known to the node. Paste the contents of a token file.";
  if (error.status === 401) return `${error.message}. Paste the contents of a token file.`;
  if (error.status === 403) return `This token may not look at the cluster: it needs the scope admin. (${error.message})`;
  return error instanceof Refused ? error.message : "The node does not answer.";
}
/** While nobody is signed in nothing is asked. */
let locked = false;
function signIn(words) {
  locked = true;
  pill("", "signed out");
  $("leave").hidden = true;
  $("enter").hidden = false;
  complain(words);
  if (!$("ask").open) $("ask").showModal();
}
function complain(words) {
  $("token-error").textContent = visible(words);
  $("token-error").hidden = !words;
}
$("enter").addEventListener("click", () => signIn(""));
$("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  const before = token;
  token = $("token").value.trim();
  if (!/^[\x21-\x7e]+$/.test(token)) { token = before; complain("A token is one line without spaces. Paste the contents of a token file."); return; }
  // One question decides.
  try { await look(); } catch (error) { token = before; complain(problem(error)); $("token").select(); return; }
  sessionStorage.setItem("token", token);
  $("token").value = "";
  locked = false;
  $("enter").hidden = true;
  $("ask").close();
  listed = null;
  route();
});
$("leave").addEventListener("click", () => { token = ""; sessionStorage.removeItem("token"); location.reload(); });

// --- the past five minutes, as the nodes counted them ---
/** By node: what it counted, by number of the interval of two seconds. */
const counted = new Map();
let series = { at: [], writes: [], reads: [], p50: [], p99: [], lag: new Map(), sync: new Map() };
let asked = 0;
function record(status) {
  const now = Date.now();
  for (const node of status.nodes) {
    if (!counted.has(node.id)) counted.set(node.id, { points: new Map(), offset: null, newest: 0 });
    const past = counted.get(node.id);
    for (const sample of node.samples) {
      // Counted through by the node, so that a late answer moves nothing; a restart or a late node begins at a place of its age.
      const at = Math.round((now - sample.age_ms) / POLL_MS);
      if (past.offset === null || Math.abs(at - sample.sequence - past.offset) > 1) past.offset = at - sample.sequence;
      past.newest = sample.sequence + past.offset;
      // An interval that was longer than two seconds takes the places before it that are free.
      const places = Math.min(POINTS, Math.max(1, Math.round(sample.interval_ms / POLL_MS)));
      for (let back = places - 1; back > 0; back--) if (!past.points.has(past.newest - back)) past.points.set(past.newest - back, sample);
      past.points.set(past.newest, sample);
    }
    for (const at of past.points.keys()) if (at < past.newest - 2 * POINTS) past.points.delete(at);
  }
  plot(status, Math.round(now / POLL_MS));
}
function plot(status, now) {
  // The newest interval that every node has ended which still counts.
  const ends = status.nodes.filter((node) => node.reachable && node.samples.length).map((node) => counted.get(node.id).newest).filter((at) => at > now - 4);
  const end = ends.length ? Math.min(...ends) : now - 1;
  const ids = status.nodes.map((node) => node.id);
  const lines = () => new Map(ids.map((id) => [id, []]));
  series = { at: [], writes: [], reads: [], p50: [], p99: [], lag: lines(), sync: lines() };
  for (let at = end - POINTS + 1; at <= end; at++) {
    const all = ids.map((id) => [id, counted.get(id).points.get(at)]).filter(([, sample]) => sample);
    const rate = (key) => (all.length ? all.reduce((sum, [, sample]) => sum + (sample[key] * 1000) / Math.max(sample.interval_ms, 1), 0) : null);
    const [leader, led] = all.find(([, sample]) => sample.leads) || [];
    const behind = new Map(led ? led.behind : []);
    series.at.push(at * POLL_MS);
    series.writes.push(rate("writes"));
    series.reads.push(rate("reads"));
    series.p50.push(led && led.p50_us != null ? led.p50_us / 1000 : null);
    series.p99.push(led && led.p99_us != null ? led.p99_us / 1000 : null);
    for (const id of ids) {
      const sample = counted.get(id).points.get(at);
      series.lag.get(id).push(id === leader ? 0 : behind.get(id) ?? null);
      series.sync.get(id).push(sample && sample.syncs ? sample.sync_us / sample.syncs / 1000 : null);
    }
  }
}
const last = (points) => { for (let i = points.length - 1; i >= 0 && i >= points.length - 3; i--) if (points[i] != null) return points[i]; return null; };

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
      const place = `${x(i).toFixed(1)} ${y(Math.min(value, max)).toFixed(1)}`;
      // A point between two gaps is a dot.
      path += pen ? `L${place}` : line.points[i + 1] == null ? `M${place}h.1` : `M${place}`;
      if (first === null) first = x(i);
      pen = true; end = x(i);
    });
    if (!path) return;
    if (line.filled && (path.match(/M/g) || []).length === 1) picture.append(svg("path", { d: `${path}L${end} ${y(0)}L${first} ${y(0)}Z`, fill: colour(line.colour ?? at), opacity: 0.13 }));
    // A dashed line lets one below it be seen where both are equal.
    picture.append(svg("path", { d: path, fill: "none", stroke: colour(line.colour ?? at), "stroke-width": line.dashed ? 2 : 1.8, "stroke-linejoin": "round", "stroke-linecap": line.dashed ? "butt" : "round", "vector-effect": "non-scaling-stroke", ...(line.dashed ? { "stroke-dasharray": "6 6" } : {}) }));
  });
  const legend = el("div", { class: "legend" });
  const say = (i) => legend.replaceChildren(...lines.map((line, at) => {
    const swatch = el("i", { class: `swatch ${line.dashed ? "dashed" : ""}` });
    swatch.style.color = colour(line.colour ?? at);
    return el("span", {}, swatch, `${line.name} `, el("b", {}, show(i == null ? last(line.points) : line.points[i])));
  }), ...(i == null ? [] : [el("span", {}, moment(series.at[i] + ahead).slice(11))]));
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

// --- overview ---
/** The one word on the whole cluster, the same above every view. */
function pill(state, text) {
  $("health").textContent = visible(text);
  $("health").className = `pill ${state}`;
}
function tile(name, value, unit, more, state) {
  return el("div", { class: "card tile" }, el("div", { class: "name" }, name),
    el("div", { class: `value ${state || ""}` }, value, unit ? el("small", {}, unit) : null), el("div", { class: "more" }, more || "\u00a0"));
}
function overview(status) {
  const up = status.nodes.filter((node) => node.reachable);
  const leader = up.find((node) => node.id === status.leader);
  const lag = Math.max(0, ...[...series.lag.values()].map((points) => last(points) || 0));
  const disk = up.filter((node) => node.disk_total_bytes).map((node) => ({ id: node.id, share: node.disk_free_bytes / node.disk_total_bytes, free: node.disk_free_bytes })).sort((a, b) => a.share - b.share)[0];
  $("tiles").replaceChildren(
    tile("Leader", leader ? `Node ${leader.id}` : "none", null, leader ? `term ${leader.term}` : "nothing can be written", leader ? "" : "bad"),
    tile("Writes", count(last(series.writes)), "/s", `p50 ${millis(last(series.p50))} · p99 ${millis(last(series.p99))} ms`),
    tile("Reads", count(last(series.reads)), "/s", "all nodes"),
    tile("Sessions", count(Math.max(0, ...up.map((node) => node.sessions))), null, plural(Math.max(0, ...up.map((node) => node.clients)), "client")),
    // Of a node that the leader has not heard of nothing is known.
    tile("Lag", leader ? count(lag) : "–", lag === 1 ? "entry" : "entries", "the slowest node"),
    tile("Disk free", disk ? `${Math.round(disk.share * 100)} %` : "–", null, disk ? `${bytes(disk.free)} on node ${disk.id}` : "", disk && disk.share < 0.05 ? "bad" : ""));
  chart($("chart-throughput"), [{ name: "writes", points: series.writes, filled: true }, { name: "reads", points: series.reads, colour: 2, dashed: true }], count);
  chart($("chart-latency"), [{ name: "p50", points: series.p50, filled: true }, { name: "p99", points: series.p99, colour: 2 }], millis);
  chart($("chart-lag"), [...series.lag].map(([id, points]) => ({ name: `node ${id}`, points })), count);
  chart($("chart-sync"), [...series.sync].map(([id, points]) => ({ name: `node ${id}`, points })), millis);
  $("nodes").replaceChildren(...status.nodes.map((node) => nodeCard(node, leader, status.asked)));
}
function nodeCard(node, leader, asked) {
  // A node that takes itself for the leader without a majority leads nobody.
  const leads = leader !== undefined && node.id === leader.id;
  const role = !node.reachable ? "unreachable" : node.role === "leader" && !leads ? "leads without a majority" : node.role;
  const title = el("h3", {}, `Node ${node.id}`, el("span", { class: `badge ${leads ? "leader" : ""}` }, role), node.id === asked ? el("span", { class: "badge" }, "this page") : null);
  const card = el("article", { class: `card node ${node.reachable ? "" : "dim"}`, "data-node": node.id }, title, el("div", { class: "address" }, visible(node.client)));
  if (!node.reachable) { card.append(el("p", { class: "error" }, visible(node.error || "it does not answer"))); return card; }
  const facts = [["Applied", count(node.applied)], ["Flushed", count(node.flushed)], ["Log", bytes(node.log_bytes)], ["State", bytes(node.state_bytes)],
    ["Clock", node.clock_offset_ms == null ? "–" : `${node.clock_offset_ms > 0 ? "+" : ""}${node.clock_offset_ms} ms`], ["Slowest sync", `${millis(node.sync_us_max / 1000)} ms`],
    ["Up", span(node.uptime_ms)], ["Release", visible(node.version)], ["Last scrub", node.scrubbed_ms ? `${span(clock() - node.scrubbed_ms)} ago` : "not yet"], ["Cluster version", `${node.cluster_version}`]];
  card.append(el("dl", {}, ...facts.flatMap(([name, value]) => [el("dt", {}, name), el("dd", name === "Last scrub" ? { title: moment(node.scrubbed_ms) } : {}, value)])));
  if (node.disk_total_bytes) {
    const used = 1 - node.disk_free_bytes / node.disk_total_bytes;
    const fill = el("i", { class: used > 0.95 ? "low" : "" });
    fill.style.width = `${(used * 100).toFixed(1)}%`;
    card.append(el("div", { class: "bar", title: "disk in use" }, fill), el("div", { class: "address" }, `${bytes(node.disk_free_bytes)} of ${bytes(node.disk_total_bytes)} free`));
  }
  const failing = node.checks.filter((check) => !check.ok);
  if (failing.length) card.append(el("ul", { class: "checks" }, ...failing.map((check) => el("li", { class: check.required ? "bad" : "warn" }, visible(`${check.name}: ${check.detail || "does not hold"}`)))));
  return card;
}
/** Asks once and shows what comes, whatever view is open. */
async function look() {
  // After a pause, as in a tab that was hidden, all that came meanwhile.
  const missed = Math.ceil((Date.now() - asked) / POLL_MS);
  const status = await ask(`api/status?samples=${Math.min(POINTS, missed + 4)}`);
  asked = Date.now();
  record(status);
  $("leave").hidden = !token;
  pill(status.health.state, status.health.text);
  const name = visible(status.cluster_name || "");
  $("cluster").textContent = `${name || "–"} · seen by node ${status.asked}`;
  $("cluster").title = status.cluster_id;
  document.title = `${status.health.state === "good" ? "" : "⚠ "}${name || "quorate"} · quorate`;
  if (!$("overview").hidden) overview(status);
  document.body.dataset.ready = "1";
}
let busy = false;
async function tick() {
  if (busy || locked || document.hidden) return;
  busy = true;
  try { await look(); } catch (error) {
    if (asksForToken(error)) signIn(token ? problem(error) : "");
    else pill("bad", error instanceof Refused ? error.message : "this node does not answer");
  } finally { busy = false; }
}

// --- sessions ---
/** What the address asks for: ids stand behind the #, which a browser sends to nobody. */
function place() {
  const words = location.hash.slice(1).split("&");
  const found = new Map();
  for (const word of words) {
    const at = word.indexOf("=");
    try { if (at > 0) found.set(word.slice(0, at), decodeURIComponent(word.slice(at + 1))); } catch { /* no text: as if it were not there */ }
  }
  const sessions = words[0] === "sessions" || found.has("session") || found.has("prefix");
  return { view: sessions ? "sessions" : "overview", prefix: found.get("prefix") ?? "", session: found.get("session") ?? null };
}
function address(prefix, session) {
  const words = [session === null ? "sessions" : `session=${encodeURIComponent(session)}`];
  if (prefix !== "") words.push(`prefix=${encodeURIComponent(prefix)}`);
  return `#${words.join("&")}`;
}
function go(prefix, session) {
  const to = address(prefix, session);
  // The same again is asked again.
  if (location.hash === to) { listed = null; route(); } else location.hash = to;
}
let stack = [], after = null, rows = [];
/** What is shown: the prefix listed, and the session read. */
let listed = null, chosen = null;
async function orStale(path, body, note) {
  try {
    const answer = await ask(path, body);
    note.hidden = true;
    return answer;
  } catch (error) {
    if (error.status !== 503) throw error;
    const answer = await ask(path, { ...body, stale: true });
    note.textContent = `No leader answers. This is what this node has${answer.age_ms == null ? "; its age is unknown" : `, ${span(answer.age_ms)} old at most`}.`;
    note.hidden = false;
    return answer;
  }
}
const failed = (error) => (error.status === 401 ? "Sign in to see sessions." : error instanceof Refused ? visible(error.message) : "This node does not answer.");
async function list() {
  const prefix = listed;
  try {
    const page = await orStale("api/sessions", { prefix, after, limit: PAGE }, $("stale"));
    if (listed !== prefix) return;
    rows = page.sessions;
    $("rows").replaceChildren(...rows.map(row));
    fit();
    $("empty").textContent = prefix === "" ? "No sessions are stored." : "No session has this prefix.";
    $("empty").hidden = rows.length > 0;
    $("back").disabled = stack.length === 0;
    $("next").disabled = !page.more;
    $("where").textContent = rows.length ? `${stack.length * PAGE + 1} – ${stack.length * PAGE + rows.length}` : "";
    $("next").onclick = () => { stack.push(after); after = rows[rows.length - 1].id; list(); };
    $("back").onclick = () => { after = stack.pop() ?? null; list(); };
  } catch (error) { rows = []; $("empty").hidden = true; $("rows").replaceChildren(el("tr", {}, el("td", { colspan: 5, class: "error" }, failed(error)))); }
}
function row(session) {
  const link = el("a", { href: address(listed, session.id), title: visible(session.id) });
  const line = el("tr", { "aria-selected": session.id === chosen }, el("td", {}, link),
    el("td", { class: "num wide" }, count(session.version)), el("td", { class: "num wide" }, count(session.items)), el("td", { class: "num" }, bytes(session.raw_bytes)), el("td", { class: "num", title: moment(session.updated_ms) }, `${span(clock() - session.updated_ms)} ago`));
  line.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    go(listed, session.id);
    if (innerWidth <= 900) $("reader").scrollIntoView();
  });
  return line;
}
/** Ids as texts of at most `room` signs, sorted as they are listed, so that no two look alike: the place where one differs from its
 * neighbours is shown, at the beginning, at the end or between. */
function shortened(ids, room) {
  const all = ids.map((id) => [...visible(id)]);
  const common = (a, b) => { let at = 0; while (at < a.length && a[at] === b[at]) at++; return at; };
  const cut = all.map((id, at) => {
    if (id.length === 0) return "(empty id)";
    if (id.length <= room) return id.join("");
    const differs = Math.max(at > 0 ? common(id, all[at - 1]) : 0, at + 1 < all.length ? common(id, all[at + 1]) : 0);
    const tail = Math.ceil((room - 1) * 0.6), head = room - 1 - tail;
    if (differs < head || differs >= id.length - tail) return `${id.slice(0, head).join("")}…${id.slice(-tail).join("")}`;
    const from = Math.max(1, differs - Math.floor(room / 3));
    return `…${id.slice(from, from + room - 2).join("")}…`;
  });
  const times = new Map();
  for (const text of cut) times.set(text, (times.get(text) || 0) + 1);
  return cut.map((text, at) => (times.get(text) > 1 ? all[at].join("") || text : text));
}
function fit() {
  const cells = [...$("rows").querySelectorAll("a")];
  const sign = $("sign").getBoundingClientRect().width / 10;
  const width = cells.length ? cells[0].getBoundingClientRect().width : 0;
  // Nothing is known of a list that is not shown; it is fitted when it is.
  if (!width || !sign) return;
  const room = Math.max(12, Math.floor(width / sign));
  shortened(rows.map((session) => session.id), room).forEach((text, at) => { cells[at].textContent = text; });
}
new ResizeObserver(fit).observe($("scroll"));
async function read(id, from) {
  const into = $("transcript"), head = $("reader-head");
  const again = el("button", { type: "button", class: "quiet" }, "Reload");
  again.addEventListener("click", () => read(id, from));
  const title = () => el("div", { class: "title" }, el("h2", {}, id === "" ? "(empty id)" : visible(id)), again);
  try {
    const session = await orStale("api/session", { id, ...(from == null ? {} : { from }) }, $("reader-stale"));
    if (chosen !== id) return;
    if (!session.found) { head.replaceChildren(title()); into.replaceChildren(el("p", { class: "note" }, "There is no session with this id.")); return; }
    head.replaceChildren(title(), el("p", {}, ...[`version ${session.version}`, plural(session.items, "item"), `${bytes(session.raw_bytes)}, ${bytes(session.stored_bytes)} stored`,
      `created ${moment(session.created_ms)}`, `updated ${moment(session.updated_ms)}`, session.deadline_ms ? `expires ${moment(session.deadline_ms)}` : "never expires"].map((text) => el("span", {}, text))));
    if (session.kind === "value") { into.replaceChildren(el("pre", { class: "whole" }, plain(session.value)), ...(session.cut ? [el("p", { class: "note" }, "Only the beginning is shown.")] : [])); into.scrollTop = 0; return; }
    const parts = conversation(session.messages, session.from);
    const end = session.from + session.messages.length;
    if (session.from > 0) parts.unshift(more("Earlier messages", () => read(id, Math.max(0, session.from - 500))));
    if (end < session.total) parts.push(more("Later messages", () => read(id, end)));
    if (session.total === 0) parts.push(el("p", { class: "note" }, "No messages."));
    parts.push(el("details", {}, el("summary", {}, "The rest of the state"), el("pre", {}, plain(session.head)), ...(session.counters.length ? [el("pre", {}, `counters: ${session.counters.join(", ")}`)] : [])));
    into.replaceChildren(...parts);
    into.scrollTop = from == null ? into.scrollHeight : 0;
  } catch (error) {
    if (chosen !== id) return;
    head.replaceChildren(title());
    into.replaceChildren(el("p", { class: "note error" }, failed(error)));
  }
}
function more(label, action) {
  const button = el("button", { type: "button", class: "center" }, label);
  button.addEventListener("click", action);
  return button;
}
$("search").addEventListener("submit", (event) => { event.preventDefault(); go($("prefix").value, chosen); });

// --- views and theme ---
function route() {
  const { view, prefix, session } = place();
  for (const name of ["overview", "sessions"]) {
    $(name).hidden = name !== view;
    if (name === view) $(`tab-${name}`).setAttribute("aria-current", "page"); else $(`tab-${name}`).removeAttribute("aria-current");
  }
  tick();
  if (locked) return;
  if (view !== "sessions") { listed = null; return; }
  $("tab-sessions").setAttribute("href", address(prefix, session));
  if (listed !== prefix) {
    $("prefix").value = prefix;
    listed = prefix; stack = []; after = null;
    list();
  }
  chosen = session;
  $("rows").querySelectorAll("tr").forEach((line, at) => line.setAttribute("aria-selected", rows[at] !== undefined && rows[at].id === session));
  if (session !== null) read(session);
  else { $("reader-head").replaceChildren(); $("reader-stale").hidden = true; $("transcript").replaceChildren(el("p", { class: "note" }, "Choose a session to read it.")); }
}
const dark = () => (document.documentElement.dataset.theme ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
function dress(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  const other = dark() ? "Light" : "Dark";
  $("theme").querySelector(".word").textContent = other;
  $("theme").setAttribute("aria-label", `${other} theme`);
}
dress(sessionStorage.getItem("theme"));
$("theme").addEventListener("click", () => { const theme = dark() ? "light" : "dark"; sessionStorage.setItem("theme", theme); dress(theme); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => dress());
addEventListener("hashchange", route);
addEventListener("resize", tick);
document.addEventListener("visibilitychange", tick);
route();
setInterval(tick, POLL_MS);

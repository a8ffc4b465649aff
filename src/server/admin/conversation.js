// Items of a transcript as a person reads them: messages as Bob's agents, OpenAI's and Anthropic's interfaces write them. Whatever has
// another shape, in whole or in part, is shown as it stands; nothing hides an item. Everything becomes text, never markup.
"use strict";

/** An element; children are elements or text. */
function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null && value !== false) node.setAttribute(key, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}
/** What acts instead of being seen, by the rule of the command line: it controls, turns text around, breaks a line or takes no room. */
const ACTING = /[\p{Cc}\p{Cs}\u{ad}\u{61c}\u{180e}\u{200b}\u{200e}\u{200f}\u{2028}-\u{202e}\u{2060}-\u{206f}\u{feff}\u{fff9}-\u{fffb}\u{e0000}-\u{e007f}]/gu;
/** Names, ids and messages on one line, with all of that made visible. */
const visible = (text) => String(text).replace(ACTING, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
/** JSON in which that is escaped, as JSON may be: the same value, and nothing in it turns around what stands beside it. Line ends stay. */
const escaped = (json) => json.replace(ACTING, (c) => (/[\t\n\r]/.test(c) ? c : [...Array(c.length).keys()].map((at) => `\\u${c.charCodeAt(at).toString(16).padStart(4, "0")}`).join("")));

// --- JSON as it was written: numbers keep their digits, objects their order and repeated keys ---
class Num { constructor(raw) { this.raw = raw; } }
class Obj {
  constructor(entries) { this.entries = entries; }
  /** The value under a key that is there once. */
  get(key) { const found = this.entries.filter(([name]) => name === key); return found.length === 1 ? found[0][1] : undefined; }
}
const DEPTH_MAX = 100;
/** Throws on what is no JSON, or is nested too deep. */
function parse(text) {
  const token = /[ \t\n\r]*(?:([{}[\]:,])|("[^"\\\u0000-\u001f]*(?:\\.[^"\\\u0000-\u001f]*)*")|(-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)|(true|false|null))/y;
  const next = () => { const found = token.exec(text); if (!found) throw new SyntaxError("no JSON"); return found; };
  const value = (depth, at = next()) => {
    if (at[2] !== undefined) return JSON.parse(at[2]);
    if (at[3] !== undefined) return new Num(at[3]);
    if (at[4] !== undefined) return at[4] === "null" ? null : at[4] === "true";
    if (depth > DEPTH_MAX || (at[1] !== "[" && at[1] !== "{")) throw new SyntaxError("no JSON");
    const [list, end] = at[1] === "[" ? [true, "]"] : [false, "}"];
    const all = [];
    let first = next();
    while (first[1] !== end || all.length > 0) {
      if (list) all.push(value(depth + 1, first));
      else {
        if (first[2] === undefined || next()[1] !== ":") throw new SyntaxError("no JSON");
        all.push([JSON.parse(first[2]), value(depth + 1)]);
      }
      const after = next()[1];
      if (after === end) break;
      if (after !== ",") throw new SyntaxError("no JSON");
      first = next();
    }
    return list ? all : new Obj(all);
  };
  const whole = value(0);
  if (/[^ \t\n\r]/.test(text.slice(token.lastIndex))) throw new SyntaxError("no JSON");
  return whole;
}
/** `undefined` for what is no JSON. */
function parsed(text) { try { return parse(text); } catch { return undefined; } }
/** Indented; a list of plain values that is short stays on one line. */
function format(value, indent = "") {
  if (value instanceof Num) return value.raw;
  if (!Array.isArray(value) && !(value instanceof Obj)) return escaped(JSON.stringify(value));
  const deeper = `${indent}  `;
  if (Array.isArray(value)) {
    const parts = value.map((one) => format(one, deeper));
    const line = `[${parts.join(", ")}]`;
    return line.length <= 60 && !/[\n{]/.test(line) ? line : `[\n${deeper}${parts.join(`,\n${deeper}`)}\n${indent}]`;
  }
  if (value.entries.length === 0) return "{}";
  return `{\n${deeper}${value.entries.map(([key, one]) => `${escaped(JSON.stringify(key))}: ${format(one, deeper)}`).join(`,\n${deeper}`)}\n${indent}}`;
}

// --- shapes ---
const isText = (value) => typeof value === "string";
/** Reads an object key by key, and knows what nobody asked for. */
function reader(object) {
  const used = new Set();
  const take = (key, fits) => { const value = object.get(key); if (!fits(value)) return undefined; used.add(key); return value; };
  return {
    text: (key) => take(key, isText), object: (key) => take(key, (value) => value instanceof Obj), list: (key) => take(key, Array.isArray),
    any: (key) => take(key, (value) => value !== undefined), flag: (key) => take(key, (value) => typeof value === "boolean"),
    // Fields that are null, or empty lists, say nothing.
    rest: () => object.entries.filter(([key, value]) => !used.has(key) && value !== null && !(Array.isArray(value) && value.length === 0)),
  };
}
/** What a message's `content` consists of. */
function parts(content) {
  if (content == null || content === "") return [];
  if (isText(content)) return [{ kind: "text", text: content }];
  return Array.isArray(content) ? content.map(block) : [{ kind: "raw", value: content }];
}
function block(value) {
  if (isText(value)) return { kind: "text", text: value };
  const raw = { kind: "raw", value };
  if (!(value instanceof Obj)) return raw;
  const of = reader(value);
  const type = of.text("type");
  const done = (part) => ({ ...part, rest: of.rest() });
  if (["text", "input_text", "output_text"].includes(type)) { const text = of.text("text"); return text === undefined ? raw : done({ kind: "text", text }); }
  if (type === "thinking") { const text = of.text("thinking"); return text === undefined ? raw : done({ kind: "thinking", text }); }
  if (type === "refusal") { const text = of.text("refusal"); return text === undefined ? raw : done({ kind: "text", text }); }
  if (["image", "image_url", "input_image", "document", "file", "input_audio"].includes(type)) {
    const source = of.object("source") || of.object("image_url") || of.object(type) || value;
    return done({ kind: "media", text: media(type, source, of.text("image_url")) });
  }
  if (type && type.endsWith("tool_use")) {
    const name = of.text("name"), id = of.text("id"), input = of.any("input");
    return name === undefined ? raw : done({ kind: "call", name, id, input });
  }
  if (type && type.endsWith("tool_result")) {
    const id = of.text("tool_use_id");
    return id === undefined ? raw : done({ kind: "result", id, failed: of.flag("is_error") === true, parts: parts(of.any("content")) });
  }
  return raw;
}
/** What can be said of an image or file without showing it: nothing is loaded. */
function media(type, source, address) {
  const of = reader(source);
  const url = address || of.text("url") || "";
  const inline = /^data:([^;,]*)[^,]*,/.exec(url);
  const data = inline ? url.slice(inline[0].length) : of.text("data") || of.text("file_data") || "";
  const kind = (inline && inline[1]) || of.text("media_type") || of.text("format") || "";
  const words = [type.replace(/^input_|_url$/g, ""), kind, data ? bytes(Math.floor((data.replace(/=+$/, "").length * 3) / 4)) : "", inline ? "" : url, of.text("filename") || of.text("file_id") || ""];
  return words.filter((word) => word).map(visible).join(" · ");
}
/** A call in `tool_calls`: OpenAI's, with the arguments as text in a `function`, or Bob's. */
function call(value) {
  const raw = { kind: "raw", value };
  if (!(value instanceof Obj)) return raw;
  const of = reader(value);
  const inner = of.object("function");
  const what = inner ? reader(inner) : of;
  const name = what.text("name"), id = of.text("id") ?? of.text("call_id"), input = what.any("arguments");
  // What it says of itself beside that is shown.
  if (["function", "function_call", "tool_call"].includes(value.get("type"))) of.text("type");
  if (name === undefined) return raw;
  return { kind: "call", name, id, input, rest: inner ? [...what.rest(), ...of.rest()] : of.rest() };
}
/** A message: who says it and its parts; `null` for anything else. */
function message(value) {
  if (!(value instanceof Obj)) return null;
  const of = reader(value);
  const type = of.text("type");
  if (type === "function_call") return { role: "assistant", parts: [call(value)], rest: [] };
  if (type === "function_call_output" && isText(value.get("call_id"))) {
    return { role: "tool", parts: [{ kind: "result", id: of.text("call_id"), parts: parts(of.any("output")) }], rest: of.rest() };
  }
  const role = of.text("role");
  if (role === undefined) return null;
  const content = of.any("content"), calls = of.list("tool_calls");
  if (content === undefined && calls === undefined) return null;
  let all = parts(content);
  if (["tool", "function"].includes(role.toLowerCase())) {
    all = [{ kind: "result", id: of.text("tool_call_id"), name: of.text("tool_name") ?? of.text("name"), parts: all }];
  }
  return { role, name: of.text("name"), parts: [...all, ...(calls || []).map(call)], rest: of.rest() };
}

// --- as elements ---
const LINES_FOLDED = 14, LENGTH_FOLDED = 2400;
/** Text that is cut to its first lines until it is asked for. */
function folding(text, name = "pre", kind = "") {
  const lines = text.split("\n");
  const node = el(name, { class: kind });
  if (lines.length <= LINES_FOLDED + 4 && text.length <= LENGTH_FOLDED * 1.5) { node.textContent = text; return node; }
  const start = lines.slice(0, LINES_FOLDED).join("\n").slice(0, LENGTH_FOLDED);
  const size = lines.length > LINES_FOLDED ? `all ${lines.length} lines` : `all ${bytes(new TextEncoder().encode(text).length)}`;
  const button = el("button", { type: "button", class: "fold", "aria-expanded": "false" });
  const set = (open) => {
    node.textContent = open ? text : `${start} …`;
    button.textContent = open ? "Show less" : `Show ${size}`;
    button.setAttribute("aria-expanded", open);
  };
  button.addEventListener("click", () => set(button.getAttribute("aria-expanded") !== "true"));
  set(false);
  return el("div", { class: "folding" }, node, button);
}
const fields = (rest) => (rest && rest.length ? el("details", {}, el("summary", {}, `also: ${rest.map(([key]) => visible(key)).join(", ")}`), folding(format(new Obj(rest)))) : null);
/** What a tool gave: JSON is indented. */
function given(part) {
  if (part.kind !== "text") return draw(part);
  const value = parsed(part.text);
  return Array.isArray(value) || value instanceof Obj ? folding(format(value)) : draw(part);
}
function draw(part) {
  if (part.kind === "raw") return folding(format(part.value));
  const rest = fields(part.rest);
  const box = (...children) => el("div", {}, ...children, rest);
  if (part.kind === "text") return rest ? box(folding(part.text, "div", "text")) : folding(part.text, "div", "text");
  if (part.kind === "thinking") return box(el("details", {}, el("summary", {}, "thinking"), folding(part.text, "div", "text")));
  if (part.kind === "media") return box(el("div", { class: "media" }, part.text));
  const result = part.kind === "result";
  const tie = el("button", { type: "button", class: "tie", hidden: "" });
  const head = el("div", { class: "tool-head" }, el("span", { class: "what" }, result ? (part.failed ? "error of " : "result of ") : "call "), el("b", {}, part.name === undefined ? "" : visible(part.name)),
    part.id === undefined ? null : el("code", { class: "call-id" }, visible(part.id)), tie);
  const node = el("div", { class: `tool-box ${result ? "result" : "call"} ${part.failed ? "failed" : ""}` }, head);
  if (result) node.append(...(part.parts.length ? part.parts.map(given) : [el("div", { class: "text soft" }, "(nothing)")]));
  else {
    const input = isText(part.input) ? parsed(part.input) ?? part.input : part.input;
    if (input !== undefined && input !== "") node.append(folding(isText(input) ? input : format(input)));
  }
  if (rest) node.append(rest);
  Object.assign(part, { node, tie, label: head.querySelector("b") });
  return node;
}
/** Ties each result to its call: the last one of that id before it that has no result yet, or where there are no ids of that name. */
function bind(all) {
  const open = [];
  for (const part of all) {
    if (part.kind === "call") { open.push(part); continue; }
    const fits = (call) => (part.id === undefined ? call.id === undefined && call.name === part.name : call.id === part.id);
    const at = part.id === undefined ? open.findIndex(fits) : open.findLastIndex(fits);
    if (at < 0) { part.tie.replaceWith(el("span", { class: "untied" }, "its call is not shown here")); continue; }
    const [call] = open.splice(at, 1);
    if (part.name === undefined) part.label.textContent = visible(call.name);
    for (const [from, to, label] of [[call, part, "result ↓"], [part, call, "call ↑"]]) {
      from.tie.textContent = label;
      from.tie.hidden = false;
      from.tie.addEventListener("click", () => {
        to.node.scrollIntoView({ block: "center" });
        for (const other of document.querySelectorAll(".tool-box.shown")) other.classList.remove("shown");
        to.node.classList.add("shown");
      });
    }
  }
  for (const call of open) call.tie.replaceWith(el("span", { class: "untied" }, "no result yet"));
}
const ROLES = { user: "user", human: "user", assistant: "assistant", model: "assistant", system: "system", developer: "system", tool: "tool", function: "tool" };
/** What an item holds, as text: JSON is indented. */
function plain(content) {
  if (!("text" in content)) return `${content.bytes} bytes that are no text:\n${content.hex}`;
  const value = parsed(content.text);
  return value === undefined ? content.text : isText(value) ? value : format(value);
}
/** One item; `ties` collects calls and results. */
function bubble(content, number, ties) {
  const head = (name) => el("div", { class: "who" }, el("span", {}, visible(name)), el("span", {}, `${number}`));
  const raw = (name) => el("div", { class: "message" }, head(name), folding(plain(content)));
  try {
    const known = "text" in content ? message(parsed(content.text)) : null;
    if (!known) return raw("item");
    const results = known.parts.length > 0 && known.parts.every((part) => part.kind === "result");
    const role = results ? "tool" : Object.hasOwn(ROLES, known.role.toLowerCase()) ? ROLES[known.role.toLowerCase()] : "other";
    const drawn = known.parts.map(draw);
    const as = el("button", { type: "button", class: "raw", "aria-pressed": "false", title: "The item as it is stored" }, "{ }");
    const top = head(known.name === undefined ? known.role : `${known.role} · ${known.name}`);
    top.lastChild.append(" ", as);
    const body = el("div", { class: "body" }, ...drawn, known.parts.length ? null : el("div", { class: "text soft" }, "(empty)"), fields(known.rest));
    const stored = el("pre", { hidden: "" });
    as.addEventListener("click", () => {
      body.hidden = !body.hidden;
      stored.hidden = !body.hidden;
      stored.textContent = escaped(content.text);
      as.setAttribute("aria-pressed", body.hidden);
    });
    ties.push(...known.parts.filter((part) => part.kind === "call" || part.kind === "result"));
    return el("div", { class: `message ${role}` }, top, body, stored);
  } catch { return raw("item"); }
}
/** All items of one part of a transcript. */
function conversation(contents, from) {
  const ties = [];
  const all = contents.map((content, at) => bubble(content, from + at + 1, ties));
  bind(ties);
  return all;
}

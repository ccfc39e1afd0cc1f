// The page: looks every two seconds, says what it sees, and asks before it removes anything. Whatever others wrote is
// shown as text alone.

import {draw, rates, short} from "./chart.js";

const EVERY_MS = 2000;
const SPAN_MIN_MS = 60000;
const OLD_SECONDS = 60;
const REASONS = ["refused", "wrong_partition", "missing_owner", "missing_contact", "missing_op", "bad_owner",
  "bad_contact", "bad_op", "bad_at", "at_out_of_range"];

const $ = (id) => document.getElementById(id);

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// Asking

class Refused extends Error {
  constructor(status, error, message) {
    super(message);
    this.status = status;
    this.error = error;
  }
}

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: {"content-type": "application/json", "x-contact-sync": "1"},
    body: JSON.stringify(body),
  };
  let response;
  try {
    response = await fetch(path, {...options, credentials: "same-origin", signal: AbortSignal.timeout(60000)});
  } catch {
    throw new Refused(0, "serve_away", "contact-sync serve does not answer");
  }
  let said;
  try {
    said = await response.json();
  } catch {
    throw new Refused(response.status, "unreadable", `contact-sync serve answers ${response.status}`);
  }
  if (!response.ok) throw new Refused(response.status, said.error, said.message);
  return said;
}

// Words

const count = (number) => number.toLocaleString("en");
const many = (number, what) => `${count(number)} ${what}${number === 1 ? "" : "s"}`;

function lasted(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const rest = Math.round(seconds);
  if (rest < 60) return `${rest} s`;
  if (rest < 3600) return `${Math.floor(rest / 60)} min ${rest % 60} s`;
  if (rest < 86400) return `${Math.floor(rest / 3600)} h ${Math.floor((rest % 3600) / 60)} min`;
  return `${Math.floor(rest / 86400)} d ${Math.floor((rest % 86400) / 3600)} h`;
}

const bytes = (number) => `${short(number / 1048576)} MiB`;
const clock = (iso) => new Date(iso).toLocaleString();

// What it all means: [how bad, headline, what to do]
function judge({status, lost_words: lost, retry_seconds: retry}) {
  const {endpoint, oldest_seconds: oldest} = status;
  const next = retry > 0 ? `Next try in ${lasted(retry)}` : "Next try now";
  const waits = oldest === null ? "nothing waits" : `the oldest change has waited for ${lasted(oldest)}`;
  if (lost) return ["bad", `Redis lost changes: ${lost}`, "Say those changes again, then: contact-sync status --acknowledge"];
  if (endpoint.paused_since) return ["warn", `An operator paused deliveries; ${waits}`, "They go on with: contact-sync resume"];
  if (endpoint.state === "held") return ["bad", `The endpoint is held (${endpoint.reason}); ${waits}`, `${next}. docs/operating.md, The gate, says what to do by reason.`];
  if (endpoint.state === "backing_off") return ["warn", `The endpoint is away; ${waits}`, `${next}. Nothing is lost; changes are joined meanwhile.`];
  if (status.wrong_type_partitions.length) return ["warn", `In partitions ${status.wrong_type_partitions.join(", ")} a key has the wrong type`, "Find whose it is; rename or remove it."];
  if (oldest !== null && !status.worker_awake) return ["bad", `No worker is awake; ${waits}`, "Start one: contact-sync worker"];
  if (oldest !== null && oldest >= OLD_SECONDS) return ["warn", `Contacts are late: ${waits}`, "The endpoint is ok: look at the workers. contact-sync health tells whether they move."];
  if (oldest === null) return ["good", "All is delivered: nothing waits", status.worker_awake ? "" : "No worker is awake."];
  return ["good", `Contacts flow: ${waits}`, ""];
}

// Showing

function facts(into, rows) {
  into.replaceChildren(...rows.flatMap(([name, value]) => [
    make("dt", {textContent: name}), make("dd", {textContent: value}),
  ]));
}

function showMemory({used_bytes: used, max_bytes: most, full_seconds: full}) {
  const bound = most ? `of ${bytes(most)}` : "no bound";
  const left = full === null ? "" : `; full in ${lasted(full)} at this rate`;
  $("memory").replaceChildren(bytes(used), make("small", {textContent: bound + left}));
}

function showGate({endpoint}, retry) {
  const rows = [["state", endpoint.state.replace("_", " ")]];
  if (endpoint.reason) rows.push(["reason", endpoint.reason]);
  if (endpoint.paused_since) rows.push(["paused since", clock(endpoint.paused_since)]);
  else if (endpoint.state !== "ok") rows.push(["next try", retry > 0 ? `in ${lasted(retry)}` : "now"]);
  if (endpoint.attempts) rows.push(["attempts failed", count(endpoint.attempts)]);
  rows.push(["last error", endpoint.last_error ?? "none"]);
  facts($("gate"), rows);
}

function showDone({totals, worker_awake: awake, workers, partitions, partitions_in_flight: leased}) {
  facts($("done"), [
    ["accepted", count(totals.events)],
    ["confirmed", `${count(totals.records_confirmed)}: ${count(totals.upserts_confirmed)} upserts, ${count(totals.deletes_confirmed)} deletes`],
    ["spared", `${count(totals.coalesced)} coalesced, ${count(totals.superseded)} superseded, ${count(totals.stale)} stale`],
    ["dead-lettered", count(totals.dead_lettered)],
    ["requests", `${count(totals.requests)}, ${count(totals.retries)} retries, ${count(totals.repairs)} repairs`],
    ["workers", awake ? `awake; ${count(leased)} of ${count(partitions)} partitions worked on` : "none is awake"],
    ["seen", workers.map(({name, pool, concurrency, since}) => `${name} (${pool}, ${concurrency}, since ${clock(since)})`).join("; ") || "none in the last minute"],
  ]);
}

const partWords = ([entries, pairs, dead, waited, leased], number) => [
  `partition ${number}: ${count(entries)} entries, ${count(pairs)} pairs pending, ${count(dead)} dead letters`,
  waited === null ? "" : `, oldest ${lasted(waited)}`,
  leased ? ", a worker holds it" : "",
].join("");

let parts = [];
let partShown = null;

// The cells stay and change their looks, so that whoever stands on one with the keyboard stays there.
function showParts(found) {
  parts = found;
  const list = $("parts");
  while (list.children.length > found.length) list.lastChild.remove();
  found.forEach((part, number) => {
    const [entries, pairs, dead, waited, leased] = part;
    const item = list.children[number] ?? list.appendChild(make("li", {}, make("button", {type: "button"})));
    const waits = entries + pairs > 0;
    item.className = [waits && (waited >= OLD_SECONDS ? "old" : "waits"), leased && "leased", dead && "dead"]
      .filter(Boolean).join(" ");
    const button = item.firstChild;
    button.dataset.number = number;
    button.textContent = waits ? short(entries + pairs) : "·";
    button.title = partWords(part, number);
    button.setAttribute("aria-label", button.title);
  });
  if (partShown !== null && found[partShown]) $("part").textContent = partWords(found[partShown], partShown);
}

function showFlow(points) {
  const accepted = rates(points, 1);
  const confirmed = rates(points, 2);
  const spanMs = points.length ? Math.max(SPAN_MIN_MS, points.at(-1)[0] - points[0][0]) : SPAN_MIN_MS;
  const now = (series) => (series.length ? short(series.at(-1)[1]) : "–");
  $("accepted-rate").textContent = now(accepted);
  $("confirmed-rate").textContent = now(confirmed);
  const lines = [{name: "accepted", points: accepted}, {name: "confirmed", points: confirmed}];
  draw($("rates"), lines, `accepted ${now(accepted)}, confirmed ${now(confirmed)} changes a second`, spanMs);
  const waiting = points.map((point) => [point[0], point[3]]);
  draw($("backlog"), [{name: "waits", points: waiting}], `${count(points.at(-1)?.[3] ?? 0)} changes waiting`, spanMs);
}

function say(into, how, text) {
  const element = $(into);
  if (element.textContent !== text) element.textContent = text;
  element.className = `verdict ${how}`;
}

let seenAt = null;

function show(found, points) {
  const {status} = found;
  const [how, headline, advice] = judge(found);
  say("verdict", how, headline);
  $("advice").textContent = advice;
  $("namespace").textContent = found.namespace === "contact-sync" ? "" : found.namespace;
  $("role").textContent = found.role === "reader" ? "looking only" : "";
  $("oldest").textContent = status.oldest_seconds === null ? "–" : lasted(status.oldest_seconds);
  $("oldest-delete").textContent = status.oldest_delete_seconds === null ? "–" : lasted(status.oldest_delete_seconds);
  $("waiting").replaceChildren(
    count(status.waiting_changes),
    make("small", {textContent: `${count(status.backlog_events)} entries, ${count(status.pending_pairs)} pairs`}),
  );
  $("dead").textContent = count(status.dead_letters);
  showMemory(found.memory);
  showGate(status, found.retry_seconds);
  showDone(status);
  showParts(found.parts);
  showFlow(points);
  seenAt = new Date();
}

// Dead letters

let filter = {};
let letters = [];
let role = null;

function letterRow(letter) {
  const box = make("input", {type: "checkbox", value: letter.id, ariaLabel: `letter ${letter.id}`});
  const said = [letter.code, letter.field && `field ${letter.field}`].filter(Boolean).join(", ");
  const summary = make("summary", {},
    make("span", {className: "reason", textContent: letter.reason}), said ? ` (${said})` : "",
    `: ${letter.op ?? "?"} of contact ${letter.contact ?? "?"} by owner ${letter.owner ?? "?"}`,
    letter.outdated ? make("span", {className: "outdated", textContent: " outdated"}) : "",
  );
  const list = make("dl", {className: "facts"});
  const at = (ms) => (ms === null ? "–" : `${ms} (${new Date(ms).toISOString()})`);
  facts(list, [
    ["id", letter.id], ["since", clock(letter.since)], ["at", at(letter.at)], ["source", letter.source ?? "–"],
    ["entry", letter.entry ?? "–"], ["accepted", at(letter.entry_ms)], ["message", letter.message ?? "–"],
    ["outdated", letter.outdated ? "yes: newer knowledge of the pair was confirmed, so it is not redriven" : "no"],
  ]);
  return make("li", {}, box, make("details", {}, summary, list));
}

async function look(skip = 0) {
  const query = new URLSearchParams({...filter, skip});
  const found = await ask(`api/dead-letters?${query}`);
  letters = skip ? [...letters, ...found.letters] : found.letters;
  if (skip) $("letters").append(...found.letters.map(letterRow));
  else $("letters").replaceChildren(...found.letters.map(letterRow));
  $("more").hidden = !found.more;
  $("acts").hidden = role !== "operator" || letters.length === 0;
  $("every").checked = false;
  if (!letters.length) $("letters").replaceChildren(make("li", {className: "none", textContent: Object.keys(filter).length ? "No dead letter matches." : "There are no dead letters."}));
  return found;
}

const picked = () => [...$("letters").querySelectorAll("input:checked")].map((box) => box.value);

function sure(what) {
  $("sure-what").textContent = what;
  $("sure").returnValue = "no";
  $("sure").showModal();
  return new Promise((answered) => {
    $("sure").addEventListener("close", () => answered($("sure").returnValue === "yes"), {once: true});
  });
}

const WHY = {
  outdated: "newer knowledge of the pair was confirmed since",
  forgotten: "it lay too long to rule out newer knowledge: say the change anew",
  malformed: "the entry breaks a rule, and would again",
  gone: "no dead letter any more",
};

function told(action, found) {
  const done = action === "purge" ? `${count(found.purged)} purged` : `${count(found.redriven)} redriven`;
  const why = Map.groupBy ? [...Map.groupBy(found.refused, ({why: each}) => each)] : found.refused.map((each) => [each.why, [each]]);
  const refused = why.map(([each, of]) => `${count(of.length)} not: ${WHY[each] ?? each}`);
  const more = found.more ? ["more match: do it again"] : [];
  const noted = found.noted ? [] : ["Redis took no note of it for the audit trail"];
  return [done, ...refused, ...more, ...noted].join("; ");
}

async function act(action, which) {
  const body = which ? {ids: which} : {all: true, ...filter};
  if (which && !which.length) {
    $("letters-said").textContent = "Pick letters first.";
    return;
  }
  const some = which ? many(which.length, "letter") : "all letters that match the filter";
  if (action === "purge" && !(await sure(`Remove ${some} for good? The changes in them are never delivered.`))) return;
  await doing("letters-said", async () => {
    const found = await ask(`api/dead-letters/${action}`, body);
    await look();
    await showAudit();
    return told(action, found);
  });
}

async function doing(into, work) {
  $(into).textContent = "…";
  try {
    $(into).replaceChildren(...[(await work()) ?? []].flat());
  } catch (error) {
    $(into).textContent = error.message;
    if (error.status === 401) begin();
  }
}

async function showAudit() {
  const {entries} = await ask("api/audit");
  $("audit").replaceChildren(...entries.map((entry) => {
    const of = entry.letters === null ? "" : ` ${many(entry.letters, "letter")}: ${entry.ids.join(" ")}`;
    return make("li", {textContent: `${clock(entry.at)}: ${entry.role} at ${entry.source}: ${entry.action.replace("_", " ")}${of}`});
  }));
  if (!entries.length) $("audit").replaceChildren(make("li", {textContent: "nothing yet"}));
}

// Forms

const values = (form) => Object.fromEntries([...new FormData(form)].filter(([, value]) => value));

$("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  filter = values(event.target);
  doing("letters-said", async () => void (await look()));
});
$("more").addEventListener("click", () => doing("letters-said", async () => void (await look(letters.length))));
$("every").addEventListener("change", (event) => {
  for (const box of $("letters").querySelectorAll("input")) box.checked = event.target.checked;
});
for (const action of ["redrive", "purge"]) {
  $(action).addEventListener("click", () => act(action, picked()));
  $(`${action}-all`).addEventListener("click", () => act(action, null));
}
$("explain").addEventListener("submit", (event) => {
  event.preventDefault();
  doing("explained", async () => {
    const found = await ask(`api/explain?${new URLSearchParams(values(event.target))}`);
    const items = found.lines.map((line) => make("li", {textContent: line, className: line.startsWith("next:") ? "next" : ""}));
    return [make("p", {textContent: `Partition ${found.partition}`}), make("ul", {}, ...items)];
  });
});
$("parts").addEventListener("click", (event) => {
  if (!event.target.dataset.number) return;
  partShown = Number(event.target.dataset.number);
  $("part").textContent = partWords(parts[partShown], partShown);
});
$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  doing("sign-in-said", async () => {
    await ask("api/sign-in", {token: $("token").value});
    $("token").value = "";
    await begin();
  });
});
$("sign-out").addEventListener("click", async () => {
  try {
    await ask("api/sign-out", {});
  } finally {
    location.reload();
  }
});
$("reasons").append(...REASONS.map((value) => make("option", {value})));

// The loop

function trouble(error) {
  const seen = seenAt ? ` Shown is what was seen at ${seenAt.toLocaleTimeString()}.` : "";
  const text = error ? `${error.message}.${seen} This page goes on by itself.` : "";
  if ($("trouble").textContent !== text) $("trouble").textContent = text;
  $("trouble").hidden = !error;
}

let timer = null;
let fresh = true;

async function tick() {
  clearTimeout(timer);
  try {
    const [found, {points}] = await Promise.all([ask("api/status"), ask("api/history")]);
    $("main").hidden = false;
    show(found, points);
    trouble(null);
    if (fresh) {
      await Promise.all([look(), showAudit()]);
      fresh = false;
    }
  } catch (error) {
    if (error.status === 401) {
      begin();
      return;
    }
    trouble(error instanceof Refused ? error : new Error("This page failed to show what it got"));
    if (!(error instanceof Refused)) console.error(error);
  }
  timer = setTimeout(tick, document.hidden ? 5 * EVERY_MS : EVERY_MS);
}

async function begin() {
  clearTimeout(timer);
  let session;
  try {
    session = await ask("api/session");
  } catch (error) {
    trouble(error);
    timer = setTimeout(begin, EVERY_MS);
    return;
  }
  role = session.role;
  trouble(null);
  fresh = true;
  $("sign-in").hidden = role !== null;
  $("sign-out").hidden = !session.sign_in || role === null;
  if (role === null) {
    $("main").hidden = true;
    $("token").focus();
  } else await tick();
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && role !== null) tick();
});
begin();

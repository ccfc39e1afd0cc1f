// The page: reads the state every two seconds, shows it, and asks before it removes anything. Everything that comes
// from changes or the endpoint is shown as plain text.

import {draw, rates, short} from "./chart.js";

const EVERY_MS = 2000;
const SPAN_MIN_MS = 60000;
const OLD_SECONDS = 60;
const REASONS = ["refused", "buried", "missing_owner", "missing_contact", "missing_op", "missing_at", "bad_owner",
  "bad_contact", "bad_op", "bad_at", "at_out_of_range", "repeated_owner", "repeated_contact", "repeated_op", "repeated_at", "bad_data",
  "unmapped", "wrong_partition", "id_too_long"];

// Obstacles for which the verdict has words of its own
const SAID_ELSEWHERE = ["paused", "endpoint_held", "endpoint_backing_off", "no_worker"];

const $ = (id) => document.getElementById(id);

function make(name, properties = {}, ...children) {
  const element = Object.assign(document.createElement(name), properties);
  element.append(...children);
  return element;
}

// Requests

class Refused extends Error {
  constructor(status, error, message) {
    super(message);
    this.status = status;
    this.error = error;
  }
}

async function request(path, body) {
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
  let answer;
  try {
    answer = await response.json();
  } catch {
    throw new Refused(response.status, "unreadable", `contact-sync serve answered HTTP ${response.status} without JSON`);
  }
  if (!response.ok) throw new Refused(response.status, answer.error, answer.message);
  return answer;
}

// Words

const count = (number) => number.toLocaleString("en");
const many = (number, what) => `${count(number)} ${number === 1 ? what : `${what}s`.replace(/([^aeiou])ys$/, "$1ies")}`;

function duration(seconds) {
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  const rest = Math.round(seconds);
  if (rest < 60) return `${rest} s`;
  if (rest < 3600) return `${Math.floor(rest / 60)} min ${rest % 60} s`;
  if (rest < 86400) return `${Math.floor(rest / 3600)} h ${Math.floor((rest % 3600) / 60)} min`;
  return `${Math.floor(rest / 86400)} d ${Math.floor((rest % 86400) / 3600)} h`;
}

const bytes = (number) => `${short(number / 1048576)} MiB`;
const clock = (iso) => new Date(iso).toLocaleString();

// The overall state: [severity, headline, advice]
function verdictOf({status, lost_words: lost, retry_seconds: retry}) {
  const {endpoint, oldest_seconds: oldest} = status;
  const next = retry > 0 ? `Next try in ${duration(retry)}` : "Next try now";
  const waits = oldest === null ? "nothing is waiting" : `the oldest change has waited for ${duration(oldest)}`;
  if (lost) return ["bad", `Redis lost changes: ${lost}`, "Send those changes again, then run: contact-sync status --acknowledge"];
  if (endpoint.paused_since) return ["warn", `An operator paused deliveries; ${waits}`, "To resume them, run: contact-sync resume"];
  if (endpoint.state === "held") return ["bad", `The endpoint is held (${endpoint.reason}); ${waits}`, `${next}. For what to do, see docs/how-to/endpoint.md.`];
  if (endpoint.state === "backing_off") return ["warn", `The endpoint is not available; ${waits}`, `${next}. Nothing is lost: changes wait in Redis.`];
  const blocked = status.obstacles.find(({name}) => !SAID_ELSEWHERE.includes(name));
  if (blocked) return ["warn", blocked.message, `To do: ${blocked.todo}`];
  if (oldest !== null && !status.worker_awake) return ["bad", `No worker is running; ${waits}`, "Start one: contact-sync worker"];
  if (oldest !== null && oldest >= OLD_SECONDS) return ["warn", `Contacts are late: ${waits}`, "The endpoint is ok: check the workers. contact-sync health shows whether they make progress."];
  if (oldest === null && status.parked) return ["good", `All changes are delivered except ${many(status.parked, "parked pair")}`, "The endpoint refuses these; they are tried again by themselves. For what to do, see docs/how-to/endpoint.md."];
  if (oldest === null) return ["good", "All changes are delivered", status.worker_awake ? "" : "No worker is running."];
  return ["good", `Changes are being delivered: ${waits}`, ""];
}

// Showing

function facts(into, rows) {
  into.replaceChildren(...rows.flatMap(([name, value]) => [
    make("dt", {textContent: name}), make("dd", {textContent: value}),
  ]));
}

function showMemory({used_bytes: used, max_bytes: most, full_seconds: full}) {
  const bound = most ? `of ${bytes(most)}` : "no limit";
  const left = full === null ? "" : `; full in ${duration(full)} at this rate`;
  $("memory").replaceChildren(bytes(used), make("small", {textContent: bound + left}));
}

function showLanes({lanes}) {
  facts($("lanes"), Object.entries(lanes).map(([lane, {backlog_events: entries, pending_pairs: pairs, oldest_seconds: waited}]) => [
    lane,
    waited === null ? "nothing is waiting" : `${many(entries, "entry")}, ${many(pairs, "pair")} pending, oldest ${duration(waited)}`,
  ]));
}

function showGate({endpoint}, retry) {
  const rows = [["state", endpoint.state.replace("_", " ")]];
  if (endpoint.reason) rows.push(["reason", endpoint.reason]);
  if (endpoint.paused_since) rows.push(["paused since", clock(endpoint.paused_since)]);
  else if (endpoint.state !== "ok") rows.push(["next try", retry > 0 ? `in ${duration(retry)}` : "now"]);
  rows.push(["rate", endpoint.rate === null ? "no limit" : `at most ${endpoint.rate} requests a second`]);
  rows.push(["under way", endpoint.in_flight_limit === null ? count(endpoint.in_flight) : `${count(endpoint.in_flight)} of at most ${count(endpoint.in_flight_limit)}`]);
  if (endpoint.attempts) rows.push(["attempts failed", count(endpoint.attempts)]);
  rows.push(["last error", endpoint.last_error ?? "none"]);
  facts($("gate"), rows);
}

function showDone({totals, worker_awake: awake, workers, partitions, partitions_in_flight: leased}) {
  facts($("done"), [
    ["accepted", count(totals.events)],
    ["confirmed", `${count(totals.records_confirmed)}: ${many(totals.upserts_confirmed, "upsert")}, ${many(totals.deletes_confirmed, "delete")}`],
    ["merged or dropped", `${count(totals.coalesced)} coalesced, ${count(totals.superseded)} superseded, ${count(totals.stale)} stale`],
    ["dead-lettered", count(totals.dead_lettered)],
    ["requests", `${count(totals.requests)}, ${many(totals.retries, "retry")}, ${many(totals.repairs, "repair")}`],
    ["workers", awake ? `running; ${count(leased)} of ${many(partitions, "partition")} in progress` : "none is running"],
    ["seen in the last minute", workers.map(({name, pool, concurrency, since}) => `${name} (${pool}, ${concurrency}, since ${clock(since)})`).join("; ") || "none"],
  ]);
}

const partWords = ([entries, pairs, dead, waited, leased], number) => [
  `partition ${number}: ${many(entries, "entry")}, ${many(pairs, "pair")} pending, ${many(dead, "dead letter")}`,
  waited === null ? "" : `, oldest ${duration(waited)}`,
  leased ? ", held by a worker" : "",
].join("");

let parts = [];
let partShown = null;

// The cells stay and only their content changes, so that the keyboard focus stays where it is.
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
  draw($("rates"), lines, `accepted ${now(accepted)}, confirmed ${now(confirmed)} changes per second`, spanMs);
  const waiting = points.map((point) => [point[0], point[3]]);
  draw($("backlog"), [{name: "waits", points: waiting}], `${many(points.at(-1)?.[3] ?? 0, "change")} waiting`, spanMs);
}

function say(into, how, text) {
  const element = $(into);
  if (element.textContent !== text) element.textContent = text;
  element.className = `verdict ${how}`;
}

let seenAt = null;

function show(found, points) {
  const {status} = found;
  const [how, headline, advice] = verdictOf(found);
  say("verdict", how, headline);
  $("advice").textContent = advice;
  $("namespace").textContent = found.namespace === "contact-sync" ? "" : found.namespace;
  $("role").textContent = found.role === "reader" ? "read-only" : "";
  $("oldest").textContent = status.oldest_seconds === null ? "–" : duration(status.oldest_seconds);
  $("oldest-delete").textContent = status.oldest_delete_seconds === null ? "–" : duration(status.oldest_delete_seconds);
  $("waiting").replaceChildren(
    count(status.waiting_changes),
    make("small", {textContent: `${many(status.backlog_events, "entry")}, ${many(status.pending_pairs, "pair")}`}),
  );
  $("dead").textContent = count(status.dead_letters);
  showParked(status).catch(() => {});
  showMemory(found.memory);
  showLanes(status);
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
  const details = [letter.code, letter.field && `field ${letter.field}`].filter(Boolean).join(", ");
  const summary = make("summary", {},
    make("span", {className: "reason", textContent: letter.reason}), details ? ` (${details})` : "",
    `: ${letter.op ?? "?"} of contact ${letter.contact ?? "?"} by owner ${letter.owner ?? "?"}`,
    letter.outdated ? make("span", {className: "outdated", textContent: " outdated"}) : "",
  );
  const list = make("dl", {className: "facts"});
  const at = (ms) => (ms === null ? "–" : `${ms} (${new Date(ms).toISOString()})`);
  facts(list, [
    ["id", letter.id], ["since", clock(letter.since)], ["at", at(letter.at)], ["source", letter.source ?? "–"],
    ["entry", letter.entry ?? "–"], ["accepted", at(letter.entry_ms)], ["message", letter.message ?? "–"],
    ["outdated", letter.outdated ? "yes: a newer change of the pair was confirmed, so it cannot be redriven" : "no"],
  ]);
  return make("li", {}, box, make("details", {}, summary, list));
}

async function loadLetters(skip = 0) {
  const query = new URLSearchParams({...filter, skip});
  const found = await request(`api/dead-letters?${query}`);
  letters = skip ? [...letters, ...found.letters] : found.letters;
  if (skip) $("letters").append(...found.letters.map(letterRow));
  else $("letters").replaceChildren(...found.letters.map(letterRow));
  $("more").hidden = !found.more;
  $("acts").hidden = role !== "operator" || letters.length === 0;
  $("every").checked = false;
  if (!letters.length) $("letters").replaceChildren(make("li", {className: "none", textContent: Object.keys(filter).length ? "No dead letters match." : "There are no dead letters."}));
  return found;
}

// Parked pairs

let parkedShown = 0;

async function loadParked(skip = 0) {
  const {pairs, more} = await request(`api/parked?skip=${skip}`);
  const rows = pairs.map((pair) => make("li", {textContent:
    `${pair.code ?? "no code"}${pair.field ? `, field ${pair.field}` : ""}: ${pair.op} of contact ${pair.contact} by owner ${pair.owner}; `
    + `refused ${pair.tries === 1 ? "once" : `${count(pair.tries)} times`} since ${clock(pair.since)}, next try ${clock(pair.next)}`}));
  if (skip) $("parked-list").append(...rows);
  else $("parked-list").replaceChildren(...rows);
  parkedShown = skip + pairs.length;
  $("parked-more").hidden = !more;
}

async function showParked(status) {
  const before = $("parked").textContent;
  $("parked").textContent = count(status.parked);
  $("parked-pairs").hidden = !status.parked;
  if (before !== $("parked").textContent) await loadParked();
}

const selected = () => [...$("letters").querySelectorAll("input:checked")].map((box) => box.value);

function confirmed(question) {
  $("sure-what").textContent = question;
  $("sure").returnValue = "no";
  $("sure").showModal();
  return new Promise((answered) => {
    $("sure").addEventListener("close", () => answered($("sure").returnValue === "yes"), {once: true});
  });
}

const WHY = {
  outdated: "a newer change of the pair was confirmed since",
  forgotten: "too old to rule out a newer confirmed change: send the change again",
  malformed: "the entry is invalid and would be refused again",
  gone: "no longer a dead letter",
};

function resultText(action, found) {
  const done = action === "purge" ? `${count(found.purged)} purged` : `${count(found.redriven)} redriven`;
  const why = Map.groupBy ? [...Map.groupBy(found.refused, ({why: each}) => each)] : found.refused.map((each) => [each.why, [each]]);
  const refused = why.map(([each, of]) => `${count(of.length)} refused: ${WHY[each] ?? each}`);
  const more = found.more ? ["more match: repeat the action"] : [];
  const noted = found.noted ? [] : ["Redis could not record this in the audit trail"];
  return [done, ...refused, ...more, ...noted].join("; ");
}

async function act(action, which) {
  const body = which ? {ids: which} : {all: true, ...filter};
  if (which && !which.length) {
    $("letters-said").textContent = "Select letters first.";
    return;
  }
  const some = which ? many(which.length, "letter") : "all letters that match the filter";
  if (action === "purge" && !(await confirmed(`Remove ${some} for good? Their changes will never be delivered.`))) return;
  await doing("letters-said", async () => {
    const found = await request(`api/dead-letters/${action}`, body);
    await loadLetters();
    await showAudit();
    return resultText(action, found);
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
  const {entries} = await request("api/audit");
  $("audit").replaceChildren(...entries.map((entry) => {
    const of = entry.letters === null ? "" : ` ${many(entry.letters, "letter")}: ${entry.ids.join(" ")}`;
    return make("li", {textContent: `${clock(entry.at)}: ${entry.role} at ${entry.source}: ${entry.action.replace("_", " ")}${of}`});
  }));
  if (!entries.length) $("audit").replaceChildren(make("li", {textContent: "No entries yet."}));
}

// Forms

const values = (form) => Object.fromEntries([...new FormData(form)].filter(([, value]) => value));

$("filter").addEventListener("submit", (event) => {
  event.preventDefault();
  filter = values(event.target);
  doing("letters-said", async () => void (await loadLetters()));
});
$("more").addEventListener("click", () => doing("letters-said", async () => void (await loadLetters(letters.length))));
$("every").addEventListener("change", (event) => {
  for (const box of $("letters").querySelectorAll("input")) box.checked = event.target.checked;
});
$("parked-more").addEventListener("click", () => loadParked(parkedShown));
for (const action of ["redrive", "purge"]) {
  $(action).addEventListener("click", () => act(action, selected()));
  $(`${action}-all`).addEventListener("click", () => act(action, null));
}
$("explain").addEventListener("submit", (event) => {
  event.preventDefault();
  doing("explained", async () => {
    const found = await request(`api/explain?${new URLSearchParams(values(event.target))}`);
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
    await request("api/sign-in", {token: $("token").value});
    $("token").value = "";
    await begin();
  });
});
$("sign-out").addEventListener("click", async () => {
  try {
    await request("api/sign-out", {});
  } finally {
    location.reload();
  }
});
$("reasons").append(...REASONS.map((value) => make("option", {value})));

// The loop

function trouble(error) {
  const seen = seenAt ? ` This page shows the state at ${seenAt.toLocaleTimeString()}.` : "";
  const text = error ? `${error.message}.${seen} It keeps trying.` : "";
  if ($("trouble").textContent !== text) $("trouble").textContent = text;
  $("trouble").hidden = !error;
}

let timer = null;
let fresh = true;

async function tick() {
  clearTimeout(timer);
  try {
    const [found, {points}] = await Promise.all([request("api/status"), request("api/history")]);
    $("main").hidden = false;
    show(found, points);
    trouble(null);
    if (fresh) {
      await Promise.all([loadLetters(), showAudit()]);
      fresh = false;
    }
  } catch (error) {
    if (error.status === 401) {
      begin();
      return;
    }
    trouble(error instanceof Refused ? error : new Error("This page could not show the answer"));
    if (!(error instanceof Refused)) console.error(error);
  }
  timer = setTimeout(tick, document.hidden ? 5 * EVERY_MS : EVERY_MS);
}

async function begin() {
  clearTimeout(timer);
  let session;
  try {
    session = await request("api/session");
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

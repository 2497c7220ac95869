// Reads the status and the dead letters every two seconds and shows them. Whatever comes is shown as text, never as markup.
"use strict";

const EVERY_MS = 2000;
const LETTERS_MAX = 100;

const at = (id) => document.getElementById(id);
const number = (value) => ({ text: value.toLocaleString("en"), kind: "number" });

function age(seconds) {
  if (seconds < 1) return "";
  if (seconds < 120) return `${Math.round(seconds)} s`;
  if (seconds < 7200) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

function bytes(count) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return `${count.toFixed(unit === 0 ? 0 : 1)} ${units[unit]}`;
}

// Each cell is a text, or { text, kind } where kind is a class.
function fill(id, rows) {
  const made = rows.map((cells) => {
    const row = document.createElement("tr");
    for (const cell of cells) {
      const made = row.insertCell();
      made.textContent = cell.text ?? cell;
      made.className = cell.kind ?? "";
    }
    return row;
  });
  at(id).tBodies[0].replaceChildren(...made);
}

function say(id, text, kind) {
  at(id).textContent = text;
  at(id).className = kind ?? "";
}

function showStatus(status) {
  say("ready", status.ready ? "ready" : "not ready", status.ready ? "good" : "bad");
  say("about", `version ${status.version}, up ${age(status.uptime_seconds) || "0 s"}`);
  fill("sinks", Object.entries(status.sinks).map(([name, sink]) => [
    name,
    sink.type,
    { text: sink.state, kind: sink.state === "running" ? "good" : "bad" },
    number(sink.pending),
    { text: age(sink.oldest_pending_seconds), kind: "number" },
    number(sink.delivered),
    number(sink.retries),
    number(sink.dead_letters),
    sink.last_error ? `${sink.last_error.code}: ${sink.last_error.reason}` : "",
  ]));
  fill("sources", Object.entries(status.sources).map(([name, source]) =>
    [name, number(source.accepted), number(source.duplicates), number(source.refused)]));
  const { backend, bytes: used, size_max: limit, entries, trouble } = status.journal;
  const degraded = status.dedup.degraded ? "; dedup is degraded" : "";
  say("journal", `${backend}: ${entries.toLocaleString("en")} entries, ${bytes(used)} of ${bytes(limit)}${degraded}` +
    (trouble ? `; ${trouble}` : ""), trouble || degraded ? "bad" : "");
}

function showLetters(list) {
  fill("letters", list.items.map((letter) => [
    letter.id, letter.sink, letter.action, letter.code, letter.reason, number(letter.attempts), letter.last_attempt_at,
  ]));
}

async function read(path) {
  const answer = await fetch(path, { headers: { accept: "application/json" } });
  if (!answer.ok) throw new Error(`${path} answers ${answer.status}`);
  return answer.json();
}

async function look() {
  try {
    showStatus(await read("api/v1/status"));
    showLetters(await read(`api/v1/dead-letters?limit=${LETTERS_MAX}`));
  } catch (error) {
    say("ready", `the gateway does not answer: ${error.message}`, "bad");
  }
  setTimeout(look, EVERY_MS);
}

look();

"use strict";
// Search, filters and pages for the tables of the report. Rows lie in the page as chunks of base64 of zlib of JSON;
// they become text nodes only, never markup. Without this script the first rows of each table are there all the same.

const ROWS_PER_PAGE = 10, ROWS_PER_CHUNK = 250, LONG = 320;
const number = new Intl.NumberFormat("en");
const form = document.getElementById("task").content.firstElementChild;

async function unpacked(script) {
  const text = atob(script.textContent);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

/** Chunks of rows, each unpacked when it is first wanted. */
class Chunks {
  constructor(scripts) {
    this.scripts = [...scripts];
    this.found = [];
  }
  chunk(index) {
    return (this.found[index] ??= unpacked(this.scripts[index]).then((rows) => {
      this.scripts[index].remove();
      return rows;
    }));
  }
  async row(index) {
    return (await this.chunk(Math.floor(index / ROWS_PER_CHUNK)))[index % ROWS_PER_CHUNK];
  }
}

function labelled(list, parts) {
  for (const [label, text] of parts) {
    const part = document.createElement("div"), term = document.createElement("dt");
    const shown = document.createElement("dd");
    term.textContent = label;
    shown.textContent = text;
    shown.className = "text";
    shown.dir = "auto";
    part.append(term, shown);
    list.append(part);
  }
}

/** Of `most` rows spread evenly over `n`, the number of the one at a place; -1 where there is none. */
function spreadIndex(place, n, most) {
  if (n <= most) return place;
  if (most < 2) return -1;
  const index = Math.ceil((place * (most - 1)) / (n - 1));
  return Math.floor((index * (n - 1)) / (most - 1)) === place ? index : -1;
}

class Table {
  constructor(root) {
    const name = root.dataset.table;
    this.n = Number(root.dataset.n);
    this.nSteps = Number(root.dataset.steps);
    this.rows = new Chunks(document.querySelectorAll(`[data-rows="${name}"]`));
    this.steps = new Chunks(document.querySelectorAll(`[data-steps-of="${name}"]`));
    this.search = root.querySelector("[type=search]");
    this.filters = [...root.querySelectorAll("[data-filter]")];
    this.order = root.querySelector("[data-order]");
    this.status = root.querySelector(".found");
    this.list = root.querySelector(".tasks");
    this.pages = root.querySelector(".pages");
    this.places = null; // of the rows that match, in order; null for all as they are
    this.page = 0;
    this.turn = 0; // counts what was wanted, so that what is late can tell
    this.folded = [];
    let waiting = 0;
    this.search.addEventListener("input", () => {
      clearTimeout(waiting);
      waiting = setTimeout(() => this.select(), 120);
    });
    for (const control of [...this.filters, this.order]) control.addEventListener("change", () => this.select());
    this.pages.addEventListener("click", (event) => this.go(event.target.dataset.go));
    root.querySelector(".controls").hidden = false;
    this.pages.hidden = false;
    for (const task of this.list.children) shorten(task);
    this.describe();
  }

  get length() {
    return this.places ? this.places.length : this.n;
  }

  get isUntouched() {
    return this.page === 0 && !this.places && !this.search.value;
  }

  /** Find the rows that match, and show the first of them. */
  async select() {
    const turn = ++this.turn;
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = this.filters.map((filter) => [filter.dataset.filter, filter.value]).filter(([, value]) => value);
    const order = this.order.value;
    this.page = 0;
    this.places = null;
    if (words.length || wanted.length || order) {
      const matches = [];
      for (let chunk = 0, place = 0; place < this.n; chunk++) {
        const rows = await this.rows.chunk(chunk);
        if (turn !== this.turn) return; // something else is wanted by now
        const texts = words.length ? this.texts(chunk, rows) : [];
        for (let i = 0; i < rows.length; i++, place++) {
          if (words.every((word) => texts[i].includes(word)) && wanted.every(([name, value]) => rows[i][name] === value))
            matches.push([place, rows[i].similarity]);
        }
      }
      if (order) matches.sort((a, b) => (order === "down" ? b[1] - a[1] : a[1] - b[1]));
      this.places = matches.map(([place]) => place);
    }
    await this.show();
  }

  texts(chunk, rows) {
    return (this.folded[chunk] ??= rows.map((row) =>
      [row.title, ...row.parts.map(([, text]) => text), ...row.made.map(([, text]) => text)].join("\n").toLowerCase(),
    ));
  }

  async go(where) {
    const last = Math.max(0, Math.ceil(this.length / ROWS_PER_PAGE) - 1);
    const page = { first: 0, previous: this.page - 1, next: this.page + 1, last }[where];
    if (page === undefined || page < 0 || page > last || page === this.page) return;
    this.page = page;
    await this.show();
    if (this.list.getBoundingClientRect().top < 0) this.status.scrollIntoView();
  }

  async show() {
    const turn = ++this.turn, begin = this.page * ROWS_PER_PAGE;
    const end = Math.min(begin + ROWS_PER_PAGE, this.length);
    const tasks = [];
    for (let i = begin; i < end; i++) {
      const place = this.places ? this.places[i] : i;
      tasks.push(this.task(await this.rows.row(place), place));
    }
    if (turn !== this.turn) return;
    this.list.replaceChildren(...tasks);
    this.list.start = begin + 1;
    tasks.forEach(shorten);
    this.describe();
  }

  task(row, place) {
    const task = form.cloneNode(true);
    task.querySelector(".instruction").textContent = row.title;
    labelled(task.querySelector(".parts"), row.parts);
    const rule = task.querySelector(".badge");
    if (row.rule) rule.textContent = row.rule;
    else rule.remove();
    const lineage = task.querySelector(".lineage"), made = lineage.querySelector(".parts");
    labelled(made, row.made);
    lineage.addEventListener("toggle", async () => labelled(made, await this.stepsOf(place)), { once: true });
    return task;
  }

  async stepsOf(place) {
    const index = spreadIndex(place, this.n, this.nSteps);
    const steps = index < 0 || !this.nSteps ? null : await this.steps.row(index);
    return steps ?? [["Asked", "Not in this page, which would be too large; it is in the run's ledger.sqlite."]];
  }

  describe() {
    const last = Math.max(1, Math.ceil(this.length / ROWS_PER_PAGE)), begin = this.page * ROWS_PER_PAGE;
    const rows = `${number.format(Math.min(begin + 1, this.length))}–${number.format(begin + this.list.children.length)}`;
    const found = this.places ? `${number.format(this.length)} of ${number.format(this.n)} match` : `${number.format(this.n)} rows`;
    this.status.textContent = this.length ? `${found}; ${rows} shown.` : "Nothing matches.";
    this.pages.querySelector(".place").textContent = `${number.format(this.page + 1)} / ${number.format(last)}`;
    for (const button of this.pages.querySelectorAll("button")) {
      const isBack = button.dataset.go === "first" || button.dataset.go === "previous";
      button.setAttribute("aria-disabled", String(isBack ? this.page === 0 : this.page >= last - 1));
    }
  }
}

/** Fold long texts of a task; a button unfolds them. */
function shorten(task) {
  for (const text of task.querySelectorAll(".text")) {
    if (text.closest(".lineage") || text.textContent.length < LONG) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "more";
    button.textContent = "Show all";
    button.setAttribute("aria-expanded", "false");
    text.classList.add("folded");
    button.addEventListener("click", () => {
      const isFolded = text.classList.toggle("folded");
      button.textContent = isFolded ? "Show all" : "Show less";
      button.setAttribute("aria-expanded", String(!isFolded));
    });
    text.after(button);
  }
}

const tables = [...document.querySelectorAll("[data-table]")].map((root) => new Table(root));

// While the run goes on the file is written anew: load it, unless somebody is at work in the page.
const reload = document.querySelector(".reload");
if (reload) {
  reload.hidden = false;
  setInterval(() => {
    const isIdle = tables.every((table) => table.isUntouched) && !document.querySelector("details.lineage[open]");
    if (reload.firstElementChild.checked && isIdle) location.reload();
  }, Number(document.body.dataset.reloadS) * 1000);
}

// What is left to unpack is unpacked while nothing else happens, so that searching finds it ready.
const idle = window.requestIdleCallback ?? ((work) => setTimeout(work, 50));
for (const table of tables) {
  const next = (chunk) => {
    if (chunk < table.rows.scripts.length) idle(() => table.rows.chunk(chunk).then(() => next(chunk + 1)));
  };
  next(0);
}

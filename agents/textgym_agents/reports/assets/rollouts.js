// The rollout browser: filters over columns, a list of which only what is seen exists, one rollout in detail.
const ROW = 62, SPARE = 6;

class Browser {
  constructor() {
    this.list = byId("list");
    this.spacer = byId("spacer");
    this.form = byId("filters");
    this.order = [];
    this.chosen = null;
    this.rows = new Map();
    this.list.addEventListener("scroll", () => this.render(), { passive: true });
    this.list.addEventListener("keydown", (event) => this.press(event));
    this.list.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) this.choose(Number(row.dataset.at));
    });
    new ResizeObserver(() => this.render()).observe(this.list);
    this.form.addEventListener("input", () => this.later());
    this.form.addEventListener("submit", (event) => event.preventDefault());
    this.form.addEventListener("reset", () => setTimeout(() => this.filter()));
    document.addEventListener("keydown", (event) => this.shortcut(event));
  }

  show(report) {
    const { columns, prompts, count, found, withTokens } = report.rollouts;
    this.report = report;
    this.columns = columns;
    this.prompts = prompts;
    this.count = count;
    this.haystacks = null;
    byId("browser").hidden = !count;
    byId("rollouts-note").textContent = !count ? "This run keeps no rollouts." : [
      found > count ? `${INTEGER.format(count)} of ${INTEGER.format(found)} kept rollouts are here, evenly spread.` : "",
      withTokens ? (withTokens < count ? `${INTEGER.format(withTokens)} have figures of single tokens.` : "") : "Figures of single tokens are not in this run."].join(" ").trim();
    if (!count) return;
    this.fillChoices();
    this.filter();
  }

  fillChoices() {
    const { columns } = this, single = this.report.runs.length === 1;
    const names = { iteration: "training", evaluation: "held out, greedy" };
    choices("f-phase", columns.phase, (phase) => names[phase] || phase);
    choices("f-status", columns.status);
    byId("l-label").hidden = choices("f-label", columns.label) < 2;
    byId("l-task").hidden = choices("f-task", columns.task) < 2;
    byId("l-run").hidden = single;
    choices("f-run", columns.run, (run) => this.report.runs[run].name);
    const parts = [...new Set(columns.parts.flatMap(Object.keys))].sort();
    keepChoice("f-part", [["", "in all"], ...parts.map((part) => [part, visible(part)])]);
  }

  later() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.filter(), 60);
  }

  tests() {
    const { columns } = this, tests = [], value = (id) => byId(id).value;
    for (const name of ["run", "phase", "task", "status", "label"]) {
      const wanted = value(`f-${name}`);
      if (wanted) tests.push((i) => String(columns[name][i]) === wanted.slice(1));
    }
    const success = value("f-success");
    if (success) tests.push((i) => (success === "-" ? columns.success[i] === null : columns.success[i] === Number(success)));
    const part = value("f-part");
    const reward = part ? (i) => columns.parts[i][part] ?? null : (i) => columns.reward[i];
    if (part) tests.push((i) => part in columns.parts[i]);
    tests.push(...range("reward", reward), ...range("length", (i) => columns.length[i]), ...range("iteration", (i) => columns.iteration[i]));
    const words = value("f-text").toLowerCase().split(/\s+/).filter(Boolean);
    if (words.length) {
      this.haystacks = this.haystacks || this.makeHaystacks();
      tests.push((i) => words.every((word) => this.haystacks[i].includes(word)));
    }
    return tests;
  }

  makeHaystacks() {
    const c = this.columns;
    return c.completion.map((completion, i) =>
      [this.prompts[c.prompt[i]], completion, c.target[i], c.extracted[i], c.reason[i], c.error[i], c.label[i], c.id[i]].join("\n").toLowerCase());
  }

  filter() {
    const tests = this.tests(), kept = [];
    for (let i = 0; i < this.count; i++) if (tests.every((test) => test(i))) kept.push(i);
    this.order = this.sort(kept);
    byId("count").textContent = kept.length === this.count ? `${INTEGER.format(this.count)} rollouts` : `${INTEGER.format(kept.length)} of ${INTEGER.format(this.count)} rollouts`;
    this.spacer.style.height = `${this.order.length * ROW}px`;
    this.rows.forEach((row) => row.remove());
    this.rows.clear();
    this.list.scrollTop = 0;
    this.chosen = null;
    if (this.order.length) this.choose(0);
    else this.render(), empty(byId("detail"), make("p", { class: "empty" }, "No rollout is like this. ", "Clear some of the filters."));
  }

  sort(kept) {
    const { reward, length } = this.columns;
    const by = (key, sign) => kept.sort((a, b) => (key[a] === null) - (key[b] === null) || sign * (key[a] - key[b]) || a - b);
    const orders = { old: () => kept, new: () => kept.reverse(), low: () => by(reward, 1), high: () => by(reward, -1), long: () => by(length, -1), short: () => by(length, 1) };
    return orders[byId("f-order").value]();
  }

  render() {
    const { scrollTop, clientHeight } = this.list;
    const first = Math.max(0, Math.floor(scrollTop / ROW) - SPARE);
    const last = Math.min(this.order.length, Math.ceil((scrollTop + clientHeight) / ROW) + SPARE);
    for (const [at, row] of this.rows) if (at < first || at >= last) { row.remove(); this.rows.delete(at); }
    for (let at = first; at < last; at++) {
      if (this.rows.has(at)) continue;
      const row = this.row(at);
      this.rows.set(at, row);
      this.spacer.append(row);
    }
  }

  row(at) {
    const i = this.order[at], c = this.columns;
    return make("div", { class: "row", role: "option", id: `row-${at}`, "data-at": at, "aria-selected": String(at === this.chosen), "aria-posinset": at + 1, "aria-setsize": this.order.length, style: { top: `${at * ROW}px` } },
      make("span", { class: "p" }, oneLine(tail(this.prompts[c.prompt[i]])) || "(no prompt)"),
      make("span", { class: c.success[i] === null ? "r" : c.success[i] ? "r good" : "r bad" }, c.reward[i] === null ? visible(c.status[i]) : figure(c.reward[i])),
      make("span", { class: "c" }, oneLine(c.completion[i]) || "(empty)"),
      make("span", { class: "i" }, `${c.phase[i] === "evaluation" ? "held out " : ""}${c.iteration[i]}`));
  }

  choose(at) {
    if (at < 0 || at >= this.order.length) return;
    this.chosen = at;
    const top = at * ROW, { scrollTop, clientHeight } = this.list;
    if (top < scrollTop) this.list.scrollTop = top;
    else if (top + ROW > scrollTop + clientHeight) this.list.scrollTop = top + ROW - clientHeight;
    this.render();
    this.rows.forEach((row, place) => row.setAttribute("aria-selected", String(place === at)));
    this.list.setAttribute("aria-activedescendant", `row-${at}`);
    const detail = byId("detail");
    detail.scrollTop = 0;
    empty(detail, rolloutView(this, this.order[at]));
  }

  press(event) {
    const at = this.chosen ?? -1, page = Math.max(1, Math.floor(this.list.clientHeight / ROW) - 1), last = this.order.length - 1;
    const moves = { ArrowDown: at + 1, ArrowUp: at - 1, PageDown: at + page, PageUp: at - page, Home: 0, End: last };
    if (event.key === "Enter") byId("detail").focus();
    else if (event.key in moves) this.choose(Math.min(last, Math.max(0, moves[event.key])));
    else return;
    event.preventDefault();
  }

  shortcut(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.closest("input, select, textarea");
    if (event.key === "/" && !typing && this.count) {
      event.preventDefault();
      byId("f-text").focus();
    } else if (event.key === "Escape" && (event.target.closest("#detail") || event.target.id === "f-text")) {
      this.list.focus();
    }
  }
}

// A value of a choice begins with =, so that the empty text is a value too.
function choices(id, column, title = (value) => value) {
  const counts = new Map();
  column.forEach((value) => counts.set(value, (counts.get(value) || 0) + 1));
  const found = [...counts].map(([value, count]) => [`=${value}`, `${visible(String(title(value))) || "none"} (${INTEGER.format(count)})`]);
  keepChoice(id, [["", "any"], ...found]);
  return found.length;
}

function keepChoice(id, options) {
  const select = byId(id), before = select.value;
  empty(select, options.map(([value, title]) => make("option", { value }, title)));
  select.value = options.some(([value]) => value === before) ? before : "";
}

function range(name, read) {
  const bound = (end) => byId(`f-${name}-${end}`).valueAsNumber;
  const low = bound("min"), high = bound("max"), tests = [];
  if (!Number.isNaN(low)) tests.push((i) => read(i) !== null && read(i) >= low);
  if (!Number.isNaN(high)) tests.push((i) => read(i) !== null && read(i) <= high);
  return tests;
}

// The end of a prompt tells more than its beginning, which a template may share with all others.
const tail = (text) => (text.length > 400 ? "…" + text.slice(-160) : text);

function rolloutView(browser, i) {
  const c = browser.columns, { report } = browser;
  const rollout = Object.fromEntries(Object.keys(c).map((name) => [name, c[name][i]]));
  const where = rollout.phase === "evaluation" ? `Held out, after iteration ${rollout.iteration}` : rollout.phase === "iteration" ? `Iteration ${rollout.iteration}` : `${rollout.phase} ${rollout.iteration}`;
  return [
    make("h3", {}, where, report.runs.length > 1 ? `, ${report.runs[rollout.run].name}` : ""), chips(rollout),
    make("h4", {}, "Prompt"), make("p", { class: "text" }, visible(browser.prompts[rollout.prompt]) || "(empty)"),
    completionView(rollout, readTokens(report.tokens[i])),
    make("h4", {}, "Verdict"), verdict(rollout), components(rollout), steps(rollout), more(rollout)];
}

function chips(rollout) {
  const scored = rollout.status === "scored";
  const list = [
    [rollout.reward === null ? "no reward" : `reward ${figure(rollout.reward)}`],
    [rollout.success === null ? "" : rollout.success ? "success" : "no success", rollout.success ? "good" : "bad"],
    [scored ? "" : rollout.status, "warn"], [rollout.length === null ? "" : `${figure(rollout.length)} tokens`],
    [rollout.finish === "length" ? "cut off" : "", "warn"], [rollout.task]];
  return make("ul", { class: "chips" }, list.filter(([text]) => text).map(([text, kind]) => make("li", { class: kind }, visible(text))));
}

function verdict(rollout) {
  const lines = [["Target", rollout.target, "mono"], ["Extracted", rollout.extracted, "mono"], ["Label", rollout.label], ["Reason", rollout.reason], ["Verifier error", rollout.error]]
    .filter(([, text]) => text);
  if (!lines.length) return make("p", { class: "reading" }, "The verifier said nothing more.");
  return make("dl", { class: "verdict" }, lines.map(([name, text, kind]) => [make("dt", {}, name), make("dd", { class: kind }, visible(text))]));
}

function components(rollout) {
  const parts = Object.entries(rollout.parts).filter(([, value]) => value !== null);
  if (!parts.length) return null;
  const size = Math.max(1, ...parts.map(([, value]) => Math.abs(value)));
  const signed = parts.some(([, value]) => value < 0), zero = signed ? 50 : 0, whole = signed ? 50 : 100;
  return [make("h4", {}, "Components of the reward"), make("div", { class: "parts" }, parts.map(([name, value]) => {
    const width = (whole * Math.abs(value)) / size;
    return [make("span", {}, visible(name)), make("span", { class: "n" }, figure(value)),
      make("span", { class: "meter", "aria-hidden": "true" }, make("i", { style: { left: `${value < 0 ? zero - width : zero}%`, width: `${width}%` } }))];
  }))];
}

function steps(rollout) {
  if (!rollout.steps.length) return null;
  return [make("h4", {}, "Earned on the way"), table("Rewards of stretches", ["value", "up to", "reason"], rollout.steps.map(([value, stop, reason]) =>
    make("tr", {}, make("td", {}, figure(value)), make("td", { class: "n" }, stop === null ? "the end" : figure(stop)), make("td", { class: "n" }, visible(reason)))))];
}

function more(rollout) {
  const lines = Object.entries({ id: rollout.id, ...rollout.more }).filter(([, text]) => text !== "");
  if (!lines.length) return null;
  return make("details", { class: "config" }, make("summary", {}, "What else was recorded"),
    make("dl", { class: "verdict", style: { "margin-top": ".6rem" } }, lines.map(([name, text]) => [make("dt", {}, visible(name)), make("dd", { class: "mono" }, visible(text))])));
}

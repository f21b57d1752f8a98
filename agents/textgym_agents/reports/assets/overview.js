// Everything above and below the rollouts: heading, tables, curves, times, configuration.
function drawOverview(report) {
  const runs = report.runs, single = runs.length === 1;
  byId("kicker").textContent = single ? runs[0].title : `${runs.length} runs side by side`;
  byId("title").textContent = single ? runs[0].name : commonTitle(runs);
  empty(byId("facts"), single ? runs[0].facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))) : null);
  empty(byId("headlines"), single ? runs[0].headlines.map(headline) : null);
  empty(byId("problems"), runs.flatMap((run) => run.problems.map((problem) =>
    make("p", { class: "notice" }, `${single ? "" : run.name + ": "}${visible(problem)}`))));
  const before = single ? beforeAfter(runs[0]) : [];
  empty(byId("tables"), single ? null : byRun(report),
    make("div", { class: "pair" }, before, alarms(report, before.length % 2 === 0), runs.map((run) => suites(run, single))));
}

function commonTitle(runs) {
  const titles = [...new Set(runs.map((run) => run.title))];
  return titles.length === 1 ? titles[0] : "Comparison";
}

function headline({ label, share, first, last }) {
  const same = first.iteration === last.iteration;
  const figures = same ? [make("span", {}, figure(last.value, share))] : [
    make("span", { class: "before" }, figure(first.value, share)), make("span", { class: "arrow", "aria-label": "to" }, "→"),
    make("span", {}, figure(last.value, share))];
  const spread = between(last, share);
  return make("div", { class: "headline" }, make("p", { class: "label" }, label), make("p", { class: "figures" }, figures),
    make("p", { class: "spread" }, spread ? `95 % interval ${spread}` : same ? "" : `${change(first.value, last.value, share)}`));
}

function table(caption, head, rows) {
  return make("div", { class: "table", tabindex: "0", role: "region", "aria-label": caption }, make("table", {}, make("caption", {}, caption),
    head ? make("thead", {}, make("tr", {}, head.map((name, i) => make("th", { scope: "col", class: i ? "n" : null }, name)))) : null, make("tbody", {}, rows)));
}

function cell(each, share) {
  if (!each) return make("td", { class: "n" }, "–");
  const spread = between(each, share);
  return make("td", { class: "n" }, figure(each.value, share), spread ? make("div", { class: "spread" }, spread) : null);
}

function beforeAfter(run) {
  const variants = [...new Set(run.beforeAfter.map((each) => each.variant))];
  return variants.map((variant) => {
    const found = run.beforeAfter.filter((each) => each.variant === variant);
    const rows = found.map(({ label, share, first, last }) => make("tr", {}, make("th", { scope: "row" }, label),
      cell(first, share), cell(last, share), make("td", { class: "n" }, first.iteration === last.iteration ? "–" : change(first.value, last.value, share))));
    const { first, last } = found[0], unit = run.unit.replace(/s$/, "");
    const columns = ["", `${unit} ${figure(first.iteration)}`, `${unit} ${figure(last.iteration)}`, "change"];
    return table(`Before and after${variant && ", " + variant}`, columns, rows);
  });
}

function alarms(report, whole) {
  const { runs } = report;
  const found = runs.flatMap((run, i) => run.alarms.map(([at, text]) => make("li", {},
    make("span", { class: "at" }, runs.length > 1 ? swatch(runColour(report, i)) : null, figure(at)), make("span", {}, visible(text)))));
  return make("section", { class: whole ? "table whole" : "table", "aria-label": "Alarms" }, make("table", {}, make("caption", {}, "Alarms")),
    found.length ? make("ul", { class: "alarms" }, found) : make("p", { class: "alarms spread", style: { padding: "0 1rem .8rem" } }, "None was raised."));
}

function suites(run, single) {
  if (!run.suites) return null;
  const rows = run.suites.rows.map(({ suite, metric, share, figures }, i, all) => make("tr", {},
    make("th", { scope: "row" }, i && all[i - 1].suite === suite ? "" : suite), make("td", {}, metric), figures.map((each) => cell(each, share))));
  const columns = run.suites.checkpoints.map((name) => name.replace(/^iteration-0*(?=\d)/, "iteration "));
  const found = table(single ? "Suites" : `Suites of ${run.name}`, ["suite", "", ...columns], rows);
  found.classList.add("whole");
  return found;
}

function byRun(report) {
  const { runs } = report;
  const labels = [...new Set(runs.flatMap((run) => run.headlines.map((each) => each.label)))];
  const rows = runs.map((run, i) => make("tr", {}, make("th", { scope: "row" }, swatch(runColour(report, i)), run.name, make("div", { class: "spread" }, run.title)),
    make("td", { class: "n" }, figure(run.done)), labels.flatMap((label) => {
      const found = run.headlines.find((each) => each.label === label);
      return found ? [cell(found.first, found.share), cell(found.last, found.share)] : [cell(), cell()];
    }), make("td", { class: "n" }, String(run.alarms.length))));
  return table("By run", ["run", "done", ...labels.flatMap((label) => [`${label}: first`, "last"]), "alarms"], rows);
}

const hiddenRuns = new Set();

function drawCurves(report) {
  const groups = report.groups.length > 0;
  const shaded = report.runs.some((run) => Object.values(run.curves).some((curve) => curve.low));
  byId("curves-note").textContent = groups
    ? "Runs that differ by their seed alone are drawn as their mean, with Student's 95 % interval; single runs are faint."
    : shaded ? "Shaded: 95 % intervals over episodes, where the metrics tell their spread." : "";
  drawLegend(report);
  const main = report.panels.filter((panel) => panel.main), rest = report.panels.filter((panel) => !panel.main);
  const nodes = (panels) => panels.map((panel) => chartOf(report, panel)).filter(Boolean);
  const charts = nodes(main);
  empty(byId("charts"), charts.length ? charts : make("p", { class: "empty" }, "No metrics yet."));
  const more = byId("more-metrics"), fillMore = () => more.open && empty(byId("more-charts"), nodes(rest));
  more.hidden = !rest.length;
  more.ontoggle = fillMore;
  fillMore();
}

function drawLegend(report) {
  const legend = byId("runs-legend");
  legend.hidden = report.runs.length < 2;
  empty(legend, legend.firstElementChild, report.runs.map((run, i) => {
    const box = make("input", { type: "checkbox", checked: !hiddenRuns.has(i) });
    box.addEventListener("change", () => {
      if (box.checked) hiddenRuns.delete(i); else hiddenRuns.add(i);
      drawCurves(report);
      byId("runs-legend").querySelectorAll("input")[i].focus();
    });
    return make("label", {}, box, " ", swatch(runColour(report, i)), run.name);
  }));
}

function runColour(report, index) {
  const group = report.groups.find((each) => each.runs.includes(index));
  return group ? Math.min(...group.runs) : index;
}

function chartOf(report, panel) {
  const single = report.runs.length === 1, series = [];
  const add = (curves, key, label, more) => curves[key] && series.push({ curve: curves[key], label, ...more });
  panel.series.forEach(([key, label], i) => {
    const dash = single ? "" : DASHES[i % DASHES.length];
    report.groups.forEach((group) => add(group.curves, key, label, { color: colour(Math.min(...group.runs)), dash, full: `mean ${label}` }));
    report.runs.forEach((run, j) => {
      const grouped = report.groups.some((group) => group.runs.includes(j) && group.curves[key]);
      if (!hiddenRuns.has(j)) add(run.curves, key, label, { color: colour(single ? i : runColour(report, j)), dash, faint: grouped, full: single ? label : `${run.name} ${label}` });
    });
  });
  if (!series.length) return null;
  if (!single) dedupe(series, panel.series.length > 1);
  else if (series.length === 1) series[0].label = "";
  const share = panel.series.some(([key]) => report.runs.some((run) => run.shares.includes(key)));
  const unit = [...new Set(report.runs.map((run) => run.unit.replace(/s$/, "")))].join("/");
  return new Chart({ title: panel.title, series, share, unit }).node;
}

// With several runs the legend of a chart names its lines once, by their dashes.
function dedupe(series, several) {
  const seen = new Set();
  for (const each of series) {
    const repeated = seen.has(each.label);
    seen.add(each.label);
    if (repeated || !several) each.label = "";
  }
}

function drawTimes(report) {
  const timed = report.runs.filter((run) => run.phases.length > 1);
  byId("time").hidden = byId("link-time").hidden = !timed.length;
  const names = [...new Set(timed.flatMap((run) => run.phases.map(([name]) => name)))];
  const longest = Math.max(...timed.map(total));
  empty(byId("phases"), timed.map((run) => make("div", { class: "phase" },
    make("p", {}, report.runs.length > 1 ? `${run.name}: ` : "", `${duration(total(run))} measured`),
    make("div", { class: "bar", role: "img", "aria-label": run.phases.map(([name, s]) => `${name} ${duration(s)}`).join(", "), style: { width: `${(100 * total(run)) / longest}%` } },
      run.phases.map(([name, seconds]) => make("span", { title: `${name}: ${duration(seconds)}`, style: { "flex-grow": seconds, background: colour(names.indexOf(name)) } }))),
    make("ul", {}, run.phases.map(([name, seconds]) => make("li", {}, swatch(names.indexOf(name)), `${name} ${duration(seconds)}`,
      ` (${figure(seconds / total(run), true)})`))))));
}

const total = (run) => run.phases.reduce((sum, [, seconds]) => sum + seconds, 0);

function drawConfigurations(report) {
  const line = ([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, visible(value)));
  empty(byId("differences"), report.differences.length ? table("Where the configurations differ", ["field", ...report.runs.map((run) => run.name)],
    report.differences.map(({ field, values }) => make("tr", {}, make("th", { scope: "row" }, field), values.map((value) => make("td", { class: "n" }, visible(value)))))) : null);
  empty(byId("configs"), report.runs.flatMap((run) => [["Configuration", run.config], ["Machine and versions", run.environment]].filter(([, flat]) => Object.keys(flat).length)
    .map(([title, flat]) => make("details", { class: "config" }, make("summary", {}, report.runs.length > 1 ? `${title} of ${run.name}` : title),
      table(title, null, Object.entries(flat).map(line))))));
}

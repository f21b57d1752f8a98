// A page on disk holds its document; one that is served asks for it, and for what is new.
const POLL_MILLISECONDS = 2000;
let browser, fresh = null;

function showReport(report) {
  showMetrics(report);
  drawConfigurations(report);
  browser.show(report);
  document.documentElement.dataset.ready = "true";
}

function showMetrics(report) {
  drawOverview(report);
  drawCurves(report);
  drawTimes(report);
}

// What somebody reads just now is not drawn anew under their eyes.
const isRead = () => document.querySelector(".chart:hover, .chart:focus-within") !== null;

async function fetchText(path, tag) {
  const answer = await fetch(path, { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
  if (answer.status === 304) return { tag, text: null };
  if (!answer.ok) throw new Error((await answer.text()) || `the server answered ${answer.status}`);
  return { tag: answer.headers.get("ETag"), text: await answer.text() };
}

function tellLive(text, isLost = false) {
  const line = byId("live");
  line.hidden = false;
  line.classList.toggle("lost", isLost);
  if (line.textContent !== text) line.textContent = text;
}

function offerFresh(number) {
  const button = byId("fresh");
  button.hidden = number <= 0;
  button.textContent = `${INTEGER.format(number)} new rollout${number === 1 ? "" : "s"}: show`;
}

async function load() {
  const report = readDocument((await fetchText("report")).text);
  showReport(report);
  fresh = report.rollouts.found;
  offerFresh(0);
}

async function follow() {
  let tag = null, waiting = null;
  await load();
  byId("fresh").addEventListener("click", () => load().then(() => byId("list").focus()));
  for (;;) {
    try {
      const { tag: newer, text } = await fetchText("runs", tag);
      tag = newer;
      if (text !== null) {
        waiting = JSON.parse(text);
        if (!fresh && waiting.found) await load();
        else offerFresh(waiting.found - fresh);
      }
      if (waiting && !isRead()) {
        showMetrics(waiting);
        waiting = null;
      }
      tellLive("live");
    } catch (error) {
      tellLive(`not live: ${error.message}`, true);
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MILLISECONDS));
  }
}

async function start() {
  browser = new Browser();
  const payload = byId("payload").textContent.trim();
  if (!payload) return follow();
  if (typeof DecompressionStream === "undefined") throw new Error("This browser is too old to unpack the report: it needs DecompressionStream (2023 or newer).");
  showReport(readDocument(await unpack(payload)));
}

start().catch((error) => {
  const line = byId("failure");
  line.hidden = false;
  line.textContent = `The report cannot be shown: ${error.message}`;
});

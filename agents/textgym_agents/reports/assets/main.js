// A page on disk holds its document; one that is served asks for it, and for what is new.
const POLL_MILLISECONDS = 2000;
let browser, fresh = null;

function showRuns(report) {
  drawOverview(report);
  drawCurves(report);
  drawTimes(report);
  drawConfigurations(report);
}

function showReport(report) {
  showRuns(report);
  browser.show(report);
}

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

async function loadRollouts() {
  const report = readDocument((await fetchText("report")).text);
  browser.show(report);
  fresh = report.rollouts.found;
  offerFresh(0);
  return report;
}

async function follow() {
  let tag = null;
  showRuns(await loadRollouts());
  byId("fresh").addEventListener("click", () => loadRollouts().then(() => byId("list").focus()));
  for (;;) {
    try {
      const { tag: newer, text } = await fetchText("runs", tag);
      tag = newer;
      if (text !== null) {
        const report = JSON.parse(text);
        showRuns(report);
        if (!fresh && report.found) await loadRollouts();
        else offerFresh(report.found - fresh);
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
  document.documentElement.dataset.ready = "true";
}

start().catch((error) => {
  const line = byId("failure");
  line.hidden = false;
  line.textContent = `The report cannot be shown: ${error.message}`;
});

// A completion token by token, with one of its figures as colour.
const MEASURES = [
  { key: "logprob", column: 1, title: "Log-probability", unit: "nats" },
  { key: "value", column: 2, title: "Value", unit: "" },
  { key: "advantage", column: 3, title: "Advantage", unit: "" },
  { key: "kl", column: 4, title: "KL", unit: "nats" },
];
let measure = "logprob";

function readTokens(line) {
  if (!line) return null;
  const columns = JSON.parse(line);
  return columns[0] ? columns : null;
}

// Ends and colours of a scale. Signed figures diverge from 0, so that no colour is nothing.
function scaleOf(key, values) {
  const known = values.filter((value) => value !== null);
  if (key === "logprob") {
    const low = Math.min(-1e-3, ...known);
    return { ends: [figure(low), "0"], css: "linear-gradient(90deg, rgb(var(--orange) / .6), transparent)", paint: (v) => `rgb(var(--orange) / ${(0.6 * Math.min(1, v / low)).toFixed(3)})` };
  }
  const size = Math.max(1e-9, ...known.map(Math.abs));
  const [negative, positive] = key === "kl" ? ["--green", "--purple"] : ["--orange", "--blue"];
  return { ends: [figure(-size), figure(size)],
    css: `linear-gradient(90deg, rgb(var(${negative}) / .6), transparent, rgb(var(${positive}) / .6))`,
    paint: (v) => `rgb(var(${v < 0 ? negative : positive}) / ${((0.6 * Math.abs(v)) / size).toFixed(3)})` };
}

function tokenText(text) {
  return text === "" ? "·" : visible(text).replace(/\n/g, "↵\n");
}

function completionView(rollout, columns) {
  if (!columns) return [make("h4", {}, "Completion"), make("p", { class: "text" }, visible(rollout.completion) || "(empty)"),
    make("p", { class: "reading" }, "Nothing is recorded about its single tokens.")];
  const body = make("p", { class: "text", role: "group", "aria-label": "Tokens of the completion; arrow keys move between them" });
  const reading = make("p", { class: "reading", "aria-live": "polite" }), scale = make("div", { class: "scale" });
  const tokens = columns[0].map((text, i) => make("span", { class: columns[1] && columns[1][i] === null ? "token env" : "token", tabindex: i ? "-1" : "0", "data-i": i }, tokenText(text)));
  body.append(...tokens);
  const read = (i) => empty(reading, describe(columns, i));
  const paint = () => colourTokens(columns, tokens, scale);
  body.addEventListener("pointerover", (event) => event.target.dataset.i && read(Number(event.target.dataset.i)));
  body.addEventListener("focusin", (event) => event.target.dataset.i && read(Number(event.target.dataset.i)));
  body.addEventListener("keydown", (event) => moveAmong(event, tokens));
  paint();
  return [make("div", { class: "heading" }, make("h4", { style: { margin: 0 } }, "Completion"), chooser(columns, paint)), body, scale, reading];
}

function describe(columns, i) {
  const parts = MEASURES.filter(({ column }) => columns[column] && columns[column][i] !== null).map(({ key, column }) => {
    const value = columns[column][i];
    return key === "logprob" ? `log-probability ${figure(value)} (${figure(Math.exp(value), true)})` : `${key === "kl" ? "KL" : key} ${figure(value)}`;
  });
  return [make("b", {}, `${i + 1}. “${tokenText(columns[0][i]).replace(/\n/g, "")}”`), " ", parts.length ? parts.join(" · ") : "written by the environment"];
}

function moveAmong(event, tokens) {
  const at = tokens.indexOf(document.activeElement);
  const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tokens.length - 1 }[event.key];
  if (at < 0 || to === undefined || !tokens[to]) return;
  event.preventDefault();
  tokens[at].tabIndex = -1;
  tokens[to].tabIndex = 0;
  tokens[to].focus();
}

function chooser(columns, paint) {
  const known = MEASURES.filter(({ column }) => columns[column] && columns[column].some((value) => value !== null));
  if (measure && !known.some(({ key }) => key === measure)) measure = known.length ? known[0].key : "";
  const options = [...MEASURES, { key: "", title: "None" }].map(({ key, title }) => {
    const missing = key !== "" && !known.some((each) => each.key === key);
    const input = make("input", { type: "radio", name: "measure", value: key, checked: key === measure, disabled: missing });
    input.addEventListener("change", () => { measure = key; paint(); });
    return make("label", { title: missing ? "not recorded for this rollout" : null }, input, make("span", {}, title));
  });
  return make("fieldset", { class: "colour" }, make("legend", {}, "Colour"), options);
}

function colourTokens(columns, tokens, scale) {
  const chosen = MEASURES.find(({ key }) => key === measure);
  const values = chosen && columns[chosen.column];
  if (!values) {
    tokens.forEach((token) => token.style.removeProperty("background-color"));
    return void empty(scale);
  }
  const { ends, css, paint } = scaleOf(chosen.key, values);
  tokens.forEach((token, i) => { token.style.backgroundColor = values[i] === null ? "transparent" : paint(values[i]); });
  empty(scale, make("span", {}, ends[0]), make("i", { style: { background: css } }), make("span", {}, `${ends[1]} ${chosen.unit}`));
}

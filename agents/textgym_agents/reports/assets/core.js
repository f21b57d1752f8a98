// Elements, texts and figures.
const byId = (id) => document.getElementById(id);

function make(name, attributes, ...children) {
  return fill(document.createElement(name), attributes, children);
}

function draw(name, attributes, ...children) {
  return fill(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "style") for (const [property, css] of Object.entries(value)) node.style.setProperty(property, css);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

function empty(node, ...children) {
  node.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}

// Rollouts are hostile text: what cannot be seen, or turns the text around it, is spelt out.
const UNSEEN = /[\p{Cc}\p{Cs}\p{Bidi_Control}\u2028\u2029\ufeff]/gu;

function visible(text) {
  return text.replace(UNSEEN, (character) => {
    const code = character.codePointAt(0);
    if (code === 10 || code === 9) return character;
    if (code < 32) return String.fromCharCode(0x2400 + code);
    return "‹U+" + code.toString(16).toUpperCase().padStart(4, "0") + "›";
  });
}

function oneLine(text, most = 160) {
  return visible(text.slice(0, most)).replace(/\s+/g, " ").trim();
}

const INTEGER = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const SIGNIFICANT = new Intl.NumberFormat("en", { maximumSignificantDigits: 4 });

function figure(value, share = false) {
  if (value === null || value === undefined) return "–";
  if (share) return (100 * value).toFixed(1).replace("-", "−") + " %";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(2).replace(/-/g, "−");
  return (size >= 1e4 ? INTEGER : SIGNIFICANT).format(value).replace("-", "−");
}

function between(each, share) {
  if (each.low === undefined || each.low === null) return "";
  return `${figure(each.low, share)} to ${figure(each.high, share)}`;
}

function change(first, last, share) {
  const difference = last - first;
  const sign = difference > 0 ? "+" : "";
  return share ? `${sign}${(100 * difference).toFixed(1).replace("-", "−")} pp` : sign + figure(difference);
}

function duration(seconds) {
  if (seconds < 60) return `${figure(Math.round(seconds * 10) / 10)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

const colour = (index) => `var(--c${index % 8})`;
const swatch = (index) => make("span", { class: "swatch", style: { background: colour(index) }, "aria-hidden": "true" });

// A document is a line of JSON, and of each rollout a line with its tokens.
function readDocument(text) {
  const stop = text.indexOf("\n");
  const report = JSON.parse(stop < 0 ? text : text.slice(0, stop));
  report.tokens = stop < 0 ? [] : text.slice(stop + 1).split("\n");
  return report;
}

async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

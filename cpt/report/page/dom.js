// Glue between the page's packed data and its libraries. Data enters the document as text only, never as markup.

const $ = (selector, inside = document) => inside.querySelector(selector);
const $$ = (selector, inside = document) => [...inside.querySelectorAll(selector)];

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

async function unpack(name) {
  const bytes = Uint8Array.from(atob($(`#packed-${name}`).textContent), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

const once = (make) => { let made; return () => (made ??= make()); };

// ---- numbers ----------------------------------------------------------------------------------

const GAP = "–";
const missing = (value) => value === null || value === undefined || value === "" || value === GAP;

/** A number as the tables show it: like Python, and unlike toFixed, one halfway between two goes to the even one. */
function shown(value, digits = 2) {
  if (missing(value)) return GAP;
  const text = value.toFixed(digits), halves = value * 2 ** (digits + 1);  // exact: a power of two
  const halfway = Number.isInteger(halves) && halves % 2 !== 0;
  if (!halfway || +text.at(-1) % 2 === 0) return text;
  return (Math.sign(value) * (Math.abs(+text) - 10 ** -digits)).toFixed(digits);
}

/** A number whose full precision is told where the pointer rests on it. */
const exact = (value, digits) => (missing(value) ? GAP : element("span", { title: value }, shown(value, digits)));

// What sections are made of: elements, controls that keep their choice in the address, tables that sort.

function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "onclick" || name === "oninput") node[name] = value;
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

// Sentences, a line each, of texts, **bold** parts and `commands`.
function say(node, ...sentences) {
  const piece = (text) => (text.startsWith("**") ? el("b", {}, text.slice(2, -2)) : text.startsWith("`") ? el("code", {}, text.slice(1, -1)) : text);
  const pieces = sentences.map((sentence) => sentence.split(/(\*\*.*?\*\*|`.*?`)/).map(piece));
  node.replaceChildren(...pieces.flatMap((one, i) => (i ? [el("br"), ...one] : one)));
}

const controls = []; // each {sync}: shows what the state says

// A group of radio buttons, or with `many` of checkboxes. Options are [value, words, picture]. Returns a function that
// shows those of them that there are, and tells which one counts: the reader's choice, else the usual, else the first.
function choice(form, name, words, options, usual, many = false) {
  state.declare(name, usual);
  const known = options.map(([value]) => String(value));
  const inputs = options.map(([value]) => el("input", { type: many ? "checkbox" : "radio", name, value: String(value) }));
  const labels = options.map(([, text, picture], i) => el("label", {}, inputs[i], picture?.cloneNode(true), text));
  const group = el("fieldset", {}, el("legend", {}, words), el("div", { class: "choices" }, labels));
  group.hidden = options.length < 2;
  form.append(group);
  controls.push({
    sync() {
      const stated = many ? state.list(name) : [state.get(name)];
      if (!stated.every((one) => known.includes(one))) delete state.chosen[name];
      const chosen = many ? state.list(name) : [state.get(name)];
      for (const input of inputs) input.checked = chosen.includes(input.value);
    },
  });
  for (const input of inputs) {
    input.addEventListener("change", () => {
      state.set(name, inputs.filter((one) => one.checked).map((one) => one.value).join(","));
      show(form.closest("section").id);
    });
  }
  return (values, usual = state.usual[name]) => {
    state.declare(name, usual);
    const there = values.map(String);
    inputs.forEach((input, i) => { labels[i].hidden = !there.includes(input.value); });
    group.hidden = there.length < (many ? 1 : 2);
    if (many) return state.list(name);
    const counts = [state.get(name), state.usual[name], there[0]].find((one) => there.includes(one));
    for (const input of inputs) input.checked = input.value === counts;
    return counts;
  };
}

function menu(form, name, words, options, usual, help = () => "") {
  state.declare(name, usual);
  const select = el("select", { id: name }, options.map(([value, text]) => el("option", { value: String(value) }, text)));
  const note = el("p", { class: "help", id: `${name}-help` });
  select.setAttribute("aria-describedby", note.id);
  form.append(el("div", {}, el("label", { class: "name", for: name }, words), select), note);
  const explain = () => { note.textContent = help(select.value); note.hidden = !note.textContent; };
  controls.push({
    sync() {
      if (!options.some(([value]) => String(value) === state.get(name))) delete state.chosen[name];
      select.value = state.get(name);
      explain();
    },
  });
  select.addEventListener("change", () => { state.set(name, select.value); explain(); show(form.closest("section").id); });
}

// A slider over a list of values.
function slider(form, name, words, values, usual, unit) {
  state.declare(name, usual);
  const input = el("input", { type: "range", id: name, min: 0, max: values.length - 1, step: 1 });
  const out = el("output", { for: name });
  form.append(el("div", { class: "slide" }, el("label", { class: "name", for: name }, `${words}: `, out), input));
  const tell = () => { out.textContent = `${values[input.value]} ${unit}`; input.setAttribute("aria-valuetext", out.textContent); };
  controls.push({
    sync() {
      if (!values.map(String).includes(state.get(name))) delete state.chosen[name];
      input.value = values.map(String).indexOf(state.get(name));
      tell();
    },
  });
  input.addEventListener("input", () => { state.set(name, values[input.value]); tell(); show(form.closest("section").id); });
}

function search(form, name, words) {
  state.declare(name, "");
  const input = el("input", { type: "search", id: name, autocomplete: "off", spellcheck: "false" });
  form.append(el("div", { class: "slide" }, el("label", { class: "name", for: name }, words), input));
  controls.push({ sync() { if (document.activeElement !== input) input.value = state.get(name); } });
  input.addEventListener("input", () => { state.set(name, input.value); show(form.closest("section").id); });
}

// How a kind looks: its line and symbol, as in the charts.
function look(kind) {
  const draw = (tag, attributes) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    return node;
  };
  const paths = {
    circle: "M12 6m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0", square: "M8.5 2.5h7v7h-7z", "triangle-up": "M12 1.5l4.5 8h-9z",
    diamond: "M12 1l4 5-4 5-4-5z", "triangle-down": "M12 10.5l4.5-8h-9z", cross: "M10.5 2h3v2.5h2.5v3h-2.5v2.5h-3v-2.5h-2.5v-3h2.5z",
    "triangle-left": "M7.5 6l8-4.5v9z", "triangle-right": "M16.5 6l-8-4.5v9z",
  };
  const svg = draw("svg", { width: 24, height: 12, viewBox: "0 0 24 12", "aria-hidden": "true", "data-kind": kind.id });
  svg.append(draw("path", { d: "M0 6h24", "stroke-width": 2, "stroke-dasharray": kind.dash.join(" "), fill: "none" }),
    draw("path", { d: paths[kind.symbol] }));
  return svg;
}

// Colours of the kinds follow the theme wherever `look` was drawn.
function paintLooks() {
  for (const svg of document.querySelectorAll("svg[data-kind]")) {
    const colour = colourOf(DATA.kinds.find((kind) => kind.id === svg.dataset.kind));
    svg.firstChild.setAttribute("stroke", colour);
    svg.lastChild.setAttribute("fill", colour);
  }
}

// Columns are {title, value, number, text, node}: what a cell shows, what it is sorted by, whether it is prose.
function table(caption, columns, rows) {
  const head = el("thead", {}, el("tr", {}, columns.map((c) => el("th", { scope: "col", class: c.text && "text" }, c.title))));
  const body = rows.map((row) => el("tr", {}, columns.map((column, i) => {
    const content = column.node ? column.node(row) : String(column.value(row) ?? "");
    const attributes = { class: column.text ? "text" : column.mark?.(row), "data-value": column.number?.(row) };
    return i ? el("td", attributes, content) : el("th", { scope: "row", ...attributes }, content);
  })));
  const whole = el("table", { class: "sortable" }, el("caption", {}, caption), head, el("tbody", {}, body));
  sortable(whole);
  return el("div", { class: "scroll", role: "region", "aria-label": caption, tabindex: 0 }, whole);
}

// Headings of a table become buttons; cells sort by their value, or else as text, the empty ones last.
function sortable(whole) {
  const headings = [...whole.tHead.rows[whole.tHead.rows.length - 1].cells];
  headings.forEach((heading, at) => {
    const button = el("button", { type: "button" }, ...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      headings.forEach((one) => one.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = whole.tBodies[0];
      const key = (row) => {
        const { dataset, textContent } = row.cells[at];
        return dataset.value === undefined ? textContent.trim() : Number(dataset.value);
      };
      const compare = (a, b) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1;
        const order = typeof a === "number" ? a - b : a.localeCompare(b, "en", { numeric: true });
        return up ? order : -order;
      };
      body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
    });
  });
}

// A long text in one line, whole when it is opened.
function folded(text, length = 60) {
  if (text.length <= length) return el("code", {}, text);
  return el("details", {}, el("summary", {}, el("code", {}, `${text.slice(0, length)} …`)), el("code", {}, text));
}

// A link to a record in the last section.
function recordLink(number) {
  const place = placeOf(RECORDS[number]);
  return el("a", { href: `#origins?origins.find=${encodeURIComponent(place)}` }, place);
}

const part = (section, what) => document.querySelector(`#${section} ${what}`);

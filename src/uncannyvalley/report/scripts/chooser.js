// The chooser: a table of examples that can be searched, sorted, filtered and paged, each row with a button.

const PAGE = 16;

/** The rows of the table, with the phases replayed where they are. */
function exampleRows(shown, columns) {
  const { run } = shown;
  const pictured = new Set(run.pictures?.items.map((item) => item.example));
  const again = shown.replayed;
  return Array.from(columns.id, (id, example) => {
    const place = again?.placeOf.get(example);
    const value = (name) => (place === undefined ? columns[name] : again.phases[name])?.[place ?? example];
    const step = (name) => (place === undefined ? value(name) : run.steps[value(name)] ?? -1);
    return {
      example, id, label: columns.label[example], name: className(run, columns.label[example]),
      correct: columns.correct[example] === 1, flip: step("flip"), ridge: step("ridge"), valley: step("valley"),
      height: value("height"), depth: value("depth"), pictured: pictured.has(id),
    };
  });
}

const FILTERS = {
  flipped: (row) => row.flip > 0,
  valley: (row) => row.valley >= 0,
  pictured: (row) => row.pictured,
};

/** Every word is the example's number or stands in the name of its class. */
function matches(row, words) {
  const name = row.name.toLowerCase();
  return words.every((word) => String(row.id) === word || name.includes(word));
}

/** Ascending or descending by a column; what has no value comes last. */
function sortedBy(rows, column, descending) {
  const missing = (value) => value === undefined || Number.isNaN(value);
  const compared = (one, other) => (typeof one === "string" ? one.localeCompare(other) : one - other);
  return [...rows].sort((one, other) => {
    const [a, b] = [one[column], other[column]];
    if (missing(a) || missing(b)) return missing(a) - missing(b) || one.id - other.id;
    return (descending ? -1 : 1) * compared(a, b) || one.id - other.id;
  });
}

/** An example is first seen where its label flips. */
function choose(shown, row) {
  shown.change({ chosen: row.example, row: rowOfStep(shown.run, row.flip) });
}

function exampleLine(shown, row, columns) {
  const cells = {
    name: () => row.name, height: () => shownNumber(row.height), depth: () => shownNumber(row.depth),
    flip: () => (row.flip < 0 ? "–" : String(row.flip)), valley: () => (row.valley < 0 ? "–" : String(row.valley)),
  };
  const here = shown.chosen === row.example;
  const button = element("button", { type: "button", className: "choose", "aria-pressed": String(here) });
  button.append(String(row.id));
  if (row.pictured) button.append(element("span", { className: "dot", title: "with images", "aria-hidden": "true" }));
  button.addEventListener("click", () => choose(shown, row));
  const line = element("tr", { className: here ? "chosen" : "" }, element("th", { scope: "row" }, button));
  const shownColumns = columns.filter((name) => cells[name]);
  line.append(...shownColumns.map((name) => element("td", { className: name }, cells[name]())));
  return line;
}

/** The first example to show: one whose images were kept and that went through every phase. */
function firstChoice(rows) {
  const wanted = [(row) => row.pictured && row.valley >= 0 && row.flip > 0, (row) => row.pictured, () => true];
  for (const wish of wanted) {
    const found = rows.filter(wish);
    if (found.length) return sortedBy(found, "height", true)[0];
  }
  return null;
}

/** The part of the chooser that the reader steers: words, filters, order and page. */
class Chooser {
  constructor(shown, section, columns) {
    Object.assign(this, { shown, section, columns, column: "height", descending: true, page: 0 });
    this.heads = [...part(section, "chooser").querySelectorAll("th button")];
    this.names = this.heads.map((button) => button.dataset.column);
    this.boxes = [...section.querySelectorAll("input[data-filter]")];
  }

  found() {
    const words = part(this.section, "search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const wishes = this.boxes.filter((box) => box.checked).map((box) => FILTERS[box.dataset.filter]);
    const rows = exampleRows(this.shown, this.columns);
    const found = rows.filter((row) => matches(row, words) && wishes.every((wish) => wish(row)));
    return sortedBy(found, this.column, this.descending);
  }

  show() {
    const rows = this.found();
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    this.page = Math.min(Math.max(this.page, 0), pages - 1);
    const first = this.page * PAGE;
    const lines = rows.slice(first, first + PAGE).map((row) => exampleLine(this.shown, row, this.names));
    part(this.section, "chooser").tBodies[0].replaceChildren(...lines);
    const last = first + lines.length;
    part(this.section, "found").textContent = rows.length ? `${first + 1}–${last} of ${rows.length}` : "none found";
    part(this.section, "previous").disabled = this.page === 0;
    part(this.section, "next").disabled = this.page === pages - 1;
    for (const head of this.heads) {
      const order = this.descending ? "descending" : "ascending";
      head.closest("th").setAttribute("aria-sort", head.dataset.column === this.column ? order : "none");
    }
  }

  sort(column) {
    this.descending = column === this.column ? !this.descending : column === "height" || column === "depth";
    this.column = column;
    this.page = 0;
    this.show();
  }

  listen() {
    const again = () => {
      this.page = 0;
      this.show();
    };
    part(this.section, "search").addEventListener("input", again);
    for (const box of this.boxes) box.addEventListener("change", again);
    for (const head of this.heads) head.addEventListener("click", () => this.sort(head.dataset.column));
    for (const [name, by] of [["previous", -1], ["next", 1]]) {
      part(this.section, name).addEventListener("click", () => {
        this.page += by;
        this.show();
      });
    }
  }
}

async function startChooser(shown, section) {
  if (!part(section, "chooser")) return;
  const columns = await shown.examples();
  const chooser = new Chooser(shown, section, columns);
  const first = firstChoice(exampleRows(shown, columns));
  if (first) choose(shown, first);
  const follow = (names) => {
    if (!names.has("chosen") && !names.has("replayed")) return;
    const inside = document.activeElement?.closest?.("tbody") && document.activeElement.textContent;
    chooser.show();
    if (!inside) return;
    const buttons = [...part(section, "chooser").querySelectorAll("button.choose")];
    buttons.find((button) => button.textContent === inside)?.focus();
  };
  shown.subscribe(follow);
  chooser.listen();
  const place = chooser.found().findIndex((row) => row.example === first?.example);
  chooser.page = Math.max(0, Math.floor(place / PAGE));
  chooser.show();
}

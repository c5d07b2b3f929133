// One run's numbers: decoded when first asked for, and what the reader has chosen of them.

/** The shown state of a run. Subscribers hear which of its parts changed. */
class ShownRun {
  constructor(run) {
    this.run = run;
    this.chosen = null; // position of an example
    this.row = 0; // row of its walk that the explorer shows
    this.temperature = 1;
    this.replayed = null; // what replayWalk and replayPhases say, and the selection they speak of
    this.hidden = new Set(); // names of walks
    this.cache = new Map();
    this.listeners = [];
  }

  /** A packed array by its place in the payload, such as "values.loss"; null where there is none. */
  array(path) {
    if (!this.cache.has(path)) {
      const packed = path.split(".").reduce((holder, name) => holder?.[name], this.run);
      this.cache.set(path, packed ? unpacked(packed) : Promise.resolve(null));
    }
    return this.cache.get(path);
  }

  /** The columns of the table of examples, each an array. */
  async examples() {
    const names = Object.keys(this.run.per_example);
    const arrays = await Promise.all(names.map((name) => this.array(`per_example.${name}`)));
    return Object.fromEntries(names.map((name, i) => [name, arrays[i]]));
  }

  /** One example's walk of one measure, the replayed one where there is one; null where it was not recorded. */
  async walkOf(measure, example) {
    const again = this.replayed?.walks[measure];
    const place = again ? this.replayed.placeOf.get(example) : undefined;
    const rows = this.run.steps.length;
    if (place !== undefined) return again.subarray(place * rows, (place + 1) * rows);
    const values = await this.array(`values.${measure}`);
    return values && values.subarray(example * rows, (example + 1) * rows);
  }

  subscribe(listener) {
    this.listeners.push(listener);
  }

  change(parts) {
    Object.assign(this, parts);
    const names = new Set(Object.keys(parts));
    for (const listener of this.listeners) underWayUntil(listener(names));
  }
}

function className(run, label) {
  return run.class_names[label] ?? `class ${label}`;
}

/** The row of the walk at a step, or the last one before it where the page does not carry that step. */
function rowOfStep(run, step) {
  let row = 0;
  while (row + 1 < run.steps.length && run.steps[row + 1] <= step) row += 1;
  return row;
}

/** A number for people: "–" where there is none. */
function shownNumber(value, digits = 2) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  return value.toFixed(digits).replace("-", "−");
}
